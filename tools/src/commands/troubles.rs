//! What of a pond's status is not well.

use serde_json::Value;

use crate::error::without_numbers;
use crate::output::count;
use crate::time;

/// The state of a replica that is still being made.
pub const UNFINISHED: &str = "unfinished";

/// What is not well, a few words each: what `--check` exits with 1 for.
pub fn all(status: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(without_numbers);
    let mut troubles: Vec<String> = text(&status["unanswered"]).into_iter().collect();
    if let Some(mountpoint) = text(&status["dead_mount"]) {
        troubles.push(format!("the mount on {mountpoint} is dead"));
    }
    if let Some(why) = text(&status["read_only_because"]).filter(|_| status["mode"] != "replica") {
        troubles.push(format!("no writes are taken: {why}"));
    }
    if let Some(why) = text(&status["commit_error"]) {
        troubles.push(format!("the last commit failed: {why}"));
    }
    if status["state"] == UNFINISHED {
        troubles.push("the replica is not whole yet".to_owned());
    }
    let replica = &status["replica"];
    if let Some(state @ ("failed" | "diverged")) = replica["state"].as_str() {
        let why = text(&replica["error"]).map_or(String::new(), |why| format!(": {why}"));
        troubles.push(format!("the replica has {state}{why}"));
    }
    for factory in status["factories"].as_array().into_iter().flatten().filter(|node| node["failed"] == true)
    {
        let path = text(&factory["path"]).unwrap_or_default();
        let why = text(&factory["last_message"]).unwrap_or_default();
        troubles.push(format!("{path} failed: {why}"));
    }
    troubles.extend(damage(status));
    troubles.extend(status["notes"].as_array().into_iter().flatten().filter_map(text));
    troubles
}

/// What readers met of damaged content, in a sentence.
pub fn damage(status: &Value) -> Option<String> {
    let reads = status["damage"]["reads"].as_u64().filter(|&reads| reads > 0)?;
    let places = status["damage"]["places"].as_array().cloned().unwrap_or_default();
    let names: Vec<String> = places
        .iter()
        .map(|place| {
            let since = place["since"].as_i64().map(time::local_micros).unwrap_or_default();
            format!("{} row {}, {since}", place["file"].as_str().unwrap_or_default(), place["row"])
        })
        .collect();
    Some(format!(
        "readers met damaged content, {}: {}; `pond fsck` names the paths, `pond fsck --repair` takes it from a backup",
        count(reads, "time"),
        names.join("; ")
    ))
}
