use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pond_tinyfs::{NodeId, Row, TinyFs};

use super::*;
use crate::rows::samples::{self, extent, fast_directory, file, id};
use crate::{At, OpLog, Options, Origin, Version};

struct Pond {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

/// Bytes that do not repeat, and do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn named(version: u64) -> String {
    format!("f{version}")
}

/// A file with content that compresses, or not.
fn content(version: u64) -> Vec<u8> {
    match version % 2 {
        0 => noise(version, 40_000),
        _ => named(version).repeat(20_000).into_bytes(),
    }
}

fn commit(oplog: &OpLog, rows: &[Row]) {
    let cut = rows.iter().map(|row| row.lsn).max().unwrap();
    oplog.commit(&[rows], cut, &Origin::mount()).unwrap();
}

fn rows(version: u64) -> Vec<Row> {
    let (node, lsn) = (100 + version, 10 * version);
    let mut rows = file(&named(version), node, lsn);
    let content = content(version);
    rows.push(samples::file_size(node, lsn + 5, content.len() as u64));
    rows.push(extent(node, lsn + 4, 0, content));
    rows.sort_by_key(|row| (row.lsn, row.seq));
    rows
}

/// Versions 1 to 9 with a file each, a checkpoint of version 5, and two frames in the journal.
fn pond() -> Pond {
    let dir = fast_directory();
    let path = dir.path().join("pond");
    OpLog::create(&path, samples::root(), &Origin::command("pond init")).unwrap();
    let opened = OpLog::open(&path, &Options::default()).unwrap();
    for version in 1..=9 {
        commit(&opened.oplog, &rows(version));
        if version == 5 {
            opened.oplog.checkpoint().unwrap();
        }
    }
    for more in [10, 11] {
        opened.oplog.journal().append(&[&rows(more)]).unwrap();
    }
    Pond { _dir: dir, path }
}

impl Pond {
    fn check(&self) -> Report {
        check(&self.path, true, &()).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn data_file(&self, version: u64) -> String {
        let added = crate::version_files(&self.path, Version(version)).unwrap().added;
        format!("data/{}", added[0].name)
    }

    /// Everything in the pond whose bytes matter.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for directory in ["data", "data/_delta_log", "journal"] {
            for entry in fs::read_dir(self.file(directory)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    files.push(format!("{directory}/{}", entry.file_name().to_str().unwrap()));
                }
            }
        }
        files.sort();
        files
    }
}

/// What a reader gets of a version's files: of each its bytes, or nothing if it got an error.
fn read(opened: crate::Opened) -> BTreeMap<String, Option<Vec<u8>>> {
    let fs = TinyFs::read_only(opened.tree, opened.oplog.clone());
    let mut files = BTreeMap::new();
    for version in 1..=11 {
        let Ok(found) = fs.lookup(NodeId::ROOT, named(version).as_bytes()) else { continue };
        let plan = fs.read(found.id, 0, 1 << 20).unwrap();
        files.insert(named(version), plan.fill(&*opened.oplog).ok());
    }
    files
}

fn expected(last: u64) -> BTreeMap<String, Option<Vec<u8>>> {
    (1..=last).map(|version| (named(version), Some(content(version)))).collect()
}

/// Bytes are right or an error; and nothing is there or lacks that should not.
fn assert_not_wrong(found: BTreeMap<String, Option<Vec<u8>>>, last: u64, what: &str) {
    let expected = expected(last);
    assert!(found.keys().eq(expected.keys()), "{what}: {:?}", found.keys());
    for (name, bytes) in found {
        assert!(bytes.is_none() || bytes == expected[&name], "{what}: wrong bytes of {name}");
    }
}

#[test]
fn a_sound_pond_is_clean() {
    let pond = pond();
    let report = pond.check();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.tip.as_ref().unwrap().version, Version(9));
    assert_eq!((report.entries, report.checkpoints, report.files, report.frames), (10, 1, 10, 2));
    assert_eq!((report.extents, report.rows), (9, 1 + 9 * 5));
    let report = check(&pond.path, false, &()).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

#[test]
fn a_flipped_bit_is_named_and_never_read_as_if_it_were_right() {
    let flips = std::env::var("POND_FLIPS").map_or(60, |flips| flips.parse().unwrap());
    let pond = pond();
    let files = pond.files();
    let random = noise(std::process::id().into(), flips * 16);
    for (i, random) in random.chunks(16).enumerate() {
        let number = |at: usize| u64::from_le_bytes(random[at..at + 8].try_into().unwrap()) as usize;
        let name = &files[i % files.len()];
        let path = pond.file(name);
        let good = fs::read(&path).unwrap();
        let bit = number(0) % (8 * good.len());
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        let what = format!("bit {bit} of {name}");

        let report = pond.check();
        let names = |finding: &Finding| {
            finding.file == *name || finding.problem.contains(name.rsplit('/').next().unwrap())
        };
        assert!(report.findings.iter().any(names), "{what}: {:#?}", report.findings);
        for version in 0..=9 {
            let opened =
                OpLog::open_read_only(&pond.path, At::Version(Version(version)), &Options::default());
            if let Ok(opened) = opened {
                assert_not_wrong(read(opened), version, &what);
            }
        }
        // Recovery changes the journal: it gets a copy.
        let copy = fast_directory();
        copy_tree(&pond.path, &copy.path().join("pond"));
        if let Ok(opened) = OpLog::open(&copy.path().join("pond"), &Options::default()) {
            let last = match (opened.read_only_because.is_some(), opened.notes.is_empty()) {
                (false, true) => 11,
                _ if opened.recovered.is_empty() => 9,
                _ => 9 + opened.recovered.len() as u64 / 5,
            };
            assert_not_wrong(read(opened), last, &what);
        }
        fs::write(&path, &good).unwrap();
    }
    assert!(pond.check().findings.is_empty());
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn only(report: &Report) -> &Finding {
    let damage: Vec<_> =
        report.findings.iter().filter(|finding| finding.severity == Severity::Damage).collect();
    assert_eq!(damage.len(), 1, "{damage:#?}");
    damage[0]
}

#[test]
fn findings_say_which_paths_and_versions_they_concern() {
    let pond = pond();
    let name = pond.data_file(4);
    let path = pond.file(&name);
    let mut bytes = fs::read(&path).unwrap();
    // Noise is stored as it is.
    let at = bytes.windows(8).position(|window| window == &content(4)[..8]).unwrap();
    bytes[at + 100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let report = pond.check();
    let finding = only(&report);
    assert_eq!((&finding.file, finding.part), (&name, Part::Data));
    assert_eq!(finding.paths, ["/f4"]);
    assert_eq!((finding.first_version, finding.last_version), (Some(Version(4)), None));

    fs::remove_file(&path).unwrap();
    let report = pond.check();
    assert_eq!(only(&report).problem, "it is missing");
    assert!(report.findings.iter().any(|finding| finding.problem.contains("was not checked")));
}

#[test]
fn a_missing_entry_and_a_missing_segment_are_found() {
    let pond = pond();
    let entry = pond.file("data/_delta_log").join(crate::entry_name(Version(3)));
    let kept = fs::read(&entry).unwrap();
    fs::remove_file(&entry).unwrap();
    let report = pond.check();
    let finding = only(&report);
    assert_eq!((finding.part, finding.first_version), (Part::Entry, Some(Version(3))));
    fs::write(&entry, kept).unwrap();

    // Three segments, of which none is in the table, and the middle one is lost.
    let opened = OpLog::open(&pond.path, &Options::default()).unwrap();
    for more in [12, 13] {
        opened.oplog.journal().append(&[&rows(more)]).unwrap();
        opened.oplog.journal().rotate().unwrap();
    }
    drop(opened);
    assert!(pond.check().is_clean());
    let segments = crate::journal::segment::list(&pond.file("journal")).unwrap();
    assert_eq!(segments.len(), 3);
    fs::remove_file(&segments[1].1).unwrap();
    assert!(only(&pond.check()).problem.contains("is missing"));
    let opened = OpLog::open(&pond.path, &Options::default()).unwrap();
    assert!(opened.read_only_because.unwrap().contains("missing"));
    assert_eq!(opened.recovered.len(), 10);
}

/// Takes files from a copy.
struct Copy(PathBuf);

impl Restore for Copy {
    fn entry(&mut self, version: Version) -> Result<Vec<u8>, String> {
        fs::read(self.0.join("data/_delta_log").join(crate::entry_name(version)))
            .map_err(|error| error.to_string())
    }

    fn checkpoint(&mut self, version: Version) -> Result<Vec<u8>, String> {
        fs::read(self.0.join("data/_delta_log").join(crate::checkpoint_name(version)))
            .map_err(|error| error.to_string())
    }

    fn file(&mut self, _: Version, name: &str) -> Result<PathBuf, String> {
        Ok(self.0.join("data").join(name))
    }
}

#[test]
fn repair_puts_back_what_a_backup_has_and_keeps_what_was_damaged() {
    let pond = pond();
    let backup = fast_directory();
    let copy = backup.path().join("copy");
    copy_tree(&pond.path, &copy);
    let entry = format!("data/_delta_log/{}", crate::entry_name(Version(7)));
    let checkpoint = format!("data/_delta_log/{}", crate::checkpoint_name(Version(5)));
    let data = pond.data_file(2);
    for name in [&entry, &checkpoint, &data] {
        let mut bytes = fs::read(pond.file(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(pond.file(name), bytes).unwrap();
    }
    let gone = pond.data_file(3);
    fs::remove_file(pond.file(&gone)).unwrap();

    let report = pond.check();
    assert!(!report.is_clean());
    // Without a backup only the checkpoint can be made anew, once the entries are whole.
    let repaired = repair(&pond.path, &report, None, &()).unwrap();
    assert_eq!(repaired.failed.iter().filter(|why| why.contains("no backup")).count(), 3, "{repaired:?}");
    let repaired = repair(&pond.path, &report, Some(&mut Copy(copy.clone())), &()).unwrap();
    assert!(repaired.failed.is_empty(), "{repaired:?}");
    let report = pond.check();
    assert!(report.is_clean(), "{:#?}", report.findings);
    let opened = OpLog::open_read_only(&pond.path, At::Tip, &Options::default()).unwrap();
    assert_eq!(read(opened), expected(9));
    let kept = |name: &str| pond.files().iter().any(|file| file.starts_with(&format!("{name}.damaged-")));
    assert!(kept(&entry) && kept(&data));

    // Another file than the one that was there is not taken.
    fs::write(pond.file(&data), "x").unwrap();
    fs::write(copy.join(&data), "y").unwrap();
    let repaired = repair(&pond.path, &pond.check(), Some(&mut Copy(copy)), &()).unwrap();
    assert!(repaired.failed[0].contains("is not the one that the log means"), "{repaired:?}");
    assert_eq!(fs::read(pond.file(&data)).unwrap(), b"x");
}

/// Is cancelled once something was read.
#[derive(Default)]
struct Impatient(AtomicBool);

impl Watch for Impatient {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {
        self.0.store(true, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn what_was_not_read_to_its_end_is_not_called_damaged() {
    let pond = pond();
    let report = check(&pond.path, true, &Impatient::default()).unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
    let report = pond.check();
    let repaired = repair(&pond.path, &report, None, &Impatient(true.into())).unwrap();
    assert!(repaired.done.is_empty() && repaired.failed.is_empty(), "{repaired:?}");
}

#[test]
fn rows_that_contradict_each_other_are_found() {
    let pond = pond();
    let opened = OpLog::open(&pond.path, &Options::default()).unwrap();
    // No name, an extent over two windows, and a second row of one number.
    let lost = samples::row(200, 300, 0, file("x", 200, 300)[0].record.clone());
    let wide = extent(109, 301, 100 << 10, vec![1u8; 100 << 10]);
    commit(&opened.oplog, &[lost.clone(), wide, samples::row(110, 300, 0, lost.record)]);
    let report = pond.check();
    let problems: Vec<_> = report.findings.iter().map(|finding| finding.problem.as_str()).collect();
    for part in ["within one window", "two rows of number 0", "do not make a tree"] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:#?}");
    }
    assert!(report.findings.iter().any(|finding| finding.paths == ["/f9"]));
    assert!(report.findings.iter().any(|finding| finding.nodes.contains(&id(200))));
}

#[test]
fn what_power_loss_brings_back_of_removed_history_is_no_damage() {
    let pond = pond();
    let opened = OpLog::open(&pond.path, &Options::default()).unwrap();
    let oplog = opened.oplog;
    let (first, last) = (opened.recovered.first().unwrap().lsn, opened.recovered.last().unwrap().lsn);
    assert!(first < last);
    oplog.commit(&[&opened.recovered], last, &Origin::recovery()).unwrap();
    let log = pond.file("data/_delta_log");
    let entries: Vec<_> = (0..10).map(|version| log.join(crate::entry_name(Version(version)))).collect();
    let bytes: Vec<_> = entries.iter().map(|entry| fs::read(entry).unwrap()).collect();
    oplog.journal().release(&oplog.position()).unwrap();
    let raised = oplog.commit_floor(&oplog.floor_at(Version(8)).unwrap().into()).unwrap();
    oplog.journal().release(&raised).unwrap();
    let options = crate::CleanOptions {
        keep_replaced: std::time::Duration::ZERO,
        reads: std::time::Duration::ZERO,
        watermark: None,
        in_use: &|_| Default::default(),
        entries: true,
        dry_run: false,
        stop: &|| false,
    };
    let cleaned = oplog.clean(&options).unwrap();
    assert_eq!((cleaned.entries, cleaned.checkpoints), (8, 0));
    drop(oplog);
    assert_eq!(pond.check().findings, []);
    for version in [2, 5] {
        fs::write(&entries[version], &bytes[version]).unwrap();
    }
    assert!(pond.check().is_clean(), "{:?}", pond.check().findings);
    // A checkpoint that was being made, and one that everything builds on.
    let digest = |version| log.join(format!("_pond_checkpoint.{version:020}.blake3"));
    fs::remove_file(digest(8)).unwrap();
    let findings = pond.check().findings;
    assert!(findings.iter().any(|found| found.problem.contains("digest is missing")), "{findings:?}");
}

#[test]
fn entries_that_a_checkpoint_of_the_control_table_covers_may_be_gone() {
    let pond = pond();
    // Any table will do: this one has entries 0 to 9, and a checkpoint at 5.
    let copy = |from: PathBuf, to: PathBuf| {
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    };
    copy(pond.file("data"), pond.file("control"));
    copy(pond.file("data/_delta_log"), pond.file("control/_delta_log"));
    let missing = |pond: &Pond| -> Vec<String> {
        let findings = pond.check().findings.into_iter();
        findings.filter(|found| found.problem == "it is missing").map(|found| found.file).collect()
    };
    assert_eq!(missing(&pond), [""; 0]);
    // Their removal was under way when the power went.
    let entry = |version| format!("control/_delta_log/{}", crate::entry_name(Version(version)));
    [1, 3].into_iter().for_each(|version| fs::remove_file(pond.file(&entry(version))).unwrap());
    assert_eq!(missing(&pond), [""; 0]);
    fs::remove_file(pond.file(&entry(7))).unwrap();
    assert_eq!(missing(&pond), [entry(7)]);
}
