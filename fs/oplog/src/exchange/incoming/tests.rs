use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use pond_tinyfs::{Attributes, DirEntry, FileType, Lsn, NodeId, TinyFs};

use super::*;
use crate::exchange::export::{LiveFiles, VersionFiles};
use crate::rows::samples::{self, extent, fast_directory, file, resealed};
use crate::{
    At, OpLog, Options, Origin, Timeline, changes, checkpoint_bytes, checkpoint_name, entry_facts,
    entry_name, history, live_files, version_files,
};

mod follow;

/// A source with versions 0 to `versions`, each with a file of some bytes, and a place for a replica.
struct Ponds {
    _dir: tempfile::TempDir,
    source: PathBuf,
    replica: PathBuf,
}

fn ponds(versions: u64) -> Ponds {
    let dir = fast_directory();
    let (source, replica) = (dir.path().join("source"), dir.path().join("replica"));
    OpLog::create(&source, samples::root(), &Origin::command("pond init")).unwrap();
    let ponds = Ponds { _dir: dir, source, replica };
    ponds.commit(versions);
    ponds
}

impl Ponds {
    /// So many more versions on the source.
    fn commit(&self, versions: u64) {
        let opened = OpLog::open(&self.source, &Options::default()).unwrap();
        let first = opened.oplog.position().version.0 + 1;
        for version in first..first + versions {
            let (raw, lsn) = (100 + version, version * 10);
            let mut rows = file(&format!("f{version}"), raw, lsn);
            rows.push(extent(raw, lsn + 1, 0, vec![version as u8; 3000 + version as usize]));
            rows.push(samples::file_size(raw, lsn + 2, 3000 + version));
            opened.oplog.commit(&[&rows], Lsn(lsn + 2), &Origin::mount()).unwrap();
        }
    }

    fn open(&self) -> Incoming {
        Incoming::open(&self.replica).unwrap().0
    }

    fn export(&self, version: u64) -> IncomingVersion {
        let VersionFiles { position, entry, added, removed } =
            version_files(&self.source, Version(version)).unwrap();
        assert_eq!((position.version, removed.len()), (Version(version), 0));
        IncomingVersion { version: Version(version), entry, files: added }
    }

    /// Stages what is not there yet of these versions, and gives them.
    fn fetch(&self, incoming: &Incoming, versions: std::ops::RangeInclusive<u64>) -> Vec<IncomingVersion> {
        let versions: Vec<_> = versions.map(|version| self.export(version)).collect();
        for file in versions.iter().flat_map(|version| &version.files) {
            self.stage(incoming, &file.name);
        }
        versions
    }

    fn stage(&self, incoming: &Incoming, name: &str) {
        if !incoming.is_staged(name) {
            let mut staged = incoming.stage(name).unwrap();
            staged.write_all(&fs::read(self.source.join("data").join(name)).unwrap()).unwrap();
            staged.finish().unwrap();
        }
    }

    fn base(&self, incoming: &Incoming, version: u64) -> (IncomingVersion, Bytes) {
        let LiveFiles { entry, files, .. } = live_files(&self.source, Version(version)).unwrap();
        files.iter().for_each(|file| self.stage(incoming, &file.name));
        let checkpoint = checkpoint_bytes(&self.source, Version(version)).unwrap();
        (IncomingVersion { version: Version(version), entry, files }, checkpoint)
    }

    /// The replica holds the versions from the base on with the source's very bytes, and nothing waits or is left over.
    fn assert_identical(&self, first: u64, last: u64) {
        let (ours, theirs) = (held(&self.replica), held(&self.source));
        let theirs: BTreeMap<_, _> = match first {
            0 => theirs.into_iter().filter(|(name, _)| !later(&self.source, last).contains(name)).collect(),
            _ => theirs.into_iter().filter(|(name, _)| ours.contains_key(name)).collect(),
        };
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        assert!(ours == theirs, "bytes differ");
        for version in first..=last {
            assert!(ours.contains_key(&entry_name(Version(version))), "version {version}");
            assert_eq!(tree(&self.replica, version), tree(&self.source, version), "version {version}");
        }
        assert_eq!(fs::read_dir(self.replica.join("data/_inflight")).unwrap().count(), 0);
    }
}

/// Names of what the source made after a version.
fn later(source: &Path, last: u64) -> Vec<String> {
    let versions = history(source, None).unwrap().into_iter().map(|commit| commit.position.version);
    let later = versions.filter(|version| version.0 > last);
    later
        .flat_map(|version| {
            let files = version_files(source, version).unwrap().added.into_iter().map(|file| file.name);
            files.chain([entry_name(version)]).collect::<Vec<_>>()
        })
        .collect()
}

/// Log entries and data files of a pond, with their bytes; checkpoints are derived.
fn held(pond: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for directory in [pond.join("data"), pond.join("data/_delta_log")] {
        for name in listing::names(&directory).unwrap() {
            let derived = [".checkpoint.parquet", "_last_checkpoint", ".blake3"];
            if !derived.iter().any(|ending| name.ends_with(ending)) {
                found.insert(name.clone(), fs::read(directory.join(name)).unwrap());
            }
        }
    }
    found
}

/// Everything below the root directory by path, with attributes and content, as of a version.
fn tree(pond: &Path, version: u64) -> Vec<(Vec<u8>, Attributes, Vec<u8>)> {
    let opened = OpLog::open_read_only(pond, At::Version(Version(version)), &Options::default()).unwrap();
    walk(&TinyFs::read_only(opened.tree, opened.oplog))
}

fn walk(fs: &TinyFs) -> Vec<(Vec<u8>, Attributes, Vec<u8>)> {
    let mut found = Vec::new();
    let mut directories = vec![(Vec::new(), NodeId::ROOT)];
    while let Some((path, directory)) = directories.pop() {
        let mut children = Vec::new();
        let mut each = |entry: &DirEntry<'_>| {
            children.push(([&path, b"/".as_slice(), entry.name].concat(), entry.id, entry.name.to_vec()));
            true
        };
        fs.readdir(directory, 0, &mut each).unwrap();
        for (path, id, _) in children.into_iter().filter(|(.., name)| name != b"." && name != b"..") {
            let attributes = fs.getattr(id).unwrap();
            let mut content = Vec::new();
            match attributes.kind {
                FileType::Directory => directories.push((path.clone(), id)),
                FileType::File => {
                    content = fs.read(id, 0, 1 << 20).unwrap().fill(&**fs.persistence()).unwrap();
                }
                _ => {}
            }
            found.push((path, attributes, content));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn entry_path(pond: &Path, version: u64) -> PathBuf {
    pond.join("data/_delta_log").join(entry_name(Version(version)))
}

#[test]
fn what_was_exported_staged_and_applied_is_identical() {
    let ponds = ponds(12);
    let (incoming, position) = Incoming::open(&ponds.replica).unwrap();
    assert!(position.is_none() && incoming.position().is_none());
    assert!(matches!(incoming.apply(&[]), Err(OpLogError::NotApplicable { .. })));
    incoming.install_base(ponds.fetch(&incoming, 0..=0).remove(0), None).unwrap();
    let versions = ponds.fetch(&incoming, 1..=7);
    assert_eq!(incoming.staged().unwrap().len(), 7);
    let position = incoming.apply(&versions).unwrap();
    assert_eq!(position, version_files(&ponds.source, Version(7)).unwrap().position);
    assert_eq!(incoming.position(), Some(position.clone()));
    ponds.assert_identical(0, 7);
    // Again, and with some that are here and some that are not.
    assert_eq!(incoming.apply(&versions).unwrap(), position);
    assert_eq!(incoming.apply(&[]).unwrap(), position);
    incoming.apply(&ponds.fetch(&incoming, 5..=12)).unwrap();
    ponds.assert_identical(0, 12);
    let (again, position) = Incoming::open(&ponds.replica).unwrap();
    assert_eq!((again.position(), position.unwrap().version), (incoming.position(), Version(12)));
    let ours = history(&ponds.replica, None).unwrap();
    assert_eq!(ours, history(&ponds.source, None).unwrap());
    // Version 0 is like any other.
    fs::remove_dir_all(&ponds.replica).unwrap();
    let incoming = ponds.open();
    incoming.apply(&ponds.fetch(&incoming, 0..=12)).unwrap();
    ponds.assert_identical(0, 12);
}

#[test]
fn wherever_it_is_killed_it_goes_on() {
    let ponds = ponds(6);
    let bytes = |version: &IncomingVersion| version.entry.clone();
    for step in 0..8 {
        if ponds.replica.exists() {
            fs::remove_dir_all(&ponds.replica).unwrap();
        }
        let incoming = ponds.open();
        incoming.apply(&ponds.fetch(&incoming, 0..=2)).unwrap();
        // Each step goes on from the ones before; all steps of a process that is killed then.
        let data = ponds.replica.join("data");
        let log = data.join("_delta_log");
        if step >= 1 {
            let mut half = incoming.stage("half-written").unwrap();
            half.write_all(b"half").unwrap();
            std::mem::forget(half);
        }
        let versions = if step >= 2 { ponds.fetch(&incoming, 3..=6) } else { Vec::new() };
        let staged = incoming.staged().unwrap();
        if step >= 3 {
            let file = &versions[0].files[0].name;
            fs::rename(incoming.staging.path(file), data.join(file)).unwrap();
        }
        if step >= 4 {
            let files = versions.iter().map(|version| (version.version, version.files.as_slice()));
            incoming.move_files(&mut incoming.state.lock(), files).unwrap();
        }
        if step >= 5 {
            fs::write(log.join(".00000000000000000000000000000000.tmp"), b"{\"half").unwrap();
        }
        if step >= 6 {
            fs::write(entry_path(&ponds.replica, 3), bytes(&versions[0])).unwrap();
        }
        if step >= 7 {
            fs::write(entry_path(&ponds.replica, 4), bytes(&versions[1])).unwrap();
        }
        drop(incoming);
        let (incoming, position) = Incoming::open(&ponds.replica).unwrap();
        let expected = 2 + [6, 7].into_iter().filter(|&at| step >= at).count() as u64;
        assert_eq!(position.unwrap().version, Version(expected), "step {step}");
        for file in &staged {
            assert!(incoming.is_staged(&file.name), "step {step}: nothing verified is fetched again");
        }
        if step == 2 {
            assert_eq!(incoming.staged().unwrap(), staged);
        }
        let fetched = ponds.fetch(&incoming, 3..=6);
        incoming.apply(&fetched).unwrap();
        ponds.assert_identical(0, 6);
    }
}

#[test]
fn whichever_names_power_loss_takes_a_contiguous_prefix_is_left() {
    let ponds = ponds(5);
    // The names of one batch, 1 to 5, were not yet synced: each may be there or not.
    for lost in 0..32u64 {
        if ponds.replica.exists() {
            fs::remove_dir_all(&ponds.replica).unwrap();
        }
        let incoming = ponds.open();
        incoming.apply(&ponds.fetch(&incoming, 0..=5)).unwrap();
        drop(incoming);
        let gone = (1..=5).filter(|version| lost >> (version - 1) & 1 == 1);
        gone.clone().for_each(|version| fs::remove_file(entry_path(&ponds.replica, version)).unwrap());
        let expected = gone.clone().min().map_or(5, |first| first - 1);
        let (incoming, position) = Incoming::open(&ponds.replica).unwrap();
        assert_eq!(position.unwrap().version, Version(expected), "{lost:b}");
        let opened = OpLog::open_read_only(&ponds.replica, At::Tip, &Options::default()).unwrap();
        assert_eq!(opened.oplog.position().version, Version(expected));
        let aside = |pond: &Path| {
            let names = listing::names(&pond.join("data/_delta_log")).unwrap();
            names.into_iter().filter(|name| name.starts_with("gap-")).collect::<Vec<_>>()
        };
        let above = 5 - expected - gone.count() as u64;
        assert_eq!(aside(&ponds.replica).len() as u64, above, "{lost:b}");
        incoming.apply(&ponds.fetch(&incoming, 1..=5)).unwrap();
        for name in aside(&ponds.replica) {
            fs::remove_file(ponds.replica.join("data/_delta_log").join(name)).unwrap();
        }
        ponds.assert_identical(0, 5);
    }
}

#[test]
fn a_checkpoint_above_a_gap_goes_and_other_readers_see_what_is_left() {
    let ponds = ponds(70);
    let incoming = ponds.open();
    incoming.apply(&ponds.fetch(&incoming, 0..=70)).unwrap();
    incoming.checkpoint_if_due().unwrap();
    assert!(incoming.log.checkpoint_path(Version(70)).exists());
    drop(incoming);
    fs::remove_file(entry_path(&ponds.replica, 50)).unwrap();
    let (incoming, position) = Incoming::open(&ponds.replica).unwrap();
    assert_eq!(position.unwrap().version, Version(49));
    assert!(!incoming.log.checkpoint_path(Version(70)).exists());
    // deltalake makes it, so it takes version 49 for the newest, whatever else lies in the log.
    checkpoint::write(&incoming.log, Version(49)).unwrap();
    let found = OpLog::open_read_only(&ponds.replica, At::Tip, &Options::default()).unwrap();
    assert!(found.notes.is_empty());
    incoming.apply(&ponds.fetch(&incoming, 50..=70)).unwrap();
    assert_eq!(tree(&ponds.replica, 70), tree(&ponds.source, 70));
}

#[test]
fn a_history_may_begin_at_a_base() {
    let ponds = ponds(80);
    let incoming = ponds.open();
    let (base, checkpoint) = ponds.base(&incoming, 5);
    let refused = incoming.install_base(base.clone(), None);
    assert!(matches!(refused, Err(OpLogError::NotApplicable { version: Version(5), .. })));
    let mut fewer = base.clone();
    fewer.files.pop();
    let refused = incoming.install_base(fewer, Some(checkpoint.clone()));
    assert!(matches!(refused, Err(OpLogError::NotApplicable { .. })));
    let refused = incoming.install_base(base.clone(), Some(checkpoint.slice(..checkpoint.len() / 2)));
    assert!(matches!(refused, Err(OpLogError::CorruptCheckpoint { version: Version(5), .. })));
    assert!(held(&ponds.replica).is_empty());
    // Killed between checkpoint and entry.
    fs::write(incoming.log.checkpoint_path(Version(5)), &checkpoint).unwrap();
    let (incoming, position) = Incoming::open(&ponds.replica).unwrap();
    assert!(position.is_none() && !incoming.log.checkpoint_path(Version(5)).exists());

    let mut staged = incoming.stage(&checkpoint_name(Version(5))).unwrap();
    staged.write_all(&checkpoint).unwrap();
    staged.finish().unwrap();
    assert_eq!(incoming.read_staged(&checkpoint_name(Version(5))).unwrap(), Some(checkpoint.clone()));
    let position = incoming.install_base(base.clone(), Some(checkpoint.clone())).unwrap();
    assert_eq!(incoming.install_base(base.clone(), Some(checkpoint.clone())).unwrap(), position);
    ponds.assert_identical(5, 5);
    let older = incoming.apply(&[ponds.export(4)]);
    assert!(matches!(older, Err(OpLogError::NotApplicable { version: Version(4), .. })));
    incoming.apply(&ponds.fetch(&incoming, 6..=80)).unwrap();
    let refused = incoming.install_base(base, Some(checkpoint));
    assert!(matches!(refused, Err(OpLogError::NotApplicable { .. })));

    for round in ["with the base's checkpoint", "with a later one", "opened again"] {
        ponds.assert_identical(5, 6);
        ponds.assert_identical(79, 80);
        let versions = history(&ponds.replica, None).unwrap();
        assert_eq!(versions.len(), 76, "{round}");
        assert_eq!(versions[..], history(&ponds.source, None).unwrap()[..76]);
        for version in [5, 6, 80] {
            let rows = changes(&ponds.replica, Version(version)).unwrap();
            assert_eq!(rows, changes(&ponds.source, Version(version)).unwrap());
        }
        let below = OpLog::open_read_only(&ponds.replica, At::Version(Version(4)), &Options::default());
        assert!(matches!(below, Err(OpLogError::NoSuchVersion { first: Version(5), .. })));
        let below = OpLog::open_read_only(&ponds.replica, At::Timestamp(0), &Options::default());
        assert!(matches!(below, Err(OpLogError::NothingYet { .. })));
        incoming.checkpoint_if_due().unwrap();
        let listing = incoming.log.list().unwrap();
        assert_eq!((listing.entries[0], listing.checkpoints), (5, vec![5, 80]));
        assert_eq!(ponds.open().position().unwrap().version, Version(80));
    }
    // It can be exported in turn.
    let files = |pond: &Path| live_files(pond, Version(60)).unwrap().files;
    assert_eq!(files(&ponds.replica), files(&ponds.source));
}

#[test]
fn another_entry_at_the_same_version_is_refused_and_changes_nothing() {
    let ponds = ponds(4);
    let incoming = ponds.open();
    incoming.apply(&ponds.fetch(&incoming, 0..=3)).unwrap();
    let before = held(&ponds.replica);
    let other = |version: u64| {
        let mut other = ponds.export(version);
        other.entry = [other.entry.as_ref(), b"\n"].concat().into();
        other
    };
    let versions = [other(3), ponds.fetch(&incoming, 4..=4).remove(0)];
    let refused = incoming.apply(&versions).unwrap_err();
    assert!(matches!(refused, OpLogError::Diverged { version: Version(3), .. }), "{refused}");
    assert_eq!(held(&ponds.replica), before);
    // Put by one that respects no lock.
    fs::write(entry_path(&ponds.replica, 4), &other(4).entry).unwrap();
    let refused = incoming.apply(&ponds.fetch(&incoming, 4..=4)).unwrap_err();
    assert!(matches!(refused, OpLogError::Diverged { version: Version(4), .. }), "{refused}");
    fs::remove_file(entry_path(&ponds.replica, 4)).unwrap();
    assert_eq!(held(&ponds.replica), before);
    incoming.apply(&ponds.fetch(&incoming, 4..=4)).unwrap();
    ponds.assert_identical(0, 4);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_changed() {
    let ponds = ponds(6);
    let incoming = ponds.open();
    incoming.apply(&ponds.fetch(&incoming, 0..=2)).unwrap();
    let before = held(&ponds.replica);
    let good = ponds.fetch(&incoming, 3..=3).remove(0);
    let changed = |from: &str, to: &str| {
        let text = String::from_utf8(ponds.export(4).entry.to_vec()).unwrap();
        assert!(text.contains(from), "{text}");
        IncomingVersion {
            entry: resealed(&text.replace(from, to)).into(),
            ..ponds.fetch(&incoming, 4..=4).remove(0)
        }
    };
    let pond_id = OpLog::open_read_only(&ponds.source, At::Tip, &Options::default()).unwrap();
    let pond_id = pond_id.oplog.identity().pond_id.to_string();
    let needs = "{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7}}\n{\"add\":";
    let bad = [
        ("a gap", ponds.fetch(&incoming, 5..=5).remove(0)),
        ("foreign", changed(&pond_id, &PondId::random().to_string())),
        ("an older timeline", changed("\"timeline\":1", "\"timeline\":0")),
        ("an older transaction", changed("\"txn_seq\":5", "\"txn_seq\":4")),
        ("an older cut", changed("\"cut_lsn\":42", "\"cut_lsn\":2")),
        ("files it does not name", IncomingVersion { files: good.files.clone(), ..ponds.export(4) }),
        ("garbage", IncomingVersion { entry: Bytes::from_static(b"{"), ..ponds.export(4) }),
        ("not staged", {
            let version = ponds.fetch(&incoming, 4..=4).remove(0);
            incoming.discard_staged(&version.files[0].name).unwrap();
            version
        }),
    ];
    for (what, bad) in bad {
        let refused = incoming.apply(&[good.clone(), bad]).unwrap_err();
        match what {
            "garbage" => assert!(matches!(refused, OpLogError::CorruptEntry { .. }), "{what}: {refused}"),
            "not staged" => assert!(matches!(refused, OpLogError::NotStaged { .. }), "{what}: {refused}"),
            _ => assert!(matches!(refused, OpLogError::NotApplicable { .. }), "{what}: {refused}"),
        }
        assert_eq!(held(&ponds.replica), before, "{what}");
    }
    // Staged with another length: refused, and gone, so that it is fetched again.
    let version = ponds.fetch(&incoming, 4..=4).remove(0);
    let mut short = incoming.stage(&version.files[0].name).unwrap();
    short.write_all(b"short").unwrap();
    short.finish().unwrap();
    assert!(matches!(
        incoming.apply(&[good.clone(), version.clone()]),
        Err(OpLogError::NotStaged { version: Version(4), .. })
    ));
    assert!(!incoming.is_staged(&version.files[0].name));
    assert_eq!(held(&ponds.replica), before);
    // What comes before a version that this program cannot read is taken in.
    let refused = incoming.apply(&[good, changed("{\"add\":", needs)]).unwrap_err();
    assert!(matches!(refused, OpLogError::TooNew { purpose: "read", .. }), "{refused}");
    assert_eq!(incoming.position().unwrap().version, Version(3));
    incoming.apply(&ponds.fetch(&incoming, 4..=6)).unwrap();
    ponds.assert_identical(0, 6);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let ponds = ponds(1);
    let incoming = ponds.open();
    incoming.apply(&ponds.fetch(&incoming, 0..=0)).unwrap();
    let version = ponds.export(1);
    let name = version.files[0].name.clone();
    for bad in ["../x", "/x", "", ".x", "a/b", "..", "_delta_log", "x\n", "x\0y"] {
        assert!(matches!(incoming.stage(bad), Err(OpLogError::BadName { .. })), "{bad:?}");
        assert!(!incoming.is_staged(bad), "{bad:?}");
        assert!(incoming.read_staged(bad).is_err() && incoming.discard_staged(bad).is_err());
        let mut hostile = version.clone();
        hostile.files[0].name = bad.into();
        let quoted = serde_json::to_string(bad).unwrap();
        let text =
            String::from_utf8(hostile.entry.to_vec()).unwrap().replace(&format!("\"{name}\""), &quoted);
        let text = resealed(&text);
        assert_eq!(entry_facts(Version(1), text.as_bytes()).unwrap().added, hostile.files);
        hostile.entry = text.into();
        assert!(matches!(incoming.apply(&[hostile]), Err(OpLogError::BadName { .. })), "{bad:?}");
    }
    assert_eq!(incoming.position().unwrap().version, Version(0));
    assert!(incoming.staged().unwrap().is_empty());
}

#[test]
fn a_file_has_its_name_in_the_staging_area_only_once_it_is_finished() {
    let ponds = ponds(0);
    let incoming = ponds.open();
    let mut staged = incoming.stage("a").unwrap();
    staged.write_all(b"abc").unwrap();
    assert!(!incoming.is_staged("a") && incoming.staged().unwrap().is_empty());
    drop(staged);
    assert_eq!(fs::read_dir(ponds.replica.join("data/_inflight")).unwrap().count(), 0);
    let mut staged = incoming.stage("a").unwrap();
    staged.write_all(b"abc").unwrap();
    staged.finish().unwrap();
    assert_eq!(incoming.staged().unwrap(), [FileRef { name: "a".into(), length: 3, blake3: None }]);
    assert_eq!(incoming.read_staged("a").unwrap().unwrap(), "abc");
    incoming.discard_staged("a").unwrap();
    incoming.discard_staged("a").unwrap();
    assert!(!incoming.is_staged("a"));
}

#[test]
fn a_sources_sweep_removes_what_was_staged() {
    let ponds = ponds(2);
    let incoming = ponds.open();
    incoming.apply(&ponds.fetch(&incoming, 0..=1)).unwrap();
    ponds.fetch(&incoming, 2..=2);
    drop(incoming);
    // As after making a source of it.
    let opened = OpLog::open(&ponds.replica, &Options::default()).unwrap();
    assert_eq!(opened.oplog.sweep().unwrap().files, 1);
    ponds.assert_identical(0, 1);
    let timeline = |oplog: &OpLog, lsn| {
        oplog.commit(&[&file("own", 9, lsn)], Lsn(lsn), &Origin::mount()).unwrap().position.timeline
    };
    opened.oplog.set_timeline(Timeline(4));
    assert_eq!(opened.oplog.position().timeline, Timeline(1), "the version that is there stays what it is");
    assert_eq!(timeline(&opened.oplog, 100), Timeline(4));
    let again = OpLog::open(&ponds.replica, &Options::default()).unwrap();
    assert_eq!(timeline(&again.oplog, 101), Timeline(4));
}

#[test]
fn older_versions_are_filled_in_downwards_and_what_is_here_stays_one_run() {
    let ponds = ponds(9);
    let incoming = ponds.open();
    assert_eq!(incoming.oldest().unwrap(), None);
    let (base, checkpoint) = ponds.base(&incoming, 5);
    incoming.install_base(base, Some(checkpoint)).unwrap();
    let position = incoming.apply(&ponds.fetch(&incoming, 6..=9)).unwrap();
    assert_eq!(incoming.oldest().unwrap(), Some(Version(5)));
    // Only what comes right before, whole, and of this pond.
    let refused = incoming.prepend(&ponds.fetch(&incoming, 2..=3)).unwrap_err();
    assert!(matches!(refused, OpLogError::NotApplicable { version: Version(3), .. }), "{refused}");
    let mut other = ponds.fetch(&incoming, 4..=4);
    other[0].files.clear();
    assert!(matches!(incoming.prepend(&other), Err(OpLogError::NotApplicable { .. })));
    assert_eq!(incoming.oldest().unwrap(), Some(Version(5)));
    incoming.prepend(&ponds.fetch(&incoming, 3..=4)).unwrap();
    drop(incoming);

    // As after a kill: the tip is what it was, and what cannot be read yet is refused.
    let (incoming, found) = Incoming::open(&ponds.replica).unwrap();
    assert_eq!((found, incoming.oldest().unwrap()), (Some(position.clone()), Some(Version(3))));
    assert_eq!(live_files(&ponds.replica, Version(9)).unwrap().position, position);
    let refused = live_files(&ponds.replica, Version(4)).unwrap_err();
    assert!(matches!(refused, OpLogError::NoSuchVersion { first: Version(5), .. }), "{refused}");
    let opened = OpLog::open_read_only(&ponds.replica, At::Tip, &Options::default()).unwrap();
    assert_eq!(opened.oplog.position(), position);

    incoming.prepend(&ponds.fetch(&incoming, 1..=2)).unwrap();
    let base = ponds.fetch(&incoming, 0..=0).remove(0);
    incoming.prepend_base(base, None).unwrap();
    drop(incoming);
    ponds.assert_identical(0, 9);
    for version in 0..=9 {
        assert_eq!(
            live_files(&ponds.replica, Version(version)).unwrap().files,
            live_files(&ponds.source, Version(version)).unwrap().files
        );
    }
}

#[test]
fn a_history_that_is_filled_in_may_begin_at_an_older_base() {
    let ponds = ponds(9);
    let incoming = ponds.open();
    let (base, checkpoint) = ponds.base(&incoming, 7);
    incoming.install_base(base, Some(checkpoint)).unwrap();
    incoming.prepend(&ponds.fetch(&incoming, 4..=6)).unwrap();
    let (base, checkpoint) = ponds.base(&incoming, 3);
    assert!(incoming.prepend_base(base.clone(), None).is_err(), "it needs its checkpoint");
    incoming.prepend_base(base, Some(checkpoint)).unwrap();
    incoming.apply(&ponds.fetch(&incoming, 8..=9)).unwrap();
    drop(incoming);
    assert_eq!(Incoming::open(&ponds.replica).unwrap().1.unwrap().version, Version(9));
    for version in 3..=9 {
        assert_eq!(
            live_files(&ponds.replica, Version(version)).unwrap().files,
            live_files(&ponds.source, Version(version)).unwrap().files
        );
    }
    let refused = live_files(&ponds.replica, Version(2)).unwrap_err();
    assert!(matches!(refused, OpLogError::NoSuchVersion { first: Version(3), .. }), "{refused}");
}

#[test]
fn after_a_failed_sync_nothing_is_applied_until_it_is_opened_again() {
    let ponds = ponds(2);
    let incoming = ponds.open();
    incoming.apply(&ponds.fetch(&incoming, 0..=1)).unwrap();
    let error = io::Error::from_raw_os_error(libc::EIO);
    let error = incoming.state.lock().fail(&incoming.log, Version(2), error);
    assert!(matches!(error, OpLogError::Unconfirmed { version: Version(2), .. }));
    let versions = ponds.fetch(&incoming, 2..=2);
    assert!(matches!(incoming.apply(&versions), Err(OpLogError::ReadOnly { .. })));
    drop(incoming);
    ponds.open().apply(&versions).unwrap();
    ponds.assert_identical(0, 2);
}

#[test]
fn an_entrys_facts_need_no_pond() {
    let ponds = ponds(1);
    let opened = OpLog::open_read_only(&ponds.source, At::Tip, &Options::default()).unwrap().oplog;
    for version in [0, 1] {
        let exported = version_files(&ponds.source, Version(version)).unwrap();
        let facts = entry_facts(Version(version), &exported.entry).unwrap();
        assert_eq!((facts.position, facts.added), (exported.position, exported.added));
        assert_eq!(facts.pond_id, Some(opened.identity().pond_id));
        assert_eq!(facts.min_reader, (version == 0).then_some(1));
    }
    let error = entry_facts(Version(3), b"{}\n").unwrap_err();
    assert!(matches!(&error, OpLogError::CorruptEntry { version: Version(3), .. }), "{error}");
    let print = crate::schema_fingerprint(&ponds.source).unwrap();
    assert_eq!(print.len(), 64);
    assert!(matches!(version_files(&ponds.source, Version(2)), Err(OpLogError::MissingEntry { .. })));
    assert!(matches!(live_files(&ponds.source, Version(2)), Err(OpLogError::NoSuchVersion { .. })));
}
