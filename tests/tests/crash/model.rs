//! What a sequence of calls makes of a directory, without any filesystem.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// One system call, or one operation.
#[derive(Clone)]
pub enum Call {
    /// Opens for writing; what exists loses its bytes.
    Create {
        path: String,
    },
    Write {
        file: usize,
        at: usize,
        bytes: Vec<u8>,
    },
    Resize {
        file: usize,
        size: usize,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    Mkdir {
        path: String,
    },
    Rmdir {
        path: String,
    },
    Fsync {
        file: usize,
    },
    FsyncRoot,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Call::Create { path } => write!(f, "create {path}"),
            Call::Write { file, at, bytes } => {
                write!(f, "write {} bytes at {at} of file {file}", bytes.len())
            }
            Call::Resize { file, size } => write!(f, "resize file {file} to {size}"),
            Call::Rename { from, to } => write!(f, "rename {from} to {to}"),
            Call::Unlink { path } => write!(f, "unlink {path}"),
            Call::Mkdir { path } => write!(f, "mkdir {path}"),
            Call::Rmdir { path } => write!(f, "rmdir {path}"),
            Call::Fsync { file } => write!(f, "fsync file {file}"),
            Call::FsyncRoot => write!(f, "fsync of the directory"),
        }
    }
}

impl Call {
    /// The operations that the kernel asks the daemon for. A write is atomic only within a page at its beginning:
    /// fuse_fill_write_pages (Linux, fs/fuse/file.c) ends a request after a first page that it has not cached whole.
    pub fn operations(&self) -> Vec<Call> {
        const PAGE: usize = 4096;
        match self {
            Call::Write { file, at, bytes } if at % PAGE != 0 && at % PAGE + bytes.len() > PAGE => {
                let (head, tail) = bytes.split_at(PAGE - at % PAGE);
                let part = |at, bytes: &[u8]| Call::Write { file: *file, at, bytes: bytes.to_vec() };
                vec![part(*at, head), part(at + head.len(), tail)]
            }
            call => vec![call.clone()],
        }
    }
}

/// A directory as somebody finds it: the bytes of files by path; `None` is a directory.
pub struct Seen(BTreeMap<String, Option<Vec<u8>>>);

impl Seen {
    /// Looks at a directory and at the directories in it.
    pub fn at(root: &Path) -> Self {
        let mut seen = BTreeMap::new();
        let mut queue = vec![String::new()];
        while let Some(directory) = queue.pop() {
            for entry in fs::read_dir(root.join(&directory)).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
                let is_directory = entry.file_type().unwrap().is_dir();
                let content = (!is_directory).then(|| fs::read(entry.path()).unwrap());
                seen.insert(path.clone(), content);
                if is_directory {
                    queue.push(path);
                }
            }
        }
        Seen(seen)
    }
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Directory,
    /// The file of this number.
    File(usize),
}

/// A directory as the calls leave it.
#[derive(Clone, Default)]
pub struct Model {
    names: BTreeMap<String, Entry>,
    /// Bytes of all files that ever were: one without a name may still be open.
    contents: Vec<Vec<u8>>,
}

impl Model {
    /// A directory as it was found.
    pub fn from(seen: &Seen) -> Self {
        let mut model = Model::default();
        for (path, content) in &seen.0 {
            let entry = match content {
                None => Entry::Directory,
                Some(bytes) => {
                    model.contents.push(bytes.clone());
                    Entry::File(model.contents.len() - 1)
                }
            };
            model.names.insert(path.clone(), entry);
        }
        model
    }

    /// Whether something has this name.
    pub fn has(&self, path: &str) -> bool {
        self.names.contains_key(path)
    }

    /// Whether nothing is in this directory.
    pub fn is_empty(&self, directory: &str) -> bool {
        let inside = format!("{directory}/");
        !self.names.keys().any(|name| name.starts_with(&inside))
    }

    /// All names of files.
    pub fn files(&self) -> Vec<String> {
        let files = self.names.iter().filter(|(_, entry)| **entry != Entry::Directory);
        files.map(|(name, _)| name.clone()).collect()
    }

    /// The number of the file that a [`Call::Create`] opens now.
    pub fn number_after_create(&self, path: &str) -> usize {
        match self.names.get(path) {
            Some(Entry::File(number)) => *number,
            _ => self.contents.len(),
        }
    }

    /// Does what a call does.
    pub fn apply(&mut self, call: &Call) {
        match call {
            Call::Create { path } => {
                let number = self.number_after_create(path);
                match self.contents.get_mut(number) {
                    Some(content) => content.clear(),
                    None => self.contents.push(Vec::new()),
                }
                self.names.insert(path.clone(), Entry::File(number));
            }
            Call::Write { file, at, bytes } => {
                let content = &mut self.contents[*file];
                let end = at + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*at..end].copy_from_slice(bytes);
            }
            Call::Resize { file, size } => self.contents[*file].resize(*size, 0),
            Call::Rename { from, to } => {
                let moved = self.names.remove(from).expect("the load renames what is there");
                self.names.insert(to.clone(), moved);
            }
            Call::Unlink { path } | Call::Rmdir { path } => {
                self.names.remove(path);
            }
            Call::Mkdir { path } => {
                self.names.insert(path.clone(), Entry::Directory);
            }
            Call::Fsync { .. } | Call::FsyncRoot => {}
        }
    }

    fn content(&self, entry: Entry) -> Option<&Vec<u8>> {
        match entry {
            Entry::Directory => None,
            Entry::File(number) => Some(&self.contents[number]),
        }
    }

    /// Whether this is what somebody found.
    pub fn matches(&self, seen: &Seen) -> bool {
        self.names.len() == seen.0.len()
            && self.names.keys().eq(seen.0.keys())
            && self
                .names
                .values()
                .zip(seen.0.values())
                .all(|(entry, seen)| self.content(*entry) == seen.as_ref())
    }

    /// How it differs from what somebody found.
    pub fn differences(&self, seen: &Seen) -> String {
        let mut text = String::new();
        let told = |content: Option<Option<&Vec<u8>>>| match content {
            None => "nothing".to_owned(),
            Some(None) => "a directory".to_owned(),
            Some(Some(bytes)) => format!("{} bytes ({})", bytes.len(), &blake3::hash(bytes).to_hex()[..8]),
        };
        let names: std::collections::BTreeSet<&String> = self.names.keys().chain(seen.0.keys()).collect();
        for name in names {
            let ours = self.names.get(name).map(|entry| self.content(*entry));
            let theirs = seen.0.get(name).map(Option::as_ref);
            if ours != theirs {
                let place = match (ours, theirs) {
                    (Some(Some(ours)), Some(Some(theirs))) => differing(ours, theirs),
                    _ => String::new(),
                };
                let (ours, theirs) = (told(ours), told(theirs));
                writeln!(text, "  {name}: {ours} expected, {theirs} found{place}")
                    .expect("a String takes all");
            }
        }
        text
    }
}

/// Where two contents differ.
fn differing(ours: &[u8], theirs: &[u8]) -> String {
    let differs: Vec<usize> =
        ours.iter().zip(theirs).enumerate().filter(|(_, (a, b))| a != b).map(|(i, _)| i).collect();
    let zeros = differs.iter().filter(|&&i| theirs[i] == 0).count();
    match (differs.first(), differs.last()) {
        (Some(first), Some(last)) => {
            format!(": {} bytes from {first} to {last}, {zeros} of them found as zeros", differs.len())
        }
        _ => String::new(),
    }
}
