//! What is agreed with the kernel when a mount begins.

use std::io;

use fuser::{InitFlags, KernelConfig};

use crate::mounting::mount_point::MAX_REQUEST;

/// Reads, readaheads and other requests in the background at a time.
const MAX_BACKGROUND: u16 = 64;

/// What we ask of the kernel, where it can. Not among them: writeback caching, lock forwarding,
/// `ATOMIC_O_TRUNC`, `DONT_MASK`, `POSIX_ACL`; and `ASYNC_DIO`, with which the kernel drops cached pages before a direct write
/// is under way and not after it, so that who reads meanwhile through the cache leaves old bytes there.
const CAPABILITIES: [InitFlags; 6] = [
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_CACHE_SYMLINKS,
    // Any inode can be looked up as "." of itself, and inode numbers are not used again: file handles hold.
    InitFlags::FUSE_EXPORT_SUPPORT,
];

/// Listings that look their names up as well. Not on a replica: of two lookups of a name the kernel puts the one that
/// was answered later in place, but a listing on its way replaces what a lookup found meanwhile, and would show a
/// program an older version of a file than the one that it has just read.
const LISTINGS_WITH_LOOKUPS: [InitFlags; 2] =
    [InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_READDIRPLUS_AUTO];

/// What the kernel offered that answers depend on.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Offered {
    /// It takes ENOSYS to `open` for "do not ask again".
    pub(crate) no_open: bool,
    /// And to `opendir`.
    pub(crate) no_opendir: bool,
}

/// Agrees with the kernel about what both can do, for a mount that `follows` others' changes or does not.
pub(crate) fn agree(config: &mut KernelConfig, follows: bool) -> io::Result<Offered> {
    let offered = config.capabilities();
    let listings = LISTINGS_WITH_LOOKUPS.into_iter().filter(|_| !follows);
    let wanted = CAPABILITIES.into_iter().chain(listings);
    for capability in wanted.filter(|&capability| offered.contains(capability)) {
        config
            .add_capabilities(capability)
            .map_err(|refused| io::Error::other(format!("the kernel offered and refused {refused:?}")))?;
    }
    let too_large = |largest| io::Error::other(format!("fuser takes no requests above {largest} bytes"));
    config.set_max_write(MAX_REQUEST).map_err(too_large)?;
    config.set_max_background(MAX_BACKGROUND).map_err(|_| io::Error::other("no background requests"))?;
    Ok(Offered {
        no_open: offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT),
        no_opendir: offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
    })
}
