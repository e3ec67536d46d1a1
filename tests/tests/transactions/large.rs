//! A transaction that writes more than memory shall hold. `POND_TRANSACTION_MIB` mebibytes (default 128).

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pond_tests::command::run_within;
use pond_tests::{TestPond, succeed};

use crate::command;

/// What the daemon may take in memory of its own beyond what it had, bytes, with budgets of 32 MiB each: those, and what encoding takes.
const MOST: u64 = 96 << 20;

/// A process's memory of its own, bytes: without what it has mapped of files, which the system can have back.
fn own_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("the kernel shows RssAnon");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

#[test]
fn what_a_large_transaction_wrote_takes_no_memory_while_it_is_taken_over() {
    let mib: u64 = std::env::var("POND_TRANSACTION_MIB").map_or(128, |mib| mib.parse().expect("a number"));
    let pond = TestPond::with_patience(Duration::from_secs(3600));
    pond.pond(["init"]);
    for budget in ["dirty_budget", "cache_budget"] {
        pond.pond(["control", "set", budget, "32MiB"]);
    }
    pond.mount_with(&["-o", "commit=1"]);
    let daemon = pond.daemon();
    let before = own_memory(daemon);
    let ended = AtomicBool::new(false);
    let script = format!(
        "head -c {mib}M /dev/urandom > large; \
         sha256sum < large > $HOST/sum; rm -f x; for n in $(seq 200); do echo $n > small$n; done"
    );
    let mut command = command(&pond, &["-m", "large"], &script);
    command.env("HOST", pond.host(""));
    let (most, said) = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(own_memory(daemon));
                thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let said = run_within(&mut command, Duration::from_secs(1800));
        ended.store(true, Ordering::Relaxed);
        (watch.join().unwrap(), said)
    });
    println!("{mib} MiB: {} MiB before, {} at most, {:?}", before >> 20, most >> 20, said.took);
    said.success();
    assert!(most < before + MOST, "{} MiB before, {} MiB at most", before >> 20, most >> 20);
    let sum = |path: &str| succeed(pond.marked("sh").args(["-ec", &format!("sha256sum < {path}")]));
    let expected = fs::read_to_string(pond.host("sum")).unwrap();
    let large = pond.path("large").display().to_string();
    assert_eq!(sum(&large), expected);
    assert_eq!(pond.json(["log", "-n", "1"])[0]["origin"]["message"], "large");
    pond.kill();
    pond.mount();
    assert_eq!(sum(&large), expected, "it was durable");
}
