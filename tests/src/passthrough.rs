//! libfuse's `passthrough_ll` on a directory of the host: what a FUSE filesystem costs that does nothing itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::succeed;

/// libfuse's example, compiled from Debian's documentation and mounted; unmounted when dropped.
pub struct Passthrough {
    backing: PathBuf,
    mountpoint: PathBuf,
}

impl Passthrough {
    /// Compiles it and mounts it, both within `scratch`, which must be new.
    pub fn mount(scratch: &Path) -> Self {
        let source = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c";
        assert!(Path::new(source).exists(), "missing {source}: apt-get install libfuse3-dev");
        let flags = succeed(Command::new("pkg-config").args(["--cflags", "--libs", "fuse3"]));
        let program = scratch.join("passthrough_ll");
        succeed(
            Command::new("gcc").args(["-O2", "-o"]).arg(&program).arg(source).args(flags.split_whitespace()),
        );
        let (backing, mountpoint) = (scratch.join("backing"), scratch.join("passthrough"));
        fs::create_dir(&backing).expect("scratch is new");
        fs::create_dir(&mountpoint).expect("scratch is new");
        let options = format!(
            "source={},cache=always,timeout=86400,xattr,allow_other,default_permissions",
            backing.display()
        );
        succeed(Command::new(program).args(["-o", &options]).arg(&mountpoint));
        Passthrough { backing, mountpoint }
    }

    /// Where it shows the directory.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The directory that it shows, on the host's filesystem.
    pub fn backing(&self) -> &Path {
        &self.backing
    }
}

impl Drop for Passthrough {
    fn drop(&mut self) {
        succeed(Command::new("umount").arg(&self.mountpoint));
    }
}
