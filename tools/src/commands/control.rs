//! `pond control`.

use pond_mount::Request;
use pond_oplog::At;
use pond_steward::settings::{FACTORY_MODE, SETTINGS};
use pond_steward::{Role, Steward, StewardError};
use serde_json::json;

use super::sync;
use crate::cli::{ControlAction, ControlArgs, ControlMode, SyncArgs};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::output::Column;
use crate::target::State;
use crate::waiting;

/// What fails where a setting cannot be set.
const CHANGE: &str = "cannot change the settings";

/// The setting that says whether a pond is a source or a replica.
const ROLE_KEY: &str = "factory_mode:remote";

/// What `pond control --help` ends with: the settings that there are, and examples.
pub fn help() -> String {
    let mut text = String::from("Settings:\n");
    for setting in &pond_steward::settings::SETTINGS {
        let name = setting.name.strip_suffix(':').map_or(setting.name.to_owned(), |of| format!("{of}:NAME"));
        let default = setting.default();
        let default = if default.is_empty() { "none" } else { &*default };
        text.push_str(&described(&name, &format!("{} (default: {default})", setting.doc)));
    }
    text + "
Examples:
  pond control
  pond control get factory_mode:remote
  pond control set factory_mode:exec-log push
  pond control set dirty_budget 512MiB
  pond control unset retention            as it was before anybody set it
  pond control --mode sync                as pond sync"
}

/// A name, and beside it what it is for, in lines that fit a terminal.
fn described(name: &str, doc: &str) -> String {
    const COLUMN: usize = 23;
    const WIDTH: usize = 100;
    let mut text = format!("  {name:20} ");
    let mut column = COLUMN;
    for word in doc.split(' ') {
        let length = word.chars().count();
        if column > COLUMN && column + 1 + length > WIDTH {
            text.push_str(&format!("\n{:COLUMN$}", ""));
            column = COLUMN;
        }
        if column > COLUMN {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text + "\n"
}

/// Reads or changes settings, or triggers a sync.
pub fn control(args: ControlArgs, context: &mut Context) -> Result {
    match (args.mode, args.action) {
        (Some(ControlMode::Sync), _) => sync::sync(&SyncArgs::default(), context),
        (None, None | Some(ControlAction::List)) => list(context),
        (None, Some(ControlAction::Get { key })) => get(&key, context),
        (None, Some(ControlAction::Set { key, value })) => set(key, value, context),
        (None, Some(ControlAction::Unset { key })) => unset(key, context),
    }
}

/// A setting as it holds.
struct Shown {
    key: String,
    value: String,
    /// Whether somebody set it; else it is the default.
    is_set: bool,
}

/// The settings that there are, those that nobody set with their defaults.
fn shown(context: &Context) -> Result<Vec<Shown>> {
    // What was unset is kept as empty text.
    let mut set: Vec<_> =
        settings(None, context)?.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let mut all = Vec::new();
    for setting in &SETTINGS {
        if setting.name.ends_with(':') {
            continue;
        }
        let found = set.iter().position(|(key, _)| key == setting.name).map(|at| set.remove(at).1);
        let is_set = found.is_some();
        let value = found.unwrap_or_else(|| setting.default().into_owned());
        all.push(Shown { key: setting.name.to_owned(), value, is_set });
    }
    all.extend(set.into_iter().map(|(key, value)| Shown { key, value, is_set: true }));
    all.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(all)
}

fn settings(key: Option<&str>, context: &Context) -> Result<Vec<(String, String)>> {
    match context.pond.state()? {
        State::Mounted(mut daemon) => {
            let request = Request::ControlGet { key: key.map(str::to_owned) };
            let answer = daemon.call(&request, "read the settings")?;
            serde_json::from_value(answer)
                .map_err(|error| Failure::because("cannot understand the settings", &error))
        }
        State::Unmounted => Ok(context.pond.open_at(At::Tip)?.control_get(key)),
    }
}

fn list(context: &mut Context) -> Result {
    let mut rows = Vec::new();
    for Shown { key, value, is_set } in shown(context)? {
        context.out.json(&json!({"key": key, "value": value, "set": is_set}))?;
        rows.push(vec![key, value, if is_set { "set here" } else { "default" }.to_owned()]);
    }
    context.out.table(&[Column::text("SETTING"), Column::text("VALUE"), Column::text("FROM")], rows)
}

fn get(key: &str, context: &mut Context) -> Result {
    let found = shown(context)?.into_iter().find(|shown| shown.key == key);
    let Some(Shown { value, is_set, .. }) = found else {
        let what = format!("cannot read the setting {key}");
        return Err(match key.starts_with(FACTORY_MODE) {
            true => Failure::new(what, "it is not set, and has no default"),
            false => {
                let why = format!("there is no setting {key}");
                Failure::new("cannot read the settings", why).next("`pond control` lists them all")
            }
        });
    };
    context.out.json(&json!({"key": key, "value": value, "set": is_set}))?;
    context.out.line(&value)
}

fn unset(key: String, context: &mut Context) -> Result {
    if key == ROLE_KEY {
        return Err(Failure::new(
            CHANGE,
            "factory_mode:remote cannot be unset: it says whether the pond is a source (push) or a replica (pull)",
        ));
    }
    set(key, String::new(), context)
}

fn set(key: String, value: String, context: &mut Context) -> Result {
    match context.pond.state()? {
        State::Mounted(mut daemon) => {
            let request = Request::ControlSet { key: key.clone(), value: value.clone() };
            daemon.call(&request, "change the settings")?;
        }
        State::Unmounted => set_directly(&key, &value, context)?,
    }
    context.out.json(&json!({"key": key, "value": value}))
}

fn set_directly(key: &str, value: &str, context: &Context) -> Result {
    let what = || CHANGE.to_owned();
    let steward = match context.pond.open_quietly() {
        Err(StewardError::ControlMissing { .. }) if key == ROLE_KEY => {
            let role = match value {
                "push" => Role::Source,
                "pull" => Role::Replica,
                _ => return Err(Failure::new(what(), format!("{value:?} is neither push nor pull"))),
            };
            return Steward::restore_control(context.pond.directory(), role)
                .map_err(|error| Failure::because(what(), &error));
        }
        steward => steward.map_err(|error| Failure::because(what(), &error))?,
    };
    let set = steward.control_set(key, value).map_err(|error| Failure::because(what(), &error));
    let closed = waiting::close(&steward, context.notices).map_err(|error| Failure::because(what(), &error));
    set.and(closed.map(drop))
}
