//! Typed numbers: the identity of a node and the one order of everything.

use std::fmt;

/// Identity of a node, and its inode number.
///
/// A 63-bit random number from the operating system; the top bit is clear, 0 is never used
/// and 1 is the root, which is also FUSE's number for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(1);

    /// Takes a raw inode number; `None` if it cannot be a node's.
    pub fn new(raw: u64) -> Option<Self> {
        (raw != 0 && raw >> 63 == 0).then_some(NodeId(raw))
    }

    /// The inode number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Reads the 16 hexadecimal digits that the table stores.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        u64::from_str_radix(text, 16).ok().and_then(NodeId::new)
    }

    /// The 16 lowercase hexadecimal digits that the table stores.
    pub fn hex(self) -> [u8; 16] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = [0; 16];
        for (i, digit) in out.iter_mut().enumerate() {
            *digit = DIGITS[(self.0 >> (60 - 4 * i)) as usize & 15];
        }
        out
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Log sequence number: the one order of all operations. Starts at 1, never reused; gaps are legal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number of the operation after this one.
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
