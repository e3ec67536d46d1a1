//! Histories for tests: a pond that is changed, committed, merged, pruned and cleaned at random.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pond_tinyfs::{
    Caller, Fallocate, Make, NodeId, RenameFlags, SetAttributes, SetXattr, TinyFs, WriteFlags,
};

use crate::rows::samples;
use crate::upkeep::prune::PruneReport;
use crate::upkeep::rewrite::Rewrite;
use crate::{
    At, CleanOptions, MergeLimits, OpLog, OpLogError, Options, Origin, Retained, Version, View, Views,
};

/// Pseudo-random numbers (xorshift), so that a failing case can be had again by its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A pond with a tree that is changed and committed by hand.
pub(crate) struct Pond {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) oplog: Arc<OpLog>,
    pub(crate) fs: TinyFs,
    /// Digest of the tree at each version, taken from the tree that made it.
    pub(crate) digests: Vec<blake3::Hash>,
}

/// Everything that a reader can see of a tree.
pub(crate) fn digest(fs: &TinyFs) -> blake3::Hash {
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
    pub(crate) fn new() -> Self {
        let dir = samples::fast_directory();
        let root = pond_tinyfs::root_row(pond_tinyfs::Timestamp(0), 0, 0);
        OpLog::create(dir.path(), root, &Origin::command("pond init")).unwrap();
        let (oplog, fs) = open(dir.path());
        let digests = vec![digest(&fs)];
        Pond { dir, oplog, fs, digests }
    }

    pub(crate) fn commit(&mut self) {
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

    pub(crate) fn merge(&mut self, fan_in: usize) {
        let limits = MergeLimits { fan_in, ..MergeLimits::default() };
        while let Some(rewrite) = self.oplog.prepare_merge(&limits, &|_| true).unwrap() {
            self.put(rewrite);
        }
    }

    pub(crate) fn prune(&mut self, floor: u64, limits: &MergeLimits) -> Option<PruneReport> {
        self.thin(floor, |_| false, limits)
    }

    /// Keeps, of the versions below the floor, those for which `stays` holds.
    pub(crate) fn thin(
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

    pub(crate) fn clean(&self) {
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
    pub(crate) fn check(&self, floor: u64, seed: u64) {
        let views = Views::new(self.dir.path(), &Options::default());
        self.check_each(&views, floor, seed, false);
    }

    /// The same with versions that may be open already.
    pub(crate) fn check_with(&self, views: &Views, floor: u64, seed: u64) {
        self.check_each(views, floor, seed, true);
    }

    fn check_each(&self, views: &Views, floor: u64, seed: u64, are_open: bool) {
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
                    // It was open before, so that it is pinned, and still what it was.
                    Ok(view) if are_open => {
                        self.check_view(&view, seed);
                        true
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

    pub(crate) fn check_view(&self, view: &View, seed: u64) {
        let version = view.position().version;
        assert_eq!(digest(view.fs()), self.digests[version.0 as usize], "seed {seed}: version {version}");
    }
}

/// Opens the log and the newest tree.
pub(crate) fn open(path: &std::path::Path) -> (Arc<OpLog>, TinyFs) {
    let opened = OpLog::open(path, &Options::default()).unwrap();
    assert!(opened.recovered.is_empty());
    (opened.oplog.clone(), TinyFs::new(opened.tree, opened.oplog))
}

/// The directories of a tree with the entries of each.
pub(crate) fn directories(fs: &TinyFs) -> BTreeMap<NodeId, Vec<(Vec<u8>, NodeId, bool)>> {
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
pub(crate) fn operation(fs: &TinyFs, random: &mut Random) {
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
    let _ = match (random.below(16), file) {
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
        (13, _) => match &entry {
            Some((_, id, _)) => {
                let mode = Some(0o600 + random.below(64) as u16);
                fs.setattr(&caller, *id, &SetAttributes { mode, ..SetAttributes::default() }).map(drop)
            }
            None => Ok(()),
        },
        (14, _) => match &entry {
            Some((_, id, _)) => fs.setxattr(&caller, *id, b"user.x", &name, SetXattr::Any),
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
