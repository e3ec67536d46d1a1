//! What is mounted where: mountpoints, options, who uses a mount, and its end from outside.

pub(crate) mod busy;
pub(crate) mod busy_process;
mod fusermount;
pub(crate) mod mount_info;
pub(crate) mod mount_point;
pub(crate) mod options;
pub(crate) mod remount;
pub(crate) mod unmount;
