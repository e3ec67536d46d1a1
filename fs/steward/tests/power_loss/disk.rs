//! A disk as the system calls leave it, and what of it may be there after the power fails.
//!
//! Nothing is durable but what was synced: bytes and size by a sync of the file, names by a sync of their directory.
//! Of everything else any part may be there. Two things hold on every journaling file system, and are kept here:
//! a name changes in the order of the steps that changed it, and a rename never loses the file (the new name is there if the
//! old one is gone).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pond_oplog::Step;

use crate::random::Random;

type Id = usize;

/// The sizes of blocks that are there or not.
const BLOCKS: [usize; 2] = [512, 4096];

/// The disk at a moment.
#[derive(Clone)]
pub struct Disk {
    /// What the recorded paths begin with.
    root: PathBuf,
    nodes: Vec<Node>,
    /// Number of the next change of a name.
    clock: u64,
}

#[derive(Clone)]
enum Node {
    File { durable: Arc<Vec<u8>>, now: Arc<Vec<u8>> },
    Directory(Directory),
}

#[derive(Clone, Default)]
struct Directory {
    durable: BTreeMap<OsString, Id>,
    now: BTreeMap<OsString, Id>,
    /// What was not synced, oldest first.
    changes: Vec<Change>,
}

/// A change of a name.
#[derive(Clone)]
struct Change {
    time: u64,
    name: OsString,
    /// What it names from now on.
    to: Option<Id>,
    /// If the old name of a rename is gone by it: where the new one is.
    renamed_to: Option<(Id, OsString)>,
}

/// What becomes of names that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// All changes are there.
    Kept,
    /// None.
    Dropped,
    /// Those up to some moment, over all directories.
    Ordered,
    /// Of each name some.
    Some,
}

/// What becomes of bytes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// All are there.
    Kept,
    /// None, and the size is the old one.
    Dropped,
    /// The size is the new one, and new blocks are zeros.
    Zeros,
    /// A beginning of them.
    Prefix,
    /// Some blocks; the size is the old one, the new one, or between.
    Blocks,
}

/// What a power loss does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub names: Names,
    pub bytes: Bytes,
    pub seed: u64,
}

impl Outcome {
    /// Every combination in turn, the plain ones first.
    pub fn number(n: usize, seed: u64) -> Self {
        const NAMES: [Names; 4] = [Names::Kept, Names::Dropped, Names::Some, Names::Ordered];
        const BYTES: [Bytes; 5] = [Bytes::Kept, Bytes::Dropped, Bytes::Blocks, Bytes::Zeros, Bytes::Prefix];
        Outcome { names: NAMES[n % 4], bytes: BYTES[(n + n / 20) % 5], seed }
    }
}

/// Files and directories that are there after a power loss, by path below the root.
pub struct Image {
    entries: BTreeMap<PathBuf, Option<Arc<Vec<u8>>>>,
    /// Whether something was not synced, so that other outcomes differ.
    pub is_certain: bool,
}

impl Disk {
    /// What lies in a directory, all of it durable. `recorded_as` is what the recorded paths begin with.
    pub fn read(directory: &Path, recorded_as: &Path) -> Self {
        let mut disk = Disk { root: recorded_as.to_path_buf(), nodes: Vec::new(), clock: 0 };
        disk.read_directory(directory);
        disk
    }

    fn read_directory(&mut self, directory: &Path) -> Id {
        let id = self.nodes.len();
        self.nodes.push(Node::Directory(Directory::default()));
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            let child = if kind.is_dir() {
                self.read_directory(&entry.path())
            } else if kind.is_file() {
                // The reserve holds nothing, and is made anew.
                let bytes =
                    if entry.file_name() == "reserve" { Vec::new() } else { fs::read(entry.path()).unwrap() };
                let bytes = Arc::new(bytes);
                self.nodes.push(Node::File { durable: bytes.clone(), now: bytes });
                self.nodes.len() - 1
            } else {
                continue;
            };
            names.insert(entry.file_name(), child);
        }
        self.nodes[id] =
            Node::Directory(Directory { durable: names.clone(), now: names, changes: Vec::new() });
        id
    }

    /// Takes a step.
    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Create { path } => match self.find(path) {
                Some(id) => *self.bytes(id) = Vec::new(),
                None => {
                    self.nodes.push(Node::File { durable: Arc::default(), now: Arc::default() });
                    self.name(path, Some(self.nodes.len() - 1), None);
                }
            },
            Step::Write { path, offset, bytes } => {
                let id = self.get(path);
                let (start, content) = (*offset as usize, self.bytes(id));
                content.resize(content.len().max(start + bytes.len()), 0);
                content[start..start + bytes.len()].copy_from_slice(bytes);
            }
            Step::Truncate { path, length } => {
                let id = self.get(path);
                self.bytes(id).resize(*length as usize, 0);
            }
            Step::SyncFile { path } => {
                let id = self.get(path);
                let Node::File { durable, now } = &mut self.nodes[id] else {
                    panic!("{path:?} is a directory")
                };
                *durable = now.clone();
            }
            Step::SyncDirectory { path } => {
                // Directories above the pond are not watched.
                if let Some(id) = self.find(path) {
                    self.sync_names(id);
                }
            }
            Step::Rename { from, to } => {
                let id = self.get(from);
                self.name(to, Some(id), None);
                let (parent, name) = self.parent(to);
                self.name(from, None, Some((parent, name)));
            }
            Step::Link { from, to } => {
                let id = self.get(from);
                self.name(to, Some(id), None);
            }
            Step::Remove { path } | Step::RemoveTree { path } => {
                self.get(path);
                self.name(path, None, None);
            }
            Step::MakeDirectory { path } => {
                self.nodes.push(Node::Directory(Directory::default()));
                self.name(path, Some(self.nodes.len() - 1), None);
            }
            Step::Mark { .. } => {}
        }
    }

    fn find(&self, path: &Path) -> Option<Id> {
        path.strip_prefix(&self.root).ok()?.iter().try_fold(0, |id, name| match &self.nodes[id] {
            Node::Directory(directory) => directory.now.get(name).copied(),
            Node::File { .. } => None,
        })
    }

    fn get(&self, path: &Path) -> Id {
        self.find(path).unwrap_or_else(|| panic!("a step on {}, which is not there", path.display()))
    }

    fn parent(&self, path: &Path) -> (Id, OsString) {
        (self.get(path.parent().unwrap()), path.file_name().unwrap().to_owned())
    }

    fn bytes(&mut self, id: Id) -> &mut Vec<u8> {
        let Node::File { now, .. } = &mut self.nodes[id] else { panic!("it is a directory") };
        Arc::make_mut(now)
    }

    fn directory(&mut self, id: Id) -> &mut Directory {
        let Node::Directory(directory) = &mut self.nodes[id] else { panic!("it is no directory") };
        directory
    }

    fn name(&mut self, path: &Path, to: Option<Id>, renamed_to: Option<(Id, OsString)>) {
        let (parent, name) = self.parent(path);
        self.clock += 1;
        let time = self.clock;
        let directory = self.directory(parent);
        match to {
            Some(id) => directory.now.insert(name.clone(), id),
            None => directory.now.remove(&name),
        };
        directory.changes.push(Change { time, name, to, renamed_to });
    }

    fn sync_names(&mut self, id: Id) {
        for change in std::mem::take(&mut self.directory(id).changes) {
            set(&mut self.directory(id).durable, &change.name, change.to);
            // The old name is durably gone, so the new one is durably there.
            if let Some((other, name)) = change.renamed_to.filter(|(other, _)| *other != id) {
                let directory = self.directory(other);
                let due = |other: &Change| other.name == name && other.time <= change.time;
                let (done, left): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut directory.changes).into_iter().partition(due);
                directory.changes = left;
                done.iter().for_each(|change| set(&mut directory.durable, &change.name, change.to));
            }
        }
    }

    /// What is there if the power fails now.
    pub fn lose_power(&self, outcome: Outcome) -> Image {
        let mut random = Random::new(outcome.seed);
        let until = self.moments(outcome.names, &mut random);
        let mut image = Image { entries: BTreeMap::new(), is_certain: true };
        let mut chosen = BTreeMap::new();
        let mut queue = vec![(0, PathBuf::new())];
        while let Some((id, path)) = queue.pop() {
            match &self.nodes[id] {
                Node::Directory(directory) => {
                    image.is_certain &= directory.changes.is_empty();
                    let mut names = directory.durable.clone();
                    for change in &directory.changes {
                        if change.time <= until[&(id, change.name.clone())] {
                            set(&mut names, &change.name, change.to);
                        }
                    }
                    queue.extend(names.into_iter().map(|(name, child)| (child, path.join(name))));
                    image.entries.insert(path, None);
                }
                Node::File { durable, now } => {
                    let bytes = chosen.entry(id).or_insert_with(|| {
                        match Arc::ptr_eq(durable, now) || durable == now {
                            true => durable.clone(),
                            false => {
                                image.is_certain = false;
                                torn(durable, now, outcome.bytes, &mut random)
                            }
                        }
                    });
                    image.entries.insert(path, Some(bytes.clone()));
                }
            }
        }
        image
    }

    /// Up to which moment the changes of each name are there.
    fn moments(&self, names: Names, random: &mut Random) -> BTreeMap<(Id, OsString), u64> {
        let directories = || {
            self.nodes.iter().enumerate().filter_map(|(id, node)| match node {
                Node::Directory(directory) => Some((id, &directory.changes)),
                Node::File { .. } => None,
            })
        };
        let times: Vec<u64> =
            directories().flat_map(|(_, changes)| changes.iter().map(|change| change.time)).collect();
        let moment = match names {
            Names::Kept | Names::Some => u64::MAX,
            Names::Dropped => 0,
            Names::Ordered => {
                times.get(random.below(times.len().max(1) as u64) as usize).copied().unwrap_or(0)
            }
        };
        let mut until = BTreeMap::new();
        for (id, changes) in directories() {
            for change in changes {
                let moment = match names {
                    Names::Some => random.below(2) * change.time,
                    _ => moment,
                };
                // The last of a name's that is drawn counts, so that all lengths come up.
                let slot = until.entry((id, change.name.clone())).or_insert(0);
                *slot = moment.max(*slot);
            }
        }
        // Where an old name is gone, the new one is there; which may take further old names away.
        loop {
            let mut settled = true;
            for (id, changes) in directories() {
                for change in changes {
                    let gone = change.time <= until[&(id, change.name.clone())];
                    if let (Some(new), true) = (&change.renamed_to, gone)
                        && let Some(new) = until.get_mut(new)
                        && *new < change.time
                    {
                        // The new name was given just before.
                        *new = change.time;
                        settled = false;
                    }
                }
            }
            if settled {
                return until;
            }
        }
    }
}

fn set(names: &mut BTreeMap<OsString, Id>, name: &OsStr, to: Option<Id>) {
    match to {
        Some(id) => names.insert(name.to_owned(), id),
        None => names.remove(name),
    };
}

/// What of `now` may be there where only `durable` was synced.
fn torn(durable: &Arc<Vec<u8>>, now: &Arc<Vec<u8>>, bytes: Bytes, random: &mut Random) -> Arc<Vec<u8>> {
    let (least, most) = (durable.len().min(now.len()), durable.len().max(now.len()));
    let some = least + random.below((most - least) as u64 + 1) as usize;
    let block = BLOCKS[random.below(2) as usize];
    let (length, keep_one_in) = match bytes {
        Bytes::Kept => return now.clone(),
        Bytes::Dropped => return durable.clone(),
        Bytes::Zeros => (now.len(), 0),
        Bytes::Prefix => (some, 1),
        Bytes::Blocks => ([durable.len(), now.len(), some][random.below(3) as usize], 2),
    };
    let mut found = vec![0; length];
    for start in (0..length).step_by(block) {
        let keep = keep_one_in > 0 && random.below(keep_one_in) == 0;
        let from: &[u8] = if keep { now } else { durable };
        let end = length.min(start + block).min(from.len());
        if start < end {
            found[start..end].copy_from_slice(&from[start..end]);
        }
    }
    Arc::new(found)
}

/// Files that are the same in many images: linked from here instead of being written again.
pub struct Cache {
    directory: PathBuf,
    files: BTreeMap<[u8; 32], (PathBuf, u64, i64)>,
}

impl Cache {
    pub fn new(directory: PathBuf) -> Self {
        fs::create_dir(&directory).unwrap();
        Cache { directory, files: BTreeMap::new() }
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        fs::remove_dir_all(&self.directory).unwrap();
        fs::create_dir(&self.directory).unwrap();
        self.files.clear();
    }
}

impl Image {
    /// The same image has the same print.
    pub fn print(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for (path, entry) in &self.entries {
            hasher.update(path.as_os_str().as_encoded_bytes()).update(b"\0");
            if let Some(bytes) = entry {
                hasher.update(&bytes.len().to_le_bytes()).update(bytes);
            }
        }
        hasher.finalize()
    }

    /// Puts it into a directory that is not there yet.
    pub fn write(&self, directory: &Path, cache: &mut Cache) {
        for (path, entry) in &self.entries {
            let target = directory.join(path);
            match entry {
                None => fs::create_dir(&target).unwrap(),
                // A pond never changes such a file, only its name.
                Some(bytes) if is_immutable(path) => {
                    let (count, folder) = (cache.files.len(), &cache.directory);
                    let key = *blake3::hash(bytes).as_bytes();
                    let (kept, size, modified) = cache.files.entry(key).or_insert_with(|| {
                        let kept = folder.join(count.to_string());
                        fs::write(&kept, &**bytes).unwrap();
                        let metadata = fs::metadata(&kept).unwrap();
                        (kept, metadata.size(), metadata.mtime_nsec())
                    });
                    let metadata = fs::metadata(&*kept).unwrap();
                    assert_eq!(
                        (metadata.size(), metadata.mtime_nsec()),
                        (*size, *modified),
                        "{path:?} was written to"
                    );
                    fs::hard_link(kept, target).unwrap();
                }
                Some(bytes) => fs::write(&target, &**bytes).unwrap(),
            }
        }
    }
}

fn is_immutable(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "parquet" || kind == "json")
}
