use std::sync::Arc;

use pond_tinyfs::{Caller, Make, NodeId, TinyFs, WriteFlags};

use super::*;
use crate::upkeep::histories::{Pond, Random, digest, open, operation};
use crate::{At, MergeLimits, Options, Origin, Version, View, Views};

/// Random histories, merged, pruned and cleaned at random; more of them with POND_PRUNE_CASES.
#[test]
fn no_version_from_the_floor_on_ever_changes() {
    let cases = std::env::var("POND_PRUNE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4);
    let mut dropped = 0;
    for seed in 1..=cases {
        let mut random = Random(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut pond = Pond::new();
        let mut floor = 0;
        let mut read: Vec<Arc<View>> = Vec::new();
        // Versions that it has keep old ones pinned, so that prunes go on beside them in one half of the cases only.
        let kept = (seed % 2 == 0).then(|| Views::new(pond.dir.path(), &Options::default()));
        for _round in 0..3 {
            for _ in 0..12 {
                for _ in 0..random.below(8) + 1 {
                    operation(&pond.fs, &mut random);
                }
                pond.commit();
                if random.below(8) == 0 {
                    let fan_in = random.below(6) as usize + 2;
                    pond.merge(fan_in);
                }
            }
            let newest = pond.oplog.position().version.0;
            floor = (floor + 1 + random.below(newest - floor)).min(newest);
            // Little memory makes several files of one prune; a large file is one that is left alone unless half dead.
            let limits = MergeLimits {
                memory: 1 << (12 + random.below(14)),
                large: 1 << (11 + random.below(10)),
                ..MergeLimits::default()
            };
            // Of every second case some versions below the floor are kept, fewer with each round.
            let one_in = if seed % 4 < 2 { 0 } else { 2 + random.below(6) };
            let stays = |_| one_in > 0 && random.below(one_in) == 0;
            dropped += pond.thin(floor, stays, &limits).map_or(0, |report| report.rows);
            if random.below(2) == 0 {
                pond.clean();
            }
            pond.check(floor, seed);
            kept.iter().for_each(|views| pond.check_with(views, floor, seed));
            // Whoever reads a version goes on, whatever is merged, let go of and cleaned away meanwhile.
            read.iter().for_each(|view| pond.check_view(view, seed));
            read.clear();
            if random.below(2) == 0 {
                let views = Views::new(pond.dir.path(), &Options::default());
                let newest = pond.oplog.position().version.0;
                for _ in 0..3 {
                    let version = Version(floor + random.below(newest - floor + 1));
                    read.push(views.open(At::Version(version)).unwrap());
                }
            }
            if random.below(2) == 0 {
                let (oplog, fs) = open(pond.dir.path());
                (pond.oplog, pond.fs) = (oplog, fs);
                pond.check(floor, seed);
            }
        }
    }
    assert!(dropped > 20 * cases, "{dropped} rows dropped in {cases} cases");
}

#[test]
fn a_prune_gives_back_what_overwritten_content_took_and_log_entries_go() {
    let mut pond = Pond::new();
    let caller = Caller::root();
    let file = pond.fs.make(&caller, NodeId::ROOT, b"f", Make::File { mode: 0o644 }).unwrap().id;
    for n in 0..70u64 {
        let mut random = Random(n + 1);
        let data: Vec<u8> = (0..50_000).map(|_| random.below(256) as u8).collect();
        pond.fs.write(&caller, file, 0, &data, WriteFlags::default()).unwrap();
        pond.commit();
    }
    pond.merge(64);
    let before = pond.oplog.live_size().1;
    let report = pond.prune(66, &MergeLimits::default()).unwrap();
    let (_, after) = pond.oplog.live_size();
    assert_eq!(report.freed, before - after);
    assert!(after < before / 8, "{before} bytes became {after}");
    let floor = pond.oplog.floor().unwrap();
    let again = pond.oplog.would_prune(&floor.into(), &MergeLimits::default(), &|_| true).unwrap();
    assert_eq!(again, PruneReport::default());
    pond.clean();
    let entries = std::fs::read_dir(pond.dir.path().join("data/_delta_log")).unwrap();
    let entries =
        entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "json"));
    assert_eq!(entries.count() as u64, pond.oplog.position().version.0 - 66 + 1);
    pond.check(66, 0);
    assert_eq!(crate::history(pond.dir.path(), None).unwrap().last().unwrap().position.version, Version(66));
    // Its own files are gone, and the entry before it.
    assert!(!crate::changes(pond.dir.path(), Version(66)).unwrap().is_empty());
    let error = crate::changes(pond.dir.path(), Version(3)).unwrap_err().to_string();
    assert!(error.starts_with("version 3 is no longer kept"), "{error}");
    let (oplog, fs) = open(pond.dir.path());
    (pond.oplog, pond.fs) = (oplog, fs);
    pond.commit();
    pond.check(66, 0);
}

#[test]
fn the_entries_stay_on_which_the_journal_builds() {
    let mut pond = Pond::new();
    let caller = Caller::root();
    let make = |fs: &TinyFs, name: &str| {
        fs.make(&caller, NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 }).unwrap();
    };
    (0..70).for_each(|n| {
        make(&pond.fs, &format!("f{n}"));
        pond.commit();
    });
    // Rows that come after the cut of a commit which is under way are in a segment that builds on the version before.
    make(&pond.fs, "committed");
    let cut = pond.fs.cut();
    make(&pond.fs, "journaled");
    let later = pond.fs.cut();
    pond.oplog.journal().append(&[&later.rows]).unwrap();
    let committed = pond.oplog.commit(&[&cut.rows], cut.cut_lsn, &Origin::mount()).unwrap();
    pond.oplog.journal().release(&committed.position).unwrap();
    let version = committed.position.version.0;
    let raised = pond.oplog.commit_floor(&pond.oplog.floor_at(Version(version)).unwrap().into()).unwrap();
    pond.oplog.journal().release(&raised).unwrap();
    pond.clean();
    let opened = OpLog::open(pond.dir.path(), &Options::default()).unwrap();
    assert_eq!(opened.read_only_because, None);
    assert_eq!(opened.recovered.len(), later.rows.len());
    let log = crate::log::delta::Log::new(&pond.dir.path().join("data"));
    assert_eq!(log.list().unwrap().entries[0], version - 1);
}

#[test]
fn an_open_file_that_was_unlinked_is_read_after_its_rows_are_gone() {
    let mut pond = Pond::new();
    let caller = Caller::root();
    // `make` takes a reference, as an open file has one.
    let file = pond.fs.make(&caller, NodeId::ROOT, b"f", Make::File { mode: 0o644 }).unwrap().id;
    pond.fs.write(&caller, file, 0, &[7; 9000], WriteFlags::default()).unwrap();
    pond.commit();
    pond.fs.unlink(&caller, NodeId::ROOT, b"f").unwrap();
    pond.commit();
    assert!(pond.prune(2, &MergeLimits::default()).unwrap().rows >= 3);
    pond.clean();
    let read = pond.fs.read(file, 0, 9000).unwrap().fill(&*pond.oplog).unwrap();
    assert_eq!(read, [7; 9000]);
    pond.fs.forget(file, 1);
    pond.clean();
    let files = std::fs::read_dir(pond.dir.path().join("data")).unwrap();
    let files =
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "parquet"));
    assert_eq!(files.count() as u64, pond.oplog.live_size().0);
    pond.check(2, 0);
}

#[test]
fn whoever_has_only_the_tree_of_a_version_keeps_it_pinned() {
    let mut pond = Pond::new();
    let caller = Caller::root();
    let file = pond.fs.make(&caller, NodeId::ROOT, b"f", Make::File { mode: 0o644 }).unwrap().id;
    for n in 1..=5u8 {
        pond.fs.write(&caller, file, 0, &[n; 9000], WriteFlags::default()).unwrap();
        pond.commit();
    }
    let place = pond.dir.path().to_owned();
    let pinned = || crate::disk::pin::Pins::hold(&place).unwrap().versions;
    let views = Views::new(pond.dir.path(), &Options::default());
    let tree = views.open(At::Version(Version(2))).unwrap().fs().clone();
    drop(views);
    assert_eq!(pinned(), [Version(2)]);
    pond.merge(2);
    pond.clean();
    assert_eq!(digest(&tree), pond.digests[2]);
    drop(tree);
    assert_eq!(pinned(), []);
}
