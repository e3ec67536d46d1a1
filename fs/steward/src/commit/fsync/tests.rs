use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pond_tinyfs::{Caller, Lsn, Make, NodeId, WriteFlags};

use super::*;
use crate::commit::faulty_log::{Fault, Rig};
use crate::pacing::scheduler::LARGEST_FRAME;

const NEVER: Duration = Duration::from_secs(3600);
const MUCH: u64 = 256 << 20;

fn touch(rig: &Rig, name: &str) {
    rig.fs.make(&Caller::root(), NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 }).unwrap();
}

#[test]
fn an_fsync_with_nothing_pending_is_answered_at_once_and_costs_no_io() {
    let rig = Rig::new(NEVER, MUCH);
    rig.fsync_wait().unwrap();
    touch(&rig, "a");
    rig.fsync_wait().unwrap();
    rig.fsync_wait().unwrap();
    assert_eq!(rig.log.state.lock().frames.len(), 1);
    touch(&rig, "b");
    rig.committer.commit_now().unwrap();
    rig.fsync_wait().unwrap();
    assert_eq!(rig.log.state.lock().frames.len(), 1);
}

#[test]
fn an_fsync_does_not_wait_for_the_commit_in_flight_and_journals_its_rows() {
    let rig = Rig::new(NEVER, MUCH);
    touch(&rig, "a");
    rig.hold_commits(true);
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| rig.committer.commit_now().unwrap());
        rig.wait_until(|state| state.committing);
        touch(&rig, "b");
        rig.fsync_wait().unwrap();
        touch(&rig, "c");
        rig.fsync_wait().unwrap();
        {
            let state = rig.log.state.lock();
            assert_eq!(state.versions, 0);
            let rows: Vec<_> = state.frames.concat();
            assert!(
                rows.is_sorted() && rows.windows(2).all(|pair| pair[0] != pair[1]),
                "a row was journaled twice"
            );
            assert_eq!(rows.last().unwrap().0, rig.fs.last_lsn());
            assert!(state.frames[0].len() > state.frames[1].len());
        }
        rig.hold_commits(false);
        commit.join().unwrap();
    });
}

#[test]
fn with_much_pending_an_fsync_is_a_commit() {
    let rig = Rig::new(NEVER, MUCH);
    touch(&rig, "a");
    let file = rig.fs.resolve(b"/a").unwrap().id;
    let piece = vec![1; 1 << 20];
    for i in 0..=LARGEST_FRAME >> 20 {
        rig.fs.write(&Caller::root(), file, i << 20, &piece, WriteFlags::default()).unwrap();
    }
    rig.fsync_wait().unwrap();
    let state = rig.log.state.lock();
    assert_eq!((state.versions, state.frames.len()), (1, 0));
    assert_eq!(state.committed.last().unwrap().0, rig.fs.last_lsn());
}

#[test]
fn after_a_failed_fsync_a_new_segment_holds_all_uncommitted_rows() {
    let rig = Rig::new(NEVER, MUCH);
    touch(&rig, "a");
    rig.fsync_wait().unwrap();
    touch(&rig, "b");
    rig.log.state.lock().journal_faults.push_back(Fault::Errno(libc::EIO));
    rig.fsync_wait().unwrap();
    let state = rig.log.state.lock();
    assert_eq!(state.frames.len(), 1);
    assert_eq!(state.frames[0].first().unwrap().0, Lsn(2));
    assert_eq!(state.frames[0].last().unwrap().0, rig.fs.last_lsn());
    assert!(!rig.fs.is_read_only());
}

#[test]
fn a_journal_that_cannot_be_written_at_all_makes_the_pond_read_only_and_promises_nothing() {
    let rig = Rig::new(NEVER, MUCH);
    touch(&rig, "a");
    rig.log.state.lock().journal_faults.extend([Fault::Errno(libc::EIO); 2]);
    assert_eq!(rig.fsync_wait().unwrap_err().errno(), libc::EIO);
    assert!(rig.fs.is_read_only());
    // What was written can still be committed, and is then durable.
    rig.committer.commit_now().unwrap();
    rig.fsync_wait().unwrap();
}

#[test]
fn an_fsync_on_a_full_disk_takes_the_reserve_and_then_says_enospc() {
    let rig = Rig::new(NEVER, MUCH);
    touch(&rig, "a");
    rig.log.state.lock().journal_faults.push_back(Fault::Errno(libc::ENOSPC));
    rig.fsync_wait().unwrap();
    assert!(!rig.has_reserve());
    touch(&rig, "b");
    rig.log.state.lock().journal_faults.push_back(Fault::Errno(libc::ENOSPC));
    assert_eq!(rig.fsync_wait().unwrap_err().errno(), libc::ENOSPC);
    assert!(!rig.fs.is_read_only());
    rig.fsync_wait().unwrap();
    let state = rig.log.state.lock();
    assert_eq!(state.frames.concat().last().unwrap().0, rig.fs.last_lsn());
}

#[test]
fn whatever_an_fsync_promised_is_in_a_frame_or_a_version_while_things_fail() {
    let rig = Rig::new(Duration::from_millis(2), MUCH);
    rig.log.state.lock().restarts_succeed = true;
    let number = AtomicU64::new(0);
    let promises = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let n = number.fetch_add(1, Ordering::Relaxed);
                    touch(&rig, &n.to_string());
                    let lsn = rig.fs.last_lsn();
                    if n.is_multiple_of(17) {
                        rig.log.state.lock().journal_faults.push_back(Fault::Errno(libc::ENOSPC));
                    }
                    if n.is_multiple_of(23) {
                        rig.log.state.lock().journal_faults.push_back(Fault::Errno(libc::EIO));
                    }
                    if n.is_multiple_of(29) {
                        rig.log.state.lock().commit_faults.push_back(Fault::Errno(libc::ENOSPC));
                    }
                    if rig.fsync_wait().is_ok() {
                        let state = rig.log.state.lock();
                        let mut durable = state.frames.concat();
                        durable.extend(&state.committed);
                        durable.sort();
                        durable.dedup();
                        // Operations here have lsns without gaps.
                        let lsns: std::collections::BTreeSet<u64> =
                            durable.iter().map(|row| row.0.0).collect();
                        assert!((2..=lsn.0).all(|lsn| lsns.contains(&lsn)), "a promise was broken");
                        promises.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(promises.into_inner() > 400);
}

#[test]
fn a_small_fsync_is_done_on_the_callers_thread_and_a_large_one_by_the_journals() {
    let rig = Rig::new(NEVER, MUCH);
    let who = |rig: &Rig| {
        let (told, heard) = std::sync::mpsc::channel();
        let done = move |result: Result<(), Error>| {
            result.unwrap();
            told.send(std::thread::current().id()).unwrap();
        };
        rig.fsync.fsync(Box::new(done), true);
        heard.recv_timeout(Duration::from_secs(30)).unwrap()
    };
    let here = std::thread::current().id();
    touch(&rig, "little");
    assert_eq!(who(&rig), here);
    let made = rig.fs.make(&Caller::root(), NodeId::ROOT, b"much", Make::File { mode: 0o644 }).unwrap();
    rig.fs.write(&Caller::root(), made.id, 0, &[1; 1 << 20], WriteFlags::default()).unwrap();
    assert_ne!(who(&rig), here);
    assert_eq!(rig.log.state.lock().frames.len(), 2);
}

#[test]
fn fsyncs_of_many_threads_are_all_answered_and_each_row_is_journaled_once() {
    let rig = Rig::new(NEVER, MUCH);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let rig = &rig;
            scope.spawn(move || {
                for number in 0..100 {
                    touch(rig, &format!("{thread}-{number}"));
                    let ours = rig.fs.last_lsn();
                    match number % 2 {
                        0 => rig.fsync_here().unwrap(),
                        _ => rig.fsync_wait().unwrap(),
                    }
                    assert!(rig.log.state.lock().frames.last().unwrap().last().unwrap().0 >= ours);
                }
            });
        }
    });
    rig.fsync_wait().unwrap();
    let rows: Vec<_> = rig.log.state.lock().frames.concat();
    assert!(rows.is_sorted() && rows.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(rows.last().unwrap().0, rig.fs.last_lsn());
}
