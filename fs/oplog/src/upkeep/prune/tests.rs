use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pond_tinyfs::{Caller, Fallocate, Make, NodeId, RenameFlags, SetAttributes, TinyFs, WriteFlags};

use super::*;
use crate::rows::samples;
use crate::{At, CleanOptions, MergeLimits, Options, Origin, Retained, Version, View, Views};

/// Pseudo-random numbers (xorshift), so that a failing case can be had again by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

struct Pond {
    dir: tempfile::TempDir,
    oplog: Arc<OpLog>,
    fs: TinyFs,
    /// Digest of the tree at each version, taken from the tree that made it.
    digests: Vec<blake3::Hash>,
}

/// Everything that a reader can see of a tree.
fn digest(fs: &TinyFs) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut directories = vec![NodeId::ROOT];
    while let Some(directory) = directories.pop() {
        hasher.update(format!("{:?}", fs.getattr(directory).unwrap()).as_bytes());
        let mut children = Vec::new();
        fs.readdir(directory, 0, &mut |entry| {
            hasher.update(entry.name);
            hasher.update(&(entry.offset as u32).to_le_bytes());
            if entry.name != b"." && entry.name != b".." {
                children.push((entry.id, entry.kind));
            }
            true
        })
        .unwrap();
        for (id, kind) in children {
            match kind {
                pond_tinyfs::FileType::Directory => directories.push(id),
                kind => {
                    let attributes = fs.getattr(id).unwrap();
                    hasher.update(format!("{attributes:?}").as_bytes());
                    if kind == pond_tinyfs::FileType::File {
                        let plan = fs.read(id, 0, attributes.size as usize).unwrap();
                        hasher.update(&plan.fill(&**fs.persistence()).unwrap());
                        hasher.update(&fs.seek_hole(id, 0).unwrap_or_default().to_le_bytes());
                    } else {
                        hasher.update(&fs.readlink(id).unwrap());
                    }
                }
            }
        }
    }
    hasher.finalize()
}

impl Pond {
    fn new() -> Self {
        let dir = samples::fast_directory();
        let root = pond_tinyfs::root_row(pond_tinyfs::Timestamp(0), 0, 0);
        OpLog::create(dir.path(), root, &Origin::command("pond init")).unwrap();
        let (oplog, fs) = open(dir.path());
        let digests = vec![digest(&fs)];
        Pond { dir, oplog, fs, digests }
    }

    fn commit(&mut self) {
        let cut = self.fs.cut();
        let committed = self.oplog.commit(&[&cut.rows], cut.cut_lsn, &Origin::mount()).unwrap();
        self.fs.stored(&committed.placed);
        self.made();
    }

    fn made(&mut self) {
        self.oplog.journal().release(&self.oplog.position()).unwrap();
        self.digests.push(digest(&self.fs));
        assert_eq!(self.digests.len() as u64, self.oplog.position().version.0 + 1);
    }

    fn put(&mut self, rewrite: Rewrite) {
        let rewritten = self.oplog.commit_rewrite(rewrite).unwrap();
        self.fs.relocated(&rewritten.moved);
        self.made();
    }

    fn merge(&mut self, fan_in: usize) {
        let limits = MergeLimits { fan_in, ..MergeLimits::default() };
        while let Some(rewrite) = self.oplog.prepare_merge(&limits, &|_| true).unwrap() {
            self.put(rewrite);
        }
    }

    fn prune(&mut self, floor: u64, limits: &MergeLimits) -> Option<PruneReport> {
        self.thin(floor, |_| false, limits)
    }

    /// Keeps, of the versions below the floor, those for which `stays` holds.
    fn thin(
        &mut self,
        floor: u64,
        mut stays: impl FnMut(Version) -> bool,
        limits: &MergeLimits,
    ) -> Option<PruneReport> {
        let floor = self.oplog.floor_at(Version(floor)).unwrap();
        let before = self.oplog.floor().map_or(Version(0), |floor| floor.version);
        let mut below = self.oplog.kept();
        below.extend(self.oplog.describe(before..floor.version).unwrap());
        below.retain(|kept| stays(kept.version()));
        let retained = Retained { floor, below };
        self.oplog.commit_floor(&retained).unwrap();
        self.made();
        let would = self.oplog.would_prune(&retained, limits, &|_| true).unwrap();
        let pruned = self.oplog.prepare_prune(&retained, limits, u64::MAX, &|_| true).unwrap();
        let Some((rewrite, report)) = pruned else {
            assert_eq!(would, PruneReport::default());
            return None;
        };
        assert_eq!((would.files, would.rows), (report.files, report.rows));
        self.put(rewrite);
        Some(report)
    }

    fn clean(&self) {
        let in_use = |files: &HashSet<u32>| self.fs.files_in_use(files);
        let options = CleanOptions {
            keep_replaced: Duration::ZERO,
            reads: Duration::ZERO,
            watermark: None,
            in_use: &in_use,
            entries: true,
            dry_run: false,
            stop: &|| false,
        };
        self.oplog.clean(&options).unwrap();
    }

    /// Every version that is kept is what it was when it was made, and the others are refused: in whatever order they are
    /// opened, and also while others are that share nodes with it.
    fn check(&self, floor: u64, seed: u64) {
        let views = Views::new(self.dir.path(), &Options::default());
        self.check_with(&views, floor, seed);
    }

    /// The same with versions that may be open already.
    fn check_with(&self, views: &Views, floor: u64, seed: u64) {
        let mut random = Random(seed.max(1));
        let below: Vec<u64> = self.oplog.kept().iter().map(|kept| kept.version().0).collect();
        let mut order: Vec<u64> = (0..self.digests.len() as u64).collect();
        for n in (1..order.len()).rev() {
            order.swap(n, random.below(n as u64 + 1) as usize);
        }
        let mut held = Vec::new();
        for version in order {
            let opened = views.open(At::Version(Version(version)));
            if version < floor && !below.contains(&version) {
                let is_refused = match opened {
                    Err(OpLogError::NoLongerKept { .. }) => {
                        below.first().is_none_or(|first| version < *first)
                    }
                    Err(OpLogError::Thinned { before, after, .. }) => {
                        below.contains(&before.0) && (below.contains(&after.0) || after.0 == floor)
                    }
                    _ => false,
                };
                assert!(is_refused, "seed {seed}: version {version} lies below the floor {floor}");
                continue;
            }
            let view = opened.unwrap_or_else(|error| panic!("seed {seed}, version {version}: {error}"));
            self.check_view(&view, seed);
            held.push(view);
        }
        held.iter().for_each(|view| self.check_view(view, seed));
        assert_eq!(digest(&self.fs), *self.digests.last().unwrap(), "seed {seed}: the open tree");
    }

    fn check_view(&self, view: &View, seed: u64) {
        let version = view.position().version;
        assert_eq!(digest(view.fs()), self.digests[version.0 as usize], "seed {seed}: version {version}");
    }
}

fn open(path: &std::path::Path) -> (Arc<OpLog>, TinyFs) {
    let opened = OpLog::open(path, &Options::default()).unwrap();
    assert!(opened.recovered.is_empty());
    (opened.oplog.clone(), TinyFs::new(opened.tree, opened.oplog))
}

/// The directories of a tree with the entries of each.
fn directories(fs: &TinyFs) -> BTreeMap<NodeId, Vec<(Vec<u8>, NodeId, bool)>> {
    let mut found = BTreeMap::new();
    let mut left = vec![NodeId::ROOT];
    while let Some(directory) = left.pop() {
        let mut entries = Vec::new();
        fs.readdir(directory, 0, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                let is_directory = entry.kind == pond_tinyfs::FileType::Directory;
                entries.push((entry.name.to_vec(), entry.id, is_directory));
            }
            true
        })
        .unwrap();
        left.extend(entries.iter().filter(|(.., is_directory)| *is_directory).map(|(_, id, _)| *id));
        found.insert(directory, entries);
    }
    found
}

/// One random operation; those that make no sense just fail.
fn operation(fs: &TinyFs, random: &mut Random) {
    let caller = Caller::root();
    let all = directories(fs);
    let pick = |random: &mut Random| {
        let (&directory, entries) = all.iter().nth(random.below(all.len() as u64) as usize).unwrap();
        let entry = match entries.len() as u64 {
            0 => None,
            n => Some(entries[random.below(n) as usize].clone()),
        };
        (directory, entry)
    };
    let (directory, entry) = pick(random);
    let name = format!("n{}", random.below(12)).into_bytes();
    let file = entry.as_ref().filter(|(.., is_directory)| !is_directory).map(|(_, id, _)| *id);
    let _ = match (random.below(14), file) {
        (0 | 1, _) => fs.make(&caller, directory, &name, Make::File { mode: 0o644 }).map(drop),
        (2, _) => fs.make(&caller, directory, &name, Make::Directory { mode: 0o755 }).map(drop),
        (3, _) => fs.make(&caller, directory, &name, Make::Symlink { target: &name }).map(drop),
        (4..=7, Some(file)) => {
            let data: Vec<u8> = (0..random.below(3000) + 1).map(|_| random.below(256) as u8).collect();
            fs.write(&caller, file, random.below(140_000), &data, WriteFlags::default()).map(drop)
        }
        (8, Some(file)) => {
            let size = Some(random.below(150_000));
            fs.setattr(&caller, file, &SetAttributes { size, ..SetAttributes::default() }).map(drop)
        }
        (9, Some(file)) => fs
            .fallocate(&caller, file, random.below(100_000), random.below(50_000) + 1, Fallocate::PunchHole)
            .map(drop),
        (10, Some(file)) => fs.link(&caller, file, directory, &name).map(drop),
        (11 | 12, _) => match &entry {
            Some((name, _, true)) => fs.rmdir(&caller, directory, name),
            Some((name, ..)) => fs.unlink(&caller, directory, name).map(drop),
            None => Ok(()),
        },
        (_, _) => match &entry {
            Some((old, ..)) => {
                let (to, _) = pick(random);
                fs.rename(&caller, directory, old, to, &name, RenameFlags::default()).map(drop)
            }
            None => Ok(()),
        },
    };
}

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
