//! `pond status`.

use std::thread;
use std::time::Duration;

use pond_mount::MountError;
use pond_oplog::Timeline;
use pond_steward::ReplicaStatus;
use serde::Deserialize;
use serde_json::{Value, json};

use super::troubles::{self, UNFINISHED};
use super::wait_version;
use crate::cli::StatusArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result, without_numbers};
use crate::output::{Column, count, size};
use crate::target::State;
use crate::time;

/// How often `--watch` looks.
const WATCH: Duration = Duration::from_secs(1);

/// Shows the pond's status: once, or whenever something changed.
pub fn status(args: &StatusArgs, context: &mut Context) -> Result {
    if let Some(version) = args.wait_version {
        wait_version::wait_for(version, args.timeout, context)?;
    }
    let mut last = read(context)?;
    show(&last, context)?;
    if args.check {
        return match troubles::all(&last).as_slice() {
            [] => Ok(()),
            troubles => Err(Failure::new("not all is well", troubles.join("; "))),
        };
    }
    if !args.watch {
        return match last["unanswered"].as_str() {
            None => Ok(()),
            Some(why) => Err(Failure::new("what the pond's daemon knows is not shown", why)),
        };
    }
    loop {
        context.out.flush()?;
        thread::sleep(WATCH);
        let now = read(context)?;
        if now == last {
            continue;
        }
        if !context.out.is_json() {
            match context.out.is_terminal() {
                true => context.out.clear_screen()?,
                false => context.out.line("")?,
            }
        }
        show(&now, context)?;
        last = now;
    }
}

/// The status as the daemon has it, or, of a pond that nobody serves, as its files say.
fn read(context: &Context) -> Result<Value> {
    match read_whole(context) {
        // Only now, as it may have become whole meanwhile.
        Err(_) if context.pond.is_unfinished_replica() => read_unfinished(context),
        status => status,
    }
}

fn read_whole(context: &Context) -> Result<Value> {
    if let Some(status) = read_scratch(context)? {
        return Ok(status);
    }
    let (mut status, mounted) = match context.pond.state()? {
        State::Mounted(mut daemon) => match daemon.try_status() {
            Err(error @ MountError::NoAnswer { pid, .. }) => {
                (read_without_daemon(context, pid, &error)?, true)
            }
            status => (status.during(|| "cannot ask the pond's daemon for its status".to_owned())?, true),
        },
        State::Unmounted => {
            let mut status = json!(context.pond.open_tip()?.status());
            // They would be this process's own.
            status["pid"] = Value::Null;
            status["log_path"] = Value::Null;
            if status["mode"] == "replica" {
                status["replica"] = json!(recorded(context)?);
            }
            status["dead_mount"] = json!(dead_mount(context)?);
            (status, false)
        }
    };
    status["mounted"] = json!(mounted);
    Ok(status)
}

/// The status of the pond's scratch in which the current directory lies, if it lies in one.
fn read_scratch(context: &Context) -> Result<Option<Value>> {
    let what = || "cannot tell what is mounted here".to_owned();
    let here = pond_mount::mount_of_current_directory().during(what)?.filter(pond_mount::Mount::is_scratch);
    let pond = context.pond.directory().canonicalize();
    let Some(mount) = here.filter(|mount| pond.is_ok_and(|pond| pond == mount.source)) else {
        return Ok(None);
    };
    let path = mount.mountpoint.join(".pond/status.json");
    let what = || format!("cannot read {}", path.display());
    let text = std::fs::read(&path).during(what)?;
    let mut status: Value =
        serde_json::from_slice(&text).map_err(|error| Failure::because(what(), &error))?;
    status["mounted"] = json!(true);
    Ok(Some(status))
}

/// Where the pond has a mount that takes writes and nobody who serves it: its daemon was killed.
fn dead_mount(context: &Context) -> Result<Option<String>> {
    let what = || "cannot tell where the pond is mounted".to_owned();
    let pond = context.pond.directory().canonicalize().during(what)?;
    let mounts = pond_mount::mounts_of(&pond).during(what)?;
    let dead = mounts.into_iter().find(|mount| !mount.read_only);
    Ok(dead.map(|mount| mount.mountpoint.to_string_lossy().into_owned()))
}

/// What can be told of a mounted pond whose daemon says nothing: what it has committed, and where it is mounted.
fn read_without_daemon(context: &Context, pid: u32, error: &MountError) -> Result<Value> {
    let pond = context.pond.directory();
    let what = || "cannot tell where the pond is mounted".to_owned();
    let mounts = pond_mount::mounts_of(&pond.canonicalize().during(what)?).during(what)?;
    let mut status = json!(context.pond.open_tip()?.status());
    status["pid"] = json!(pid);
    status["log_path"] = json!(pond_oplog::Layout::new(pond).log_file());
    status["mountpoint"] = json!(mounts.first().map(|mount| mount.mountpoint.to_string_lossy()));
    status["state"] = json!("not_answering");
    status["unanswered"] = json!(error.to_string());
    // They would be this process's own.
    for unknown in ["uncommitted", "journal", "commit_error", "read_only_because"] {
        status[unknown] = Value::Null;
    }
    Ok(status)
}

/// How the replica fared when somebody last had it open.
fn recorded(context: &Context) -> Result<Option<ReplicaStatus>> {
    pond_steward::replica_status(context.pond.directory())
        .map_err(|error| Failure::because("cannot read the replica's state", &error))
}

/// Of a replica that is not whole yet there is only how far its making has got.
fn read_unfinished(context: &Context) -> Result<Value> {
    let path = context.pond.directory();
    let holder = pond_steward::lock_holder(path)
        .map_err(|error| Failure::because("cannot look at the pond's lock", &error))?;
    Ok(json!({
        "path": path, "mounted": false, "mode": "replica", "state": UNFINISHED,
        "replica": recorded(context)?.unwrap_or_default(),
        "pid": holder.as_ref().map(|holder| holder.pid),
        "holder": holder.map(|holder| holder.to_string()),
    }))
}

fn unfinished_facts(status: &Value) -> Result<Vec<(&'static str, String)>> {
    let replica: Replica = serde_json::from_value(status["replica"].clone())
        .map_err(|error| Failure::because("cannot understand the replica's state", &error))?;
    let path = status["path"].as_str().unwrap_or_default();
    let mut facts = vec![("pond", path.to_owned()), ("mode", "replica".to_owned())];
    facts.extend(replica_facts(&replica));
    facts.push(match status["holder"].as_str() {
        Some(holder) => ("being made by", holder.to_owned()),
        None => ("note", "its making was cut off: `pond init --from-backup` goes on from there".to_owned()),
    });
    Ok(facts)
}

/// What people are shown of it.
#[derive(Deserialize)]
struct View {
    pond_id: String,
    path: String,
    mounted: bool,
    mountpoint: Option<String>,
    dead_mount: Option<String>,
    #[serde(default)]
    mounted_read_only: bool,
    pid: Option<u32>,
    log_path: Option<String>,
    mode: Option<String>,
    state: String,
    read_only_because: Option<String>,
    version: u64,
    digest: String,
    timestamp: i64,
    txn_seq: u64,
    nodes: u64,
    /// As the daemon knows it.
    uncommitted: Option<Uncommitted>,
    commit_error: Option<String>,
    replica: Option<Replica>,
    journal: Option<Journal>,
    #[serde(default)]
    budgets: Option<Budgets>,
    #[serde(default)]
    memory: Option<Memory>,
    sizes: Sizes,
    history: History,
    factories: Vec<Factory>,
    notes: Vec<String>,
}

/// How a replica fares.
#[derive(Deserialize)]
struct Replica {
    state: String,
    timeline: Option<Timeline>,
    target_version: Option<u64>,
    applied_version: Option<u64>,
    bytes_done: u64,
    bytes_total: u64,
    lag_ms: u64,
    error: Option<String>,
    note: Option<String>,
    since: i64,
}

#[derive(Deserialize)]
struct Uncommitted {
    rows: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Budgets {
    dirty: u64,
    cache: u64,
}

#[derive(Deserialize)]
struct Memory {
    resident: Option<u64>,
    content: u64,
    pages: u64,
    indexes: u64,
}

#[derive(Deserialize)]
struct Journal {
    segments: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Sizes {
    data: u64,
    journal: u64,
    control: u64,
    mirror: u64,
    #[serde(default)]
    reserve: u64,
}

#[derive(Deserialize)]
struct History {
    live_files: u64,
    live_bytes: u64,
    floor: Option<u64>,
}

#[derive(Deserialize)]
struct Factory {
    path: String,
    mode: Option<String>,
    watermark: Option<u64>,
    behind: u64,
    failed: bool,
    last_message: Option<String>,
    #[serde(default)]
    running_ms: Option<u64>,
}

fn show(status: &Value, context: &mut Context) -> Result {
    context.out.json(status)?;
    if context.out.is_json() {
        return Ok(());
    }
    if status["state"] == UNFINISHED {
        return context.out.facts(&unfinished_facts(status)?);
    }
    let view: View = serde_json::from_value(status.clone())
        .map_err(|error| Failure::because("cannot understand the pond's status", &error))?;
    context.out.facts(&facts(&view))?;
    if let Some(damage) = troubles::damage(status) {
        context.out.facts(&[("DAMAGE", damage)])?;
    }
    if !view.factories.is_empty() {
        context.out.line("")?;
        const COLUMNS: [Column; 6] = [
            Column::text("FACTORY"),
            Column::text("MODE"),
            Column::number("DONE TO"),
            Column::number("BEHIND"),
            Column::text("STATE"),
            Column::text("LAST MESSAGE"),
        ];
        context.out.table(&COLUMNS, view.factories.iter().map(factory_row))?;
    }
    Ok(())
}

fn facts(view: &View) -> Vec<(&'static str, String)> {
    let mounted = match (&view.mountpoint, view.pid) {
        (Some(mountpoint), Some(pid)) => {
            let manner = match view.state.as_str() {
                "scratch" => ", a scratch: what is changed there ends with it",
                _ if view.mounted_read_only => ", read-only",
                _ => "",
            };
            format!("on {mountpoint}{manner} (process {pid})")
        }
        _ if view.mounted => "yes".to_owned(),
        _ => match &view.dead_mount {
            None => "no".to_owned(),
            Some(mountpoint) => format!(
                "no: its daemon has died, and left a dead mount; `pond mount {mountpoint}` recovers, `pond umount \
                 {mountpoint}` takes it away"
            ),
        },
    };
    let mut facts = vec![
        ("pond", view.path.clone()),
        ("id", view.pond_id.clone()),
        ("mounted", mounted),
        ("mode", view.mode.clone().unwrap_or_else(|| "unknown".to_owned())),
    ];
    // Of a pond that nobody serves it would only say that it was opened to be looked at.
    if view.mounted {
        facts.push(("state", view.state.clone()));
    }
    let mut add = |name, value: &Option<String>| {
        if let Some(value) = value {
            facts.push((name, value.clone()));
        }
    };
    add("read-only because", &view.read_only_because);
    add("last commit failed", &view.commit_error);
    if let Some(replica) = &view.replica {
        facts.extend(replica_facts(replica));
    }
    facts.extend([
        (
            "version",
            format!("{}, {}, transaction {}", view.version, time::local_micros(view.timestamp), view.txn_seq),
        ),
        ("digest", view.digest.clone()),
        ("nodes", view.nodes.to_string()),
    ]);
    if let (true, Some(Uncommitted { rows, bytes })) = (view.mounted, &view.uncommitted) {
        facts.push(("uncommitted", format!("{}, {}", count(*rows, "row"), size(*bytes))));
    }
    if let (true, Some(Journal { segments, bytes })) = (view.mounted, &view.journal) {
        facts.push(("journal", format!("{}, {}", count(*segments, "segment"), size(*bytes))));
    }
    if let (true, Some(Budgets { dirty, cache })) = (view.mounted, &view.budgets) {
        facts.push((
            "budgets",
            format!("{} of content to be stored, {} of cache", size(*dirty), size(*cache)),
        ));
    }
    if let (true, Some(Memory { resident: Some(resident), content, pages, indexes })) =
        (view.mounted, &view.memory)
    {
        let rest = resident.saturating_sub(content + pages + indexes);
        facts.push((
            "memory",
            format!(
                "{}: {} of content to be stored, {} of cached pages, {} of their indexes, {} of all else",
                size(*resident),
                size(*content),
                size(*pages),
                size(*indexes),
                size(rest)
            ),
        ));
    }
    let Sizes { data, journal, control, mirror, reserve } = view.sizes;
    facts.push((
        "on disk",
        format!(
            "data {}, journal {}, control {}, mirror {}, reserve {}",
            size(data),
            size(journal),
            size(control),
            size(mirror),
            size(reserve)
        ),
    ));
    let History { live_files, live_bytes, floor } = view.history;
    facts.push((
        "history",
        format!(
            "{}, in {} of {}; {} beside them in logs and replaced files",
            floor.map_or("all versions".to_owned(), |floor| format!("versions from {floor} on")),
            count(live_files, "live data file"),
            size(live_bytes),
            size(data.saturating_sub(live_bytes))
        ),
    ));
    if let Some(log) = &view.log_path {
        facts.push(("log", log.clone()));
    }
    facts.extend(view.notes.iter().map(|note| ("note", note.clone())));
    facts
}

fn replica_facts(replica: &Replica) -> Vec<(&'static str, String)> {
    let mut state = format!("{} since {}", replica.state, time::local_micros(replica.since));
    if let Some(timeline) = replica.timeline {
        state.push_str(&format!(", timeline {timeline}"));
    }
    let mut facts = vec![("replica", state)];
    if matches!(replica.state.as_str(), "copying" | "catching_up" | "reinitializing") {
        facts.push(("fetched", format!("{} of {}", size(replica.bytes_done), size(replica.bytes_total))));
    }
    match (replica.target_version, replica.applied_version) {
        (Some(target), Some(applied)) if target > applied => {
            let behind = count(target - applied, "version");
            facts.push(("behind", format!("{behind} of {target}, {}", lag(replica.lag_ms))));
        }
        _ if replica.lag_ms > 0 => facts.push(("behind", lag(replica.lag_ms))),
        _ => {}
    }
    if let Some(error) = &replica.error {
        facts.push(("last pull failed", error.clone()));
    }
    if let Some(note) = &replica.note {
        facts.push(("note", note.clone()));
    }
    facts
}

/// A delay for people.
fn lag(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{milliseconds} ms"),
        10_000..7_200_000 => format!("{} s", milliseconds / 1000),
        _ => format!("{} h", milliseconds / 3_600_000),
    }
}

fn factory_row(factory: &Factory) -> Vec<String> {
    let state = match (factory.running_ms, factory.failed, &factory.mode, factory.behind) {
        (Some(milliseconds), ..) => format!("running for {}", lag(milliseconds)),
        (_, true, ..) => "failed".to_owned(),
        (_, _, None, _) => "not here".to_owned(),
        (_, _, _, 0) => "done".to_owned(),
        _ => "behind".to_owned(),
    };
    vec![
        factory.path.clone(),
        factory.mode.clone().unwrap_or_default(),
        factory.watermark.map(|version| version.to_string()).unwrap_or_default(),
        factory.behind.to_string(),
        state,
        without_numbers(factory.last_message.as_deref().unwrap_or_default()),
    ]
}
