//! Timelines: who crosses over to a new one, and who has diverged.

mod restore_common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pond_oplog::{At, DurableStore, OpLogError, Timeline, Version};
use pond_replicate::format::{self, TimelineDocument};
use pond_replicate::{InitOptions, ReplicateError, promote_in_store};
use pond_steward::{ReplicaState, replica_status};
use restore_common::{Place, Watched, assert_identical, commit_up_to, files, history, open, read};

/// Versions up to this are in the store, and a replica of that version.
fn push_and_copy(place: &Place, versions: &[(u64, &str)]) {
    let source = place.open();
    place.add_remote(&source);
    for &(version, name) in versions {
        commit_up_to(&source, version);
        source.sync().unwrap();
        place.init(&place.replica(name)).unwrap();
    }
    source.close().unwrap();
}

#[test]
fn a_replica_below_the_fork_crosses_over_and_one_above_it_has_diverged() {
    let place = Place::new();
    push_and_copy(&place, &[(35, "behind"), (40, "heir"), (60, "ahead")]);

    let heir = place.replica("heir");
    let follower = open(&heir);
    let claimed = promote_in_store(&heir, &place.store().open()).unwrap();
    assert_eq!((claimed.timeline, claimed.parent, claimed.fork), (Timeline(2), Timeline(1), Version(40)));
    assert_eq!(claimed.head, Version(60));

    // Before anything was pushed on the new timeline, what lies above the fork is given up already.
    let ahead = open(&place.replica("ahead"));
    let behind = open(&place.replica("behind"));
    behind.sync().unwrap();
    assert_eq!(behind.position().version, Version(40));

    follower.promote(claimed.timeline, &claimed.id.to_string()).unwrap();
    follower.close().unwrap();

    let heir = open(&heir);
    commit_up_to(&heir, 50);
    heir.sync().unwrap();
    assert_eq!(heir.position().timeline, Timeline(2));

    behind.sync().unwrap();
    assert_eq!(behind.position(), heir.position());
    assert_eq!(read(&behind, "file-0"), read(&heir, "file-0"));
    assert_identical(&place.replica("behind"), &place.replica("heir"));

    let before = read(&ahead, "file-9");
    let error = ahead.sync().unwrap_err().to_string();
    assert!(error.contains("diverged") && error.contains("40") && error.contains("60"), "{error}");
    assert_eq!(ahead.position().version, Version(60));
    assert_eq!(read(&ahead, "file-9"), before);
    let status = replica_status(&place.replica("ahead")).unwrap().unwrap();
    assert_eq!(status.state, ReplicaState::Diverged);

    // Whoever is made now begins with the first timeline and goes on with the second.
    let new = place.replica("new");
    place.init(&new).unwrap();
    assert_identical(&new, &place.replica("heir"));
}

/// Versions 1 to 63 of the old timeline are in one pack, of which the new timeline shares those up to 40.
#[test]
fn a_fork_within_a_pack_leaves_what_is_below_it_to_be_had() {
    let place = Place::pushed(100);
    let init = |name: &str, version: Option<u64>| {
        let replica = place.replica(name);
        let options = InitOptions { at: version.map(|version| At::Version(Version(version))), tip: false };
        let position = place.init_from(&place.store(), &replica, &options).unwrap();
        assert_eq!(position.version.0, version.unwrap_or(position.version.0));
        (replica, position)
    };
    init("before", Some(20));
    let behind = open(&init("behind", Some(35)).0);
    let (heir, _) = init("heir", Some(40));
    let follower = open(&heir);
    let claimed = promote_in_store(&heir, &place.store().open()).unwrap();
    assert_eq!((claimed.timeline, claimed.fork), (Timeline(2), Version(40)));
    follower.promote(claimed.timeline, &claimed.id.to_string()).unwrap();
    follower.close().unwrap();
    let heir = open(&heir);
    commit_up_to(&heir, 139);
    // The node came after the fork.
    place.add_remote(&heir);
    heir.sync().unwrap();

    for version in [1, 20, 39, 40, 41, 70] {
        let (replica, _) = init(&format!("at-{version}"), Some(version));
        let whole = history(&place.replica("heir"));
        for (name, digest) in history(&replica) {
            assert_eq!(whole.get(&name), Some(&digest), "{version}: {name}");
        }
    }
    let (new, position) = init("new", None);
    assert_eq!(position, heir.position());
    assert_identical(&new, &place.replica("heir"));
    behind.sync().unwrap();
    assert_eq!(behind.position(), heir.position());
    assert_identical(&place.replica("behind"), &place.replica("heir"));
}

#[test]
fn a_timeline_whose_number_does_not_follow_is_seen_too() {
    let place = Place::new();
    push_and_copy(&place, &[(35, "behind"), (40, "heir"), (60, "ahead")]);
    promote_in_store(&place.replica("heir"), &place.store().open()).unwrap();
    let claim = place.object(&["timelines/2.json"]);
    let text = fs::read_to_string(&claim).unwrap().replace("\"timeline\":2", "\"timeline\":5");
    fs::write(claim.with_file_name("5.json"), text).unwrap();
    fs::remove_file(&claim).unwrap();
    let behind = open(&place.replica("behind"));
    behind.sync().unwrap();
    assert_eq!(behind.position().version, Version(40));
}

#[test]
fn a_head_of_a_lower_timeline_is_refused() {
    let place = Place::new();
    push_and_copy(&place, &[(5, "heir"), (7, "other")]);
    let old_head = fs::read(place.object(&["HEAD.json"])).unwrap();
    let heir = place.replica("heir");
    let follower = open(&heir);
    let claimed = promote_in_store(&heir, &place.store().open()).unwrap();
    follower.promote(claimed.timeline, &claimed.id.to_string()).unwrap();
    follower.close().unwrap();
    let heir = open(&heir);
    commit_up_to(&heir, 9);
    heir.sync().unwrap();
    let new = place.replica("new");
    place.init(&new).unwrap();
    fs::write(place.object(&["HEAD.json"]), old_head).unwrap();
    let follower = open(&new);
    let error = follower.sync().unwrap_err().to_string();
    assert!(error.contains("older than this replica's"), "{error}");
    assert_eq!(follower.position(), heir.position());
}

/// HEAD lies behind the replica, which is where another timeline forks: what follows it on the old one is not its history.
#[test]
fn a_pull_ends_where_a_timeline_forks_and_head_lies_behind() {
    let place = Place::new();
    let source = place.open();
    place.add_remote(&source);
    let mut old_head = Vec::new();
    for version in 2..=6 {
        commit_up_to(&source, version);
        source.sync().unwrap();
        match version {
            3 => old_head = fs::read(place.object(&["HEAD.json"])).unwrap(),
            5 => drop(place.init(&place.replica("replica")).unwrap()),
            _ => {}
        }
    }
    source.close().unwrap();
    let claimed = promote_in_store(&place.replica("replica"), &place.store().open()).unwrap();
    assert_eq!((claimed.timeline, claimed.fork), (Timeline(2), Version(5)));
    fs::write(place.object(&["HEAD.json"]), old_head).unwrap();

    let follower = open(&place.replica("replica"));
    let pulling = follower.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(pulling.sync().map(drop)));
    let ended = receiver.recv_timeout(std::time::Duration::from_secs(60));
    ended.expect("the pull goes round in circles").unwrap();
    assert_eq!(follower.position().version, Version(5));
    let status = replica_status(&place.replica("replica")).unwrap().unwrap();
    assert_eq!((status.state, status.error), (ReplicaState::Synchronized, None));
    // Whoever is made now ends there too.
    assert_eq!(place.init(&place.replica("new")).unwrap().version, Version(5));
}

/// A log entry with the digest that it carries put right.
fn proven(entry: String) -> String {
    let at = entry.find("\"digest\":\"").unwrap() + "\"digest\":\"".len();
    let (before, after) = (&entry[..at], &entry[at + 64..]);
    let digest = blake3::hash(format!("{before}{}{after}", "0".repeat(64)).as_bytes()).to_hex();
    format!("{before}{digest}{after}")
}

#[test]
fn a_second_promotion_takes_the_next_number_and_a_diverged_pond_is_not_promoted() {
    let place = Place::new();
    push_and_copy(&place, &[(5, "one"), (6, "two")]);
    let store = place.store().open();
    assert_eq!(promote_in_store(&place.replica("one"), &store).unwrap().timeline, Timeline(2));
    let second = promote_in_store(&place.replica("two"), &store).unwrap();
    assert_eq!((second.timeline, second.parent, second.fork), (Timeline(3), Timeline(1), Version(6)));

    // Another version 6 than that in the store.
    let entry = place.replica("two").join("data/_delta_log/00000000000000000006.json");
    let text = fs::read_to_string(&entry).unwrap();
    fs::write(&entry, proven(text + "\n")).unwrap();
    let error = promote_in_store(&place.replica("two"), &store).unwrap_err();
    let diverged = matches!(error, ReplicateError::OpLog(OpLogError::Diverged { version: Version(6), .. }));
    assert!(diverged, "{error}");
}

/// Two stores that do not know of each other: a replica of each is promoted, and both take the same number.
#[test]
fn a_timeline_that_another_replica_claimed_elsewhere_is_not_taken_for_ones_own() {
    let place = Place::new();
    push_and_copy(&place, &[(20, "one"), (30, "two")]);
    let second = place.dir.path().join("second-store");
    copy(&place.backups, &second);
    let heirs: Vec<_> = [("one", &place.backups), ("two", &second)]
        .into_iter()
        .map(|(name, backups)| {
            let store = Arc::new(Watched::new(DurableStore::new(backups)));
            let replica = open(&place.replica(name));
            let claimed = promote_in_store(&place.replica(name), &store.open()).unwrap();
            assert_eq!(claimed.timeline, Timeline(2));
            replica.promote(claimed.timeline, &claimed.id.to_string()).unwrap();
            replica.close().unwrap();
            open(&place.replica(name))
        })
        .collect();
    // The second's own store, which its node does not name: it has that of its source.
    let yaml = |backups: &Path| format!("storage_type: local\npath: {}\n", backups.display()).into_bytes();
    heirs[0].mknod("remote", "/etc/system.d/20-second", &yaml(&second)).unwrap();
    let before = files(&second);
    let report = heirs[0].sync().unwrap();
    let told: Vec<_> =
        report.factories.iter().map(|factory| (factory.failed, factory.last_message.clone())).collect();
    assert!(!told[0].0, "its own store goes on: {told:?}");
    let why = told[1].1.as_deref().unwrap_or_default();
    assert!(told[1].0 && why.contains("promoted to the same number") && why.contains("diverged"), "{told:?}");
    assert_eq!(files(&second), before, "nothing was written there");
    // It is no reason to stop writing: its own store has its history.
    commit_up_to(&heirs[0], heirs[0].position().version.0 + 1);
    heirs[0].sync().unwrap();

    // A new, empty store gets the timeline under the id that the pond claimed.
    let third = place.dir.path().join("third-store");
    heirs[0].mknod("remote", "/etc/system.d/30-third", &yaml(&third)).unwrap();
    heirs[0].sync().unwrap();
    let id = |backups: &Path| {
        let bytes = fs::read(backups.join("backups/timelines/2.json")).unwrap();
        format::decode::<TimelineDocument>("2.json", &bytes).unwrap().id
    };
    assert_eq!(id(&third), id(&place.backups));
    assert_ne!(id(&second), id(&place.backups));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(from, to).unwrap()),
        }
    }
}
