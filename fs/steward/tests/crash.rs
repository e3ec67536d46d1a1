//! A process that writes is killed at any moment; what an fsync had promised must be there afterwards.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Place, open, read, write};
use pond_steward::{OpenOptions, Steward};
use pond_tinyfs::{Caller, NodeId, RenameFlags};

const POND: &str = "POND_CRASH_TEST";

/// A kill between this and the rename leaves the round to be done again, with the file gone.
fn unlink(steward: &Steward, name: &str) {
    match steward.fs().unlink(&Caller::root(), NodeId::ROOT, name.as_bytes()) {
        Err(error) if error.errno() != libc::ENOENT => panic!("{name}: {error}"),
        _ => {}
    }
}

/// Not a test by itself: the process that is killed. It writes a file, renames it into place, fsyncs, says so.
#[test]
fn child() {
    let Some(pond) = std::env::var_os(POND).map(PathBuf::from) else { return };
    let options = OpenOptions { commit_interval: Duration::from_millis(15), ..OpenOptions::default() };
    let steward = Steward::open(&pond, options).unwrap();
    let first =
        read(&steward, "counter").map_or(0, |text| String::from_utf8(text).unwrap().parse::<u64>().unwrap());
    let mut out = std::io::stdout();
    for n in first + 1.. {
        let text = n.to_string();
        write(&steward, "new", text.as_bytes()).unwrap();
        // One in a few is large enough to be written as a content file, and to make the fsync a commit.
        if n % 50 == 0 {
            write(&steward, &format!("large-{n}"), &vec![n as u8; 9 << 20]).unwrap();
            if n > 100 {
                unlink(&steward, &format!("large-{}", n - 100));
            }
        }
        write(&steward, &format!("file-{n}"), &[n as u8; 1000]).unwrap();
        if n > 20 {
            unlink(&steward, &format!("file-{}", n - 20));
        }
        steward
            .fs()
            .rename(&Caller::root(), NodeId::ROOT, b"new", NodeId::ROOT, b"counter", RenameFlags::default())
            .unwrap();
        if n % 3 == 0 {
            steward.fsync_wait().unwrap();
            writeln!(out, "durable {n}").unwrap();
            out.flush().unwrap();
        }
    }
}

fn start(pond: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env(POND, pond)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn survives_kills(rounds: u64) {
    let place = Place::with_pond();
    let mut promised = 0;
    for round in 0..rounds {
        let mut child = start(&place.pond);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // From the first promise on, at a moment that differs from round to round.
        let (promise, promises) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The test harness shares the line with us.
                if let Some((_, n)) = line.rsplit_once("durable ") {
                    promise.send(n.trim().parse::<u64>().unwrap()).unwrap();
                }
            }
        });
        promised = promises.recv_timeout(Duration::from_secs(60)).expect("the child promises something");
        std::thread::sleep(Duration::from_millis(round * 37 % 211));
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
        promised = promises.try_iter().last().unwrap_or(promised);

        let steward = open(&place.pond, OpenOptions::default());
        let counter: u64 = String::from_utf8(read(&steward, "counter").unwrap()).unwrap().parse().unwrap();
        assert!(counter >= promised, "{promised} was promised and {counter} is there");
        // The tree is a prefix of what was done: all that was done before is there, and at most a part of the next
        // round, which begins by writing and ends by renaming.
        for n in counter.saturating_sub(18).max(1)..=counter {
            assert_eq!(
                read(&steward, &format!("file-{n}")).unwrap(),
                vec![n as u8; 1000],
                "file {n} of {counter}"
            );
        }
        assert_eq!(read(&steward, &format!("file-{}", counter + 2)), None);
        for n in (counter.saturating_sub(49).max(1)..=counter).filter(|n| n % 50 == 0) {
            assert_eq!(read(&steward, &format!("large-{n}")).unwrap(), vec![n as u8; 9 << 20]);
        }
        assert_eq!(steward.status().uncommitted.rows, 0, "what was recovered is committed");
        steward.close().unwrap();
    }
    assert!(promised > 0);
}

#[test]
fn what_an_fsync_promised_survives_a_kill() {
    survives_kills(8);
}

#[test]
#[ignore = "takes minutes"]
fn what_an_fsync_promised_survives_many_kills() {
    survives_kills(200);
}
