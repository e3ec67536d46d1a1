use std::time::Duration;

use pond_tinyfs::{Caller, Fallocate, Make, MemoryPersistence, NodeId, WriteFlags};

use super::*;
use crate::commit::faulty_log::{Fault, Rig};
use crate::pacing::scheduler::LOOK_AGAIN;

const NEVER: Duration = Duration::from_secs(3600);
const MUCH: u64 = 256 << 20;

fn touch(rig: &Rig, name: &str) -> NodeId {
    let made =
        rig.fs.make(&Caller::root(), NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 }).unwrap();
    made.id
}

/// Writes so much. No drainer, and no commit, takes any of it before the ledger is let go.
fn fill(rig: &Rig, file: NodeId, bytes: usize) -> MutexGuard<'_, Ledger> {
    let ledger = rig.committer.ledger();
    let piece = vec![7; 1 << 20];
    for offset in (0..bytes).step_by(piece.len()) {
        rig.fs.write(&Caller::root(), file, offset as u64, &piece, WriteFlags::default()).unwrap();
    }
    ledger
}

fn errno<T: std::fmt::Debug>(result: Result<T, StewardError>) -> i32 {
    result.unwrap_err().errno()
}

#[test]
fn what_changed_is_committed_within_the_interval() {
    let rig = Rig::new(Duration::from_millis(20), MUCH);
    touch(&rig, "a");
    let deadline = Instant::now() + Duration::from_secs(10);
    while rig.log.state.lock().versions == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(rig.log.state.lock().versions, 1, "an idle pond makes no versions");
}

#[test]
fn a_commit_covers_everything_issued_before_it_was_asked_for() {
    let rig = Rig::new(NEVER, MUCH);
    touch(&rig, "a");
    rig.hold_commits(true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| rig.committer.commit_now().unwrap());
        rig.wait_until(|state| state.committing);
        // The first commit's cut is taken: this needs another.
        touch(&rig, "b");
        let second = scope.spawn(|| rig.committer.commit_now().unwrap());
        std::thread::sleep(Duration::from_millis(20));
        rig.hold_commits(false);
        let last = rig.fs.last_lsn();
        first.join().unwrap();
        second.join().unwrap();
        let state = rig.log.state.lock();
        assert_eq!(state.committed.last().unwrap().0, last);
        assert_eq!(state.versions, 2);
    });
}

#[test]
fn commits_wait_for_merges_and_fsyncs_do_not() {
    let rig = Rig::new(NEVER, MUCH);
    rig.log.state.lock().crowded = true;
    touch(&rig, "a");
    rig.committer.commit_now().unwrap();
    assert_eq!(rig.log.state.lock().versions, 1, "nobody merges: waiting would not end");
    rig.merges.set_at_work(true);
    touch(&rig, "b");
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| rig.committer.commit_now().unwrap());
        rig.fsync_wait().unwrap();
        std::thread::sleep(4 * LOOK_AGAIN);
        assert_eq!(rig.log.state.lock().versions, 1);
        rig.log.state.lock().crowded = false;
        commit.join().unwrap();
    });
    // Whoever merges gives up.
    rig.log.state.lock().crowded = true;
    touch(&rig, "c");
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| rig.committer.commit_now().unwrap());
        std::thread::sleep(2 * LOOK_AGAIN);
        rig.merges.set_at_work(false);
        commit.join().unwrap();
    });
    assert_eq!(rig.log.state.lock().versions, 3);
}

#[test]
fn what_nobody_waits_for_is_committed_in_time_though_merging_does_not_keep_up() {
    let rig = Rig::new(Duration::from_millis(20), MUCH);
    rig.merges.set_at_work(true);
    rig.log.state.lock().crowded = true;
    touch(&rig, "a");
    let deadline = Instant::now() + Duration::from_secs(30);
    while rig.log.state.lock().versions == 0 {
        assert!(Instant::now() < deadline, "it is at risk for as long as merging takes");
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[test]
fn nothing_to_commit_makes_no_version() {
    let rig = Rig::new(NEVER, MUCH);
    assert_eq!(rig.committer.commit_now().unwrap().version.0, 0);
    assert_eq!(rig.log.state.lock().attempts, 0);
}

#[test]
fn a_full_disk_costs_the_reserve_first_and_then_tells_those_who_wait() {
    let rig = Rig::new(NEVER, MUCH);
    assert!(rig.has_reserve());
    touch(&rig, "a");
    rig.log.state.lock().commit_faults.push_back(Fault::Errno(libc::ENOSPC));
    rig.committer.commit_now().unwrap();
    assert_eq!(rig.log.state.lock().versions, 1);

    rig.log.state.lock().commit_faults.extend([Fault::Errno(libc::ENOSPC); 2]);
    touch(&rig, "b");
    assert_eq!(errno(rig.committer.commit_now()), libc::ENOSPC);
    assert!(!rig.fs.is_read_only());

    // There is room again: work goes on, and nothing was lost.
    touch(&rig, "c");
    rig.committer.commit_now().unwrap();
    let state = rig.log.state.lock();
    assert_eq!(state.committed.last().unwrap().0, rig.fs.last_lsn());
    assert!(rig.has_reserve());
}

#[test]
fn a_failed_commit_is_tried_again_by_itself() {
    let rig = Rig::new(Duration::from_millis(10), MUCH);
    rig.log.state.lock().commit_faults.extend([Fault::Errno(libc::ENOSPC); 6]);
    touch(&rig, "a");
    let deadline = Instant::now() + Duration::from_secs(10);
    while rig.log.state.lock().versions == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(rig.told.0.lock().1 >= 2);
}

#[test]
fn an_io_error_ends_writing_but_not_the_attempts_to_save_what_was_written() {
    let rig = Rig::new(NEVER, MUCH);
    touch(&rig, "a");
    rig.log.state.lock().commit_faults.push_back(Fault::Errno(libc::EIO));
    assert_eq!(errno(rig.committer.commit_now()), libc::EIO);
    assert!(rig.fs.is_read_only());
    rig.committer.commit_now().unwrap();
    assert_eq!(rig.log.state.lock().committed.last().unwrap().0, rig.fs.last_lsn());
    assert!(rig.fs.is_read_only());
}

#[test]
fn another_writers_version_ends_everything() {
    let rig = Rig::new(NEVER, MUCH);
    touch(&rig, "a");
    rig.log.state.lock().commit_faults.push_back(Fault::SomeoneElse);
    assert_eq!(errno(rig.committer.commit_now()), libc::EIO);
    assert_eq!(errno(rig.committer.commit_now()), libc::EIO);
    assert_eq!(rig.log.state.lock().attempts, 1);
    assert!(rig.fs.is_read_only());
    assert!(rig.committer.ledger().refusal().unwrap().why().contains("orphan"));
}

#[test]
fn writers_wait_for_room_and_get_it_when_content_is_drained() {
    let rig = Rig::new(NEVER, 4 << 20);
    let file = touch(&rig, "a");
    assert!(rig.writers.has_room());
    rig.hold_drains(true);
    drop(fill(&rig, file, 4 << 20));
    assert!(!rig.writers.has_room());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| rig.writers.wait_for_room(0));
        rig.wait_until(|state| state.draining > 0);
        assert!(!writer.is_finished());
        rig.hold_drains(false);
        writer.join().unwrap().unwrap();
    });
    assert_eq!(rig.log.state.lock().versions, 0);
}

#[test]
fn where_there_is_nothing_to_drain_writers_wait_for_a_commit() {
    let rig = Rig::new(NEVER, 4 << 20);
    let file = touch(&rig, "a");
    // As an fsync cuts it, before any drainer can.
    fill(&rig, file, 3 << 20).enter_cut(rig.fs.cut());
    rig.writers.wait_for_room(0).unwrap();
    assert_eq!(rig.log.state.lock().versions, 1);
}

#[test]
fn writers_that_wait_for_room_on_a_full_disk_are_told() {
    let rig = Rig::new(NEVER, 4 << 20);
    let file = touch(&rig, "a");
    rig.log.state.lock().drain_faults.extend([Fault::Errno(libc::ENOSPC); 2]);
    rig.log.state.lock().commit_faults.push_back(Fault::Errno(libc::ENOSPC));
    drop(fill(&rig, file, 4 << 20));
    assert_eq!(rig.writers.wait_for_room(0).unwrap_err().errno(), libc::ENOSPC);
    // And at once while the committer rests.
    assert_eq!(rig.writers.wait_for_room(0).unwrap_err().errno(), libc::ENOSPC);
    assert_eq!(rig.log.state.lock().attempts, 1);
    rig.committer.commit_now().unwrap();
    rig.writers.wait_for_room(0).unwrap();
}

#[test]
fn a_write_waits_for_a_commit_before_a_disk_with_little_room_refuses_it() {
    let rig = Rig::over(MemoryPersistence::with_capacity(8 << 20), NEVER, MUCH);
    let file = touch(&rig, "a");
    drop(fill(&rig, file, 3 << 20));
    assert!(rig.writers.has_room());
    drop(fill(&rig, touch(&rig, "b"), 2 << 20));
    // 5 MiB are owed of 8.
    assert!(!rig.writers.has_room());
    rig.writers.wait_for_room(0).unwrap();
    assert_eq!(rig.log.state.lock().versions, 1);
    assert!(rig.writers.has_room());
    // What is left is refused without waiting once nothing is owed, and a commit more would not help.
    drop(fill(&rig, touch(&rig, "c"), 1 << 20));
    rig.committer.commit_now().unwrap();
    let piece = vec![7; 3 << 20];
    let refused = rig.fs.write(&Caller::root(), file, 0, &piece, WriteFlags::default()).unwrap_err();
    assert_eq!(refused.errno(), libc::ENOSPC);
    assert!(rig.writers.has_room());
}

#[test]
fn what_unlinked_files_hold_is_not_waited_for() {
    let rig = Rig::over(MemoryPersistence::with_capacity(8 << 20), NEVER, MUCH);
    let file = touch(&rig, "a");
    drop(fill(&rig, file, 6 << 20));
    rig.fs.unlink(&Caller::root(), NodeId::ROOT, b"a").unwrap();
    assert_eq!(rig.fs.unspilled_bytes(), 6 << 20, "it is still open");
    assert!(rig.writers.has_room());
    rig.writers.wait_for_room(0).unwrap();
}

#[test]
fn writers_of_unlinked_files_get_room_when_those_are_spilled() {
    let rig = Rig::new(NEVER, 16 << 20);
    let file = touch(&rig, "a");
    rig.fs.unlink(&Caller::root(), NodeId::ROOT, b"a").unwrap();
    rig.committer.commit_now().unwrap();
    for _ in 0..3 {
        drop(fill(&rig, file, 13 << 20));
        rig.writers.wait_for_room(0).unwrap();
    }
    assert_eq!(rig.log.state.lock().versions, 1, "nothing changed that a version tells");
}

#[test]
fn writers_who_wait_for_an_unlinked_file_that_cannot_be_spilled_are_told() {
    let rig = Rig::new(NEVER, 16 << 20);
    let file = touch(&rig, "a");
    rig.fs.unlink(&Caller::root(), NodeId::ROOT, b"a").unwrap();
    // So far out that no host's file is as large.
    let piece = vec![7; 1 << 20];
    for at in 0..13u64 {
        let offset = (1 << 60) + (at << 20);
        rig.fs.write(&Caller::root(), file, offset, &piece, WriteFlags::default()).unwrap();
    }
    assert_eq!(rig.writers.wait_for_room(0).unwrap_err().errno(), libc::EIO);
    // Where commits make room others are not told of it, also if there is none when one has ended.
    rig.fs.fallocate(&Caller::root(), file, 1 << 60, 2 << 20, Fallocate::PunchHole).unwrap();
    drop(fill(&rig, touch(&rig, "linked"), 2 << 20));
    std::thread::scope(|scope| {
        rig.hold_commits(true);
        let writer = scope.spawn(|| rig.writers.wait_for_room(0));
        rig.wait_until(|state| state.committing);
        drop(fill(&rig, touch(&rig, "another"), 2 << 20));
        rig.hold_commits(false);
        writer.join().unwrap().unwrap();
    });
    assert!(rig.committer.ledger().spill_failure().is_some());
    for at in 0..2u64 {
        let offset = (1 << 60) + (at << 20);
        rig.fs.write(&Caller::root(), file, offset, &piece, WriteFlags::default()).unwrap();
    }
    // With the file its bytes go.
    std::thread::scope(|scope| {
        rig.hold_commits(true);
        touch(&rig, "b");
        let commit = scope.spawn(|| rig.committer.commit_now());
        rig.wait_until(|state| state.committing);
        let writer = scope.spawn(|| rig.writers.wait_for_room(0));
        std::thread::sleep(Duration::from_millis(20));
        rig.fs.forget(file, 1);
        writer.join().unwrap().unwrap();
        rig.hold_commits(false);
        commit.join().unwrap().unwrap();
    });
}

#[test]
fn a_commit_is_a_factorys_only_if_it_holds_nothing_else() {
    let rig = Rig::new(NEVER, MUCH);
    let by_factory = |rig: &Rig, name: &str| {
        rig.committer.change_by_factory(|fs, nodes| {
            let made =
                fs.make(&Caller::root(), NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 }).unwrap();
            nodes.extend([NodeId::ROOT, made.id]);
        });
    };
    by_factory(&rig, "report");
    rig.committer.ledger().enter_cut(rig.fs.cut());
    by_factory(&rig, "second report");
    touch(&rig, "letter");
    rig.committer.ledger().enter_cut(rig.fs.cut());
    touch(&rig, "another letter");
    rig.committer.ledger().enter_cut(rig.fs.cut());
    let batches = rig.committer.ledger().uncommitted(u64::MAX);
    let by_factories: Vec<bool> = batches.iter().map(Batch::by_factories).collect();
    assert_eq!(by_factories, [true, false, false]);
}
