use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pond_tinyfs::{Lsn, PersistenceLayer, TinyFs};

use super::*;
use crate::rows::samples::{self, extent, file};
use crate::{Opened, Options, Origin, Version};

const MIB: usize = 1 << 20;

struct Pond {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn pond() -> Pond {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pond");
    OpLog::create(&path, samples::root(), &Origin::mount()).unwrap();
    Pond { _dir: dir, path }
}

impl Pond {
    fn open(&self) -> Opened {
        OpLog::open(&self.path, &Options::default()).unwrap()
    }

    fn files(&self, directory: &str) -> Vec<String> {
        let names = fs::read_dir(self.path.join(directory)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".parquet")).collect()
    }

    /// What the newest version says is in `/big`.
    fn big(&self) -> Vec<u8> {
        let Opened { oplog, tree, .. } = self.open();
        let fs = TinyFs::new(tree, oplog);
        let big = fs.resolve(b"/big").unwrap().id;
        fs.read(big, 0, 16 * MIB).unwrap().fill(&**fs.persistence()).unwrap()
    }
}

/// A file of one MiB whose extents are all of one byte: its rows but for them, and they.
fn big(lsn: u64, byte: u8) -> (Vec<Row>, Vec<Row>) {
    let mut rows = file("big", 100, lsn);
    rows.push(samples::file_size(100, lsn + 9, MIB as u64));
    let extents = (0..8).map(|i| extent(100, lsn + 1 + i, i << 17, vec![byte; 128 << 10])).collect();
    (rows, extents)
}

#[test]
fn a_drained_file_is_read_where_it_lies_and_a_commit_names_it() {
    let pond = pond();
    let Opened { oplog, .. } = pond.open();
    let (rows, extents) = big(2, 7);
    let (drained, placed) = oplog.drain(&[rows.clone(), extents].concat()).unwrap();
    assert_eq!((drained.len(), placed.len(), drained[0].rows()), (1, 8, 8));
    assert_eq!((pond.files("data").len(), pond.files("data/_inflight").len()), (1, 1));
    assert!(oplog.read(placed[3].location, 0, 128 << 10).unwrap() == vec![7; 128 << 10]);

    let drained: Vec<&Drained> = drained.iter().collect();
    let committed = oplog.commit_drained(&[&rows], &drained, Lsn(11), &Origin::mount()).unwrap();
    assert_eq!((committed.position.version, committed.files), (Version(1), 2));
    assert!(committed.bytes > drained[0].bytes());
    assert!(committed.placed.is_empty(), "the drain has told where the extents lie");
    assert!(pond.files("data/_inflight").is_empty());
    assert!(pond.files("data").iter().all(|name| file_name::txn_seq(name).is_some()));
    assert!(oplog.read(placed[7].location, 0, 10).unwrap() == vec![7; 10]);
    assert_eq!(oplog.sweep().unwrap().files, 0);
    drop(oplog);
    assert!(pond.big() == vec![7; MIB]);
}

#[test]
fn what_was_drained_and_not_committed_is_swept_and_was_never_there() {
    let pond = pond();
    let Opened { oplog, .. } = pond.open();
    let (rows, extents) = big(2, 1);
    oplog.commit(&[&[rows, extents].concat()], Lsn(11), &Origin::mount()).unwrap();
    let over: Vec<Row> = (0..8).map(|i| extent(100, 20 + i, i << 17, vec![2; 128 << 10])).collect();
    oplog.drain(&over).unwrap();
    drop(oplog);
    let Opened { oplog, .. } = pond.open();
    assert_eq!(oplog.sweep().unwrap().files, 1);
    assert!(pond.files("data/_inflight").is_empty());
    drop(oplog);
    assert!(pond.big() == vec![1; MIB]);
}

#[test]
fn a_commit_that_fails_after_the_file_was_named_leaves_it_to_the_next() {
    let pond = pond();
    let Opened { oplog, .. } = pond.open();
    let (rows, extents) = big(2, 7);
    let (drained, placed) = oplog.drain(&extents).unwrap();
    let drained: Vec<&Drained> = drained.iter().collect();
    // Something that is no directory stands where files are written.
    let inflight = pond.path.join("data/_inflight");
    let aside = pond.path.join("aside");
    oplog.name_drained(&drained, TxnSeq(2)).unwrap();
    fs::rename(&inflight, &aside).unwrap();
    assert!(oplog.commit_drained(&[&rows], &drained, Lsn(11), &Origin::mount()).is_err());
    fs::rename(&aside, &inflight).unwrap();
    assert!(oplog.read(placed[0].location, 0, 10).unwrap() == vec![7; 10]);
    // Another commit comes between and takes the number.
    oplog.commit(&[], Lsn(1), &Origin::mount()).unwrap();
    oplog.commit_drained(&[&rows], &drained, Lsn(11), &Origin::mount()).unwrap();
    assert!(oplog.read(placed[0].location, 0, 10).unwrap() == vec![7; 10]);
    assert_eq!(oplog.sweep().unwrap().files, 0);
    drop(oplog);
    assert!(pond.big() == vec![7; MIB]);
}

#[test]
fn readers_find_a_file_while_it_is_being_named() {
    let pond = pond();
    // No descriptors are kept, and nothing is cached: each read opens the file.
    let options = Options { cache_bytes: 0, open_files: 1, ..Options::default() };
    let Opened { oplog, .. } = OpLog::open(&pond.path, &options).unwrap();
    let extents: Vec<Row> = (0..8).map(|i| extent(100, 20 + i, i << 17, vec![2; 128 << 10])).collect();
    let (one, places) = oplog.drain(&extents).unwrap();
    let (other, others) = oplog.drain(&extents).unwrap();
    let drained: Vec<&Drained> = one.iter().chain(&other).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for place in places.iter().zip(&others).flat_map(|(a, b)| [a, b]) {
                    oplog.read(place.location, 0, 1).unwrap();
                }
            }
        });
        for txn in 2..200 {
            oplog.name_drained(&drained, TxnSeq(txn)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn another_writers_version_moves_drained_files_beside_the_journal() {
    let pond = pond();
    let Opened { oplog, .. } = pond.open();
    let (rows, extents) = big(2, 7);
    let (drained, placed) = oplog.drain(&extents).unwrap();
    let drained: Vec<&Drained> = drained.iter().collect();
    let entry = |version: u64| pond.path.join(format!("data/_delta_log/{version:020}.json"));
    fs::copy(entry(0), entry(1)).unwrap();
    let error = oplog.commit_drained(&[&rows], &drained, Lsn(11), &Origin::mount()).unwrap_err();
    let OpLogError::SomeoneElse { kept, .. } = &error else { panic!("{error}") };
    let kept: Vec<_> = fs::read_dir(kept).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(kept.iter().any(|name| name.to_str().unwrap().ends_with(".parquet")), "{kept:?}");
    assert!(oplog.read(placed[0].location, 0, 10).unwrap() == vec![7; 10]);
}

#[test]
fn drains_run_beside_commits() {
    let pond = pond();
    let Opened { oplog, .. } = pond.open();
    let oplog: Arc<OpLog> = oplog;
    std::thread::scope(|scope| {
        let drains = scope.spawn(|| {
            let rows = |n: u64| -> Vec<Row> {
                (0..8).map(|i| extent(100, 1000 + n, i << 17, vec![n as u8; 128 << 10])).collect()
            };
            (0..10).map(|n| oplog.drain(&rows(n)).unwrap()).collect::<Vec<_>>()
        });
        for lsn in 2..12 {
            oplog.commit(&[&file(&lsn.to_string(), 200 + lsn, lsn)], Lsn(lsn), &Origin::mount()).unwrap();
        }
        for (n, (_, placed)) in drains.join().unwrap().iter().enumerate() {
            assert!(oplog.read(placed[0].location, 0, 4).unwrap() == vec![n as u8; 4]);
        }
    });
    assert_eq!(oplog.position().version, Version(10));
}
