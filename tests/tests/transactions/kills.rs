//! Whatever of it is killed, and whenever: all of it has happened, or nothing.
//!
//! `POND_CRASH_ROUNDS` kills of each kind (default 20).

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use pond_tests::{Random, TestPond, processes, run, wait_until};

/// What each transaction does: each file of the last round goes, and as many come. `$1` is the round.
const SCRIPT: &str = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do rm f$n; echo $1 > g$n; mv g$n f$n; ln f$n l$1-$n; done; \
    rm -f l$(($1 - 1))-* l$(($1 - 2))-*; head -c 3000000 /dev/zero | tr '\\0' $(($1 % 10)) > large; mkdir d$1; rmdir d$(($1 - 1)) d$(($1 - 2)) || true";

/// Files of a round.
const FILES: usize = 12;

/// What is killed.
#[derive(Clone, Copy, PartialEq)]
enum Victim {
    /// `pond txn`.
    Transaction,
    /// The daemon.
    Daemon,
    /// The command, with all that it has begun.
    Command,
}

fn rounds() -> u64 {
    std::env::var("POND_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().expect("a number of rounds"))
}

fn begin(pond: &TestPond, round: u64) -> Child {
    let mut command = pond.command();
    command.current_dir(pond.mountpoint()).args(["txn", "--", "sh", "-c", SCRIPT, "sh", &round.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The round of which a tree is, which is one of one round only.
fn round_of(root: &Path) -> u64 {
    let read =
        |name: &str| fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let first: u64 = read("f1").trim().parse().unwrap();
    for n in 1..=FILES {
        assert_eq!(read(&format!("f{n}")).trim().parse::<u64>().unwrap(), first, "f{n}");
    }
    let mut names: Vec<String> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    // Where the remote's node is, once there is one.
    names.retain(|name| name != "etc");
    names.sort();
    let mut expected: Vec<String> = (1..=FILES).map(|n| format!("f{n}")).collect();
    expected.extend((1..=FILES).map(|n| format!("l{first}-{n}")));
    expected.extend([format!("d{first}"), "large".to_owned()]);
    expected.sort();
    assert_eq!(names, expected);
    let large = fs::read(root.join("large")).unwrap();
    let digit = b'0' + (first % 10) as u8;
    assert!(large.len() == 3_000_000 && large.iter().all(|&byte| byte == digit), "{} bytes", large.len());
    first
}

/// The deepest process of those that a transaction has begun: the command, or one that that has begun.
fn command_of(transaction: u32) -> Option<i32> {
    let children = |pid: i32| -> Vec<i32> {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    let first = *children(transaction as i32).first()?;
    children(first).first().copied()
}

fn kill_at_random_moments(victim: Victim) {
    let pond = TestPond::with_patience(Duration::from_secs(3600));
    pond.mount_with(&["-o", "commit=1"]);
    let set_up = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo 0 > f$n; ln f$n l0-$n; done; mkdir d0; \
                  head -c 3000000 /dev/zero | tr '\\0' 0 > large";
    pond_tests::succeed(pond.marked("sh").current_dir(pond.mountpoint()).args(["-ec", set_up]));
    pond.sync();
    let oldest = pond.version();
    let seed = std::env::var("POND_CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::process::id().into());
    println!("POND_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    // How long one takes that nobody disturbs.
    let began = Instant::now();
    assert!(begin(&pond, 1).wait().unwrap().success());
    let whole = began.elapsed();
    assert_eq!(round_of(pond.mountpoint()), 1);
    let (mut last, mut done, mut undone) = (1, 0, 0);
    for round in 2..2 + rounds() {
        let mut transaction = begin(&pond, round);
        sleep(Duration::from_micros(random.below(1 + whole.as_micros() as u64 * 5 / 4)));
        match victim {
            Victim::Transaction => processes::signal(transaction.id() as i32, libc::SIGKILL),
            Victim::Daemon => pond.kill(),
            Victim::Command => {
                if let Some(command) = command_of(transaction.id()) {
                    processes::signal(command, libc::SIGKILL);
                }
            }
        }
        let status = wait_until("the transaction has ended", Duration::from_secs(120), || {
            transaction.try_wait().unwrap()
        });
        if victim == Victim::Daemon {
            pond.mount_with(&["-o", "commit=1"]);
        }
        // A transaction that was killed may have asked for its end already.
        let mut now = round_of(pond.mountpoint());
        if victim == Victim::Transaction && now != round {
            sleep(Duration::from_millis(50));
            now = settled(&pond);
        }
        assert!(now == last || now == round, "round {round}, before it {last}: {now}");
        assert!(!status.success() || now == round, "it said that it was done");
        if victim == Victim::Command && !status.success() {
            assert_eq!(now, last, "it said that nothing has happened");
        }
        if now == round {
            done += 1
        } else {
            undone += 1
        }
        // The next begins from what is there.
        if now != round {
            assert!(begin(&pond, round).wait().unwrap().success(), "after a kill");
            assert_eq!(round_of(pond.mountpoint()), round);
        }
        last = round;
        if round % 5 == 0 {
            pond.kill();
            pond.mount_with(&["-o", "commit=1"]);
            assert_eq!(round_of(pond.mountpoint()), last, "what was taken over is durable");
        }
    }
    println!("{done} were done, {undone} were not");
    wait_until("no process is left", Duration::from_secs(60), || {
        (pond.processes() == [pond.daemon()]).then_some(())
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = pond.directory().to_str().unwrap().to_owned();
    assert_eq!(mounts.lines().filter(|line| line.contains(&ours)).count(), 1, "{mounts}");
    // Each version is of one round, and so is a pond that is opened anew.
    pond.umount();
    let fsck = run(pond.command().arg("fsck"));
    assert!(fsck.status.success(), "{fsck}");
    pond.mount();
    assert_eq!(round_of(pond.mountpoint()), last);
    let version = pond.version();
    for version in oldest.max(version.saturating_sub(5))..=version {
        round_of(&pond.path(format!(".pond/versions/{version}")));
    }
    on_a_replica(&pond, last, oldest);
}

/// A replica has the same, in each of its versions.
fn on_a_replica(pond: &TestPond, last: u64, oldest: u64) {
    let (yaml, store) = (pond.host("remote.yaml"), pond.host_directory("store"));
    fs::write(&yaml, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    let yaml = yaml.to_str().unwrap();
    pond.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", yaml]);
    pond.sync();
    let replica = TestPond::new();
    replica.pond(["init", "--from-backup", yaml]);
    replica.mount();
    assert_eq!(round_of(replica.mountpoint()), last);
    let version = replica.version();
    for version in oldest.max(version.saturating_sub(5))..=version {
        round_of(&replica.path(format!(".pond/versions/{version}")));
    }
}

/// The round, once whoever serves the transaction has heard that its asker has gone.
fn settled(pond: &TestPond) -> u64 {
    let mut last = round_of(pond.mountpoint());
    for _ in 0..200 {
        sleep(Duration::from_millis(10));
        let threads = fs::read_dir(format!("/proc/{}/task", pond.daemon())).unwrap().flatten();
        let mut names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
        let serves = names.any(|name| name.trim() == "pond-command");
        last = round_of(pond.mountpoint());
        if !serves {
            return last;
        }
    }
    last
}

#[test]
fn the_transaction_is_killed() {
    kill_at_random_moments(Victim::Transaction);
}

#[test]
fn the_daemon_is_killed() {
    kill_at_random_moments(Victim::Daemon);
}

#[test]
fn the_command_is_killed() {
    kill_at_random_moments(Victim::Command);
}

#[test]
fn an_unmounted_pond_is_whole_when_the_transaction_is_killed_and_nothing_is_left() {
    let pond = TestPond::with_patience(Duration::from_secs(3600));
    pond.pond(["init"]);
    let mut random = Random::new(std::process::id().into());
    let start = |round: u64| -> Child {
        let script = "cd $POND_TXN; echo $1 > a; sleep 0.05; echo $1 > b; sleep 0.05; echo $1 > c";
        let mut command: Command = pond.command();
        command.current_dir("/").args(["txn", "--", "sh", "-ec", script, "sh", &round.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let began = Instant::now();
    assert!(start(0).wait().unwrap().success());
    let whole = began.elapsed();
    let mut last = "0".to_owned();
    for round in 1..=rounds() / 2 {
        let mut transaction = start(round);
        sleep(Duration::from_micros(random.below(1 + whole.as_micros() as u64 * 5 / 4)));
        processes::signal(transaction.id() as i32, libc::SIGKILL);
        transaction.wait().unwrap();
        // What the journal has is committed by whoever opens it next.
        pond.pond(["sync"]);
        let read = |name: &str| pond.pond(["cat", name]).trim().to_owned();
        let now = read("a");
        assert!(now == last || now == round.to_string(), "{now}");
        assert_eq!((read("b"), read("c")), (now.clone(), now.clone()));
        last = now;
    }
    wait_until("no process is left", Duration::from_secs(60), || pond.processes().is_empty().then_some(()));
    assert!(start(99).wait().unwrap().success());
    assert_eq!(
        fs::read_dir(pond.directory().join("mirror")).unwrap().count(),
        0,
        "the next one has cleaned up"
    );
}
