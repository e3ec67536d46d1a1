//! What a factory writes into the pond is a commit like any other: it is pushed, replicas show it, and it starts no endless
//! round of commits.

mod restore_common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pond_replicate::Remote;
use pond_replicate::format::{self, Head};
use pond_steward::{Factory, FactoryContext, FactoryError, OpenOptions, PostCommit, Registry, Steward};
use restore_common::{Place, assert_identical, open, read, write};

/// Keeps a file that says up to which version it has come.
#[derive(Default)]
struct Report {
    runs: AtomicUsize,
}

struct Handle(Arc<Report>);

impl Factory for Handle {
    fn name(&self) -> &str {
        "report"
    }

    fn description(&self) -> &str {
        "says in a file of the pond which versions it was run for"
    }

    fn validate(&self, _configuration: &[u8]) -> Result<(), FactoryError> {
        Ok(())
    }

    fn post_commit(&self) -> Option<&dyn PostCommit> {
        Some(self)
    }
}

impl PostCommit for Handle {
    fn run(&self, context: &FactoryContext<'_>) -> Result<String, FactoryError> {
        let Some(commits) = context.commits.clone() else { return Ok("nothing new".to_owned()) };
        self.0.runs.fetch_add(1, Ordering::SeqCst);
        let text = format!("up to version {}\n", commits.end());
        let written = context.pond.write_file("/reports/today/last", text.as_bytes());
        written.map_err(|error| FactoryError::new(error.to_string()))?;
        Ok(text)
    }

    fn writes(&self) -> bool {
        true
    }
}

/// Opens a pond with the real remote and the factory that writes.
fn open_with(pond: &Path, report: &Arc<Report>, interval: Duration) -> Arc<Steward> {
    let mut registry = Registry::default();
    registry.register(Arc::new(Remote::default()));
    registry.register(Arc::new(Handle(report.clone())));
    let options = OpenOptions {
        registry,
        commit_interval: interval,
        follow: false,
        maintenance: false,
        ..OpenOptions::default()
    };
    Steward::open(pond, options).unwrap()
}

fn head(place: &Place) -> u64 {
    let bytes = std::fs::read(place.backups.join("backups/HEAD.json")).unwrap();
    format::decode::<Head>("HEAD.json", &bytes).unwrap().version
}

fn origins(steward: &Steward) -> Vec<String> {
    steward.history(None).unwrap().into_iter().map(|commit| commit.origin.kind).collect()
}

/// The remote may run before the factory or after it, by the names of their nodes.
#[test]
fn what_a_factory_writes_is_pushed_and_arrives() {
    for remote in ["05-remote", "90-remote"] {
        let place = Place::new();
        let report = Arc::new(Report::default());
        let source = open_with(&place.source, &report, Duration::from_secs(3600));
        source.mknod("report", "/etc/system.d/10-report", b"").unwrap();
        source.mknod("remote", &format!("/etc/system.d/{remote}"), &place.config()).unwrap();
        write(&source, "a", b"one");
        source.sync().unwrap();
        assert_eq!(head(&place), source.position().version.0, "{remote}: the factory's own commit is pushed");
        assert_eq!(origins(&source)[0], "factory");
        let written = read(&source, "reports/today/last").unwrap();

        let replica = place.replica("replica");
        assert_eq!(place.init(&replica).unwrap(), source.position());
        assert_identical(&replica, &place.source);
        let here = Arc::new(Report::default());
        let follower = open_with(&replica, &here, Duration::from_secs(3600));
        assert_eq!(read(&follower, "reports/today/last").unwrap(), written);

        // And while it follows: each round is the writer's commit and the factory's.
        for round in 0..3 {
            let (before, runs) = (source.position().version.0, report.runs.load(Ordering::SeqCst));
            write(&source, "a", format!("round {round}").as_bytes());
            source.sync().unwrap();
            assert_eq!(source.position().version.0, before + 2, "{:?}", origins(&source));
            assert_eq!(report.runs.load(Ordering::SeqCst), runs + 1);
            follower.sync().unwrap();
            assert_eq!(follower.position(), source.position());
            let text = String::from_utf8(read(&follower, "reports/today/last").unwrap()).unwrap();
            assert_eq!(text, format!("up to version {}\n", before + 1));
        }
        assert_eq!(here.runs.load(Ordering::SeqCst), 0, "on the replica it would be a second writer");
        follower.close().unwrap();
        source.close().unwrap();
        assert_identical(&replica, &place.source);
        let reopened = open(&replica);
        assert!(read(&reopened, "reports/today/last").is_some());
    }
}

#[test]
fn a_factory_that_writes_after_each_commit_makes_no_endless_round_of_them() {
    let place = Place::new();
    let report = Arc::new(Report::default());
    let source = open_with(&place.source, &report, Duration::from_millis(20));
    source.mknod("report", "/etc/system.d/10-report", b"").unwrap();
    source.mknod("remote", "/etc/system.d/20-remote", &place.config()).unwrap();
    write(&source, "a", b"one");
    source.sync().unwrap();
    let (version, runs) = (source.position().version, report.runs.load(Ordering::SeqCst));
    // Many commit intervals in which nobody else writes.
    std::thread::sleep(Duration::from_millis(500));
    source.sync().unwrap();
    assert_eq!(source.position().version, version, "{:?}", origins(&source));
    assert_eq!(report.runs.load(Ordering::SeqCst), runs);
    assert_eq!(head(&place), version.0);
    source.close().unwrap();
}
