//! libfuse's `passthrough_ll` on a directory of the host: what a FUSE filesystem costs that does nothing itself.

use std::ffi::OsStr;
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
        Self::mount_by(scratch, &[], "root")
    }

    /// The same for a user other than root: whatever is made in it belongs to that user, since `passthrough_ll` makes
    /// files in its own name.
    pub fn mount_as(scratch: &Path, user: &str) -> Self {
        // Enough to mount it for everybody and to reach the directory.
        let privileges = "+sys_admin,+dac_override";
        let as_user = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"];
        let with = ["--inh-caps", privileges, "--ambient-caps", privileges];
        Self::mount_by(scratch, &[&as_user[..], &with[..]].concat(), user)
    }

    fn mount_by(scratch: &Path, prefix: &[&str], owner: &str) -> Self {
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
        succeed(Command::new("chown").arg(format!("{owner}:{owner}")).arg(&backing));
        let program = program.as_os_str();
        let mut words = prefix.iter().map(OsStr::new).chain([program]);
        let mut command = Command::new(words.next().unwrap_or(program));
        succeed(command.args(words).args(["-o", &options]).arg(&mountpoint));
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
