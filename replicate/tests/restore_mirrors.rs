//! Restoring from a copy of a store that was made while somebody pushed to it: HEAD is a hint, and what lies there whole is had.

mod restore_common;

use std::fs;

use pond_oplog::{At, Version};
use pond_replicate::{Backup, InitOptions, NoProgress, ReplicateError, Shortfall};
use pond_steward::{ReplicaState, replica_status};
use pond_tinyfs::Advise;
use restore_common::{Place, assert_identical, commit_up_to, history, open, read};

/// Versions that were pushed one by one.
fn place(versions: u64) -> Place {
    let place = Place::new();
    let source = place.open();
    place.add_remote(&source);
    for version in 1..=versions {
        commit_up_to(&source, version);
        source.sync().unwrap();
    }
    source.close().unwrap();
    place
}

fn lose(place: &Place, version: u64) -> std::path::PathBuf {
    let folder = place.backups.join(format!("backups/1/version-{version:06}"));
    let kept = place.dir.path().join(format!("kept-{version}"));
    fs::rename(folder, &kept).unwrap();
    kept
}

fn give_back(place: &Place, kept: &std::path::Path, version: u64) {
    fs::rename(kept, place.backups.join(format!("backups/1/version-{version:06}"))).unwrap();
}

fn at(version: u64) -> InitOptions {
    InitOptions { at: Some(At::Version(Version(version))), tip: false }
}

const TIP: InitOptions = InitOptions { at: None, tip: true };

/// What is at hand is the source's history up to this version, and it opens.
fn assert_restored(place: &Place, name: &str, version: u64) {
    let replica = place.replica(name);
    let (mut ours, theirs) = (history(&replica), history(&place.source));
    // What was fetched of versions that are not whole is kept for the next time.
    ours.retain(|name, _| !name.starts_with("_inflight/"));
    assert!(ours.iter().all(|(name, digest)| theirs.get(name) == Some(digest)), "{name}");
    let opened = open(&replica);
    assert_eq!(opened.position().version, Version(version), "{name}");
    // One of the versions is that of the remote's node.
    if let before @ 2.. = version - 1 {
        let content = read(&opened, &format!("file-{}", before % 10)).unwrap();
        assert!(content == vec![before as u8; 1000 + before as usize % 7 * 300], "{name}");
    }
    opened.close().unwrap();
}

fn missing(first: u64, last: u64) -> Option<Shortfall> {
    Some(Shortfall::Missing { place: "the backups".into(), first: Version(first), last: Version(last) })
}

#[test]
fn a_store_without_its_newest_version_is_restored_up_to_the_one_before() {
    // With few and with many versions the way there differs.
    for versions in [4, 20] {
        let place = place(versions);
        lose(&place, versions);
        let before = versions - 1;
        for (name, options, told) in [
            ("plain", InitOptions::default(), missing(versions, versions)),
            ("before", at(before), None),
            ("tip", TIP, missing(versions, versions)),
        ] {
            let restored = place.restore(&place.store(), &place.replica(name), &options).unwrap();
            assert_eq!(restored.position.version, Version(before), "{name}");
            assert_eq!(restored.shortfall, told, "{name}");
            assert_restored(&place, name, before);
        }
        let error =
            place.restore(&place.store(), &place.replica("newest"), &at(versions)).unwrap_err().in_full();
        assert!(error.contains(&format!("version {versions} is missing")), "{error}");
        assert!(error.contains(&format!("--version {before}")), "{error}");
        // As it says.
        place.restore(&place.store(), &place.replica("newest"), &at(before)).unwrap();
    }
}

#[test]
fn a_store_whose_newest_bundles_are_missing_ends_before_them() {
    let place = place(20);
    for version in 18..=20 {
        fs::remove_file(place.object(&[&format!("/version-{version:06}/"), "bundle"])).unwrap();
    }
    let restored = place.restore(&place.store(), &place.replica("one"), &InitOptions::default()).unwrap();
    assert_eq!(restored.shortfall, missing(18, 20));
    assert_restored(&place, "one", 17);
    let told = restored.shortfall.unwrap().to_string();
    assert!(told.contains("versions 18 to 20 are missing") && told.contains("17 is the newest"), "{told}");

    // The list of packs was copied before the pack was there.
    let place = Place::pushed(130);
    let pack = place.object(&["1/packs/000064"]);
    fs::remove_file(pack).unwrap();
    for version in 128..=130 {
        fs::remove_dir_all(place.backups.join(format!("backups/1/version-{version:06}"))).unwrap();
    }
    let restored = place.restore(&place.store(), &place.replica("one"), &InitOptions::default()).unwrap();
    assert_eq!(restored.shortfall, missing(64, 130));
    assert_restored(&place, "one", 63);
}

#[test]
fn a_missing_or_empty_head_is_done_without() {
    let place = place(20);
    let head = place.object(&["HEAD.json"]);
    fs::write(&head, "").unwrap();
    for (name, newest) in [("empty", 20), ("missing", 20), ("both", 19)] {
        if name != "empty" {
            let _ = fs::remove_file(&head);
        }
        if name == "both" {
            lose(&place, 20);
        }
        for (sort, options) in [("plain", InitOptions::default()), ("tip", TIP), ("before", at(19))] {
            let name = format!("{name}-{sort}");
            let restored = place.restore(&place.store(), &place.replica(&name), &options).unwrap();
            let version = if sort == "before" { 19 } else { newest };
            assert_eq!(restored.position.version, Version(version), "{name}");
            let told = restored.shortfall.map(|shortfall| shortfall.to_string());
            let said =
                told.as_deref().is_some_and(|told| told.contains("HEAD.json") && told.contains("not known"));
            assert_eq!(said, sort != "before", "{told:?}");
            assert_restored(&place, &name, version);
        }
    }
    // Whoever repairs a pond does without it too.
    Backup::open(&place.source, &place.config(), None, &NoProgress).unwrap();
}

#[test]
fn versions_beyond_an_old_head_are_restored_too() {
    let place = Place::new();
    let source = place.open();
    place.add_remote(&source);
    let mut old = Vec::new();
    for version in 1..=90 {
        commit_up_to(&source, version);
        source.sync().unwrap();
        if [3, 88].contains(&version) {
            old.push(fs::read_to_string(place.object(&["HEAD.json"])).unwrap());
        }
    }
    source.close().unwrap();
    for (number, old) in old.iter().enumerate() {
        fs::write(place.object(&["HEAD.json"]), old).unwrap();
        for (sort, options, version) in [
            ("plain", InitOptions::default(), 90),
            ("tip", TIP, 90),
            ("later", at(89), 89),
            ("earlier", at(2), 2),
        ] {
            let name = format!("{sort}-{number}");
            let restored = place.restore(&place.store(), &place.replica(&name), &options).unwrap();
            assert_eq!((restored.position.version, restored.shortfall), (Version(version), None), "{name}");
            assert_restored(&place, &name, version);
        }
        let error = place.restore(&place.store(), &place.replica("none"), &at(91)).unwrap_err().to_string();
        assert!(error.contains("there is no version 91") && error.contains("0 to 90"), "{error}");
    }
}

#[test]
fn a_hole_is_an_error_that_says_what_can_be_restored() {
    let place = place(20);
    lose(&place, 7);
    for name in ["plain", "later"] {
        let options = if name == "plain" { InitOptions::default() } else { at(12) };
        let error = place.restore(&place.store(), &place.replica(name), &options).unwrap_err();
        let ReplicateError::MissingVersion { version, later, instead, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((*version, *instead), (Version(7), Some(Version(6))), "{error}");
        assert_eq!(*later, Some(Version(8)), "{error}");
        assert!(error.in_full().contains("--version 6"), "{error}");
    }
    // A hole, and the end is missing too.
    lose(&place, 20);
    let error = place.restore(&place.store(), &place.replica("both"), &InitOptions::default()).unwrap_err();
    assert!(matches!(error, ReplicateError::MissingVersion { version: Version(7), .. }), "{error}");
    place.restore(&place.store(), &place.replica("plain"), &at(6)).unwrap();
    assert_restored(&place, "plain", 6);
}

#[test]
fn a_replica_that_follows_waits_for_a_version_that_is_not_there_yet() {
    let place = place(5);
    let replica = place.replica("replica");
    place.init(&replica).unwrap();
    let source = place.open();
    for version in 6..=7 {
        commit_up_to(&source, version);
        source.sync().unwrap();
    }
    let kept = lose(&place, 7);
    let follower = open(&replica);
    for _ in 0..2 {
        follower.sync().unwrap();
        assert_eq!(follower.position().version, Version(6));
        let status = replica_status(&replica).unwrap().unwrap();
        assert_eq!((status.state, status.target_version), (ReplicaState::CatchingUp, Some(Version(7))));
        assert!(status.lag_ms > 0 && status.error.is_none(), "{status:?}");
    }
    give_back(&place, &kept, 7);
    follower.sync().unwrap();
    assert_eq!(follower.position(), source.position());
    assert_eq!(replica_status(&replica).unwrap().unwrap().state, ReplicaState::Synchronized);
    assert_identical(&replica, &place.source);

    // A number that cannot be reached is not counted down from.
    let head = place.object(&["HEAD.json"]);
    let good = fs::read_to_string(&head).unwrap();
    fs::write(&head, good.replace("\"version\":7", "\"version\":900000042")).unwrap();
    follower.sync().unwrap();
    assert_eq!(follower.position().version, Version(7));
    fs::write(&head, good).unwrap();

    // Also one that was made of a store without the newest, once it is there.
    let kept = lose(&place, 7);
    place.init(&place.replica("new")).unwrap();
    let follower = open(&place.replica("new"));
    follower.sync().unwrap();
    assert_eq!(follower.position().version, Version(6));
    give_back(&place, &kept, 7);
    follower.sync().unwrap();
    assert_eq!(follower.position(), source.position());
}

/// HEAD names a base whose folder was not copied.
#[test]
fn a_newest_base_that_is_missing_is_done_without() {
    let place = Place::pushed(30);
    let head = place.object(&["HEAD.json"]);
    let text = fs::read_to_string(&head).unwrap().replace("\"newest_base\":0", "\"newest_base\":25");
    fs::write(&head, text).unwrap();
    for (name, options) in [("tip", TIP), ("plain", InitOptions::default())] {
        place.restore(&place.store(), &place.replica(name), &options).unwrap();
        assert_restored(&place, name, 30);
    }
}
