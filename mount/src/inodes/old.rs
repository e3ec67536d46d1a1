//! Versions that are shown beside the one that is mounted, and the inode numbers of what they hold.
//!
//! Numbers are made of version and node, so that each stays the same however often the kernel forgets it. The two are mixed as ids of
//! nodes are made: at random, from so many numbers that none comes twice. Where one should be in use for something else already,
//! the next is taken.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use pond_tinyfs::{NodeId, TinyFs};

/// A version while the kernel knows anything of it. It is kept from being cleaned away for as long.
pub(crate) struct OldVersion {
    pub(crate) number: u64,
    pub(crate) fs: Arc<TinyFs>,
    began: Instant,
    /// When it was last asked for, milliseconds since it began.
    used: AtomicU64,
    /// Whether the kernel was told to let go of it since.
    told: AtomicBool,
    /// The names in `.pond/versions` by which the kernel knows it.
    names: Mutex<BTreeSet<Box<[u8]>>>,
}

impl OldVersion {
    pub(crate) fn new(number: u64, fs: Arc<TinyFs>) -> Self {
        let (told, names) = (AtomicBool::new(false), Mutex::default());
        OldVersion { number, fs, began: Instant::now(), used: AtomicU64::new(0), told, names }
    }

    /// It is being used.
    pub(crate) fn touch(&self) {
        self.used.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
    }

    /// For how long nobody has asked for it, milliseconds.
    pub(crate) fn idle(&self) -> u64 {
        (self.began.elapsed().as_millis() as u64).saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Notes a name that leads to it.
    pub(crate) fn known_as(&self, name: &[u8]) {
        let mut names = self.names.lock();
        if !names.contains(name) {
            names.insert(name.into());
        }
    }

    /// The names that led to it.
    pub(crate) fn names(&self) -> BTreeSet<Box<[u8]>> {
        self.names.lock().clone()
    }

    /// Notes that the kernel is told to drop these names; says whether it was before, and nobody has asked since.
    pub(crate) fn is_told_again(&self) -> bool {
        self.told.swap(true, Ordering::Relaxed)
    }
}

/// A node of such a version.
#[derive(Clone)]
pub(crate) struct OldNode {
    pub(crate) version: Arc<OldVersion>,
    pub(crate) id: NodeId,
}

impl OldNode {
    /// What tells it from all others.
    pub(crate) fn key(&self) -> OldKey {
        OldKey { version: self.version.number, id: self.id }
    }
}

impl std::fmt::Debug for OldNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key().fmt(f)
    }
}

/// A node in a version, whether or not the version is open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct OldKey {
    pub(crate) version: u64,
    pub(crate) id: NodeId,
}

impl OldKey {
    /// The root of a version.
    pub(crate) fn root(version: u64) -> Self {
        OldKey { version, id: NodeId::ROOT }
    }

    /// 62 bits that are its own, as far as chance goes.
    pub(crate) fn mixed(self) -> u64 {
        // The finalizer of SplitMix64 (Steele, Lea, Flood 2014), once for each.
        let mix = |mut n: u64| {
            n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            n ^ (n >> 31)
        };
        mix(mix(self.version.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ self.id.get()) >> 2
    }
}
