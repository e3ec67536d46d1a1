//! Limits of names, files and extents.

/// Most bytes of an extent row that is written: a small read decodes all of it.
pub const MAX_EXTENT: usize = 16 << 10;

/// Most bytes of an extent row in any pond: earlier programs wrote larger ones, which are read as they are.
pub const LARGEST_EXTENT: usize = 128 << 10;

/// Longest name of a directory entry in bytes.
pub const MAX_NAME: usize = 255;

/// The name in the root directory that mounts use for themselves.
pub const RESERVED_NAME: &[u8] = b".pond";

/// Largest size of a file in bytes: what the kernel's `loff_t` can count.
pub(crate) const MAX_SIZE: u64 = i64::MAX as u64;

/// Most links that a node may have; the limit of XFS.
pub(crate) const MAX_LINKS: u32 = 0x7fff_ffff;
