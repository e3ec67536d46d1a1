//! `pond backup find`.

use pond_oplog::Life;
use serde_json::json;

use super::super::changes::Name;
use super::drill::Drill;
use super::failed::failed;
use super::remote;
use crate::cli::BackupFindArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::output::Column;
use crate::path::escape;
use crate::pattern::Matching;
use crate::time;

/// Says which versions have what matches.
pub fn find(args: &BackupFindArgs, context: &mut Context) -> Result {
    let what = format!("cannot find {} in the backup store", args.glob.display());
    let matching = Matching::new(&args.glob).map_err(|why| Failure::usage(&what, why))?;
    let configuration = remote::configuration(&args.store, &what, context)?;
    let drill = Drill::new(args.scratch.as_deref(), &what)?;
    drill.fetch(&configuration, "find", context).map_err(|error| failed(&what, &error))?;
    let views = drill.pond(context).versions()?;
    let lives = views.past().and_then(|past| past.lives(&|path| matching.matches(path)));
    let lives = lives.during(|| what.clone())?;
    drop(views);
    drill.remove()?;
    for life in &lives {
        let name = Name::new(&life.path);
        context.out.json(&name.with(json!({
            "first_version": life.first.position.version, "last_version": life.last,
            "since": time::rfc3339_micros(life.first.position.timestamp),
        })))?;
    }
    const COLUMNS: [Column; 4] = [
        Column::number("FIRST VERSION"),
        Column::number("LAST VERSION"),
        Column::text("SINCE"),
        Column::text("PATH"),
    ];
    context.out.table(&COLUMNS, lives.iter().map(row))?;
    match lives.is_empty() {
        false => Ok(()),
        true => Err(Failure::new(what, "no version that it holds has it")),
    }
}

fn row(life: &Life) -> Vec<String> {
    vec![
        life.first.position.version.to_string(),
        life.last.map_or_else(|| "newest".to_owned(), |last| last.to_string()),
        time::local_micros(life.first.position.timestamp),
        escape(&life.path),
    ]
}
