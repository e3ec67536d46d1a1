//! Factories on a whole Steward: nodes, runs, and post-commit work.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Place, by_hand, open, read, write};
use parking_lot::Mutex;
use pond_oplog::Version;
use pond_steward::{
    Factory, FactoryContext, FactoryError, OpenOptions, PostCommit, Registry, Role, Steward, StewardError,
};
use pond_tinyfs::Stale;

/// Notes its runs; can be told to fail, to panic, or to write.
#[derive(Default)]
struct Probe {
    name: &'static str,
    writes: bool,
    fail: AtomicBool,
    panic: AtomicBool,
    runs: Mutex<Vec<(String, u64, u64)>>,
    order: Arc<Mutex<Vec<&'static str>>>,
}

struct Handle(Arc<Probe>);

impl Factory for Handle {
    fn name(&self) -> &str {
        self.0.name
    }

    fn description(&self) -> &str {
        "notes its runs"
    }

    fn validate(&self, configuration: &[u8]) -> Result<(), FactoryError> {
        if configuration == b"bad" { Err(FactoryError::new("it is bad")) } else { Ok(()) }
    }

    fn post_commit(&self) -> Option<&dyn PostCommit> {
        Some(self)
    }
}

impl PostCommit for Handle {
    fn run(&self, context: &FactoryContext<'_>) -> Result<String, FactoryError> {
        assert!(!self.0.panic.load(Ordering::Relaxed), "told to panic");
        if self.0.fail.load(Ordering::Relaxed) {
            return Err(FactoryError::new("told to fail"));
        }
        let Some(commits) = context.commits.clone() else { return Ok("nothing".to_owned()) };
        self.0.order.lock().push(self.0.name);
        self.0.runs.lock().push((context.mode.to_owned(), commits.start().0, commits.end().0));
        if self.0.writes {
            let text = format!("{} to {}", commits.start(), commits.end());
            context
                .pond
                .write_file("/reports/last", text.as_bytes())
                .map_err(|error| FactoryError::new(error.to_string()))?;
        }
        Ok(format!("up to {}", commits.end()))
    }

    fn writes(&self) -> bool {
        self.0.writes
    }
}

fn options(probes: &[&Arc<Probe>]) -> OpenOptions {
    let mut registry = Registry::default();
    for probe in probes {
        registry.register(Arc::new(Handle((*probe).clone())));
    }
    OpenOptions { registry, ..by_hand() }
}

fn probe(name: &'static str) -> Arc<Probe> {
    Arc::new(Probe { name, ..Probe::default() })
}

fn versions_in(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["version"].as_u64().unwrap())
        .collect()
}

#[test]
fn exec_log_writes_one_line_for_each_version_also_across_restarts() {
    let place = Place::with_pond();
    let log = place.dir.path().join("commits.jsonl");
    let configuration = format!("path: {}\n", log.display());
    let steward = open(&place.pond, by_hand());
    steward.mknod("exec-log", "/etc/system.d/10-log", configuration.as_bytes()).unwrap();
    for i in 0..5 {
        write(&steward, "a", &[i; 10]).unwrap();
        steward.commit_now().unwrap();
    }
    let report = steward.sync().unwrap();
    assert_eq!(report.factories.len(), 1);
    assert_eq!(report.factories[0].watermark, Some(report.position.version));
    assert_eq!(report.factories[0].behind, 0);
    assert_eq!(versions_in(&log), (0..=report.position.version.0).collect::<Vec<_>>());
    write(&steward, "a", b"last").unwrap();
    let tip = steward.close().unwrap().version.0;
    assert_eq!(versions_in(&log), (0..=tip).collect::<Vec<_>>());

    let steward = open(&place.pond, by_hand());
    write(&steward, "a", b"again").unwrap();
    let tip = steward.sync().unwrap().position.version.0;
    assert_eq!(versions_in(&log), (0..=tip).collect::<Vec<_>>());
    // The outcomes lost, as after a crash: it does its work once more, and no line is there twice.
    steward.close().unwrap();
    std::fs::remove_dir_all(place.pond.join("control")).unwrap();
    Steward::restore_control(&place.pond, Role::Source).unwrap();
    let steward = open(&place.pond, by_hand());
    steward.sync().unwrap();
    assert_eq!(versions_in(&log), (0..=tip).collect::<Vec<_>>());
}

#[test]
fn mknod_makes_directories_and_refuses_what_is_not_valid() {
    let place = Place::with_pond();
    let noted = probe("probe");
    let steward = open(&place.pond, options(&[&noted]));
    let told = Arc::new(Mutex::new(Vec::new()));
    let note = told.clone();
    steward.watch_changes(Box::new(move |stale| {
        note.lock().extend(stale.iter().filter_map(|stale| match stale {
            Stale::Name { name, .. } => Some(String::from_utf8(name.to_vec()).unwrap()),
            _ => None,
        }));
    }));
    steward.mknod("probe", "/etc/system.d/x", b"a: 1").unwrap();
    assert_eq!(*told.lock(), ["etc", "system.d", "x"]);
    assert_eq!(steward.position().cut_lsn, steward.fs().last_lsn());

    let refused = |factory: &str, path: &str, configuration: &[u8]| {
        steward.mknod(factory, path, configuration).unwrap_err()
    };
    assert!(matches!(refused("no-such", "/x", b""), StewardError::UnknownFactory { .. }));
    assert!(matches!(refused("probe", "/x", b"bad"), StewardError::BadConfiguration { .. }));
    assert!(matches!(refused("exec-log", "/x", b"path: x"), StewardError::BadConfiguration { .. }));
    assert!(matches!(refused("probe", "x", b""), StewardError::BadPath { .. }));
    assert!(matches!(refused("probe", "/.pond/x", b""), StewardError::BadPath { .. }));
    assert_eq!(refused("probe", "/etc/system.d/x", b"").errno(), libc::EEXIST);
    assert_eq!(refused("probe", "/etc/system.d/x/y", b"").errno(), libc::ENOTDIR);
    assert!(matches!(steward.run("/etc", &[]), Err(StewardError::NotDynamic { .. })));
    steward.close().unwrap();
}

#[test]
fn nodes_run_in_name_order_with_their_mode_and_handle_all_they_missed() {
    let place = Place::with_pond();
    let order = Arc::new(Mutex::new(Vec::new()));
    let first = Arc::new(Probe { name: "first", order: order.clone(), ..Probe::default() });
    let second = Arc::new(Probe { name: "second", order: order.clone(), ..Probe::default() });
    let steward = open(&place.pond, options(&[&first, &second]));
    steward.control_set("factory_mode:second", "special").unwrap();
    steward.mknod("second", "/etc/system.d/20", b"").unwrap();
    steward.sync().unwrap();
    steward.mknod("first", "/etc/system.d/10", b"").unwrap();
    steward.sync().unwrap();
    order.lock().clear();
    write(&steward, "a", b"x").unwrap();
    steward.sync().unwrap();
    assert_eq!(*order.lock(), ["first", "second"]);

    // Each version was handled once, in runs that follow each other.
    for (noted, mode) in [(&first, "push"), (&second, "special")] {
        let mut next = 0;
        for (run_mode, from, to) in noted.runs.lock().iter() {
            assert_eq!((run_mode.as_str(), *from), (mode, next));
            next = to + 1;
        }
        assert_eq!(next, steward.position().version.0 + 1);
    }
    steward.close().unwrap();
}

#[test]
fn a_failure_is_recorded_and_repeated_and_never_fails_the_commit() {
    let place = Place::with_pond();
    let noted = probe("probe");
    noted.fail.store(true, Ordering::Relaxed);
    let steward = open(&place.pond, options(&[&noted]));
    steward.mknod("probe", "/etc/system.d/x", b"").unwrap();
    write(&steward, "a", b"x").unwrap();
    let report = steward.sync().unwrap();
    assert!(report.factories[0].failed);
    assert_eq!(report.factories[0].last_message.as_deref(), Some("told to fail"));
    assert_eq!(report.factories[0].behind, report.position.version.0 + 1);

    noted.fail.store(false, Ordering::Relaxed);
    noted.panic.store(true, Ordering::Relaxed);
    let report = steward.sync().unwrap();
    assert!(report.factories[0].last_message.as_ref().unwrap().contains("told to panic"));

    noted.panic.store(false, Ordering::Relaxed);
    let report = steward.sync().unwrap();
    assert!(!report.factories[0].failed);
    assert_eq!(*noted.runs.lock(), [("push".to_owned(), 0, report.position.version.0)]);
    steward.close().unwrap();
}

#[test]
fn a_failed_run_is_repeated_without_being_asked() {
    let place = Place::with_pond();
    let noted = probe("probe");
    noted.fail.store(true, Ordering::Relaxed);
    let steward = open(&place.pond, options(&[&noted]));
    steward.mknod("probe", "/etc/system.d/x", b"").unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !steward.status().factories[0].failed {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    noted.fail.store(false, Ordering::Relaxed);
    while steward.status().factories[0].behind > 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    steward.close().unwrap();
}

#[test]
fn what_a_factory_writes_is_committed_and_pushed_but_does_not_start_it_again() {
    let place = Place::with_pond();
    let writer = Arc::new(Probe { name: "writer", writes: true, ..Probe::default() });
    let pusher = probe("pusher");
    {
        let steward = open(&place.pond, options(&[&writer, &pusher]));
        // The push comes first by name, and must run again after the writer.
        steward.mknod("pusher", "/etc/system.d/10-push", b"").unwrap();
        steward.mknod("writer", "/etc/system.d/20-write", b"").unwrap();
        steward.sync().unwrap();
        let runs = writer.runs.lock().len();
        write(&steward, "a", b"x").unwrap();
        let asked = steward.sync().unwrap();
        let (_, _, last) = writer.runs.lock().last().cloned().unwrap();
        assert_eq!(writer.runs.lock().len(), runs + 1);
        // What is asked for is a version that holds everything: the writer's may be there already.
        assert!(asked.position.version.0 >= last);
        let tip = steward.position();
        assert_eq!(tip.version.0, last + 1);
        assert_eq!(pusher.runs.lock().last().unwrap().2, tip.version.0);
        assert!(read(&steward, "reports/last").unwrap().ends_with(last.to_string().as_bytes()));

        // Quiet now, however often somebody asks.
        steward.sync().unwrap();
        steward.sync().unwrap();
        assert_eq!(steward.position(), tip);
        assert_eq!(steward.history(Some(1)).unwrap()[0].origin.kind, "factory");
        assert_eq!(steward.close().unwrap(), tip);
    }
    // And after opening anew.
    let steward = open(&place.pond, options(&[&writer, &pusher]));
    let tip = steward.position();
    steward.sync().unwrap();
    assert_eq!(steward.position(), tip);
    steward.close().unwrap();
}

#[test]
fn run_runs_a_node_anywhere_after_committing_what_is_there() {
    let place = Place::with_pond();
    let writer = Arc::new(Probe { name: "writer", writes: true, ..Probe::default() });
    let steward = open(&place.pond, options(&[&writer]));
    steward.mknod("writer", "/jobs/report", b"").unwrap();
    write(&steward, "a", b"x").unwrap();
    let report = steward.run("/jobs/report", &[]).unwrap();
    assert_eq!(report.message, "up to 2");
    assert_eq!(report.position.version, Version(3));
    assert_eq!(read(&steward, "reports/last").unwrap(), b"0 to 2");

    writer.fail.store(true, Ordering::Relaxed);
    let Err(StewardError::FactoryFailed { reason, .. }) = steward.run("/jobs/report", &[]) else {
        panic!("it did not fail");
    };
    assert_eq!(reason.to_string(), "told to fail");
    steward.close().unwrap();
}
