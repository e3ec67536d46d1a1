//! What decides about a request: what is shown, what may be changed, what is answered now and what must wait.
//!
//! Metadata, writes while there is room, and reads of what is in memory are answered now: to hand an answer to another thread costs
//! a quarter to a half of the rate. Whatever must wait (cold reads, writes without room, fsync, long copies) is work for another
//! thread; who asks never waits.
//!
//! There are no handles: state is per inode, and an unlinked file ends with the last reference that is given back. Who asks may
//! keep entries and attributes until it is told, and so, but on a replica, that a name does not exist: every change comes
//! through it or is made known to it (see `coherence`).

pub(crate) mod abort;
pub(crate) mod answer;
pub(crate) mod attributes;
pub(crate) mod backing;
pub(crate) mod guard;
pub(crate) mod listing;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod names;
pub(crate) mod old;
mod processes;
pub(crate) mod readahead;
pub(crate) mod readers;
pub(crate) mod reading;
pub(crate) mod request;
#[cfg(test)]
mod service_tests;
pub(crate) mod versions;
mod waiting;
pub(crate) mod writing;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pond_tinyfs::{Attributes as Node, Errno, Error, NodeId, TinyFs};

use crate::coherence::Coherence;
use crate::inodes::attributes::{Attributes, Entry, Keep};
use crate::inodes::listings::Listings;
use crate::inodes::table::{Ino, Inodes, Object};
use crate::inodes::virtual_files::VirtualFiles;
use crate::service::backing::Backing;
use crate::service::guard::{Guard, ShownTo};
use crate::service::readahead::Readahead;
use crate::service::readers::Readers;
use crate::service::request::Request;
use crate::service::versions::Versions;
use crate::service::waiting::Waiting;

/// How to serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// User and group who may see all in `.pond/`, besides root.
    pub(crate) owner: (u32, u32),
    /// Inode numbers have 32 bits, and positions in directories 31.
    pub(crate) inode32: bool,
    /// Threads that ask.
    pub(crate) askers: usize,
    /// To whom `.pond/versions` shows what; `None` if there is none.
    pub(crate) versions: Option<ShownTo>,
    /// For how long a version is kept that nobody asks for.
    pub(crate) idle: Duration,
}

/// Answers the requests of one mount.
pub(crate) struct Service<B> {
    backing: Arc<B>,
    inodes: Arc<Inodes>,
    own: Arc<VirtualFiles>,
    listings: Listings,
    coherence: Arc<Coherence>,
    waiting: Waiting,
    readers: Arc<Readers>,
    readahead: Readahead,
    versions: Arc<Versions<B>>,
    guard: Arc<Guard>,
    /// Tells inode numbers of this mount from the same ones of another, in file handles that last.
    generation: u64,
    /// Whether it may be kept which names do not exist.
    keep_missing: bool,
}

impl<B: Backing> Service<B> {
    /// What must wait for long does so on the runtime's threads. Fails if no thread can be started.
    pub(crate) fn new(
        backing: Arc<B>,
        runtime: tokio::runtime::Handle,
        settings: Settings,
    ) -> io::Result<Self> {
        let inodes = Arc::new(Inodes::new(settings.inode32));
        let coherence = Coherence::new(inodes.clone());
        let (parts, idle) = ((backing.clone(), inodes.clone(), coherence.clone()), settings.idle);
        Ok(Service {
            keep_missing: !backing.follows(),
            own: Arc::new(VirtualFiles::new(inodes.clone(), settings.owner, settings.versions.is_some())),
            listings: Listings::default(),
            versions: Versions::new(parts.0, parts.1, parts.2, idle),
            guard: Arc::new(Guard::new(settings.versions.unwrap_or_default(), settings.owner.0)),
            coherence,
            waiting: Waiting::new(runtime),
            readers: Arc::new(Readers::start(settings.askers)?),
            readahead: Readahead::new(backing.fs().persistence().prefetch_budget()),
            generation: generation(settings.inode32),
            inodes,
            backing,
        })
    }

    /// What whoever asks has cached, to be told of what others change.
    pub(crate) fn coherence(&self) -> &Arc<Coherence> {
        &self.coherence
    }

    /// Whether others' changes are published to the tree.
    pub(crate) fn follows(&self) -> bool {
        self.backing.follows()
    }

    fn fs(&self) -> &TinyFs {
        self.backing.fs()
    }

    /// A node of the pond as it is now, for reading it.
    #[inline]
    fn node(&self, ino: Ino) -> Result<NodeId, Errno> {
        match self.inodes.find(ino)? {
            Object::Node(id) => Ok(id),
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    /// A node of the pond, for changing it: what `.pond/` holds cannot be, and old versions least of all.
    #[inline]
    fn changeable(&self, ino: Ino) -> Result<NodeId, Errno> {
        match self.inodes.find(ino)? {
            Object::Node(id) => Ok(id),
            Object::OwnDirectory | Object::Snapshot(_) => Err(Errno::PERM),
            Object::Versions | Object::Listed(_) | Object::Old(_) => Err(Errno::ROFS),
        }
    }

    /// Notes that these nodes' attributes changed on behalf of a request, if it succeeded.
    fn changed<T>(&self, by: Request, result: &Result<T, Error>, nodes: impl IntoIterator<Item = NodeId>) {
        if result.is_ok() {
            for node in nodes {
                self.coherence.changed(node, by.thread);
            }
        }
    }

    #[inline]
    fn entry(&self, ino: Ino, node: &Node) -> Entry {
        Entry { attributes: Attributes::of(ino, node), keep: Keep::UntilTold, generation: self.generation }
    }
}

/// Numbers of nodes that are not their ids are another mount's tomorrow. Ids are not.
fn generation(inode32: bool) -> u64 {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let milliseconds = || now().map_or(1, |now| now.as_millis() as u64);
    // The kernel keeps 32 bits of it.
    if inode32 { milliseconds() & u64::from(u32::MAX) | 1 } else { 0 }
}
