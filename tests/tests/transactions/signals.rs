//! The command gets the signals that `pond txn` is sent, and decides what comes of them.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use pond_tests::{TestPond, processes, wait_until};

use crate::{PAUSE, command, names, pond};

/// Sends a signal to `pond txn` once its command is as far as [`PAUSE`]; how it ended.
fn signalled(pond: &TestPond, script: &str, signal: i32) -> ExitStatus {
    let mut command = command(pond, &[], script);
    let mut transaction = command.env("HOST", pond.host("")).spawn().unwrap();
    wait_until("the command has begun", Duration::from_secs(60), || {
        pond.host("ready").exists().then_some(())
    });
    processes::signal(transaction.id() as i32, signal);
    let status =
        wait_until("the transaction has ended", Duration::from_secs(60), || transaction.try_wait().unwrap());
    fs::remove_file(pond.host("ready")).unwrap();
    status
}

#[test]
fn a_command_that_a_signal_ends_has_done_nothing_and_one_that_heeds_it_decides() {
    let pond = pond();
    let before = names(&pond);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let status = signalled(&pond, &format!("echo > new; {PAUSE}"), signal);
        assert_eq!(status.signal(), Some(signal), "a shell must know");
        assert_eq!(names(&pond), before);
    }
    let heeds = format!("trap 'echo heeded > heeded; exit 0' TERM; {PAUSE}");
    assert!(signalled(&pond, &heeds, libc::SIGTERM).success());
    assert_eq!(fs::read_to_string(pond.path("heeded")).unwrap(), "heeded\n");
    let gives_up = format!("trap 'exit 4' USR1; echo > new; {PAUSE}");
    assert_eq!(signalled(&pond, &gives_up, libc::SIGUSR1).code(), Some(4));
    assert!(!pond.path("new").exists());
}

#[test]
fn a_signal_that_comes_before_the_command_has_begun_is_not_lost() {
    let pond = pond();
    let before = names(&pond);
    for milliseconds in [0, 20, 40, 60, 80, 120, 200, 400] {
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let mut transaction = command(&pond, &[], "echo > new; exec sleep 60").spawn().unwrap();
            std::thread::sleep(Duration::from_millis(milliseconds));
            processes::signal(transaction.id() as i32, signal);
            let status = wait_until("the transaction has ended", Duration::from_secs(30), || {
                transaction.try_wait().unwrap()
            });
            assert_eq!(status.signal(), Some(signal), "after {milliseconds} ms: {status}");
        }
    }
    assert_eq!(names(&pond), before);
}
