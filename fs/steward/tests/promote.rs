//! A replica becomes a source, and a source that another one superseded stays read-only.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::remote::{Pair, Remote, init};
use common::{Place, open, read, write};
use pond_oplog::{Timeline, Version};
use pond_steward::{FactoryError, OpenOptions, Role, State, Steward, StewardError, replica_status};

fn by_asking(remote: &Arc<Remote>) -> OpenOptions {
    OpenOptions { follow: false, ..remote.options() }
}

#[test]
fn a_promoted_replica_takes_writes_on_its_own_timeline() {
    let pair = Pair::new();
    let remote = Remote::new(Some(Duration::from_millis(10)));
    // Following while it is promoted, and behind.
    let replica = open(&pair.replica, remote.options());
    replica.control_set("factory_mode:exec-log", "pull").unwrap();
    replica.sync().unwrap();
    let fork = replica.position();
    assert!(matches!(
        replica.promote(Timeline(1), "claimed"),
        Err(StewardError::BadTimeline { current: Timeline(1), .. })
    ));
    let promoted = replica.promote(Timeline(2), "claimed").unwrap();
    assert_eq!((promoted.version, promoted.timeline), (fork.version.next(), Timeline(2)));
    assert_eq!(promoted.cut_lsn, fork.cut_lsn);
    assert_eq!(replica.position(), promoted);
    assert!(matches!(replica.promote(Timeline(3), "claimed"), Err(StewardError::NotAReplica { .. })));
    // Nothing comes in any more.
    let pulls = remote.pulls.load(Ordering::Relaxed);
    pair.commit("a", b"of the old source");
    assert_eq!(replica.sync().unwrap().position, promoted);
    assert_eq!(remote.pulls.load(Ordering::Relaxed), pulls);
    assert_eq!(write(&replica, "x", b"").unwrap_err().errno(), libc::EROFS);
    assert!(replica.status().replica.is_none());
    assert_eq!(replica.close().unwrap(), promoted);

    let source = open(&pair.replica, remote.options());
    assert_eq!(source.position(), promoted);
    let newest = source.history(Some(1)).unwrap().remove(0);
    assert_eq!((newest.origin.kind.as_str(), newest.rows), ("promote", 0));
    assert_eq!(source.status().mode, Some(Role::Source));
    let setting = |key| source.control_get(Some(key)).pop().map(|(_, value)| value);
    assert_eq!(setting("factory_mode:remote").as_deref(), Some("push"));
    assert_eq!(setting("timeline").as_deref(), Some("2"));
    assert_eq!(setting("superseded").as_deref(), Some(""));
    assert_eq!(setting("factory_mode:exec-log").as_deref(), Some("pull"));
    assert_eq!(setting("remote_config").as_deref(), pair.place.pond.to_str());
    assert_eq!(replica_status(&pair.replica).unwrap(), None);
    write(&source, "a", b"of the new source").unwrap();
    let committed = source.commit_now().unwrap();
    assert_eq!((committed.version, committed.timeline), (promoted.version.next(), Timeline(2)));
    source.close().unwrap();
    let source = open(&pair.replica, OpenOptions::default());
    assert_eq!(read(&source, "a").unwrap(), b"of the new source");
    assert_eq!(source.position(), committed);
    source.close().unwrap();
    assert_eq!(pair.source.position().timeline, Timeline(1));
}

#[test]
fn a_promotion_that_ended_before_its_version_is_taken_up_by_the_next_open() {
    let pair = Pair::new();
    let remote = Remote::new(None);
    let replica = open(&pair.replica, by_asking(&remote));
    let fork = replica.position();
    replica.promote(Timeline(7), "claimed").unwrap();
    replica.close().unwrap();
    // As if the process had ended between the settings and the version.
    let entry = format!("data/_delta_log/{:020}.json", fork.version.0 + 1);
    std::fs::remove_file(pair.replica.join(entry)).unwrap();
    let source = open(&pair.replica, OpenOptions::default());
    assert_eq!((source.position().version, source.position().timeline), (fork.version.next(), Timeline(7)));
    assert_eq!(source.history(Some(1)).unwrap()[0].origin.kind, "promote");
    write(&source, "a", b"x").unwrap();
    source.close().unwrap();
}

#[test]
fn a_promotion_whose_version_cannot_be_committed_says_what_the_pond_is_now() {
    let pair = Pair::new();
    let remote = Remote::new(None);
    let replica = open(&pair.replica, by_asking(&remote));
    let fork = replica.position();
    // Something in the way of the next version.
    let entry = pair.replica.join(format!("data/_delta_log/{:020}.json", fork.version.0 + 1));
    std::fs::write(&entry, "not an entry").unwrap();
    let failed = replica.promote(Timeline(5), "claimed").unwrap_err();
    assert!(matches!(failed, StewardError::PromotedUnfinished { timeline: Timeline(5), .. }), "{failed}");
    assert!(failed.to_string().contains("is a source on timeline 5 now"), "{failed}");
    assert_eq!(replica.status().mode, Some(Role::Source));
    assert_eq!(write(&replica, "x", b"").unwrap_err().errno(), libc::EROFS);
    replica.close().unwrap();

    std::fs::remove_file(&entry).unwrap();
    let source = open(&pair.replica, OpenOptions::default());
    assert_eq!((source.position().version, source.position().timeline), (fork.version.next(), Timeline(5)));
    let setting = |key| source.control_get(Some(key)).pop().map(|(_, value)| value);
    assert_eq!(setting("timeline_id").as_deref(), Some("claimed"));
    source.close().unwrap();
}

#[test]
fn only_a_replica_is_promoted() {
    let place = Place::with_pond();
    let source = place.open();
    assert!(matches!(source.promote(Timeline(2), "claimed"), Err(StewardError::NotAReplica { .. })));
    write(&source, "a", b"x").unwrap();
    source.close().unwrap();
    assert!(matches!(source.promote(Timeline(2), "claimed"), Err(StewardError::Closed)));
}

#[test]
fn what_a_promotion_made_is_pushed_when_the_pond_is_closed() {
    let place = Place::with_pond();
    let remote = Remote::new(None);
    let source = open(&place.pond, remote.options());
    source.mknod("remote", "/etc/system.d/10-remote", place.pond.to_str().unwrap().as_bytes()).unwrap();
    let tip = source.close().unwrap();
    let pond = place.dir.path().join("replica");
    init(&pond, &place.pond, tip.version);
    let replica = open(&pond, remote.options());
    replica.sync().unwrap();
    let pushed = Arc::new(AtomicU64::new(0));
    let to = pushed.clone();
    *remote.on_push.lock() = Some(Box::new(move |context| {
        assert_eq!((context.mode, context.pond.stopping()), ("push", false));
        assert_eq!(context.pond.oplog().position().timeline, Timeline(2));
        to.fetch_max(context.commits.clone().map_or(0, |commits| commits.end().0), Ordering::Relaxed);
        Ok(())
    }));
    // At once, and at the latest by the time it is closed.
    let promoted = replica.promote(Timeline(2), "claimed").unwrap();
    replica.close().unwrap();
    assert_eq!(pushed.load(Ordering::Relaxed), promoted.version.0);
    assert!(replica.owed().is_empty());
}

#[test]
fn a_replica_follows_across_a_promotion() {
    let pair = Pair::new();
    let remote = Remote::new(None);
    let second = pair.place.dir.path().join("second");
    init(&second, &pair.replica, pair.source.position().version);
    let promoted = open(&pair.replica, by_asking(&remote));
    promoted.promote(Timeline(2), "claimed").unwrap();
    promoted.close().unwrap();
    let promoted = open(&pair.replica, remote.options());
    write(&promoted, "a", b"on timeline 2").unwrap();
    let tip = promoted.commit_now().unwrap();
    let replica = open(&second, by_asking(&remote));
    assert_eq!(replica.sync().unwrap().position, tip);
    assert_eq!(read(&replica, "a").unwrap(), b"on timeline 2");
    assert_eq!(replica.status().replica.unwrap().timeline, Some(Timeline(2)));
    replica.close().unwrap();
    promoted.close().unwrap();
}

#[test]
fn a_superseded_source_keeps_its_changes_and_stays_read_only_after_opening_again() {
    const WHY: &str = "timeline 2 took over at version 3";
    let place = Place::with_pond();
    let remote = Remote::new(None);
    let source = open(&place.pond, remote.options());
    source.mknod("remote", "/etc/system.d/10-remote", b"x").unwrap();
    source.sync().unwrap();
    *remote.on_push.lock() = Some(Box::new(|context| {
        let pond = context.pond;
        context.control_set("remote:seen", "2").unwrap();
        assert_eq!(pond.control_get("remote:seen").as_deref(), Some("2"));
        for foreign in ["factory_mode:remote", "superseded", ":x", "exec-log:seen", "remote"] {
            assert!(matches!(context.control_set(foreign, "x"), Err(StewardError::BadSetting { .. })));
        }
        pond.refuse_writes(WHY).unwrap();
        Err(FactoryError::new(WHY))
    }));
    write(&source, "a", b"before").unwrap();
    let report = source.sync().unwrap();
    assert!(report.factories[0].failed);
    assert_eq!(source.status().read_only_because.as_deref(), Some(WHY));
    assert_eq!(source.status().state, State::ReadOnly);
    assert_eq!(write(&source, "b", b"after").unwrap_err().errno(), libc::EROFS);
    source.close().unwrap();

    *remote.on_push.lock() = None;
    for _ in 0..2 {
        let source = open(&place.pond, remote.options());
        assert_eq!(source.status().read_only_because.as_deref(), Some(WHY));
        assert_eq!(write(&source, "b", b"after").unwrap_err().errno(), libc::EROFS);
        assert!(matches!(source.mknod("remote", "/x", b""), Err(StewardError::ReadOnly { .. })));
        assert_eq!(read(&source, "a").unwrap(), b"before");
        assert_eq!(source.control_get(Some("remote:seen"))[0].1, "2");
        source.close().unwrap();
    }
    let source = open(&place.pond, remote.options());
    source.control_set("superseded", "").unwrap();
    source.close().unwrap();
    let source = open(&place.pond, remote.options());
    write(&source, "b", b"after").unwrap();
    source.close().unwrap();
}

#[test]
fn a_node_is_made_only_where_its_store_answers() {
    let place = Place::with_pond();
    let remote = Remote::new(None);
    let source = open(&place.pond, remote.options());
    let position = source.position();
    remote.unreachable.store(true, Ordering::Relaxed);
    let error = source.mknod("remote", "/etc/system.d/10-remote", b"x").unwrap_err().to_string();
    assert!(error.contains("the store cannot be reached"), "{error}");
    assert_eq!(source.commit_now().unwrap(), position);
    remote.unreachable.store(false, Ordering::Relaxed);
    source.mknod("remote", "/etc/system.d/10-remote", b"x").unwrap();
    source.close().unwrap();
}

#[test]
fn sync_waits_for_a_push_and_closing_gives_it_time() {
    let place = Place::with_pond();
    let remote = Remote::new(None);
    let pushed = Arc::new(AtomicU64::new(0));
    let to = pushed.clone();
    *remote.on_push.lock() = Some(Box::new(move |context| {
        std::thread::sleep(Duration::from_millis(300));
        assert!(!context.pond.stopping());
        to.fetch_max(context.commits.clone().map_or(0, |commits| commits.end().0), Ordering::Relaxed);
        Ok(())
    }));
    let source = open(&place.pond, remote.options());
    source.mknod("remote", "/etc/system.d/10-remote", b"x").unwrap();
    write(&source, "a", b"x").unwrap();
    let version = source.sync().unwrap().position.version;
    assert_eq!(pushed.load(Ordering::Relaxed), version.0);
    assert!(source.owed().is_empty());
    write(&source, "a", b"y").unwrap();
    let version = source.close().unwrap().version;
    assert_eq!(pushed.load(Ordering::Relaxed), version.0);
    assert!(source.owed().is_empty());
}

#[test]
fn a_push_that_takes_too_long_is_told_to_stop_and_what_it_owes_is_reported() {
    let place = Place::with_pond();
    let remote = Remote::new(None);
    let source = open(&place.pond, remote.options());
    source.mknod("remote", "/etc/system.d/10-remote", b"x").unwrap();
    let version = source.sync().unwrap().position.version;
    let told = Arc::new(AtomicBool::new(false));
    let tell = told.clone();
    *remote.on_push.lock() = Some(Box::new(move |context| {
        while !context.pond.stopping() {
            std::thread::sleep(Duration::from_millis(5));
        }
        tell.store(true, Ordering::Relaxed);
        Err(FactoryError::new("broken off"))
    }));
    write(&source, "a", b"y").unwrap();
    let closed = source.close().unwrap().version;
    assert_eq!(closed, Version(version.0 + 1));
    assert!(told.load(Ordering::Relaxed));
    let owed = source.owed();
    assert_eq!((owed.len(), owed[0].behind, owed[0].watermark), (1, 1, Some(version)));
    assert_eq!(source.status().factories[0].behind, 1);
    Steward::open(&place.pond, OpenOptions::default()).unwrap().close().unwrap();
}
