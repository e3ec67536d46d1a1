//! `pond tag`.

use pond_mount::Request;
use pond_oplog::{At, OpLog};
use pond_steward::TagChange;
use serde_json::json;

use crate::cli::TagArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::output::Column;
use crate::target::State;
use crate::time;

const WHAT: &str = "cannot tag";

/// Gives a version a name, takes one back, or lists them.
pub fn tag(args: &TagArgs, context: &mut Context) -> Result {
    let Some(name) = args.name else { return list(context) };
    let change = match (args.delete, args.at) {
        (true, _) => TagChange::Delete,
        (false, None | Some(At::Tip)) => TagChange::Make(None),
        (false, Some(at)) => {
            let version = OpLog::resolve(context.pond.directory(), at).during(|| format!("{WHAT} {at}"))?;
            TagChange::Make(Some(version))
        }
    };
    let version = match context.pond.state()? {
        State::Mounted(mut daemon) => {
            let command = context.pond.origin().command.clone().unwrap_or_default();
            let request = Request::Tag { name: name.to_string(), change, command };
            daemon.call(&request, "change its tags")?
        }
        State::Unmounted => {
            let steward = context.pond.open()?;
            let tagged = steward.tag(name, change, context.pond.origin());
            let closed = steward.close().during(|| "cannot close the pond".to_owned());
            let version = tagged.map_err(|error| Failure::because(WHAT, &error))?;
            closed?;
            json!(version)
        }
    };
    context.out.json(&json!({"tag": name.as_str(), "version": version, "deleted": args.delete}))?;
    context.out.line(&match args.delete {
        true => format!("Version {version} is no longer called {name}."),
        false => {
            format!("Version {version} is called {name}: tag:{name} names it wherever a version is named.")
        }
    })
}

fn list(context: &mut Context) -> Result {
    let tagged = pond_oplog::tagged(context.pond.directory()).during(|| "cannot list the tags".to_owned())?;
    for (name, commit) in &tagged {
        let (version, time) = (commit.position.version, time::rfc3339_micros(commit.position.timestamp));
        context.out.json(&json!({"tag": name.as_str(), "version": version, "time": time}))?;
    }
    const COLUMNS: [Column; 3] = [Column::text("TAG"), Column::number("VERSION"), Column::text("TIME")];
    let rows = tagged.iter().map(|(name, commit)| {
        let position = &commit.position;
        vec![name.to_string(), position.version.to_string(), time::local_micros(position.timestamp)]
    });
    context.out.table(&COLUMNS, rows)
}
