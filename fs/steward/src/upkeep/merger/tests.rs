use std::fs;
use std::path::Path;
use std::time::Duration;

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
    let source = steward.source().unwrap();
    let (maintenance, oplog) = (&source.maintenance, steward.oplog());
    let merger = &maintenance.merger;
    assert!(oplog.mergeable(&MergeLimits::default()) > 0);
    // Its files cannot be read for a while; some of them are in no merge, so that it takes all.
    let (data, aside) = (pond.join("data"), pond.join("aside"));
    fs::create_dir(&aside).unwrap();
    let move_files = |from: &Path, to: &Path| {
        let files = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|kind| kind == "parquet")) {
            fs::rename(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    };
    move_files(&data, &aside);
    // As who prunes has it.
    let pruning = maintenance.cleaner.turn.lock();
    std::thread::scope(|scope| {
        let merges = scope.spawn(|| merger.run());
        // Some rests long, so a merge has failed by then; on a machine where none has, what follows holds as well.
        std::thread::sleep(4 * REST);
        move_files(&aside, &data);
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
