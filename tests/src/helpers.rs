//! pond as mount(8) and umount(8) find it, for the tests that go through them.

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use crate::binary::pond_binary;

/// The links through which mount(8) and umount(8) find pond; gone when dropped.
pub struct Helpers {
    _alone: File,
}

const HELPERS: [&str; 3] = ["/sbin/mount.pond", "/sbin/mount.fuse.pond", "/sbin/umount.fuse.pond"];

impl Helpers {
    /// Installs them, once nobody else has them.
    pub fn install() -> Self {
        // The system has one of each, for all tests that run at the same time.
        let alone = File::create("/run/pond-tests.lock").expect("links in /sbin");
        alone.lock().expect("links in /sbin");
        for helper in HELPERS {
            match fs::read_link(helper) {
                // Left behind by a test that was killed.
                Ok(target) if target.components().any(|part| part.as_os_str() == "target") => {
                    fs::remove_file(helper).expect("links in /sbin");
                }
                Ok(target) => panic!("{helper} is installed already, a link to {}", target.display()),
                Err(_) => {}
            }
            symlink(pond_binary(), helper).expect("links in /sbin");
        }
        Helpers { _alone: alone }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        HELPERS.iter().for_each(|helper| fs::remove_file(helper).expect("links in /sbin"));
    }
}
