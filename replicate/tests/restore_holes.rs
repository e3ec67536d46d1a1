//! Versions that are missing in the store: had from a base where there is one, and never passed over.

mod restore_common;

use pond_oplog::{At, Version};
use pond_replicate::{InitOptions, NoProgress, fill_in_from_store};
use pond_steward::{ReplicaState, replica_status};
use restore_common::{Place, assert_identical, commit_up_to, history, open, read, write};

/// The version of the second base.
const BASE: u64 = 1_041;

/// A store with a base in the middle of what lies there version by version.
fn place() -> Place {
    let place = Place::new();
    let source = place.open();
    for version in 1..BASE {
        // No codec makes it smaller, so that a base is worth its room.
        let mut noise = vec![0; 8_000];
        blake3::Hasher::new().update(&version.to_le_bytes()).finalize_xof().fill(&mut noise);
        write(&source, &format!("noise-{}", version % 10), &noise);
        source.commit_now().unwrap();
    }
    place.add_remote(&source);
    source.sync().unwrap();
    commit_up_to(&source, BASE + 15);
    source.sync().unwrap();
    source.close().unwrap();
    assert_eq!(place.objects(&[&format!("base-{BASE:06}"), "manifest"]).len(), 1);
    place
}

fn lose(place: &Place, version: u64) {
    let folder = place.backups.join(format!("backups/1/version-{version:06}"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_version_that_is_missing_comes_from_the_base_of_its_number_and_else_history_begins_at_one() {
    let place = place();
    lose(&place, BASE);
    let whole = place.replica("whole");
    place.init(&whole).unwrap();
    assert_identical(&whole, &place.source);
    // Also for one that is filled in later.
    let tip = place.replica("tip");
    place.init_from(&place.store(), &tip, &InitOptions { at: None, tip: true }).unwrap();
    fill_in_from_store(&tip, &place.store().open(), &NoProgress).unwrap();
    assert_identical(&tip, &place.source);

    // Below a base there is nothing that could stand in.
    let stopped = |name: &str, version: u64| {
        let options = InitOptions { at: Some(At::Version(Version(version))), tip: false };
        place.init_from(&place.store(), &place.replica(name), &options).map(|_| place.replica(name))
    };
    let before = stopped("before", BASE - 7).unwrap();
    lose(&place, BASE - 6);
    let replica = open(&before);
    let content = read(&replica, "noise-3");
    let error = replica.sync().unwrap_err().to_string();
    for said in [format!("version {} is missing", BASE - 6), format!("base of version {BASE}")] {
        assert!(error.contains(&said), "{error}");
    }
    assert_eq!((replica.position().version.0, read(&replica, "noise-3")), (BASE - 7, content));
    let status = replica_status(&before).unwrap().unwrap();
    assert_eq!(status.state, ReplicaState::Failed, "it is not up to date");
    replica.close().unwrap();

    let error = stopped("between", BASE - 2).unwrap_err().to_string();
    assert!(error.contains(&format!("version {} is missing", BASE - 6)), "{error}");

    // A new one has what there is, and says where it begins.
    let new = place.replica("new");
    let store = place.store();
    let position = place.init_from(&store, &new, &InitOptions::default()).unwrap();
    let theirs = history(&place.source);
    assert!(history(&new).iter().all(|(name, digest)| theirs.get(name) == Some(digest)));
    let entries = history(&new).keys().filter(|name| name.starts_with("_delta_log/")).count() as u64;
    assert_eq!(entries, position.version.0 - BASE + 1);
    let replica = open(&new);
    replica.sync().unwrap();
    let status = replica_status(&new).unwrap().unwrap();
    assert_eq!(status.state, ReplicaState::Synchronized);
    let note = status.note.unwrap();
    assert!(note.contains(&format!("begins at the base of version {BASE}")), "{note}");
    let source = place.open();
    for name in ["noise-3", "file-4"] {
        assert_eq!(read(&replica, name), read(&source, name));
    }
    replica.close().unwrap();
    let held = history(&new);
    // What is missing cannot be filled in, and what is here stays whole.
    let error = fill_in_from_store(&new, &store.open(), &NoProgress).unwrap_err().to_string();
    assert!(error.contains(&format!("version {} is missing", BASE - 6)), "{error}");
    assert_eq!(open(&new).position(), position);

    // Cut off anywhere, beginning anew goes on, and ends the same.
    let (cut_off, store) = (place.replica("cut-off"), place.store());
    let mut cut = 20;
    let reached = loop {
        store.fail_after(Some(cut));
        match place.init_from(&store, &cut_off, &InitOptions::default()) {
            Ok(position) => break position,
            Err(error) => assert!(error.to_string().contains("the line is cut"), "{error}"),
        }
        cut += 5;
    };
    assert_eq!(reached, position);
    assert_eq!(history(&cut_off), held);
    assert!(open(&cut_off).status().replica.unwrap().note.is_some());

    // Above the newest base there is no way on.
    lose(&place, BASE + 5);
    let error = place.init(&place.replica("none")).unwrap_err().to_string();
    assert!(error.contains(&format!("version {} is missing", BASE + 5)), "{error}");
}
