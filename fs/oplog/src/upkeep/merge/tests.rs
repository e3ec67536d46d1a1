use std::collections::BTreeMap;
use std::time::Duration;

use pond_tinyfs::{Lsn, PersistenceLayer, Placed, Record, Row, TinyFs};

use super::*;
use crate::rows::samples::{self, extent, file, id};
use crate::{At, CleanOptions, CleanReport, Opened as OpenedPond, Options, Origin, TxnSeq, Version, changes};

struct Pond {
    dir: tempfile::TempDir,
}

impl Pond {
    fn new() -> Self {
        let dir = samples::fast_directory();
        OpLog::create(dir.path(), samples::root(), &Origin::command("pond init")).unwrap();
        Pond { dir }
    }

    fn open(&self) -> OpenedPond {
        OpLog::open(self.dir.path(), &Options::default()).unwrap()
    }

    fn at(&self, version: u64) -> TinyFs {
        let at = At::Version(Version(version));
        let opened = OpLog::open_read_only(self.dir.path(), at, &Options::default()).unwrap();
        TinyFs::read_only(opened.tree, opened.oplog)
    }
}

/// A file with its content, made by one operation.
fn with_content(n: u64) -> Vec<Row> {
    let (raw, lsn) = (100 + n, 2 + n);
    let mut rows = file(&format!("f{n}"), raw, lsn);
    let bytes: Vec<u8> = (0..20_000u64).map(|i| (i * (n + 1) % 251) as u8).collect();
    if let Record::Node(node) = &mut rows[0].record {
        node.size = bytes.len() as u64;
    }
    let mut row = extent(raw, lsn, 0, bytes);
    row.seq = 3;
    rows.push(row);
    rows
}

fn commit(oplog: &OpLog, rows: &[Row]) -> Vec<Placed> {
    let cut = rows.iter().map(|row| row.lsn).max().unwrap();
    oplog.commit(&[rows], cut, &Origin::mount()).unwrap().placed
}

fn content(fs: &TinyFs, n: u64) -> Vec<u8> {
    fs.read(id(100 + n), 0, 1 << 20).unwrap().fill(&**fs.persistence()).unwrap()
}

/// Every row of the newest version with its transaction.
fn all_rows(oplog: &OpLog) -> BTreeMap<(Lsn, u32), (Row, TxnSeq)> {
    let mut all = BTreeMap::new();
    for file in oplog.live().select(|_| true) {
        let whole = oplog.open_whole(&file).unwrap().decode().unwrap();
        for (row, txn_seq) in whole.rows.into_iter().zip(whole.txns) {
            assert!(all.insert((row.lsn, row.seq), (row, txn_seq)).is_none(), "no row is there twice");
        }
    }
    all
}

fn limits(fan_in: usize) -> MergeLimits {
    MergeLimits { fan_in, ..MergeLimits::default() }
}

fn merge_all(oplog: &OpLog, limits: &MergeLimits) -> Vec<crate::Rewritten> {
    let mut done = Vec::new();
    while let Some(rewrite) = oplog.prepare_merge(limits, &|_| true).unwrap() {
        done.push(oplog.commit_rewrite(rewrite).unwrap());
    }
    done
}

fn clean(oplog: &OpLog) -> CleanReport {
    let options = CleanOptions {
        keep_replaced: Duration::ZERO,
        reads: Duration::ZERO,
        watermark: None,
        in_use: &|_| Default::default(),
        entries: true,
        dry_run: false,
        stop: &|| false,
    };
    oplog.clean(&options).unwrap()
}

#[test]
fn a_merge_keeps_every_row_and_its_transaction_and_readers_go_on() {
    let pond = Pond::new();
    let opened = pond.open();
    let oplog = opened.oplog.clone();
    let mut placed: Vec<Placed> = Vec::new();
    for n in 0..9 {
        placed.extend(commit(&oplog, &with_content(n)));
    }
    let before = all_rows(&oplog);
    assert_eq!(before.values().map(|(_, txn_seq)| txn_seq.0).max(), Some(10));
    drop(opened);
    let opened = pond.open();
    let oplog = opened.oplog.clone();
    let fs = TinyFs::new(opened.tree, oplog.clone());
    let plans: Vec<_> = (0..9).map(|n| fs.read(id(100 + n), 0, 1 << 20).unwrap()).collect();

    let rewrite = oplog.prepare_merge(&limits(4), &|_| true).unwrap().unwrap();
    assert_eq!(rewrite.replaces().0, 10);
    // Commits go on between the writing of the file and its version.
    commit(&oplog, &with_content(9));
    let rewritten = oplog.commit_rewrite(rewrite).unwrap();
    assert_eq!(rewritten.position.version, Version(11));
    assert_eq!(rewritten.position.cut_lsn, Lsn(11));
    assert_eq!(rewritten.moved.len(), 9);
    assert_eq!(oplog.live_size().0, 2);
    fs.relocated(&rewritten.moved);
    let old: std::collections::HashSet<u32> = rewritten.moved.iter().map(|moved| moved.from.file).collect();
    assert!(fs.files_in_use(&old).is_empty(), "the tree names the new places");

    let expected: Vec<Vec<u8>> = (0..9).map(|n| content(&pond.at(n + 1), n)).collect();
    for (n, plan) in plans.iter().enumerate() {
        assert_eq!(plan.fill(&*oplog).unwrap(), expected[n], "a plan from before the merge");
        assert_eq!(content(&fs, n as u64), expected[n], "the new place");
    }
    let mut after = all_rows(&oplog);
    after.retain(|(lsn, _), _| *lsn < Lsn(11));
    assert_eq!(after, before);
    let add = oplog.live().select(|file| file.add.level() == 1).remove(0).add;
    assert!(!add.data_change && add.is_rewritten());
    assert!(changes(pond.dir.path(), Version(11)).unwrap().is_empty(), "a merge changes nothing");
}

#[test]
fn every_version_is_read_as_it_was_once_its_own_files_are_gone() {
    let pond = Pond::new();
    let oplog = pond.open().oplog;
    for n in 0..40 {
        commit(&oplog, &with_content(n));
    }
    let shown: Vec<_> = (1..=40).map(|v| changes(pond.dir.path(), Version(v)).unwrap().len()).collect();
    let merged = merge_all(&oplog, &limits(2));
    assert_eq!(merged.len(), 1);
    let report = clean(&oplog);
    assert_eq!((report.files, report.waiting_files), (41, 0));
    for version in [0u64, 1, 17, 40, 41] {
        let fs = pond.at(version);
        assert_eq!(fs.node_count(), version.min(40) + 1, "version {version}");
        if version > 0 {
            assert_eq!(content(&fs, version.min(40) - 1).len(), 20_000);
        }
    }
    for version in 1..=40u64 {
        let rows = changes(pond.dir.path(), Version(version)).unwrap();
        assert_eq!(rows.len(), shown[version as usize - 1], "what version {version} changed");
    }
    // Nothing of this is lost with the process.
    drop(oplog);
    let opened = pond.open();
    assert_eq!(opened.tree.last_lsn(), Lsn(41));
    assert_eq!(opened.oplog.live_size().0, 1);
    opened.oplog.sweep().unwrap();
    assert_eq!(clean(&opened.oplog), CleanReport::default());
    assert_eq!(content(&TinyFs::new(opened.tree, opened.oplog), 39).len(), 20_000);
}

#[test]
fn replaced_files_stay_for_remotes_pins_and_open_files() {
    let pond = Pond::new();
    let oplog = pond.open().oplog;
    for n in 0..8 {
        commit(&oplog, &with_content(n));
    }
    let moved = merge_all(&oplog, &limits(2)).remove(0).moved;
    let in_use = |files: &std::collections::HashSet<u32>| {
        files.iter().copied().filter(|&n| n == moved[0].from.file).collect()
    };
    let mut options = CleanOptions {
        keep_replaced: Duration::ZERO,
        reads: Duration::ZERO,
        watermark: Some(Version(8)),
        in_use: &in_use,
        entries: true,
        dry_run: false,
        stop: &|| false,
    };
    assert_eq!(
        oplog.clean(&options).unwrap().files,
        0,
        "a remote has yet to get the version that replaced them"
    );
    options.watermark = Some(Version(9));
    let pin = crate::Pin::hold(pond.dir.path(), Version(3)).unwrap();
    assert_eq!(oplog.clean(&options).unwrap().files, 0, "a reader of version 3 has them open");
    drop(pin);
    options.keep_replaced = Duration::from_secs(3600);
    assert_eq!(oplog.clean(&options).unwrap().files, 0);
    options.keep_replaced = Duration::ZERO;
    options.dry_run = true;
    let would = oplog.clean(&options).unwrap();
    options.dry_run = false;
    assert_eq!(oplog.clean(&options).unwrap(), would);
    assert_eq!((would.files, would.waiting_files), (8, 1), "an open file is read from one");
    assert!(oplog.read(moved[0].from, 0, 10).is_ok());
    assert_eq!(clean(&oplog).files, 1);
}

#[test]
fn the_number_of_files_stays_small_and_each_row_is_written_anew_once_a_level() {
    let pond = Pond::new();
    let oplog = pond.open().oplog;
    let (mut most, mut written) = (0, 0);
    for n in 0..600u64 {
        commit(&oplog, &file(&format!("f{n}"), 100 + n, 2 + n));
        let done = merge_all(&oplog, &limits(8));
        written += done.iter().map(|rewritten| rewritten.replaced.0).sum::<u32>();
        most = most.max(oplog.live_size().0);
    }
    assert!(most <= 3 * 8 + 2, "{most} files");
    assert!(written <= 600 + 600 / 8 + 600 / 64 + 10, "{written} files read");
    let position = oplog.position();
    drop(oplog);
    let opened = pond.open();
    assert_eq!(opened.oplog.position(), position);
    assert_eq!(TinyFs::new(opened.tree, opened.oplog).node_count(), 601);
}

#[test]
fn a_merge_that_is_broken_off_or_not_committed_leaves_nothing() {
    let pond = Pond::new();
    let oplog = pond.open().oplog;
    for n in 0..5 {
        commit(&oplog, &with_content(n));
    }
    assert!(oplog.prepare_merge(&limits(2), &|_| false).unwrap().is_none());
    drop(oplog.prepare_merge(&limits(2), &|_| true).unwrap().unwrap());
    assert_eq!(std::fs::read_dir(pond.dir.path().join("data/_inflight")).unwrap().count(), 0);
    assert_eq!(oplog.position().version, Version(5));
    assert_eq!(merge_all(&oplog, &limits(2)).len(), 1);
}

#[test]
fn large_files_are_left_alone() {
    let pond = Pond::new();
    let oplog = pond.open().oplog;
    for n in 0..4u64 {
        commit(&oplog, &with_content(n));
    }
    let tight = MergeLimits { memory: 4 * 20_000, ..limits(2) };
    assert!(merge_all(&oplog, &tight).is_empty(), "each holds a quarter of the memory");
    let small = MergeLimits { large: 100, ..limits(2) };
    assert!(merge_all(&oplog, &small).is_empty());
}

/// A pond of 40 versions whose files were merged, all at once.
fn merged() -> (Pond, std::sync::Arc<OpLog>) {
    let pond = Pond::new();
    let oplog = pond.open().oplog;
    for n in 0..40 {
        commit(&oplog, &with_content(n));
    }
    assert_eq!(merge_all(&oplog, &limits(2)).len(), 1);
    (pond, oplog)
}

#[test]
fn a_reader_that_begins_while_it_is_chosen_what_goes_does_not_wait_and_is_heeded() {
    let (pond, oplog) = merged();
    let path = pond.dir.path().to_path_buf();
    let pin = parking_lot::Mutex::new(None);
    let begins = |_: &std::collections::HashSet<u32>| {
        let (made, is_made) = std::sync::mpsc::channel();
        let path = path.clone();
        std::thread::spawn(move || made.send(crate::Pin::hold(&path, Version(3)).unwrap()));
        let made = is_made.recv_timeout(Duration::from_secs(20));
        *pin.lock() = Some(made.expect("whoever begins to read waits for the cleaning"));
        Default::default()
    };
    let options = CleanOptions {
        keep_replaced: Duration::ZERO,
        reads: Duration::ZERO,
        watermark: None,
        in_use: &begins,
        entries: true,
        dry_run: false,
        stop: &|| false,
    };
    let report = oplog.clean(&options).unwrap();
    assert_eq!((report.files, report.waiting_files), (0, 41));
    drop(pin);
    assert_eq!(clean(&oplog).files, 41);
}

#[test]
fn a_reader_that_begins_between_two_batches_reads_its_version() {
    let (pond, oplog) = merged();
    let opened = parking_lot::Mutex::new(None);
    let asked = std::cell::Cell::new(0);
    // Asked before each batch; here a file takes as long as a batch may.
    let stop = || {
        let asked_before = asked.replace(asked.get() + 1);
        let gone = pond.dir.path().join("data").read_dir().unwrap().flatten();
        let there = gone.filter(|entry| entry.file_name().to_str().unwrap().ends_with(".parquet")).count();
        if there < 42 && opened.lock().is_none() {
            assert!(asked_before > 0);
            let pin = crate::Pin::hold(pond.dir.path(), Version(20)).unwrap();
            *opened.lock() = Some((pin, pond.at(20)));
        }
        false
    };
    let options = CleanOptions {
        keep_replaced: Duration::ZERO,
        reads: Duration::ZERO,
        watermark: None,
        in_use: &|_| Default::default(),
        entries: true,
        dry_run: false,
        stop: &stop,
    };
    crate::upkeep::clean::one_file_a_batch(|| oplog.clean(&options)).unwrap();
    let (_pin, fs) = opened.lock().take().expect("it was asked between batches");
    assert_eq!(content(&fs, 19).len(), 20_000);
    assert!(oplog.clean(&options).unwrap().files == 0, "the pin is heeded from then on");
}
