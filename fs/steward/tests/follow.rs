//! A replica follows: what comes in is shown, in one step, and how that goes can be seen.

mod common;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::remote::{Gate, Pair, Remote, eventually, init};
use common::{open, read, read_in, write};
use parking_lot::Mutex;
use pond_oplog::{At, Version};
use pond_steward::{
    FactoryError, OpenOptions, Reader, ReplicaState, Role, State, Steward, StewardError, replica_status,
};
use pond_tinyfs::{Caller, NodeId, Stale};

const POND: &str = "POND_FOLLOW_TEST";

fn often() -> Arc<Remote> {
    Remote::new(Some(Duration::from_millis(10)))
}

fn by_asking(remote: &Arc<Remote>) -> OpenOptions {
    OpenOptions { follow: false, ..remote.options() }
}

#[test]
fn what_the_source_commits_is_shown_by_itself() {
    let pair = Pair::new();
    let replica = open(&pair.replica, often().options());
    assert_eq!(read(&replica, "a").unwrap(), b"one");
    for n in 0..10 {
        let text = format!("text {n}");
        let version = pair.commit("a", text.as_bytes());
        pair.commit(&format!("file {n}"), text.as_bytes());
        eventually("it follows", || replica.position().version > version);
        assert_eq!(read(&replica, "a").unwrap(), text.as_bytes());
        assert_eq!(read(&replica, &format!("file {n}")).unwrap(), text.as_bytes());
    }
    eventually("it is synchronized", || {
        replica.status().replica.unwrap().state == ReplicaState::Synchronized
    });
    assert_eq!(replica.position(), pair.source.position());
    assert_eq!(replica.lag_ms(), 0);
    let status = replica.status();
    assert_eq!((status.mode, status.state), (Some(Role::Replica), State::ReadOnly));
    let position = replica.close().unwrap();
    assert_eq!(position, pair.source.position());
    assert_eq!(replica.status().state, State::Closed);

    // As `pond status` sees it when nobody has it open.
    let kept = replica_status(&pair.replica).unwrap().unwrap();
    assert_eq!(kept.state, ReplicaState::Synchronized);
    assert_eq!((kept.target_version, kept.applied_version), (Some(position.version), Some(position.version)));
    assert_eq!(kept.last_manifest.unwrap().digest, position.digest);
    assert_eq!(replica_status(&pair.place.pond).unwrap(), None);
    pair.source.close().unwrap();
}

#[test]
fn without_following_only_sync_brings_versions_in() {
    let pair = Pair::new();
    let remote = often();
    let replica = open(&pair.replica, by_asking(&remote));
    let before = replica.position();
    let version = pair.commit("b", b"two");
    assert_eq!((remote.pulls.load(Ordering::Relaxed), read(&replica, "b")), (0, None));
    assert_eq!(replica.sync().unwrap().position.version, version);
    assert!(before.version < version);
    assert_eq!(read(&replica, "b").unwrap(), b"two");
    // A second one at a time is refused, readers of a version are not.
    assert!(matches!(Steward::open(&pair.replica, remote.options()), Err(StewardError::LockHeld { .. })));
    let then = Reader::open(&pair.replica, At::Version(before.version), OpenOptions::default()).unwrap();
    assert_eq!(read_in(then.fs(), "b"), None);
    replica.close().unwrap();
    assert!(matches!(replica.sync(), Err(StewardError::Closed)));
}

#[test]
fn a_replica_takes_no_writes() {
    let pair = Pair::new();
    let remote = often();
    let replica = open(&pair.replica, by_asking(&remote));
    assert_eq!(write(&replica, "x", b"").unwrap_err().errno(), libc::EROFS);
    assert_eq!(replica.wait_for_room().unwrap_err().errno(), libc::EROFS);
    assert!(matches!(replica.mknod("remote", "/x", b""), Err(StewardError::ReadOnly { .. })));
    assert!(matches!(
        replica.control_set("factory_mode:remote", "push"),
        Err(StewardError::BadSetting { .. })
    ));
    assert!(matches!(replica.control_set("timeline", "9"), Err(StewardError::BadSetting { .. })));
    let position = replica.position();
    assert_eq!(replica.commit_now().unwrap(), position);
    replica.fsync_wait().unwrap();
    assert_eq!(replica.close().unwrap(), position);
}

#[test]
fn a_version_is_shown_in_one_step_and_watchers_are_told_before_the_position() {
    let pair = Pair::new();
    let caller = Caller::root();
    for i in 0..50 {
        write(&pair.source, &format!("0 {i}"), b"x").unwrap();
    }
    pair.source.commit_now().unwrap();
    let replica = open(&pair.replica, often().options());
    let told = Arc::new(Mutex::new(Vec::new()));
    let (note, oplog) = (told.clone(), replica.oplog().clone());
    replica
        .watch_changes(Box::new(move |stale| note.lock().push((oplog.position().version, stale.to_vec()))));
    // Referred to, as by a kernel, so that it must be told.
    let old = replica.fs().lookup(NodeId::ROOT, b"a").unwrap();

    let (stop, first) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), replica.position().version);
    let reader = {
        let (replica, stop) = (replica.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut generations = Vec::new();
                replica
                    .fs()
                    .readdir(NodeId::ROOT, 0, &mut |entry| {
                        let name = String::from_utf8(entry.name.to_vec()).unwrap();
                        if let Some((generation, _)) = name.split_once(' ') {
                            generations.push(generation.to_owned());
                        }
                        true
                    })
                    .unwrap();
                if let Some(one) = generations.first() {
                    assert!(
                        generations.iter().all(|generation| generation == one),
                        "half a version is shown"
                    );
                    assert_eq!(generations.len(), 50);
                    seen += 1;
                }
            }
            seen
        })
    };
    for generation in 1..20 {
        for i in 0..50 {
            let (from, to) = (format!("{} {i}", generation - 1), format!("{generation} {i}"));
            let fs = pair.source.fs();
            fs.rename(
                &caller,
                NodeId::ROOT,
                from.as_bytes(),
                NodeId::ROOT,
                to.as_bytes(),
                Default::default(),
            )
            .unwrap();
        }
        write(&pair.source, "a", format!("generation {generation}").as_bytes()).unwrap();
        let version = pair.source.commit_now().unwrap().version;
        eventually("it follows", || replica.position().version == version);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);

    let told = told.lock();
    // At the time each was told, the position was still that of the version before.
    let mut shown = first;
    for (position, _) in told.iter() {
        assert!(*position >= shown && *position < pair.source.position().version);
        shown = *position;
    }
    let stale: Vec<&Stale> = told.iter().flat_map(|(_, stale)| stale).collect();
    assert!(stale.iter().any(
        |stale| matches!(stale, Stale::Name { name, child, .. } if &**name == b"a" && *child == old.id)
    ));
    // What was open keeps its bytes, and a new open sees the new ones.
    let plan = replica.fs().read(old.id, 0, 100).unwrap();
    assert_eq!(plan.fill(&**replica.fs().persistence()).unwrap(), b"one"[..]);
    assert_eq!(read(&replica, "a").unwrap(), b"generation 19");
    replica.close().unwrap();
}

#[test]
fn lag_and_state_go_from_catching_up_to_synchronized() {
    let pair = Pair::new();
    let (remote, gate) = (often(), Arc::new(Gate::default()));
    let at_gate = gate.clone();
    *remote.before_publish.lock() = Some(Box::new(move |_| {
        at_gate.pass();
        Ok(())
    }));
    let version = pair.commit("b", b"two");
    let replica = open(&pair.replica, remote.options());
    gate.wait_for_somebody();
    // Applied, and not yet shown.
    let status = replica.status().replica.unwrap();
    assert_eq!(status.state, ReplicaState::CatchingUp);
    assert_eq!((status.target_version, status.applied_version), (Some(version), Some(version)));
    assert!(replica.position().version < version);
    assert_eq!(read(&replica, "b"), None);
    eventually("lag grows", || replica.lag_ms() > 5);
    let kept = replica_status(&pair.replica).unwrap().unwrap();
    assert_eq!((kept.state, kept.target_version), (ReplicaState::CatchingUp, Some(version)));
    gate.open();
    eventually("it is synchronized", || {
        replica.status().replica.unwrap().state == ReplicaState::Synchronized
    });
    assert_eq!((replica.lag_ms(), replica.status().replica.unwrap().lag_ms), (0, 0));
    assert_eq!(read(&replica, "b").unwrap(), b"two");
    replica.close().unwrap();
}

#[test]
fn a_pull_that_fails_leaves_what_is_shown_and_is_repeated() {
    let pair = Pair::new();
    let remote = often();
    let replica = open(&pair.replica, remote.options());
    eventually("it is synchronized", || {
        replica.status().replica.unwrap().state == ReplicaState::Synchronized
    });
    remote.unreachable.store(true, Ordering::Relaxed);
    let version = pair.commit("a", b"two");
    let Err(StewardError::FactoryFailed { reason, .. }) = replica.sync() else { panic!("it did not fail") };
    assert_eq!(reason.to_string(), "the store cannot be reached");
    let status = replica.status().replica.unwrap();
    assert_eq!(
        (status.state, status.error.as_deref()),
        (ReplicaState::Failed, Some("the store cannot be reached"))
    );
    assert_eq!(replica_status(&pair.replica).unwrap().unwrap().state, ReplicaState::Failed);
    assert_eq!(read(&replica, "a").unwrap(), b"one");

    let pulls = remote.pulls.load(Ordering::Relaxed);
    eventually("it is tried again", || remote.pulls.load(Ordering::Relaxed) > pulls + 1);
    remote.unreachable.store(false, Ordering::Relaxed);
    eventually("it recovers", || replica.position().version == version);
    eventually("it says so", || {
        let status = replica.status().replica.unwrap();
        (status.state, status.error) == (ReplicaState::Synchronized, None)
    });

    // A panic is a failure like any other.
    *remote.before_publish.lock() = Some(Box::new(|_| panic!("told to panic")));
    pair.commit("a", b"three");
    eventually("the panic is shown", || {
        replica.status().replica.unwrap().error.is_some_and(|error| error.contains("told to panic"))
    });
    assert_eq!(read(&replica, "a").unwrap(), b"two");
    *remote.before_publish.lock() = None;
    eventually("it recovers", || read(&replica, "a").unwrap() == b"three");
    replica.close().unwrap();
}

#[test]
fn closing_breaks_a_pull_off_and_that_is_no_failure() {
    let pair = Pair::new();
    let (remote, gate) = (often(), Arc::new(Gate::default()));
    let at_gate = gate.clone();
    *remote.before_publish.lock() = Some(Box::new(move |replica| {
        at_gate.open();
        at_gate.pass();
        while !replica.stopping() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(FactoryError::new("broken off"))
    }));
    let replica = open(&pair.replica, remote.options());
    let version = pair.commit("b", b"two");
    gate.wait_for_somebody();
    replica.close().unwrap();
    let kept = replica_status(&pair.replica).unwrap().unwrap();
    assert_eq!((kept.state, kept.error), (ReplicaState::CatchingUp, None));

    // What was applied is shown when it is opened again, and is not applied twice.
    *remote.before_publish.lock() = None;
    let replica = open(&pair.replica, by_asking(&remote));
    assert_eq!(replica.position().version, version);
    assert_eq!(read(&replica, "b").unwrap(), b"two");
    let applied = remote.applied.load(Ordering::Relaxed);
    replica.sync().unwrap();
    assert_eq!(remote.applied.load(Ordering::Relaxed), applied);
    replica.close().unwrap();
}

#[test]
fn where_the_settings_were_lost_the_ponds_own_remote_is_followed() {
    let pair = Pair::new();
    let remote = often();
    // A replica whose configuration is not known, and whose pond has no remote either.
    std::fs::remove_dir_all(pair.replica.join("control")).unwrap();
    Steward::restore_control(&pair.replica, Role::Replica).unwrap();
    let replica = open(&pair.replica, by_asking(&remote));
    let error = replica.sync().unwrap_err().to_string();
    assert!(error.contains("remote_config"), "{error}");
    replica.close().unwrap();

    pair.source.close().unwrap();
    let source = open(&pair.place.pond, remote.options());
    let path = pair.place.pond.to_str().unwrap();
    source.mknod("remote", "/etc/system.d/10-remote", path.as_bytes()).unwrap();
    init_again(&pair, &source);
    let replica = open(&pair.replica, by_asking(&remote));
    write(&source, "b", b"two").unwrap();
    source.commit_now().unwrap();
    replica.sync().unwrap();
    assert_eq!(read(&replica, "b").unwrap(), b"two");
    // The node itself is not run after versions came in, and running it by hand is a pull.
    assert!(replica.status().factories.is_empty());
    write(&source, "b", b"three").unwrap();
    source.commit_now().unwrap();
    replica.run("/etc/system.d/10-remote", &[]).unwrap();
    assert_eq!(read(&replica, "b").unwrap(), b"three");
    assert!(remote.runs.lock().iter().all(|(mode, _)| mode == "pull" || mode == "push"));
    replica.close().unwrap();
    source.close().unwrap();
}

/// The replica up to the present version, without settings.
fn init_again(pair: &Pair, source: &Steward) {
    std::fs::remove_dir_all(&pair.replica).unwrap();
    init(&pair.replica, &pair.place.pond, source.position().version);
    std::fs::remove_dir_all(pair.replica.join("control")).unwrap();
    Steward::restore_control(&pair.replica, Role::Replica).unwrap();
}

#[test]
fn on_a_replica_a_factory_runs_after_versions_came_in_only_where_it_was_told_to() {
    let pair = Pair::new();
    let log = pair.place.dir.path().join("commits.jsonl");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().count() as u64;
    let remote = often();
    pair.source.mknod("exec-log", "/etc/system.d/1", format!("path: {}", log.display()).as_bytes()).unwrap();
    let version = pair.source.sync().unwrap().position.version;
    let written = lines();
    assert_eq!(written, version.0 + 1);
    std::fs::remove_file(&log).unwrap();

    let replica = open(&pair.replica, by_asking(&remote));
    replica.sync().unwrap();
    assert_eq!(lines(), 0);
    assert!(matches!(replica.run("/etc/system.d/1", &[]), Err(StewardError::NotOnAReplica { .. })));
    replica.control_set("factory_mode:exec-log", "pull").unwrap();
    replica.sync().unwrap();
    assert_eq!(lines(), written);
    write(&pair.source, "b", b"two").unwrap();
    pair.source.commit_now().unwrap();
    let report = replica.sync().unwrap();
    assert_eq!(lines(), written + 1);
    assert_eq!((report.factories.len(), report.factories[0].behind), (1, 0));
    replica.close().unwrap();
}

#[test]
fn an_init_that_was_cut_off_goes_on_where_it_stopped() {
    let pair = Pair::new();
    for n in 0..5u8 {
        pair.commit("a", &[n]);
    }
    let place = pair.place.dir.path().join("second");
    let path = pair.place.pond.to_str().unwrap().as_bytes().to_vec();
    let half = pond_steward::Replica::init(&place, &path).unwrap();
    for number in 0..3 {
        common::remote::apply(half.incoming(), &pair.place.pond, Version(number)).unwrap();
    }
    drop(half);
    let Err(error) = Steward::open(&place, OpenOptions::default()) else { panic!("it was opened") };
    assert!(matches!(error, StewardError::ReplicaUnfinished { .. }));
    let Err(error) = Reader::open(&place, At::Tip, OpenOptions::default()) else { panic!() };
    assert!(matches!(error, StewardError::ReplicaUnfinished { .. }));
    let again = pond_steward::Replica::init(&place, &path).unwrap();
    assert_eq!(again.position().unwrap().version, Version(2));
    drop(again);
    init(&place, &pair.place.pond, pair.source.position().version);
    assert!(matches!(
        pond_steward::Replica::init(&place, &path).map(drop),
        Err(StewardError::AlreadyAReplica { .. })
    ));
    let replica = open(&place, by_asking(&often()));
    assert_eq!(read(&replica, "a").unwrap(), b"\x04ne");
    assert_eq!(replica.position(), pair.source.position());
    replica.close().unwrap();
}

/// Not a test by itself: the process that is killed between applying and showing.
#[test]
fn child() {
    let Some(pond) = std::env::var_os(POND) else { return };
    let remote = often();
    *remote.before_publish.lock() = Some(Box::new(|_| {
        // SAFETY: it ends this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        Ok(())
    }));
    let _replica = Steward::open(std::path::Path::new(&pond), remote.options()).unwrap();
    std::thread::sleep(Duration::from_secs(60));
    panic!("it was not killed");
}

#[test]
fn a_kill_between_applying_and_showing_loses_and_repeats_nothing() {
    let pair = Pair::new();
    let remote = often();
    for round in 0..4u8 {
        let versions: Vec<Version> = (0..3).map(|n| pair.commit(&format!("file {n}"), &[round, n])).collect();
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--test-threads", "1"])
            .env(POND, &pair.replica)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(libc::SIGKILL));
        let replica = open(&pair.replica, by_asking(&remote));
        assert_eq!(replica.position().version, *versions.last().unwrap());
        for n in 0..3 {
            assert_eq!(read(&replica, &format!("file {n}")).unwrap(), [round, n]);
        }
        replica.sync().unwrap();
        replica.close().unwrap();
    }
    assert_eq!(remote.applied.load(Ordering::Relaxed), 0);
}
