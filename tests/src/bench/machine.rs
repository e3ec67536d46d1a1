//! What benchmarks ask of the machine.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use crate::command::run_within;

/// How long a program may take that a benchmark runs.
pub const HOURS: Duration = Duration::from_secs(4 * 3600);

/// This thread, and whatever it starts from now on, on CPU 0: a round trip between two CPUs of a virtual machine takes
/// many times as long as on one, and what it takes depends on where the scheduler puts things.
pub fn pin() {
    // SAFETY: an all-zero set is an empty one, and the pointer is to a live value of the size given.
    let pinned = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    assert_eq!(pinned, 0, "cannot pin to CPU 0: {}", io::Error::last_os_error());
}

/// Writes out what the kernel holds and lets it forget all that it cached.
pub fn drop_caches() {
    run_within(&mut Command::new("sync"), HOURS).success();
    fs::write("/proc/sys/vm/drop_caches", "3").expect("we are root");
}
