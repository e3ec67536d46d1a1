use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use pond_tinyfs::{ExtentContent, Lsn, Record, Row, TinyFs};

use super::*;
use crate::files::digests::{self, Digests};
use crate::journal::recovery;
use crate::journal::segment::base_of;
use crate::rows::samples::{self, extent, file, id};
use crate::{At, Committed, Opened, Options, Origin, TxnSeq, changes, history, history_of};

struct Pond {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn pond() -> Pond {
    let dir = tempfile::tempdir().unwrap();
    // No character of the path may matter.
    let path = dir.path().join("a pond #1 %20 ü");
    OpLog::create(&path, samples::root(), &Origin::command("pond init")).unwrap();
    Pond { _dir: dir, path }
}

impl Pond {
    fn open(&self) -> Opened {
        OpLog::open(&self.path, &Options::default()).unwrap()
    }

    fn fails(&self) -> OpLogError {
        match OpLog::open(&self.path, &Options::default()) {
            Err(error) => error,
            Ok(_) => panic!("the pond opened"),
        }
    }

    fn data_files(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> =
            fs::read_dir(self.path.join("data")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
        paths.sort();
        paths
    }

    fn entry(&self, version: u64) -> PathBuf {
        self.path.join(format!("data/_delta_log/{version:020}.json"))
    }
}

fn commit(oplog: &OpLog, rows: &[Row]) -> Committed {
    let cut = rows.iter().map(|row| row.lsn).max().unwrap_or_default();
    oplog.commit(&[rows], cut, &Origin::mount()).unwrap()
}

/// What the log says of a data file that is as it was written; of the rest nobody asks who reads extents.
fn digests(path: &Path) -> Digests {
    let bytes = fs::read(path).unwrap();
    let length = digests::footer_length(bytes.last_chunk().unwrap()).unwrap() as usize;
    let footer = blake3::hash(&bytes[bytes.len() - length..]).to_hex().to_string();
    Digests { footer, footprint: String::new(), file: String::new() }
}

fn bytes_of(row: &Row) -> Bytes {
    match &row.record {
        Record::Extent(extent) => match &extent.content {
            ExtentContent::Memory(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// A file of 300 KiB in three extents, and what reading it must give.
fn three_extents(raw: u64, lsn: u64) -> Vec<Row> {
    let mut rows = file("big", raw, lsn);
    for (i, length) in [128 << 10, 128 << 10, 44 << 10].into_iter().enumerate() {
        let bytes: Vec<u8> = (0..length).map(|byte| (byte % 251) as u8 ^ i as u8).collect();
        rows.push(extent(raw, lsn + 1 + i as u64, (i as u64) << 17, bytes));
    }
    rows.push(samples::file_size(raw, lsn + 4, 300 << 10));
    rows
}

#[test]
fn a_new_pond_holds_its_root_and_nothing_else() {
    let pond = pond();
    let opened = pond.open();
    assert_eq!(opened.oplog.position().version, Version(0));
    assert_eq!(opened.oplog.position().txn_seq, TxnSeq(1));
    assert_eq!(opened.oplog.position().cut_lsn, Lsn(1));
    assert!(opened.recovered.is_empty() && opened.notes.is_empty() && opened.read_only_because.is_none());
    let fs = TinyFs::new(opened.tree, opened.oplog);
    assert_eq!(fs.node_count(), 1);
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let pond = pond();
    let rows = three_extents(77, 2);
    let position = {
        let opened = pond.open();
        let committed = commit(&opened.oplog, &rows);
        assert_eq!(committed.position.version, Version(1));
        assert_eq!(committed.placed.len(), 3);
        for placed in &committed.placed {
            let row = rows.iter().find(|row| row.lsn == placed.lsn && row.seq == placed.seq).unwrap();
            let read = opened.oplog.read(placed.location, 10, placed.length - 10).unwrap();
            assert_eq!(read, bytes_of(row).slice(10..));
            assert_eq!(opened.oplog.read_cached(placed.location, 0, 5).unwrap(), bytes_of(row).slice(..5));
        }
        committed.position
    };
    let opened = pond.open();
    assert_eq!(opened.oplog.position(), position);
    let fs = TinyFs::new(opened.tree, opened.oplog.clone());
    let plan = fs.read(id(77), 0, 400 << 10).unwrap();
    assert_eq!(plan.len(), 300 << 10);
    let content = plan.fill(&*opened.oplog).unwrap();
    let expected: Vec<u8> = rows[3..6].iter().flat_map(bytes_of).collect();
    assert!(content == expected);
}

#[test]
fn every_version_can_be_opened_as_it_was() {
    let pond = pond();
    let opened = pond.open();
    let mut times = vec![opened.oplog.position().timestamp];
    for i in 0..20u64 {
        times.push(commit(&opened.oplog, &file(&format!("f{i}"), 100 + i, 2 + i)).position.timestamp);
    }
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    let nodes = |at| {
        let opened = OpLog::open_read_only(&pond.path, at, &Options::default())?;
        Ok::<_, OpLogError>(TinyFs::read_only(opened.tree, opened.oplog).node_count())
    };
    for round in ["without a checkpoint", "with one"] {
        for version in 0..=20 {
            assert_eq!(nodes(At::Version(Version(version))).unwrap(), version + 1, "{round}");
            assert_eq!(nodes(At::Timestamp(times[version as usize])).unwrap(), version + 1, "{round}");
            assert_eq!(nodes(At::Timestamp(times[version as usize] + 999)).unwrap(), version + 1, "{round}");
        }
        assert_eq!(nodes(At::Tip).unwrap(), 21, "{round}");
        assert_eq!(opened.oplog.checkpoint().unwrap(), Version(20));
    }
    assert!(matches!(
        nodes(At::Version(Version(21))),
        Err(OpLogError::NoSuchVersion { last: Version(20), .. })
    ));
    assert!(matches!(nodes(At::Timestamp(times[0] - 1)), Err(OpLogError::NothingYet { .. })));
    let read_only = OpLog::open_read_only(&pond.path, At::Tip, &Options::default()).unwrap().oplog;
    assert!(matches!(read_only.commit(&[], Lsn(99), &Origin::mount()), Err(OpLogError::ReadOnly { .. })));
    assert!(read_only.journal().append(&[&file("x", 9, 99)]).is_err());
}

#[test]
fn commits_after_a_checkpoint_build_on_it() {
    let pond = pond();
    let opened = pond.open();
    for i in 0..10u64 {
        commit(&opened.oplog, &file(&format!("f{i}"), 100 + i, 2 + i));
        if i == 4 {
            opened.oplog.checkpoint().unwrap();
        }
    }
    // With the first entries gone the checkpoint is all there is of them.
    for version in 0..4 {
        fs::remove_file(pond.entry(version)).unwrap();
    }
    let opened = pond.open();
    assert!(opened.notes.is_empty(), "{:?}", opened.notes);
    assert_eq!(TinyFs::new(opened.tree, opened.oplog).node_count(), 11);
    let gone = OpLog::open_read_only(&pond.path, At::Version(Version(3)), &Options::default());
    assert!(matches!(gone, Err(OpLogError::NoSuchVersion { first: Version(5), .. })));
}

#[test]
fn a_corrupt_checkpoint_is_passed_over_while_the_entries_are_there() {
    let pond = pond();
    let opened = pond.open();
    commit(&opened.oplog, &file("a", 100, 2));
    opened.oplog.checkpoint().unwrap();
    let checkpoint = pond.path.join("data/_delta_log/00000000000000000001.checkpoint.parquet");
    let length = fs::metadata(&checkpoint).unwrap().len();
    fs::OpenOptions::new().write(true).open(&checkpoint).unwrap().set_len(length / 2).unwrap();
    let opened = pond.open();
    assert!(opened.notes[0].contains("00000000000000000001.checkpoint.parquet"), "{:?}", opened.notes);
    assert_eq!(TinyFs::new(opened.tree, opened.oplog).node_count(), 2);
    fs::remove_file(pond.entry(0)).unwrap();
    assert!(matches!(pond.fails(), OpLogError::CorruptCheckpoint { version: Version(1), .. }));
}

#[test]
fn a_checkpoint_that_cannot_be_read_for_now_stays_in_its_place() {
    let pond = pond();
    let opened = pond.open();
    commit(&opened.oplog, &file("a", 100, 2));
    opened.oplog.checkpoint().unwrap();
    opened.oplog.commit(&[], Lsn(9), &Origin::command("pond sync")).unwrap();
    let checkpoint = pond.path.join("data/_delta_log/00000000000000000001.checkpoint.parquet");
    let away = pond.path.join("away");
    fs::rename(&checkpoint, &away).unwrap();
    // A link to itself is there and cannot be opened, as where there are no descriptors left.
    std::os::unix::fs::symlink(&checkpoint, &checkpoint).unwrap();
    assert!(pond.open().notes[0].contains("00000000000000000001.checkpoint.parquet"));
    // Whether that succeeds is not the point.
    let _ = opened.oplog.checkpoint();
    assert!(checkpoint.is_symlink(), "it was set aside");
    fs::rename(&away, &checkpoint).unwrap();
    assert_eq!(pond.open().notes, [""; 0]);
}

#[test]
fn history_and_changes_tell_what_happened() {
    let pond = pond();
    let opened = pond.open();
    let rows = three_extents(77, 2);
    commit(&opened.oplog, &rows);
    opened.oplog.commit(&[], Lsn(9), &Origin::command("pond sync")).unwrap();
    let commits = history(&pond.path, None).unwrap();
    let versions: Vec<_> = commits.iter().map(|commit| commit.position.version.0).collect();
    assert_eq!(versions, [2, 1, 0]);
    assert_eq!(commits[0].origin, Origin::command("pond sync"));
    assert_eq!((commits[0].rows, commits[0].files), (0, 0));
    assert_eq!((commits[1].rows, commits[1].files), (rows.len() as u64, 1));
    assert_eq!(commits[0].position, opened.oplog.position());
    assert_eq!(history(&pond.path, Some(1)).unwrap().len(), 1);
    // Whatever came since.
    let asked = history_of(&pond.path, Version(0)..=Version(1)).unwrap();
    assert_eq!(asked.iter().map(|commit| commit.position.version.0).collect::<Vec<_>>(), [0, 1]);
    let changed = changes(&pond.path, Version(1)).unwrap();
    let key = |row: &Row| (row.lsn, row.seq, row.node);
    assert_eq!(changed.iter().map(key).collect::<Vec<_>>(), rows.iter().map(key).collect::<Vec<_>>());
    assert_eq!(changed[0], rows[0]);
    assert!(matches!(changes(&pond.path, Version(9)), Err(OpLogError::NoSuchVersion { .. })));
}

#[test]
fn much_content_goes_into_content_files_and_metadata_into_one_of_its_own() {
    let pond = pond();
    let opened = pond.open();
    let mut rows = file("big", 77, 2);
    for i in 0..100u64 {
        rows.push(extent(77, 3 + i, i << 17, vec![i as u8; 128 << 10]));
    }
    rows.push(samples::file_size(77, 103, 100 << 17));
    let committed = commit(&opened.oplog, &rows);
    assert_eq!(committed.files, 2);
    assert_eq!(committed.placed.len(), 100);
    for placed in &committed.placed {
        assert_eq!(opened.oplog.read(placed.location, 100, 50).unwrap(), vec![(placed.lsn.0 - 3) as u8; 50]);
    }
    let opened = pond.open();
    assert_eq!(TinyFs::new(opened.tree, opened.oplog).node_count(), 2);
}

#[test]
fn small_extents_share_pages_and_read_back() {
    let pond = pond();
    let opened = pond.open();
    let rows: Vec<Row> = (0..3000u64)
        .map(|i| {
            extent(1000 + i, 2 + i, 0, (0..(i * 37) % 5000 + 1).map(|b| (b * i) as u8).collect::<Vec<_>>())
        })
        .collect();
    let committed = commit(&opened.oplog, &rows);
    let by_lsn: BTreeMap<Lsn, &Row> = rows.iter().map(|row| (row.lsn, row)).collect();
    for placed in &committed.placed {
        let read = opened.oplog.read(placed.location, 0, placed.length).unwrap();
        assert_eq!(read, bytes_of(by_lsn[&placed.lsn]));
    }
}

#[test]
fn damaged_bytes_are_never_returned() {
    let pond = pond();
    let opened = pond.open();
    // Incompressible, so that it is stored as it is and can be found.
    let mut seed = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as u8
    })
    .take(100_000)
    .collect();
    let rows = [extent(5, 2, 0, noise.clone())];
    let placed = commit(&opened.oplog, &rows).placed[0];
    let path = pond.data_files().pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(64).position(|window| window == &noise[50_000..50_064]).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[noise[50_000] ^ 1], at as u64).unwrap();
    let error = opened.oplog.read(placed.location, 0, 10).unwrap_err();
    assert!(error.message.contains(path.to_str().unwrap()) && error.message.contains("checksum"), "{error}");
    assert_eq!(error.errno, libc::EIO);
    assert!(opened.oplog.read_cached(placed.location, 0, 10).is_none());
    file.write_all_at(&[noise[50_000]], at as u64).unwrap();
    assert_eq!(opened.oplog.read(placed.location, 0, 10).unwrap(), noise[..10]);
}

#[test]
fn a_read_from_a_file_damaged_anywhere_gives_the_right_bytes_or_an_error() {
    let pond = pond();
    let opened = pond.open();
    let text: Vec<u8> = (0..40_000u32).flat_map(|i| (i % 997).to_string().into_bytes()).collect();
    let rows = [extent(5, 2, 0, text[..100_000].to_vec()), extent(6, 3, 0, text[..50].to_vec())];
    let placed = commit(&opened.oplog, &rows).placed;
    let name = pond.data_files().pop().unwrap();
    let whole = fs::read(&name).unwrap();
    let digests = digests(&name);
    for at in (0..whole.len()).step_by(11) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&name, &damaged).unwrap();
        let files = DataFiles::new(&pond.path.join("data"), 1 << 20, 1);
        let file = files.add(name.file_name().unwrap().to_str().unwrap(), Some(&digests));
        for (row, placed) in rows.iter().zip(&placed) {
            let location = Location { file, row: placed.location.row };
            match files.read(location, 0, placed.length) {
                Ok(read) => assert!(read == bytes_of(row), "byte {at}"),
                Err(error) => assert_eq!(error.errno, libc::EIO),
            }
        }
    }
}

#[test]
fn any_flipped_byte_that_a_load_reads_is_noticed() {
    let pond = pond();
    commit(&pond.open().oplog, &file("name", 100, 2));
    let path = pond.data_files().pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let mut unnoticed = 0;
    // Every bit has its turn, the footer's above all: what parses it panics on some damage.
    for at in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at / 3 % 8);
        fs::write(&path, &damaged).unwrap();
        match OpLog::open(&pond.path, &Options::default()) {
            Err(OpLogError::CorruptFile { path: named, .. }) => assert_eq!(named, path),
            Err(other) => panic!("byte {at}: {other}"),
            // The first magic and the page indexes are not read.
            Ok(_) => unnoticed += 3,
        }
    }
    assert!(unnoticed < whole.len() / 4, "{unnoticed} of {} bytes may be damaged unnoticed", whole.len());
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(pond.fails(), OpLogError::CorruptFile { .. }));
    fs::remove_file(&path).unwrap();
    assert!(matches!(pond.fails(), OpLogError::MissingFile { version: Version(1), .. }));
}

#[test]
fn what_is_no_pond_or_a_newer_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| OpLog::open(path, &Options::default()).map(|_| ()).unwrap_err();
    assert!(matches!(open(dir.path()), OpLogError::NotAPond { .. }));
    assert!(matches!(open(&dir.path().join("nothing")), OpLogError::NotAPond { .. }));

    let pond = pond();
    let first = fs::read_to_string(pond.entry(0)).unwrap();
    fs::write(
        pond.entry(0),
        samples::resealed(&first.replace("\"pond.minWriter\":\"1\"", "\"pond.minWriter\":\"3\"")),
    )
    .unwrap();
    assert!(matches!(pond.fails(), OpLogError::TooNew { purpose: "write", needed: 3, .. }));
    OpLog::open_read_only(&pond.path, At::Tip, &Options::default()).unwrap();
    fs::write(
        pond.entry(0),
        samples::resealed(&first.replace("\"pond.minReader\":\"1\"", "\"pond.minReader\":\"7\"")),
    )
    .unwrap();
    assert!(matches!(pond.fails(), OpLogError::TooNew { purpose: "read", needed: 7, .. }));
    fs::write(pond.entry(0), samples::resealed(&first.replace("pond.id", "other.id"))).unwrap();
    assert!(matches!(pond.fails(), OpLogError::NotAPond { .. }));
    fs::write(pond.entry(0), &first[..first.len() / 2]).unwrap();
    assert!(matches!(pond.fails(), OpLogError::CorruptEntry { version: Version(0), .. }));
    assert!(matches!(
        OpLog::create(&pond.path, samples::root(), &Origin::mount()),
        Err(OpLogError::Exists { .. })
    ));
}

#[test]
fn a_missing_entry_is_named() {
    let pond = pond();
    let opened = pond.open();
    for i in 0..3u64 {
        commit(&opened.oplog, &file(&format!("f{i}"), 100 + i, 2 + i));
    }
    fs::remove_file(pond.entry(2)).unwrap();
    assert!(matches!(pond.fails(), OpLogError::MissingEntry { version: Version(2), .. }));
}

#[test]
fn another_writers_entry_ends_writing_and_drops_nothing() {
    let pond = pond();
    let opened = pond.open();
    opened.oplog.journal().append(&[&file("journaled", 100, 2)]).unwrap();
    fs::copy(pond.entry(0), pond.entry(1)).unwrap();
    let theirs = fs::read(pond.entry(1)).unwrap();
    let rows = file("not journaled", 101, 3);
    let error = opened.oplog.commit(&[&rows], Lsn(3), &Origin::mount()).unwrap_err();
    let OpLogError::SomeoneElse { version: Version(1), kept, .. } = &error else { panic!("{error}") };
    assert_eq!(error.errno(), libc::EROFS);
    assert_eq!(fs::read(pond.entry(1)).unwrap(), theirs);
    assert_eq!(fs::read_dir(kept).unwrap().count(), 2);
    // What was moved away can still be read like any journal.
    let none = |_: u64| Ok(Some(base_of(&opened.oplog.position()).digest));
    let recovered =
        recovery::recover(Path::new(kept), opened.oplog.identity().pond_id, Lsn(1), 0, &none).unwrap();
    assert_eq!(recovered.rows, [file("journaled", 100, 2), rows.clone()].concat());
    assert!(matches!(
        opened.oplog.commit(&[&rows], Lsn(3), &Origin::mount()),
        Err(OpLogError::ReadOnly { .. })
    ));
    assert!(opened.oplog.journal().append(&[&rows]).is_err());
}

#[test]
fn the_journal_brings_back_what_no_commit_holds() {
    let pond = pond();
    {
        let opened = pond.open();
        opened.oplog.journal().append(&[&file("committed", 100, 2)]).unwrap();
        opened.oplog.journal().append(&[&file("later", 101, 3)]).unwrap();
        commit(&opened.oplog, &file("committed", 100, 2));
    }
    let opened = pond.open();
    assert_eq!(opened.recovered, file("later", 101, 3));
    let position = commit(&opened.oplog, &opened.recovered).position;
    let fs = TinyFs::new(opened.tree, opened.oplog.clone());
    assert_eq!(fs.node_count(), 3);
    opened.oplog.journal().release(&position).unwrap();
    assert_eq!(opened.oplog.journal().size().segments, 0);
    let opened = pond.open();
    assert!(opened.recovered.is_empty());
    assert_eq!(TinyFs::new(opened.tree, opened.oplog).node_count(), 3);
}

#[test]
fn a_journal_on_top_of_another_history_is_not_replayed() {
    let pond = pond();
    {
        let opened = pond.open();
        let position = commit(&opened.oplog, &file("a", 100, 2)).position;
        opened.oplog.journal().release(&position).unwrap();
        opened.oplog.journal().append(&[&file("b", 101, 3)]).unwrap();
    }
    // As after restoring data/ from an older copy.
    fs::remove_file(pond.entry(1)).unwrap();
    let opened = pond.open();
    assert!(opened.read_only_because.unwrap().contains("version 1"));
    assert!(opened.recovered.is_empty());
    assert!(matches!(opened.oplog.commit(&[], Lsn(9), &Origin::mount()), Err(OpLogError::ReadOnly { .. })));
}

#[test]
fn the_sweep_removes_what_was_never_committed_and_nothing_else() {
    let pond = pond();
    let opened = pond.open();
    for i in 0..5u64 {
        commit(&opened.oplog, &file(&format!("f{i}"), 100 + i, 2 + i));
    }
    let committed = pond.data_files();
    let data = pond.path.join("data");
    for name in [
        "txn-0000000007-00000000-0000-0000-0000-000000000000.parquet",
        // A first try of a transaction that another file committed.
        "txn-0000000003-00000000-0000-0000-0000-000000000000.parquet",
        "_inflight/txn-0000000003-00000000-0000-0000-0000-000000000000.parquet",
        "_delta_log/.00000000000000000000000000000000.tmp",
    ] {
        fs::write(data.join(name), b"leftover").unwrap();
    }
    fs::write(data.join("someone's notes.txt"), b"keep").unwrap();
    let opened = pond.open();
    let report = opened.oplog.sweep().unwrap();
    assert_eq!((report.files, report.bytes), (4, 32));
    assert_eq!(pond.data_files(), committed);
    assert!(data.join("someone's notes.txt").exists());
    assert_eq!(opened.oplog.sweep().unwrap(), crate::SweepReport::default());
}

#[test]
fn the_sweep_keeps_files_that_only_an_older_version_names() {
    let pond = pond();
    let opened = pond.open();
    for i in 0..3u64 {
        commit(&opened.oplog, &file(&format!("f{i}"), 100 + i, 2 + i));
    }
    // As compaction will: a version that removes a file.
    let replaced = pond.data_files()[1].file_name().unwrap().to_str().unwrap().to_string();
    let entry = fs::read_to_string(pond.entry(3)).unwrap();
    let remove = format!("{{\"remove\":{{\"path\":\"{replaced}\",\"dataChange\":false}}}}\n");
    fs::write(pond.entry(3), samples::resealed(&(entry + &remove))).unwrap();
    let snapshot = snapshot::load(&Log::new(&pond.path.join("data")), At::Tip).unwrap();
    assert!(!snapshot.files.contains_key(&replaced));
    let log = OpLog::open_read_only(&pond.path, At::Version(Version(0)), &Options::default()).unwrap().oplog;
    // An OpLog that knows of no file but the first must find the rest in the log.
    let position = pond.open().oplog.position();
    let log = Arc::into_inner(log).unwrap();
    let log = OpLog { position: RwLock::new(position), turns: Turns::new(Ok(())), ..log };
    assert_eq!(log.sweep().unwrap(), crate::SweepReport::default());
    assert!(pond.path.join("data").join(replaced).exists());
}

#[test]
fn any_number_of_commits_leaves_strictly_growing_numbers() {
    let pond = pond();
    let opened = pond.open();
    let mut last = opened.oplog.position();
    for i in 0..50u64 {
        let position = commit(&opened.oplog, &file(&format!("f{i}"), 100 + i, 2 + i)).position;
        assert_eq!(position.version, last.version.next());
        assert_eq!(position.txn_seq, last.txn_seq.next());
        assert!(position.timestamp > last.timestamp && position.cut_lsn > last.cut_lsn);
        last = position;
    }
}

/// A small filesystem of its own; needs root.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(options: &str) -> Self {
        use std::ffi::CString;
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let target = CString::new(dir.path().as_os_str().as_bytes()).unwrap();
        let options = CString::new(options).unwrap();
        // SAFETY: all strings are NUL-terminated and live through the call.
        let mounted = unsafe {
            libc::mount(c"none".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast())
        };
        assert_eq!(mounted, 0, "cannot mount: {}", std::io::Error::last_os_error());
        SmallDisk { dir }
    }

    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.dir.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        use std::os::unix::ffi::OsStrExt;
        let target = std::ffi::CString::new(self.dir.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: the string is NUL-terminated and lives through the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_full_disk_fails_the_commit_and_the_same_commit_succeeds_later() {
    let disk = SmallDisk::mount("size=4m");
    let path = disk.dir.path().join("pond");
    OpLog::create(&path, samples::root(), &Origin::mount()).unwrap();
    let opened = OpLog::open(&path, &Options::default()).unwrap();
    let rows = three_extents(77, 2);
    let names = |directory: PathBuf| {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let layout = opened.oplog.layout().clone();
    let before = (names(layout.data()), names(layout.delta_log()), names(layout.inflight()));
    let large = [extent(5, 9, 0, vec![1; 128 << 10])];
    // Full at once, and full after so many more pages: in the data file, and in the log entry.
    let mut committed = false;
    for pages in 0..40 {
        let filler = disk.fill();
        let length = fs::metadata(&filler).unwrap().len();
        fs::OpenOptions::new()
            .write(true)
            .open(&filler)
            .unwrap()
            .set_len(length.saturating_sub(pages * 4096))
            .unwrap();
        let result = opened.oplog.commit(&[&rows], Lsn(6), &Origin::mount());
        committed = result.is_ok();
        if let Err(error) = result {
            assert!(error.is_full(), "{error}");
            assert_eq!(error.errno(), libc::ENOSPC);
            assert_eq!((names(layout.data()), names(layout.delta_log()), names(layout.inflight())), before);
            assert_eq!(opened.oplog.position().version, Version(0));
            // The journal takes its frame back, too.
            let error = opened.oplog.journal().append(&[&large]).unwrap_err();
            assert!(error.is_full(), "{error}");
            assert!(!opened.oplog.journal().must_restart());
        }
        fs::remove_file(filler).unwrap();
        if committed {
            assert!(pages > 2);
            break;
        }
    }
    assert!(committed);
    opened.oplog.journal().append(&[&file("later", 90, 50)]).unwrap();
    let opened = OpLog::open(&path, &Options::default()).unwrap();
    assert_eq!(opened.oplog.position().version, Version(1));
    assert_eq!(opened.recovered, file("later", 90, 50));
}
