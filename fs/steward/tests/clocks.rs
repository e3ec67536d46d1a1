//! A clock that is wrong for a while makes nothing old, and leaves no trace in the times of versions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use pond_oplog::{Clock, Reading, Version};
use pond_steward::{MaintainOptions, MaintainReport, OpenOptions, Steward};
use pond_tinyfs::{Caller, Make, NodeId};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
const TEN_YEARS: i64 = 3650 * DAY;
const START: i64 = 1_700_000_000 * SECOND;

/// A machine whose clocks a test sets.
#[derive(Default)]
struct Machine {
    boot: AtomicI64,
    error: AtomicI64,
    synchronized: AtomicBool,
}

impl Machine {
    fn clock(self: &Arc<Self>) -> Arc<Clock> {
        let machine = self.clone();
        Clock::new(move || Reading {
            wall: START + machine.boot.load(Ordering::SeqCst) + machine.error.load(Ordering::SeqCst),
            boot: machine.boot.load(Ordering::SeqCst),
            synchronized: machine.synchronized.load(Ordering::SeqCst),
        })
    }

    fn pass(&self, time: i64) {
        self.boot.fetch_add(time, Ordering::SeqCst);
    }

    /// As `settimeofday` does, which takes back what the kernel said of the clock.
    fn set(&self, error: i64) {
        self.error.store(error, Ordering::SeqCst);
        self.synchronized.store(false, Ordering::SeqCst);
    }

    fn now(&self) -> i64 {
        START + self.boot.load(Ordering::SeqCst)
    }

    fn open(self: &Arc<Self>, pond: &std::path::Path) -> Arc<Steward> {
        let options = OpenOptions {
            commit_interval: Duration::from_secs(3600),
            maintenance: false,
            clock: self.clock(),
            ..OpenOptions::default()
        };
        Steward::open(pond, options).unwrap()
    }
}

fn version(steward: &Steward, name: &str) -> Version {
    let make = Make::File { mode: 0o644 };
    steward.fs().make(&Caller::root(), NodeId::ROOT, name.as_bytes(), make).unwrap();
    steward.sync().unwrap().position.version
}

fn maintain(steward: &Steward) -> MaintainReport {
    steward.maintain(&MaintainOptions::default(), &|_| {}).unwrap()
}

#[test]
fn a_clock_ten_years_ahead_for_15_seconds_prunes_nothing_and_spoils_no_time() {
    let directory = tempfile::tempdir().unwrap();
    let pond = directory.path().join("pond");
    let machine = Arc::new(Machine::default());
    machine.synchronized.store(true, Ordering::SeqCst);
    // Version 0 is made by the machine's own clock, and would be younger than all others.
    machine.pass(machine_now() - START + HOUR);
    Steward::init(&pond).unwrap();
    let steward = machine.open(&pond);
    steward.control_set("retention", "30d").unwrap();
    for n in 0..5 {
        machine.pass(DAY);
        version(&steward, &format!("before {n}"));
    }
    let before = machine.now();

    machine.set(TEN_YEARS);
    machine.pass(7 * SECOND);
    let meanwhile = version(&steward, "meanwhile");
    let report = maintain(&steward);
    assert_eq!((report.floor, report.pruned.rows), (None, 0));
    assert_eq!(report.cleaned.files, 0);
    assert!(report.doubt.unwrap().contains("3650 days ahead"));
    assert!(steward.status().notes.iter().any(|note| note.contains("3650 days ahead")));

    machine.pass(8 * SECOND);
    machine.set(0);
    machine.pass(SECOND);
    let after = version(&steward, "after");
    assert!(steward.status().notes.iter().any(|note| note.contains("set back")));
    assert_eq!(maintain(&steward).floor, None);
    let time = steward.position().timestamp;
    assert!((time - machine.now()).abs() < SECOND, "{time}");
    let oplog = steward.oplog();
    assert_eq!(
        oplog.version_at(before + 8 * SECOND).unwrap(),
        oplog.version_at(before + 10 * SECOND).unwrap()
    );
    assert!(oplog.version_at(before + 8 * SECOND).unwrap().unwrap() >= meanwhile);
    assert!(oplog.version_at(machine.now() + SECOND).unwrap().unwrap() >= after);

    // In its time everything goes on.
    machine.pass(40 * DAY);
    let newest = version(&steward, "in its time");
    let report = maintain(&steward);
    assert!(report.floor.unwrap() >= after && report.floor.unwrap() < newest, "{report:?}");
    assert!(report.cleaned.files > 0 && report.doubt.is_none(), "{report:?}");
    steward.close().unwrap();
}

#[test]
fn a_pond_opened_while_nobody_vouches_for_the_clock_keeps_everything_for_an_hour() {
    let directory = tempfile::tempdir().unwrap();
    let pond = directory.path().join("pond");
    let machine = Arc::new(Machine::default());
    machine.pass(machine_now() - START + HOUR);
    Steward::init(&pond).unwrap();
    let steward = machine.open(&pond);
    version(&steward, "one");
    version(&steward, "two");
    steward.control_set("retention", "30d").unwrap();
    steward.close().unwrap();
    drop(steward);

    machine.pass(HOUR);
    machine.set(TEN_YEARS);
    let steward = machine.open(&pond);
    let report = maintain(&steward);
    assert_eq!((report.floor, report.cleaned.files), (None, 0));
    assert!(report.doubt.unwrap().contains("nobody has said"));
    // Also where only the question goes by age.
    steward.control_set("retention", "").unwrap();
    assert_eq!(maintain(&steward).doubt, None);
    let as_if = |retention: &str| {
        let options =
            MaintainOptions { dry_run: true, retention: Some(retention.into()), ..Default::default() };
        steward.maintain(&options, &|_| {}).unwrap().doubt
    };
    assert!(as_if("1s").unwrap().contains("nobody has said"));
    assert_eq!(as_if("2 versions"), None);
    steward.control_set("retention", "30d").unwrap();
    machine.pass(20 * SECOND);
    machine.set(0);
    machine.synchronized.store(true, Ordering::SeqCst);
    machine.pass(SECOND);
    assert_eq!(maintain(&steward).floor, None);
    machine.pass(HOUR);
    let report = maintain(&steward);
    assert_eq!((report.floor, report.doubt), (None, None));
    steward.close().unwrap();
}

/// What version 0 is made by.
fn machine_now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}
