//! Restoring what was pushed: everything arrives, byte for byte, and goes on where it was cut off.

mod restore_common;

use pond_oplog::{At, Version};
use pond_replicate::InitOptions;
use restore_common::{Place, assert_identical, commit_up_to, history, open, read, write};

#[test]
fn a_new_replica_has_the_same_bytes_and_the_same_tree() {
    let place = Place::new();
    let source = place.open();
    place.add_remote(&source);
    write(&source, "a", b"one");
    source.sync().unwrap();
    write(&source, "b", &vec![7; 3 << 20]);
    source.sync().unwrap();
    let replica = place.replica("replica");
    let position = place.init(&replica).unwrap();
    assert_eq!(position, source.position());
    assert_identical(&replica, &place.source);
    let replica = open(&replica);
    assert_eq!(read(&replica, "a").unwrap(), b"one");
    assert_eq!(read(&replica, "b").unwrap(), vec![7; 3 << 20]);
}

#[test]
fn a_long_past_takes_few_requests() {
    let place = Place::pushed(300);
    let store = place.store();
    let replica = place.replica("replica");
    let position = place.init_from(&store, &replica, &InitOptions::default()).unwrap();
    assert_eq!(position.version, Version(300));
    assert_identical(&replica, &place.source);
    // HEAD, timelines and the base; four packs; the versions after the last pack, each with manifest and bundle.
    let rest = 300 - 255;
    assert!(store.requests() <= 12 + 5 + 2 * rest, "{} requests: {:#?}", store.requests(), store.got());
    assert_eq!(std::fs::read_dir(replica.join("data/_inflight")).unwrap().count(), 0);
}

#[test]
fn a_pull_brings_what_came_since() {
    let place = Place::pushed(20);
    let replica = place.replica("replica");
    place.init(&replica).unwrap();
    let source = place.open();
    let follower = open(&replica);
    for version in [21, 22, 40, 200] {
        commit_up_to(&source, version);
        source.sync().unwrap();
        follower.sync().unwrap();
        assert_eq!(follower.position(), source.position());
        assert_eq!(read(&follower, "file-0"), read(&source, "file-0"));
    }
    assert_identical(&replica, &place.source);
}

/// Whoever is in the middle of a range that was shipped as a pack finds the manifests by themselves and all else in the pack.
#[test]
fn a_replica_in_the_middle_of_a_pack_goes_on() {
    let place = Place::pushed(100);
    assert_eq!(place.objects(&["/version-000042/"]).len(), 1, "the manifest");
    for stop in [41, 60] {
        let replica = place.replica(&format!("replica-{stop}"));
        let options = InitOptions { at: Some(At::Version(Version(stop))), tip: false };
        place.init_from(&place.store(), &replica, &options).unwrap();
        open(&replica).sync().unwrap();
        assert_identical(&replica, &place.source);
        assert_eq!(std::fs::read_dir(replica.join("data/_inflight")).unwrap().count(), 0);
    }
}

#[test]
fn it_stops_at_a_version_or_a_time() {
    let place = Place::pushed(150);
    let source = place.open();
    for stop in [0, 1, 63, 64, 100, 130, 150] {
        let commits = source.history(None).unwrap();
        let wanted =
            commits.iter().find(|commit| commit.position.version.0 == stop).unwrap().position.clone();
        for (name, at) in [
            ("version", At::Version(Version(stop))),
            ("time", At::Timestamp(wanted.timestamp)),
            ("later", At::Timestamp(wanted.timestamp + 1)),
        ] {
            let replica = place.replica(&format!("{name}-{stop}"));
            let options = InitOptions { at: Some(at), tip: false };
            let position = place.init_from(&place.store(), &replica, &options).unwrap();
            assert_eq!(position, wanted, "{name} {stop}");
        }
    }
    for at in [At::Version(Version(151)), At::Timestamp(1)] {
        let options = InitOptions { at: Some(at), tip: false };
        let replica = place.replica("none");
        let error = place.init_from(&place.store(), &replica, &options).unwrap_err().to_string();
        assert!(error.contains("151") || error.contains("younger"), "{error}");
    }
}

#[test]
fn it_goes_on_after_a_cut_at_any_request_and_fetches_nothing_twice() {
    let place = Place::pushed(70);
    let whole = place.store();
    place.init_from(&whole, &place.replica("whole"), &InitOptions::default()).unwrap();
    for cut in 0..whole.requests() {
        let replica = place.replica(&format!("cut-{cut}"));
        let store = place.store();
        store.fail_after(Some(cut));
        let error = place.init_from(&store, &replica, &InitOptions::default()).unwrap_err();
        assert!(error.to_string().contains("the line is cut"), "{cut}: {error}");
        store.fail_after(None);
        place.init_from(&store, &replica, &InitOptions::default()).unwrap();
        assert_identical(&replica, &place.source);
        for (key, times) in store.got() {
            let fetched_again =
                times > 1 && (key.contains("/version-") || key.contains("/packs/") || key.contains("/base-"));
            assert!(!fetched_again, "cut at {cut}: {key} was got {times} times");
        }
        std::fs::remove_dir_all(&replica).unwrap();
    }
}

/// Bytes that no codec makes smaller.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn large_files_within_a_long_past_arrive_too() {
    let place = Place::new();
    let source = place.open();
    commit_up_to(&source, 10);
    write(&source, "large", &noise(40 << 20, 1));
    source.commit_now().unwrap();
    commit_up_to(&source, 80);
    write(&source, "larger", &noise(150 << 20, 2));
    source.commit_now().unwrap();
    place.add_remote(&source);
    source.sync().unwrap();
    // What is that large is not copied into packs.
    let pack = place.object(&["1/packs/"]);
    assert!(std::fs::metadata(pack).unwrap().len() < 16 << 20);
    let replica = place.replica("replica");
    let store = place.store();
    place.init_from(&store, &replica, &InitOptions::default()).unwrap();
    assert_identical(&replica, &place.source);
    assert!(
        store.got().iter().all(|(key, &times)| times == 1 || !key.contains("bundle")),
        "{:#?}",
        store.got()
    );
    let replica = open(&replica);
    assert!(read(&replica, "large").unwrap() == noise(40 << 20, 1));
    assert!(read(&replica, "larger").unwrap() == noise(150 << 20, 2));
}

#[test]
fn one_that_begins_with_the_newest_base_leaves_out_what_came_before() {
    let place = Place::new();
    let source = place.open();
    for version in 0..1_040 {
        write(&source, &format!("noise-{}", version % 10), &noise(20_000, version));
        source.commit_now().unwrap();
    }
    place.add_remote(&source);
    source.sync().unwrap();
    commit_up_to(&source, 1_060);
    source.sync().unwrap();
    let bases = place.objects(&["base-", "manifest"]);
    assert_eq!(bases.len(), 2, "{bases:?}");
    let replica = place.replica("replica");
    let options = InitOptions { at: None, tip: true };
    let position = place.init_from(&place.store(), &replica, &options).unwrap();
    assert_eq!(position, source.position());
    let (ours, theirs) = (history(&replica), history(&place.source));
    let entries = |names: &std::collections::BTreeMap<String, String>| {
        names.keys().filter(|name| name.starts_with("_delta_log/")).count()
    };
    assert!(entries(&ours) < 30 && entries(&theirs) > 1_000);
    assert!(ours.iter().all(|(name, digest)| theirs.get(name) == Some(digest)));
    let follower = open(&replica);
    commit_up_to(&source, 1_070);
    source.sync().unwrap();
    follower.sync().unwrap();
    assert_eq!(follower.position(), source.position());
    for number in 0..10 {
        for name in [format!("file-{number}"), format!("noise-{number}")] {
            assert_eq!(read(&follower, &name), read(&source, &name));
        }
    }
    let fill_in = |store: &std::sync::Arc<restore_common::Watched>| {
        pond_replicate::fill_in_from_store(&replica, &store.open(), &pond_replicate::NoProgress)
    };
    let refused = fill_in(&place.store()).unwrap_err();
    assert!(refused.to_string().contains("in use"), "while it is open: {refused}");
    follower.close().unwrap();

    // Asked for, the older history comes too; cut off on the way it goes on, and is a replica all the while.
    let tip = source.position();
    let store = place.store();
    let mut cut = 0;
    let filled = loop {
        store.fail_after(Some(cut));
        match fill_in(&store) {
            Ok(filled) => break filled,
            Err(error) => assert!(error.to_string().contains("the line is cut"), "{cut}: {error}"),
        }
        let whole = open(&replica);
        assert_eq!(whole.position(), tip);
        assert_eq!(read(&whole, "file-3"), read(&source, "file-3"));
        whole.close().unwrap();
        cut += 7;
    };
    assert!(cut > 7, "it was cut off at least twice");
    assert_eq!((filled.first, filled.before), (Version(0), Version(1_041)));
    assert_identical(&replica, &place.source);
    for (key, times) in store.got() {
        let is_data = key.contains("/bundle-") || key.contains("/packs/");
        assert!(times == 1 || !is_data, "{key} was got {times} times");
    }
    let error = fill_in(&store).unwrap_err();
    assert!(error.to_string().contains("is a replica already"), "{error}");
    let whole = open(&replica);
    commit_up_to(&source, 1_072);
    source.sync().unwrap();
    whole.sync().unwrap();
    assert_eq!(whole.position(), source.position());
}

/// `cargo test -p pond-replicate --test restore -- --ignored`
#[test]
#[ignore = "makes 10,000 versions: a minute or two"]
fn ten_thousand_versions_take_at_most_400_requests() {
    let place = Place::pushed(10_000);
    let store = place.store();
    let replica = place.replica("replica");
    let begun = std::time::Instant::now();
    store.fail_after(Some(100));
    place.init_from(&store, &replica, &InitOptions::default()).unwrap_err();
    store.fail_after(None);
    place.init_from(&store, &replica, &InitOptions::default()).unwrap();
    println!("{} requests, {} bytes, {:?}", store.requests(), store.bytes(), begun.elapsed());
    assert_identical(&replica, &place.source);
    assert!(store.requests() <= 400, "{} requests", store.requests());
}
