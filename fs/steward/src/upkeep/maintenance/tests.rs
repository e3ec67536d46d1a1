use std::fs;

use pond_tinyfs::{Caller, Make, NodeId};

use super::*;
use crate::{OpenOptions, Steward};

#[test]
fn a_merge_that_failed_is_tried_again_while_a_prune_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let pond = place.path().join("pond");
    Steward::init(&pond).unwrap();
    let hour = Duration::from_secs(3600);
    let options = OpenOptions { commit_interval: hour, maintenance: false, ..OpenOptions::default() };
    let steward = Steward::open(&pond, options).unwrap();
    for n in 0..70 {
        let name = format!("file {n}");
        steward
            .fs()
            .make(&Caller::root(), NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 })
            .unwrap();
        steward.commit_now().unwrap();
    }
    let (maintenance, oplog) = (steward.maintenance.clone(), steward.oplog());
    assert!(oplog.mergeable(&MergeLimits::default()) > 0);
    // One of its files cannot be read for a while.
    let (file, aside) = (pond.join("data"), pond.join("aside"));
    let mut names = fs::read_dir(&file).unwrap().map(|entry| entry.unwrap().path());
    let file = names.find(|path| path.extension().is_some_and(|kind| kind == "parquet")).unwrap();
    fs::rename(&file, &aside).unwrap();
    // As who prunes has it.
    let pruning = maintenance.turn.lock();
    let eventually = |what: &str, holds: &dyn Fn() -> bool| {
        let until = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    std::thread::scope(|scope| {
        let merges = scope.spawn(|| maintenance.run_merges());
        eventually("a merge begins", &|| maintenance.merges.at_work().is_some());
        eventually("a merge fails", &|| maintenance.merges.at_work().is_none());
        fs::rename(&aside, &file).unwrap();
        let done = || oplog.mergeable(&MergeLimits::default()) == 0;
        let until = Instant::now() + Duration::from_secs(60);
        while !done() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let merged = done();
        drop(pruning);
        maintenance.stop();
        merges.join().unwrap();
        assert!(merged, "it waits for the prune");
    });
    steward.close().unwrap();
}
