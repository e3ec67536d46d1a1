//! A pond that is mounted.

use std::path::PathBuf;

use super::Bed;

/// A mounted pond, unmounted in the end whatever happens.
pub struct Mounted {
    pub bed: Bed,
    pub mountpoint: PathBuf,
}

impl Mounted {
    /// Made by the mount.
    pub fn new() -> Self {
        let bed = Bed::empty();
        let mountpoint = bed.path("mnt");
        let text = bed.ok(["mount", mountpoint.to_str().unwrap()]);
        for word in ["Made a pond in", "Mounted version 0 on", "ls ", "status", "log", "pond umount"] {
            assert!(text.contains(word), "{text}");
        }
        Mounted { bed, mountpoint }
    }

    /// A path below the mountpoint.
    pub fn at(&self, name: &str) -> PathBuf {
        self.mountpoint.join(name)
    }

    /// Unmounts; what that says.
    #[track_caller]
    pub fn umount(&self) -> String {
        self.bed.ok(["umount", self.mountpoint.to_str().unwrap()])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Where the test has unmounted it already, this fails and that is right.
        self.bed.run(["umount", self.mountpoint.to_str().unwrap()]);
    }
}
