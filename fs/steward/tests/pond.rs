//! A whole Steward on a real log: open, commit, close, recover, refuse.

mod common;

use std::time::Duration;

use common::{Place, by_hand, open, read, read_in, write};
use pond_oplog::{At, Version};
use pond_steward::{OpenOptions, Reader, Role, State, Steward, StewardError, lock_holder};
use pond_tinyfs::{Advise, Caller, Make, NodeId, WriteFlags};

#[test]
fn what_was_written_is_there_after_closing_and_opening() {
    let place = Place::with_pond();
    let steward = place.open();
    let large: Vec<u8> = (0..3 << 20).map(|i| (i % 251) as u8).collect();
    write(&steward, "a", b"hello").unwrap();
    write(&steward, "b", &large).unwrap();
    let closed = steward.close().unwrap();
    assert_eq!(steward.close().unwrap(), closed);
    assert_eq!(steward.status().state, State::Closed);

    let steward = place.open();
    assert_eq!(steward.position(), closed);
    assert_eq!(read(&steward, "a").unwrap(), b"hello");
    assert_eq!(read(&steward, "b").unwrap(), large);
    assert_eq!(steward.status().state, State::Clean);
    steward.close().unwrap();
}

/// Operations on an unlinked file take numbers and leave no rows: a version can end behind its last row.
#[test]
fn what_is_fsynced_after_work_on_unlinked_files_outlives_a_crash() {
    let place = Place::with_pond();
    let steward = place.open();
    let (fs, root) = (steward.fs(), Caller::root());
    write(&steward, "keep", b"kept").unwrap();
    let unlinked = fs.make(&root, NodeId::ROOT, b"tmp", Make::File { mode: 0o600 }).unwrap().id;
    fs.unlink(&root, NodeId::ROOT, b"tmp").unwrap();
    for _ in 0..200 {
        fs.write(&root, unlinked, 0, b"scratch", WriteFlags::default()).unwrap();
    }
    write(&steward, "keep", b"kept again").unwrap();
    fs.write(&root, unlinked, 0, b"scratch", WriteFlags::default()).unwrap();
    steward.close().unwrap();

    let steward = open(&place.pond, by_hand());
    assert!(steward.fs().last_lsn() >= steward.position().cut_lsn);
    write(&steward, "precious", b"promised").unwrap();
    steward.fsync_wait().unwrap();
    // What a crash here would leave.
    let left = place.pond.with_file_name("left");
    let copied = std::process::Command::new("cp").arg("-a").arg(&place.pond).arg(&left).status().unwrap();
    assert!(copied.success());
    let steward = open(&left, by_hand());
    assert_eq!(read(&steward, "precious").unwrap(), b"promised");
    assert_eq!(read(&steward, "keep").unwrap(), b"kept again");
}

#[test]
fn dropping_a_steward_commits_too() {
    let place = Place::with_pond();
    let steward = open(&place.pond, by_hand());
    write(&steward, "a", b"hello").unwrap();
    drop(steward);
    let steward = place.open();
    assert_eq!(read(&steward, "a").unwrap(), b"hello");
    assert!(steward.position().version >= Version(1));
}

#[test]
fn changes_are_committed_by_themselves() {
    let place = Place::with_pond();
    let options = OpenOptions { commit_interval: Duration::from_millis(20), ..OpenOptions::default() };
    let steward = open(&place.pond, options);
    write(&steward, "a", b"hello").unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while steward.position().version == Version(0) {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    steward.close().unwrap();
}

#[test]
fn a_version_is_read_while_another_process_writes() {
    let place = Place::with_pond();
    let steward = open(&place.pond, by_hand());
    write(&steward, "a", b"one").unwrap();
    let first = steward.commit_now().unwrap();
    write(&steward, "a", b"two").unwrap();
    let second = steward.commit_now().unwrap();
    write(&steward, "a", b"not committed").unwrap();

    let at = |at| Reader::open(&place.pond, at, OpenOptions::default()).unwrap();
    let old = at(At::Version(first.version));
    assert_eq!(read_in(old.fs(), "a").unwrap(), b"one");
    assert_eq!(old.position(), first);
    assert_eq!(read_in(at(At::Timestamp(first.timestamp)).fs(), "a").unwrap(), b"one");
    assert_eq!(read_in(at(At::Tip).fs(), "a").unwrap(), b"two");
    assert_eq!(at(At::Tip).position(), second);

    let made = old.fs().make(&Caller::root(), NodeId::ROOT, b"b", Make::File { mode: 0o644 });
    assert_eq!(made.unwrap_err().errno(), libc::EROFS);
    assert_eq!(old.status().state, State::ReadOnly);
    assert_eq!(old.status().mode, Some(Role::Source));
    steward.close().unwrap();
}

#[test]
fn a_second_writer_is_refused_and_may_wait() {
    let place = Place::with_pond();
    let steward = place.open();
    let Err(StewardError::LockHeld { holder, .. }) = Steward::open(&place.pond, OpenOptions::default())
    else {
        panic!("two writers");
    };
    assert_eq!(holder.pid, std::process::id());
    assert_eq!(lock_holder(&place.pond).unwrap(), Some(holder));
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let options =
                OpenOptions { wait_for_lock: Some(Duration::from_secs(20)), ..OpenOptions::default() };
            Steward::open(&place.pond, options).map(|steward| read(&steward, "a"))
        });
        write(&steward, "a", b"hello").unwrap();
        steward.close().unwrap();
        assert_eq!(second.join().unwrap().unwrap().unwrap(), b"hello");
    });
    assert_eq!(lock_holder(&place.pond).unwrap(), None);
}

#[test]
fn sync_holds_everything_issued_so_far() {
    let place = Place::with_pond();
    let steward = open(&place.pond, by_hand());
    for i in 0..10 {
        write(&steward, &format!("{i}"), &[i; 1000]).unwrap();
        let report = steward.sync().unwrap();
        assert_eq!(report.position.version, Version(u64::from(i) + 1));
        assert_eq!(report.position.cut_lsn, steward.fs().last_lsn());
    }
    let history = steward.history(Some(3)).unwrap();
    let versions: Vec<u64> = history.iter().map(|commit| commit.position.version.0).collect();
    assert_eq!(versions, [10, 9, 8]);
    assert!(!pond_oplog::changes(&place.pond, Version(10)).unwrap().is_empty());
    steward.close().unwrap();
}

#[test]
fn every_version_is_a_prefix_of_the_operations() {
    let place = Place::with_pond();
    let options = OpenOptions { commit_interval: Duration::from_millis(3), ..OpenOptions::default() };
    let steward = open(&place.pond, options);
    let mut written = 0;
    // However slow the disk, some versions hold a part.
    while written < 500 || steward.position().version <= Version(3) && written < 10_000 {
        let i = written;
        written += 1;
        write(&steward, &format!("{i:04}"), b"x").unwrap();
        if i % 20 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let tip = steward.close().unwrap().version;
    assert!(tip > Version(2));
    let mut last = 0;
    for version in 0..=tip.0 {
        let at = At::Version(Version(version));
        let steward = Reader::open(&place.pond, at, OpenOptions::default()).unwrap();
        let mut names = Vec::new();
        steward
            .fs()
            .readdir(NodeId::ROOT, 0, &mut |entry| {
                if !matches!(entry.name, b"." | b"..") {
                    names.push(String::from_utf8(entry.name.to_vec()).unwrap());
                }
                true
            })
            .unwrap();
        names.sort();
        let expected: Vec<String> = (0..names.len()).map(|i| format!("{i:04}")).collect();
        assert_eq!(names, expected);
        assert!(names.len() >= last);
        last = names.len();
    }
    assert_eq!(last, written);
}

#[test]
fn a_checkpoint_is_made_off_the_commit_path() {
    let place = Place::with_pond();
    let steward = open(&place.pond, by_hand());
    for i in 0..70 {
        write(&steward, "a", format!("{i}").as_bytes()).unwrap();
        steward.commit_now().unwrap();
    }
    let checkpoint = place.pond.join("data/_delta_log/_last_checkpoint");
    steward.close().unwrap();
    assert!(checkpoint.exists());
    let steward = place.open();
    assert_eq!(read(&steward, "a").unwrap(), b"69");
}

#[test]
fn a_pond_without_its_control_table_is_not_written_to_until_its_role_is_told() {
    let place = Place::with_pond();
    let steward = place.open();
    write(&steward, "a", b"hello").unwrap();
    steward.close().unwrap();
    std::fs::remove_dir_all(place.pond.join("control")).unwrap();

    let refused = Steward::open(&place.pond, OpenOptions::default());
    assert!(matches!(refused, Err(StewardError::ControlMissing { .. })));
    let seen = Reader::open(&place.pond, At::Tip, OpenOptions::default()).unwrap();
    assert_eq!(read_in(seen.fs(), "a").unwrap(), b"hello");
    assert_eq!(seen.status().mode, None);

    Steward::restore_control(&place.pond, Role::Source).unwrap();
    let steward = place.open();
    write(&steward, "b", b"x").unwrap();
    steward.close().unwrap();
}

#[test]
fn a_replica_takes_no_writes() {
    let place = Place::with_pond();
    let steward = place.open();
    steward.control_set("factory_mode:remote", "pull").unwrap();
    assert_eq!(write(&steward, "a", b"x").unwrap_err().errno(), libc::EROFS);
    steward.close().unwrap();
    let steward = place.open();
    assert_eq!(write(&steward, "a", b"x").unwrap_err().errno(), libc::EROFS);
    let status = steward.status();
    assert_eq!((status.mode, status.state), (Some(Role::Replica), State::ReadOnly));
    assert!(status.read_only_because.unwrap().contains("replica"));
    assert!(steward.control_set("factory_mode:remote", "push").is_err());
    steward.close().unwrap();
}

#[test]
fn settings_are_kept_and_listed() {
    let place = Place::with_pond();
    let steward = place.open();
    steward.control_set("factory_mode:exec-log", "pull").unwrap();
    drop(steward);
    let steward = place.open();
    let all = [("factory_mode:exec-log", "pull"), ("factory_mode:remote", "push")];
    let all: Vec<_> = all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    assert_eq!(steward.control_get(None), all);
    assert_eq!(steward.control_get(Some("factory_mode:remote")), all[1..]);
    assert!(steward.control_get(Some("no such")).is_empty());
    let refused = steward.control_set("factory_mode:exec-log", "quiet").unwrap_err().to_string();
    assert!(refused.contains("quiet") && refused.contains("push or pull"), "{refused}");
}

#[test]
fn a_directory_that_is_no_pond_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("nothing")] {
        let Err(error) = Steward::open(&path, OpenOptions::default()) else { panic!("opened nothing") };
        assert!(matches!(error, StewardError::NoPond(_)));
        assert!(error.advice().unwrap_or_default().contains("pond init"));
        assert!(Reader::open(&path, At::Tip, OpenOptions::default()).is_err());
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn status_says_what_is_going_on() {
    let place = Place::with_pond();
    let steward = open(&place.pond, by_hand());
    let clean = serde_json::to_value(steward.status()).unwrap();
    assert_eq!(clean["state"], "clean");
    assert_eq!(clean["mode"], "source");
    assert_eq!(clean["version"], 0);
    write(&steward, "a", &[1; 5000]).unwrap();
    let dirty = serde_json::to_value(steward.status()).unwrap();
    assert_eq!(dirty["state"], "dirty");
    assert_eq!(dirty["uncommitted"]["bytes"], 5000);
    steward.fsync_wait().unwrap();
    let journaled = serde_json::to_value(steward.status()).unwrap();
    assert_eq!(journaled["journal"]["frames"], 1);
    assert!(journaled["uncommitted"]["rows"].as_u64().unwrap() > 0);
    steward.close().unwrap();
    assert_eq!(serde_json::to_value(steward.status()).unwrap()["state"], "closed");
}

#[test]
fn an_fsync_after_close_does_not_hang_and_writing_is_refused() {
    let place = Place::with_pond();
    let steward = place.open();
    steward.close().unwrap();
    steward.fsync_wait().unwrap();
    assert_eq!(write(&steward, "a", b"x").unwrap_err().errno(), libc::EROFS);
    assert!(matches!(steward.run("/x", &[]), Err(StewardError::Closed)));
    let made =
        steward.fs().make(&Caller::root(), NodeId::ROOT, b"a", pond_tinyfs::Make::Directory { mode: 0o755 });
    assert!(made.is_err());
}

#[test]
fn newest_versions_that_the_log_has_lost_are_noticed_and_nothing_of_theirs_is_removed() {
    let place = Place::with_pond();
    let steward = open(&place.pond, by_hand());
    for n in 0..3 {
        write(&steward, &format!("file-{n}"), &[n; 3000]).unwrap();
        steward.commit_now().unwrap();
    }
    let tip = steward.close().unwrap().version;
    let entry = place.pond.join(format!("data/_delta_log/{:020}.json", tip.0));
    let kept = std::fs::read(&entry).unwrap();
    std::fs::remove_file(&entry).unwrap();
    let files = || std::fs::read_dir(place.pond.join("data")).unwrap().count();
    let before = files();

    let report = pond_steward::fsck::check(&place.pond, &()).unwrap().report;
    let missing: Vec<&str> = report.findings.iter().map(|finding| finding.file.as_str()).collect();
    assert!(!report.is_clean() && missing.iter().any(|file| entry.ends_with(file)), "{missing:?}");
    let steward = place.open();
    assert_eq!(write(&steward, "more", b"x").unwrap_err().errno(), libc::EROFS);
    assert_eq!(steward.position().version, Version(tip.0 - 1));
    steward.close().unwrap();
    assert_eq!(files(), before);

    std::fs::write(&entry, kept).unwrap();
    // The first ones are as much part of it.
    let first = place.pond.join(format!("data/_delta_log/{:020}.json", 0));
    let kept = std::fs::read(&first).unwrap();
    let steward = place.open();
    steward.oplog().checkpoint().unwrap();
    steward.close().unwrap();
    std::fs::remove_file(&first).unwrap();
    let report = pond_steward::fsck::check(&place.pond, &()).unwrap().report;
    assert!(report.findings.iter().any(|finding| first.ends_with(&finding.file)), "{:?}", report.findings);
    std::fs::write(&first, kept).unwrap();
    assert!(pond_steward::fsck::check(&place.pond, &()).unwrap().report.is_clean());
    let steward = place.open();
    assert_eq!(read(&steward, "file-2").unwrap(), [2; 3000]);
    write(&steward, "more", b"x").unwrap();
    steward.close().unwrap();
}
