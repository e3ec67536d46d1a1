use std::time::Duration;

use pond_tinyfs::{Caller, Make, NodeId, SetAttributes, WriteFlags};

use crate::commit::faulty_log::{Fault, Rig};
use crate::pacing::scheduler::Effort;

const NEVER: Duration = Duration::from_secs(3600);
/// Content is drained from 768 KiB on.
const BUDGET: u64 = 4 << 20;
const MIB: usize = 1 << 20;

fn touch(rig: &Rig, name: &str) -> NodeId {
    let made =
        rig.fs.make(&Caller::root(), NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 }).unwrap();
    made.id
}

fn write(rig: &Rig, file: NodeId, offset: usize, byte: u8, bytes: usize) {
    let data = vec![byte; bytes];
    rig.fs.write(&Caller::root(), file, offset as u64, &data, WriteFlags::default()).unwrap();
    rig.writers.has_room();
}

fn read(rig: &Rig, file: NodeId, bytes: usize) -> Vec<u8> {
    rig.fs.read(file, 0, bytes).unwrap().fill(&**rig.fs.persistence()).unwrap()
}

/// Writes 1 MiB and waits until it is drained.
fn drained(rig: &Rig, file: NodeId, offset: usize, byte: u8) {
    let before = rig.log.state.lock().drains;
    write(rig, file, offset, byte, MIB);
    wait(|| rig.log.state.lock().drains > before && rig.committer.ledger().draining(u64::MAX) == 0);
}

fn wait(done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "it did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The tree that the rows in versions make, and nothing else.
fn folded(rig: &Rig) -> pond_tinyfs::TinyFs {
    pond_tinyfs::TinyFs::new(rig.log.committed_tree(), rig.fs.persistence().clone())
}

#[test]
fn drained_content_leaves_memory_and_makes_no_version() {
    let rig = Rig::new(NEVER, BUDGET);
    let file = touch(&rig, "a");
    drained(&rig, file, 0, 1);
    assert_eq!(rig.fs.dirty_bytes(), 0);
    assert_eq!(rig.log.state.lock().versions, 0);
    assert!(read(&rig, file, MIB) == vec![1; MIB]);

    rig.committer.commit_now().unwrap();
    let state = rig.log.state.lock();
    assert_eq!(state.versions, 1);
    assert!(state.drained.is_empty());
    assert!(state.committed.is_sorted());
    assert_eq!(state.committed.last().unwrap().0, rig.fs.last_lsn());
}

#[test]
fn an_fsync_over_drained_content_is_a_commit() {
    let rig = Rig::new(NEVER, BUDGET);
    let file = touch(&rig, "a");
    drained(&rig, file, 0, 1);
    touch(&rig, "b");
    rig.fsync_wait().unwrap();
    let state = rig.log.state.lock();
    assert_eq!((state.versions, state.frames.len()), (1, 0));
    assert_eq!(state.committed.last().unwrap().0, rig.fs.last_lsn());
}

#[test]
fn an_fsync_during_a_drain_waits_for_it_and_commits() {
    let rig = Rig::new(NEVER, BUDGET);
    let file = touch(&rig, "a");
    rig.hold_drains(true);
    write(&rig, file, 0, 1, MIB);
    rig.wait_until(|state| state.draining == 1);
    let last = rig.fs.last_lsn();
    std::thread::scope(|scope| {
        let fsync = scope.spawn(|| rig.fsync_wait().unwrap());
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(rig.log.state.lock().versions, 0);
        rig.hold_drains(false);
        fsync.join().unwrap();
    });
    let state = rig.log.state.lock();
    assert_eq!((state.versions, state.frames.len()), (1, 0));
    assert_eq!(state.committed.last().unwrap().0, last);
}

#[test]
fn drains_that_end_in_another_order_are_committed_in_theirs() {
    let rig = Rig::new(NEVER, BUDGET);
    let file = touch(&rig, "a");
    rig.hold_drains(true);
    write(&rig, file, 0, 1, MIB);
    rig.wait_until(|state| state.draining == 1);
    write(&rig, file, MIB / 2, 2, MIB);
    rig.wait_until(|state| state.draining == 2);
    // A commit takes both, and what came after them.
    write(&rig, file, 0, 3, 4096);
    rig.hold_drains(false);
    rig.committer.commit_now().unwrap();
    let tree = folded(&rig);
    let mut expected = vec![1; MIB / 2];
    expected.resize(MIB + MIB / 2, 2);
    expected[..4096].fill(3);
    let id = tree.resolve(b"/a").unwrap().id;
    let bytes = tree.read(id, 0, 2 * MIB).unwrap().fill(&**tree.persistence()).unwrap();
    assert!(bytes == expected);
    assert!(read(&rig, file, 2 * MIB) == expected);
}

#[test]
fn drained_extents_may_be_overwritten_cut_off_and_unlinked_before_the_commit() {
    let rig = Rig::new(NEVER, BUDGET);
    let (over, cut, gone) = (touch(&rig, "over"), touch(&rig, "cut"), touch(&rig, "gone"));
    for file in [over, cut, gone] {
        drained(&rig, file, 0, 1);
    }
    let root = Caller::root();
    write(&rig, over, 4096, 2, 8192);
    let size = SetAttributes { size: Some(100), ..SetAttributes::default() };
    rig.fs.setattr(&root, cut, &size).unwrap();
    rig.fs.setattr(&root, cut, &SetAttributes { size: Some(300), ..size }).unwrap();
    rig.fs.unlink(&root, NodeId::ROOT, b"gone").unwrap();
    rig.committer.commit_now().unwrap();

    let tree = folded(&rig);
    let all = |name: &[u8]| {
        let id = tree.resolve(name).unwrap().id;
        tree.read(id, 0, 2 * MIB).unwrap().fill(&**tree.persistence()).unwrap()
    };
    let mut expected = vec![1; MIB];
    expected[4096..12288].fill(2);
    assert!(all(b"/over") == expected);
    assert_eq!(all(b"/cut"), [vec![1; 100], vec![0; 200]].concat());
    assert!(tree.resolve(b"/gone").is_err());
    assert!(read(&rig, over, 2 * MIB) == expected);
    // Who has it open still reads it.
    assert!(read(&rig, gone, 2 * MIB) == vec![1; MIB]);
}

#[test]
fn a_drain_that_finds_the_disk_full_costs_the_reserve_first() {
    let rig = Rig::new(NEVER, BUDGET);
    rig.log.state.lock().drain_faults.push_back(Fault::Errno(libc::ENOSPC));
    let file = touch(&rig, "a");
    drained(&rig, file, 0, 1);
    assert!(!rig.has_reserve());
    assert_eq!(rig.fs.dirty_bytes(), 0);
}

#[test]
fn a_drain_that_fails_on_a_full_disk_loses_nothing_and_is_made_up_by_the_next_commit() {
    let rig = Rig::new(NEVER, BUDGET);
    let file = touch(&rig, "a");
    {
        let mut state = rig.log.state.lock();
        state.drain_faults.extend([Fault::Errno(libc::ENOSPC); 2]);
        state.commit_faults.push_back(Fault::Errno(libc::ENOSPC));
    }
    write(&rig, file, 0, 1, MIB);
    wait(|| {
        rig.log.state.lock().attempts == 1
            && rig.committer.ledger().storing(std::time::Instant::now()).ended == 1
    });
    assert!(!rig.fs.is_read_only());
    assert!(rig.committer.ledger().failure().is_some());
    // What is written now is not drained while the disk is full, and writers that find no room are told.
    write(&rig, file, MIB, 2, 3 * MIB);
    assert_eq!(rig.log.state.lock().drains, 0);
    assert_eq!(rig.writers.wait_for_room(0).unwrap_err().errno(), libc::ENOSPC);

    rig.committer.commit_now().unwrap();
    rig.writers.wait_for_room(0).unwrap();
    let mut expected = vec![1; MIB];
    expected.resize(4 * MIB, 2);
    assert!(read(&rig, file, 4 * MIB) == expected);
    assert_eq!(rig.log.state.lock().committed.last().unwrap().0, rig.fs.last_lsn());
}

#[test]
fn a_drain_that_fails_otherwise_ends_writing_as_a_commit_does() {
    let rig = Rig::new(NEVER, BUDGET);
    rig.log.state.lock().drain_faults.push_back(Fault::Errno(libc::EIO));
    let file = touch(&rig, "a");
    write(&rig, file, 0, 1, MIB);
    wait(|| rig.log.state.lock().versions == 1);
    assert!(rig.fs.is_read_only());
    assert_eq!(rig.log.state.lock().committed.last().unwrap().0, rig.fs.last_lsn());
}

#[test]
fn what_was_drained_goes_into_the_journal_where_nothing_can_be_committed() {
    let rig = Rig::new(NEVER, BUDGET);
    let file = touch(&rig, "a");
    drained(&rig, file, 0, 1);
    rig.committer.refuse_writes("a version may not be durable", false);
    rig.fsync_wait().unwrap();
    let state = rig.log.state.lock();
    assert_eq!(state.versions, 0);
    let mut rows = state.frames.concat();
    rows.sort_unstable();
    assert_eq!(rows.last().unwrap().0, rig.fs.last_lsn());
    // Eight extents, the file, the directory's entries and itself.
    assert!(rows.len() >= 8 + 3 && rows.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn closing_puts_what_was_drained_into_the_journal_where_commits_fail() {
    let rig = Rig::new(NEVER, BUDGET);
    let file = touch(&rig, "a");
    drained(&rig, file, 0, 1);
    rig.log.state.lock().commit_faults.extend([Fault::Errno(libc::EIO); 4]);
    assert!(rig.committer.commit_now().is_err());
    rig.fsync.make_durable(Effort::Frame).unwrap();
    let state = rig.log.state.lock();
    assert_eq!((state.versions, state.attempts), (0, 1));
    assert_eq!(state.frames.concat().iter().max().unwrap().0, rig.fs.last_lsn());
}

#[test]
fn whatever_is_committed_while_content_is_drained_is_a_prefix() {
    let rig = Rig::new(Duration::from_millis(3), BUDGET);
    let file = touch(&rig, "a");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..200usize {
                let block = n % 8 * (MIB / 4);
                write(&rig, file, block, n as u8 + 1, MIB / 4);
                rig.writers.wait_for_room(0).unwrap();
            }
        });
        scope.spawn(|| {
            for _ in 0..40 {
                // One writer, each write larger than the one before it at its place: a prefix holds the last bytes of
                // as many places as it has writes.
                let tree = folded(&rig);
                let Ok(found) = tree.resolve(b"/a") else { continue };
                let bytes = tree.read(found.id, 0, 4 * MIB).unwrap().fill(&**tree.persistence()).unwrap();
                let last = bytes.chunks(MIB / 4).map(|block| usize::from(block[0])).max().unwrap_or(0);
                for (place, block) in bytes.chunks(MIB / 4).enumerate() {
                    let newest = (0..last).rev().find(|n| n % 8 == place).map_or(0, |n| n as u8 + 1);
                    assert!(block.iter().all(|byte| *byte == newest), "block {place} of {last}");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    });
    rig.committer.commit_now().unwrap();
    let state = rig.log.state.lock();
    assert!(state.drains > 0);
    assert_eq!(state.committed.last().unwrap().0, rig.fs.last_lsn());
}
