//! `pond promote`.

use pond_steward::Role;
use serde_json::json;

use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::target::State;

const WHAT: &str = "cannot promote the pond";

/// Makes a replica writable, on a timeline of its own.
pub fn promote(context: &mut Context) -> Result {
    if let State::Mounted(mut daemon) = context.pond.state()? {
        let status = daemon.status()?;
        if status["mode"] == "source" {
            return Err(is_a_source(status["read_only_because"].as_str()));
        }
        let mountpoint = status["mountpoint"].as_str().unwrap_or("MOUNTPOINT").to_owned();
        let pond = context.command();
        return Err(Failure::new(WHAT, format!("it is mounted on {mountpoint}")).next(format!(
            "`pond umount {mountpoint} && {pond} promote && {pond} mount {mountpoint}` does it"
        )));
    }
    let steward = context.pond.open()?;
    let promoted = (|| {
        // Before the store hears of it: what is claimed there ends the timeline that this pond is on.
        let status = steward.status();
        if status.mode == Some(Role::Source) {
            return Err(is_a_source(status.read_only_because.as_deref()));
        }
        let setting = steward.control_get(Some(pond_steward::REMOTE_CONFIG_KEY)).into_iter().next();
        let (_, configuration) = setting.ok_or_else(|| {
            Failure::new(WHAT, "it does not know the backup store that it follows").next(format!(
                "store the YAML of its backup with `{} control set {} \"$(cat remote.yaml)\"`",
                context.command(),
                pond_steward::REMOTE_CONFIG_KEY
            ))
        })?;
        // The store's word comes first: should this process end here, a timeline is left that nobody uses, and
        // promoting again claims the next one.
        let claimed =
            pond_replicate::promote(steward.pond(), configuration.as_bytes()).during(|| WHAT.into())?;
        let position = steward.promote(claimed.timeline, &claimed.id.to_string()).during(|| WHAT.into())?;
        Ok((claimed, position))
    })();
    let closed = steward.close().during(|| "cannot close the pond".to_owned());
    let (claimed, position) = promoted?;
    closed?;
    context.out.json(&json!({
        "path": steward.pond(), "timeline": claimed.timeline, "version": position.version,
        "digest": position.digest,
    }))?;
    context.out.line(&format!(
        "The pond is a source now, on timeline {}, from version {} on. `{} mount MOUNTPOINT` mounts it.",
        claimed.timeline,
        position.version,
        context.command()
    ))
}

fn is_a_source(read_only_because: Option<&str>) -> Failure {
    Failure::new(WHAT, "it is a source already, not a replica").next(match read_only_because {
        Some(why) => format!("it takes no writes: {why}"),
        None => "it is writable as it is".to_owned(),
    })
}
