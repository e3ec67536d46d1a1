//! What the tests of a whole Steward share.
#![allow(dead_code)] // Each test binary uses its part.

pub mod remote;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pond_steward::{OpenOptions, Steward};
use pond_tinyfs::{Caller, Errno, Error, Make, NodeId, TinyFs, WriteFlags};

/// A directory with a place for a pond.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub pond: PathBuf,
}

impl Place {
    /// A place with an empty pond.
    pub fn with_pond() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pond = dir.path().join("pond");
        Steward::init(&pond).unwrap();
        Place { dir, pond }
    }

    pub fn open(&self) -> Arc<Steward> {
        open(&self.pond, OpenOptions::default())
    }
}

pub fn open(pond: &Path, options: OpenOptions) -> Arc<Steward> {
    Steward::open(pond, options).unwrap()
}

/// Commits only when it is told to.
pub fn by_hand() -> OpenOptions {
    OpenOptions { commit_interval: Duration::from_secs(3600), ..OpenOptions::default() }
}

/// Makes or replaces a file in the root directory.
pub fn write(steward: &Steward, name: &str, content: &[u8]) -> Result<NodeId, Error> {
    let (fs, caller) = (steward.fs(), Caller::root());
    let file = match fs.lookup(NodeId::ROOT, name.as_bytes()) {
        Ok(found) => found.id,
        Err(Error::Errno(Errno::NOENT)) => {
            fs.make(&caller, NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 })?.id
        }
        Err(error) => return Err(error),
    };
    for (i, piece) in content.chunks(128 << 10).enumerate() {
        if !steward.has_room() {
            steward.wait_for_room()?;
        }
        fs.write(&caller, file, (i * (128 << 10)) as u64, piece, WriteFlags::default())?;
    }
    fs.forget(file, 1);
    Ok(file)
}

pub fn read(steward: &Steward, name: &str) -> Option<Vec<u8>> {
    read_in(steward.fs(), name)
}

/// The same in a tree.
pub fn read_in(fs: &TinyFs, name: &str) -> Option<Vec<u8>> {
    let found = fs.resolve(format!("/{name}").as_bytes()).ok()?;
    let mut content = Vec::new();
    while (content.len() as u64) < found.size {
        let plan = fs.read(found.id, content.len() as u64, 1 << 20).unwrap();
        content.extend(plan.fill(&**fs.persistence()).unwrap());
    }
    Some(content)
}
