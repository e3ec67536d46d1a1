//! Maps by node id.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use crate::NodeId;
use crate::tree::shared::SharedNode;

/// Hashes node ids: they are random already, one multiplication spreads the root's.
#[derive(Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        // 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 6.4).
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(crate) type NodeMap = HashMap<NodeId, SharedNode, BuildHasherDefault<IdHasher>>;

/// Whatever is kept by node id.
pub(crate) type IdMap<T> = std::collections::HashMap<NodeId, T, BuildHasherDefault<IdHasher>>;
