//! Other people's load generators find no error: fio reads back what it wrote, dbench does what file servers do,
//! and stress-ng goes through all system calls on files.
//!
//! `POND_FIO_MIB` (default 8) each of 4 jobs, `POND_DBENCH_SECONDS` (default 3), `POND_STRESS_SECONDS` (default 1) for
//! each of some 50 stressors.

use std::process::Command;
use std::time::Duration;

use pond_tests::command::run_within;
use pond_tests::scale::scaled;
use pond_tests::{TestPond, tools::tool};

/// Stressors that are about other things than files: bind mounts, eventfd, /proc, …
const NOT_ABOUT_FILES: &str = "bind-mount,binderfs,eventfd,fiemap,ioprio,procfs,verity";

#[test]
fn fio_reads_back_what_it_wrote_in_order_and_at_random() {
    let mebibytes: u64 = scaled("POND_FIO_MIB", 8);
    let limit = Duration::from_secs(360 + 12 * mebibytes);
    let pond = TestPond::with_patience(3 * limit);
    pond.mount();
    for mode in ["write", "randwrite"] {
        let mut fio = Command::new(tool("fio"));
        // Not a name that something here has already: all jobs would then share the one file of that name.
        fio.args(["--name=job", "--numjobs=4", "--bsrange=4k-1m", "--ioengine=psync", "--verify=crc32c"]);
        fio.args(["--verify_fatal=1", "--do_verify=1", "--group_reporting"]);
        fio.arg(format!("--rw={mode}")).arg(format!("--size={mebibytes}m"));
        fio.arg(format!("--directory={}", pond.mountpoint().display())).current_dir(pond.host("."));
        let finished = run_within(&mut fio, limit);
        println!("{}", finished.success());
    }
    pond.umount();
}

#[test]
fn dbench_is_clean() {
    let seconds: u64 = scaled("POND_DBENCH_SECONDS", 3);
    let limit = Duration::from_secs(360 + 9 * seconds);
    let pond = TestPond::with_patience(2 * limit);
    pond.mount();
    let mut dbench = Command::new(tool("dbench"));
    dbench.args(["-t", &seconds.to_string(), "-D"]).arg(pond.mountpoint()).arg("4");
    let finished = run_within(&mut dbench, limit);
    println!("{finished}");
    let text = finished.success();
    assert!(text.contains("Throughput"), "{text}");
    // dbench goes on after a call that failed otherwise than it did when its script was recorded, and exits with 0.
    // Its start barrier is a System V semaphore, which is not ours; without it clients begin some milliseconds apart.
    let mut lines = text.lines().filter(|line| !line.contains("barrier semaphore"));
    let failed = lines.find(|line| line.contains("failed") || line.contains("ERROR"));
    assert_eq!(failed, None);
    pond.umount();
}

#[test]
fn stress_ng_finds_no_error_in_any_call_on_files() {
    let seconds: u64 = scaled("POND_STRESS_SECONDS", 1);
    let pond = TestPond::with_patience(Duration::from_secs(900 + 120 * seconds));
    pond.mount();
    let mut stress = Command::new(tool("stress-ng"));
    stress.args(["--class", "filesystem", "-x", NOT_ABOUT_FILES, "--sequential", "1", "--verify"]);
    stress.arg("--timeout").arg(format!("{seconds}s")).arg("--temp-path").arg(pond.mountpoint());
    let finished = run_within(stress.current_dir(pond.host(".")), Duration::from_secs(600 + 120 * seconds));
    println!("{finished}");
    finished.success();
    pond.umount();
}
