//! Descriptors that lead past a transaction: open on the mount itself, whoever opened them for us.

use std::fs;
use std::path::PathBuf;

use crate::error::MountError;
use crate::mounting::mount_info::Mount;

/// Refuses descriptors of this process that are open on a mount.
pub(crate) fn refuse_open(mount: &Mount) -> Result<(), MountError> {
    let Some(device) = mount.device_number() else { return Ok(()) };
    let directory = PathBuf::from("/proc/self/fd");
    let failed = |error| MountError::io("list", &directory, error);
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(descriptor) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // SAFETY: zeros are a valid value, which the call fills in.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above. The listing's own descriptor is gone by the time; then it fails.
        if unsafe { libc::fstat(descriptor, &raw mut status) } == 0 && status.st_dev == device {
            let path = fs::read_link(directory.join(&name)).unwrap_or_else(|_| mount.mountpoint.clone());
            return Err(MountError::OpenOnMount { descriptor, path });
        }
    }
    Ok(())
}
