//! What a pond is put through while its steps are recorded, and what its tree was after each operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pond_oplog::{Recording, Version};
use pond_steward::{MaintainOptions, Steward};
use pond_tinyfs::{Caller, FileType, Lsn, Make, NodeId, RenameFlags, SetAttributes, WriteFlags};

use crate::random::Random;

/// The setting that the load changes, to a path and a number. It means nothing to a pond that has no factories.
pub const SETTING: &str = "enabled_factories";

/// Names in each directory.
const NAMES: u64 = 8;

/// A tree as somebody sees it: what lies at each path.
pub type Seen = BTreeMap<String, String>;

/// A promise that was kept when the power failed.
#[derive(Clone, Copy, Debug)]
pub enum Promise {
    /// All operations up to this one are durable.
    Operations(Lsn),
    /// The setting has at least this value.
    Setting(u64),
    /// Nothing: from here on, what keeps the pond small is going on, or is not.
    Maintenance(bool),
}

/// What was done.
#[derive(Clone, Default)]
pub struct Books {
    /// The tree after each operation, ascending.
    pub states: Vec<(Lsn, Arc<Seen>)>,
    /// What the numbers of marks mean.
    pub promises: Vec<Promise>,
}

impl Books {
    /// The tree after the last operation that is not later than this.
    pub fn at(&self, lsn: Lsn) -> &(Lsn, Arc<Seen>) {
        let later = self.states.partition_point(|(then, _)| *then <= lsn);
        &self.states[later.checked_sub(1).expect("the tree at the beginning is in the books")]
    }
}

/// A file or directory of the load.
#[derive(Clone)]
enum Entry {
    Directory(NodeId),
    Symlink(Vec<u8>),
    File(usize),
}

struct File {
    id: NodeId,
    content: Vec<u8>,
    told: String,
}

/// The load on an open pond.
pub struct Workload {
    steward: Arc<Steward>,
    recording: Arc<Recording>,
    random: Random,
    names: BTreeMap<String, Entry>,
    files: Vec<File>,
    books: Arc<Mutex<Books>>,
    settings: u64,
    /// A file without a name that is still open.
    nameless: Option<NodeId>,
}

impl Workload {
    /// On an empty tree.
    pub fn new(steward: &Arc<Steward>, recording: &Arc<Recording>, seed: u64) -> Self {
        let first = (steward.fs().last_lsn(), Arc::default());
        Workload {
            steward: steward.clone(),
            recording: recording.clone(),
            random: Random::new(seed),
            names: BTreeMap::new(),
            files: Vec::new(),
            books: Arc::new(Mutex::new(Books { states: vec![first], promises: Vec::new() })),
            settings: 0,
            nameless: None,
        }
    }

    /// The same on the pond as it was opened again.
    pub fn reopened(&mut self, steward: &Arc<Steward>) {
        self.nameless = None;
        self.steward = steward.clone();
    }

    pub fn books(&self) -> Books {
        self.books.lock().clone()
    }

    /// Some operations, with an fsync, a commit or something else now and then.
    pub fn run(&mut self, operations: usize) {
        for _ in 0..operations {
            self.operation();
            match self.random.below(40) {
                0..6 => self.fsync_and_wait(),
                6..10 => self.fsync_meanwhile(),
                10..13 => drop(self.commit()),
                13 => self.set(),
                14 => std::thread::sleep(Duration::from_millis(self.random.below(30))),
                _ => {}
            }
        }
    }

    /// Checkpoint, merge, prune and cleaning. From the first time on there is little that is kept.
    pub fn maintain(&mut self) {
        Self::promise(&self.books, &self.recording, Promise::Maintenance(true));
        self.steward.oplog().checkpoint().unwrap();
        self.steward.control_set("keep_replaced", "0s").unwrap();
        self.steward.control_set("retention", "12 versions").unwrap();
        let options = MaintainOptions { alone: true, ..MaintainOptions::default() };
        let report = self.steward.maintain(&options, &|_| {}).unwrap();
        assert!(report.merged_files > 0 && report.pruned.rows > 0, "{report:?}");
        assert!(report.cleaned.files > 0 && report.cleaned.entries > 0, "{report:?}");
        // Those were joined, and what is pruned now is in files that no commit made.
        self.run(12);
        self.steward.maintain(&options, &|_| {}).unwrap();
        Self::promise(&self.books, &self.recording, Promise::Maintenance(false));
    }

    /// So many settings that the control table is written anew.
    pub fn fill_control_table(&mut self) {
        (0..70).for_each(|_| self.set());
    }

    fn promise(books: &Mutex<Books>, recording: &Recording, promise: Promise) {
        // Number and mark in one step, so that marks are in the order of the promises.
        let mut books = books.lock();
        books.promises.push(promise);
        recording.mark(books.promises.len() as u64 - 1);
    }

    fn fsync_and_wait(&mut self) {
        let lsn = self.steward.fs().last_lsn();
        self.steward.fsync_wait().unwrap();
        Self::promise(&self.books, &self.recording, Promise::Operations(lsn));
    }

    /// The answer comes while other operations go on.
    fn fsync_meanwhile(&mut self) {
        let lsn = self.steward.fs().last_lsn();
        let (books, recording) = (self.books.clone(), self.recording.clone());
        let done = move |result: Result<(), _>| {
            result.unwrap();
            Self::promise(&books, &recording, Promise::Operations(lsn));
        };
        // On this thread, and on that of the journal.
        self.steward.fsync(Box::new(done), lsn.0.is_multiple_of(2));
    }

    pub fn commit(&mut self) -> Version {
        let lsn = self.steward.fs().last_lsn();
        let position = self.steward.commit_now().unwrap();
        Self::promise(&self.books, &self.recording, Promise::Operations(lsn));
        position.version
    }

    fn set(&mut self) {
        self.settings += 1;
        self.steward.control_set(SETTING, &format!("/{}", self.settings)).unwrap();
        Self::promise(&self.books, &self.recording, Promise::Setting(self.settings));
    }

    /// Closing promises everything.
    pub fn close(&mut self) {
        let lsn = self.steward.fs().last_lsn();
        self.steward.close().unwrap();
        Self::promise(&self.books, &self.recording, Promise::Operations(lsn));
    }

    fn operation(&mut self) {
        while !self.try_operation() {}
        let lsn = self.steward.fs().last_lsn();
        let seen = self.names.iter().map(|(path, entry)| (path.clone(), self.told(entry)));
        let seen = Arc::new(seen.collect());
        self.books.lock().states.push((lsn, seen));
    }

    fn told(&self, entry: &Entry) -> String {
        match entry {
            Entry::Directory(_) => "directory".to_owned(),
            Entry::Symlink(target) => format!("link to {}", String::from_utf8_lossy(target)),
            Entry::File(number) => self.files[*number].told.clone(),
        }
    }

    /// A path that may be taken, its directory and its last name.
    fn place(&mut self) -> (String, NodeId, String) {
        let directory = format!("d{}", self.random.below(3));
        let name = format!("f{}", self.random.below(NAMES));
        match self.names.get(&directory) {
            Some(Entry::Directory(id)) => (format!("{directory}/{name}"), *id, name),
            _ => (name.clone(), NodeId::ROOT, name),
        }
    }

    /// A name that is there and is no directory.
    fn some_name(&mut self) -> Option<(String, NodeId, String, Entry)> {
        let names: Vec<&String> = self
            .names
            .iter()
            .filter(|(_, entry)| !matches!(entry, Entry::Directory(_)))
            .map(|(path, _)| path)
            .collect();
        let path =
            (!names.is_empty()).then(|| names[self.random.below(names.len() as u64) as usize].clone())?;
        let entry = self.names[&path].clone();
        let (parent, name) = match path.split_once('/') {
            Some((directory, name)) => match self.names[directory] {
                Entry::Directory(id) => (id, name.to_owned()),
                _ => unreachable!("only directories have names in them"),
            },
            None => (NodeId::ROOT, path.clone()),
        };
        Some((path, parent, name, entry))
    }

    fn some_file(&mut self) -> Option<usize> {
        match self.some_name()?.3 {
            Entry::File(number) => Some(number),
            _ => None,
        }
    }

    /// Does one operation, if the dice find one that makes sense.
    fn try_operation(&mut self) -> bool {
        let (steward, caller) = (self.steward.clone(), Caller::root());
        let fs = steward.fs();
        match self.random.below(24) {
            0..4 => {
                let (path, parent, name) = self.place();
                if self.names.contains_key(&path) {
                    return false;
                }
                let id = fs.make(&caller, parent, name.as_bytes(), Make::File { mode: 0o644 }).unwrap().id;
                fs.forget(id, 1);
                self.files.push(File { id, content: Vec::new(), told: told(&[]) });
                self.names.insert(path, Entry::File(self.files.len() - 1));
            }
            4..13 => {
                let Some(number) = self.some_file() else { return false };
                // Now and then enough to be written as a content file, and to make an fsync a commit.
                let length = match self.random.below(150) {
                    0 => 9 << 20,
                    1..12 => 1 + self.random.below(60_000),
                    _ => 1 + self.random.below(900),
                };
                let at = self.random.below(40_000) as usize;
                // One byte again and again, as the digests of a debug build are slow, but for what is small.
                let bytes = match length {
                    0..1000 => self.random.bytes(length as usize),
                    _ => vec![self.random.number() as u8; length as usize],
                };
                for (piece, offset) in bytes.chunks(128 << 10).zip((at..).step_by(128 << 10)) {
                    if !steward.has_room() {
                        steward.wait_for_room().unwrap();
                    }
                    let id = self.files[number].id;
                    fs.write(&caller, id, offset as u64, piece, WriteFlags::default()).unwrap();
                    let content = &mut self.files[number].content;
                    content.resize(content.len().max(offset + piece.len()), 0);
                    content[offset..offset + piece.len()].copy_from_slice(piece);
                    self.files[number].told = told(content);
                    if length > 128 << 10 {
                        let seen =
                            self.names.iter().map(|(path, entry)| (path.clone(), self.told(entry))).collect();
                        self.books.lock().states.push((fs.last_lsn(), Arc::new(seen)));
                    }
                }
            }
            13 => {
                let Some(number) = self.some_file() else { return false };
                let size = self.random.below(50_000);
                let change = SetAttributes { size: Some(size), ..SetAttributes::default() };
                let file = &mut self.files[number];
                fs.setattr(&caller, file.id, &change).unwrap();
                file.content.resize(size as usize, 0);
                file.told = told(&file.content);
            }
            14..18 => {
                let Some((from, parent, name, entry)) = self.some_name() else { return false };
                let (to, new_parent, new_name) = self.place();
                // Two names of one file: nothing happens.
                let same =
                    |a: &Entry, b: &Entry| matches!((a, b), (Entry::File(a), Entry::File(b)) if a == b);
                if self
                    .names
                    .get(&to)
                    .is_some_and(|there| same(there, &entry) || matches!(there, Entry::Directory(_)))
                    || from == to
                {
                    return false;
                }
                let flags = RenameFlags::default();
                fs.rename(&caller, parent, name.as_bytes(), new_parent, new_name.as_bytes(), flags).unwrap();
                self.names.remove(&from);
                self.names.insert(to, entry);
            }
            18..20 => {
                let Some((path, parent, name, entry)) = self.some_name() else { return false };
                let is_last_name = match entry {
                    Entry::File(number) => {
                        let is_it = |entry: &&Entry| matches!(entry, Entry::File(other) if *other == number);
                        self.names.values().filter(is_it).count() == 1
                    }
                    _ => true,
                };
                if is_last_name && self.random.below(3) == 0 && self.nameless.is_none() {
                    self.nameless = Some(fs.lookup(parent, name.as_bytes()).unwrap().id);
                }
                fs.unlink(&caller, parent, name.as_bytes()).unwrap();
                self.names.remove(&path);
            }
            20 => {
                let Some((_, _, _, Entry::File(number))) = self.some_name() else { return false };
                let (path, parent, name) = self.place();
                if self.names.contains_key(&path) {
                    return false;
                }
                fs.link(&caller, self.files[number].id, parent, name.as_bytes()).unwrap();
                fs.forget(self.files[number].id, 1);
                self.names.insert(path, Entry::File(number));
            }
            21 => {
                let name = format!("d{}", self.random.below(3));
                match self.names.get(&name) {
                    None => {
                        let made =
                            fs.make(&caller, NodeId::ROOT, name.as_bytes(), Make::Directory { mode: 0o755 });
                        let id = made.unwrap().id;
                        fs.forget(id, 1);
                        self.names.insert(name, Entry::Directory(id));
                    }
                    Some(_) if self.names.keys().any(|path| path.starts_with(&format!("{name}/"))) => {
                        return false;
                    }
                    Some(_) => {
                        fs.rmdir(&caller, NodeId::ROOT, name.as_bytes()).unwrap();
                        self.names.remove(&name);
                    }
                }
            }
            22 => {
                let (path, parent, name) = self.place();
                if self.names.contains_key(&path) {
                    return false;
                }
                let target = format!("target-{}", self.random.below(1000)).into_bytes();
                let id =
                    fs.make(&caller, parent, name.as_bytes(), Make::Symlink { target: &target }).unwrap().id;
                fs.forget(id, 1);
                self.names.insert(path, Entry::Symlink(target));
            }
            _ => {
                // What an unlinked file is given leaves no rows, and numbers all the same.
                let Some(id) = self.nameless.take() else { return false };
                let is_file = fs.getattr(id).unwrap().kind == FileType::File;
                if is_file {
                    fs.write(&caller, id, 10, b"nobody sees this", WriteFlags::default()).unwrap();
                }
                match self.random.below(2) {
                    0 => fs.forget(id, 1),
                    _ => self.nameless = Some(id),
                }
            }
        }
        true
    }
}

fn told(content: &[u8]) -> String {
    format!("{} bytes {}", content.len(), &blake3::hash(content).to_hex()[..16])
}

/// The tree of an open pond, read through and through.
pub fn look(steward: &Steward) -> Result<Seen, String> {
    let fs = steward.fs();
    let mut seen = Seen::new();
    let mut queue = vec![(NodeId::ROOT, String::new())];
    while let Some((directory, path)) = queue.pop() {
        let mut entries = Vec::new();
        let listed = fs.readdir(directory, 0, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                entries.push((String::from_utf8_lossy(entry.name).into_owned(), entry.id));
            }
            true
        });
        listed.map_err(|error| format!("cannot list /{path}: {error}"))?;
        for (name, id) in entries {
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            let failed = |error: &dyn std::fmt::Display| format!("cannot read /{path}: {error}");
            let attributes = fs.getattr(id).map_err(|error| failed(&error))?;
            let what = match attributes.kind {
                FileType::Directory => {
                    queue.push((id, path.clone()));
                    "directory".to_owned()
                }
                FileType::Symlink => {
                    let target = fs.readlink(id).map_err(|error| failed(&error))?;
                    format!("link to {}", String::from_utf8_lossy(&target))
                }
                _ => {
                    let mut content = Vec::new();
                    while (content.len() as u64) < attributes.size {
                        let plan =
                            fs.read(id, content.len() as u64, 1 << 20).map_err(|error| failed(&error))?;
                        content.extend(plan.fill(&**fs.persistence()).map_err(|error| failed(&error))?);
                    }
                    told(&content)
                }
            };
            seen.insert(path, what);
        }
    }
    Ok(seen)
}

/// How two trees differ, a line a path.
pub fn differences(expected: &Seen, found: &Seen) -> String {
    let paths: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let nothing = "nothing".to_owned();
    let differ = paths.into_iter().filter(|path| expected.get(*path) != found.get(*path));
    let told = differ.map(|path| {
        let of = |seen: &Seen| seen.get(path).unwrap_or(&nothing).clone();
        format!("  {path}: {} expected, {} found\n", of(expected), of(found))
    });
    told.collect()
}
