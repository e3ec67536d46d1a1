//! Restoring from a store in which something is damaged, missing or somebody else's: a clear error, nothing half-applied, and
//! once it is mended the replica goes on.

mod restore_common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pond_oplog::{At, Version};
use pond_replicate::store::Store;
use pond_replicate::{
    InitOptions, NoProgress, Progress, ReplicateError, Shortfall, init_from_store, promote_in_store,
};
use pond_steward::{ReplicaState, Steward, replica_status};
use restore_common::{Place, Watched, assert_identical, commit_up_to, history, open, read};

/// What a replica holds is the beginning of the source's history.
fn assert_prefix(replica: &Path, source: &Path) {
    let whole = history(source);
    let mut entries = 0;
    for (name, digest) in history(replica) {
        if !name.starts_with("_inflight/") {
            assert_eq!(whole.get(&name), Some(&digest), "{name}");
        }
        entries += usize::from(name.starts_with("_delta_log/"));
    }
    for version in 0..entries {
        assert!(replica.join(format!("data/_delta_log/{version:020}.json")).exists(), "version {version}");
    }
}

#[test]
fn a_flipped_bit_or_a_truncated_object_is_named_and_nothing_of_it_is_used() {
    let place = Place::pushed(66);
    let cases = [
        (vec!["HEAD.json"], "HEAD.json"),
        (vec!["1/base-000000/", "manifest"], "base-000000"),
        (vec!["1/base-000000/", "bundle"], "base-000000"),
        (vec!["1/packs/"], "packs/0000"),
        (vec!["1/version-000065/", "manifest"], "version-000065"),
        (vec!["1/version-000065/", "bundle"], "version-000065"),
        (vec!["1/version-000066/", "manifest"], "version-000066"),
        (vec!["1/version-000066/", "bundle"], "version-000066"),
    ];
    for (number, (parts, named)) in cases.iter().enumerate() {
        let path = place.object(parts);
        let good = fs::read(&path).unwrap();
        let mut damages: Vec<Vec<u8>> = vec![good[..good.len() / 2].to_vec(), Vec::new()];
        for at in [0, 8, good.len() / 3, good.len() / 2, good.len() - 60, good.len() - 1] {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            damages.push(flipped);
        }
        for (damage, bytes) in damages.iter().enumerate() {
            fs::write(&path, bytes).unwrap();
            let replica = place.replica(&format!("replica-{number}-{damage}"));
            let result = place.init(&replica);
            if let Err(error) = &result {
                let text = error.to_string();
                // A field of a document that is another now shows in what does not fit it.
                let related = ["HEAD", "timeline", "version", "pond", "format"];
                assert!(text.contains(named) || related.iter().any(|word| text.contains(word)), "{text}");
            } else if !parts.contains(&"HEAD.json") {
                panic!("{parts:?}: damage {damage} was not noticed");
            }
            if replica.join("data").exists() {
                assert_prefix(&replica, &place.source);
            }
            fs::write(&path, &good).unwrap();
            if result.is_err() {
                place.init(&replica).unwrap_or_else(|error| panic!("{parts:?}, damage {damage}: {error}"));
            }
            // HEAD may have named an earlier version: what is here is right then, and the next pull brings the rest.
            assert_prefix(&replica, &place.source);
            fs::remove_dir_all(&replica).unwrap();
        }
    }
}

#[test]
fn a_failed_pull_leaves_the_replica_serving_what_it_had() {
    let place = Place::pushed(5);
    let replica = place.replica("replica");
    place.init(&replica).unwrap();
    let source = place.open();
    commit_up_to(&source, 6);
    source.sync().unwrap();
    let bundle = place.object(&["1/version-000006/", "bundle"]);
    let good = fs::read(&bundle).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 4;
    fs::write(&bundle, &bad).unwrap();

    let follower = open(&replica);
    let before = read(&follower, "file-5");
    let error = follower.sync().unwrap_err().to_string();
    assert!(error.contains("version-000006"), "{error}");
    assert_eq!(follower.position().version, Version(5));
    assert_eq!(read(&follower, "file-5"), before);
    let status = replica_status(&replica).unwrap().unwrap();
    assert_eq!(status.state, ReplicaState::Failed);
    assert!(status.error.unwrap().contains("version-000006"));

    fs::write(&bundle, &good).unwrap();
    follower.sync().unwrap();
    assert_eq!(follower.position(), source.position());
    assert_eq!(replica_status(&replica).unwrap().unwrap().state, ReplicaState::Synchronized);
    assert_identical(&replica, &place.source);
}

#[test]
fn a_version_that_is_missing_in_the_middle_is_named() {
    let place = Place::pushed(5);
    let source = place.open();
    for version in 6..=9 {
        commit_up_to(&source, version);
        source.sync().unwrap();
    }
    let manifest = place.object(&["1/version-000007/", "manifest"]);
    let kept = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    let replica = place.replica("replica");
    let error = place.init(&replica).unwrap_err();
    let told = (Some(Version(8)), Some(Version(6)));
    assert!(
        matches!(&error, ReplicateError::MissingVersion { version: Version(7), later, instead, .. } if (*later, *instead) == told),
        "{error}"
    );
    assert_prefix(&replica, &place.source);
    // A history with a hole is not whole: nothing opens it.
    assert!(Steward::open(&replica, Default::default()).is_err());
    fs::write(&manifest, kept).unwrap();
    place.init(&replica).unwrap();
    assert_identical(&replica, &place.source);
}

#[test]
fn another_pond_in_the_same_place_is_refused() {
    let place = Place::pushed(3);
    let replica = place.replica("replica");
    place.init(&replica).unwrap();
    let other = Place::pushed(6);
    fs::remove_dir_all(&place.backups).unwrap();
    fs::rename(&other.backups, &place.backups).unwrap();
    let follower = open(&replica);
    let error = follower.sync().unwrap_err().to_string();
    assert!(error.contains("another pond"), "{error}");
    assert_eq!(follower.position().version, Version(3));
}

#[test]
fn an_empty_place_and_a_missing_one_leave_nothing_behind() {
    let place = Place::new();
    let replica = place.replica("replica");
    let error = place.init(&replica).unwrap_err();
    assert!(matches!(error, ReplicateError::NoBackup { .. }), "{error}");
    assert!(!replica.exists());
}

/// A store with the packs of a second writer, who lost before his manifests were there, beside the right ones.
fn two_packs() -> (Place, Place) {
    let place = Place::pushed(70);
    let copy = Place::new();
    fs::remove_dir_all(&copy.source).unwrap();
    copy_directory(&place.source, &copy.source);
    let ours = open(&place.source);
    commit_up_to(&ours, 200);
    ours.sync().unwrap();
    // The copy makes versions 71 to 200 of its own, and pushes them elsewhere.
    let theirs = open(&copy.source);
    theirs.mknod("remote", "/etc/system.d/20-remote", &copy.config()).unwrap();
    commit_up_to(&theirs, 200);
    // It is refused where the others are, which its status says.
    theirs.sync().unwrap();
    drop((ours, theirs));
    let theirs = copy.objects(&["1/packs/"]);
    let ours = place.objects(&["1/packs/"]);
    assert!(!theirs.is_empty());
    for pack in &theirs {
        fs::copy(pack, place.backups.join("backups/1/packs").join(pack.file_name().unwrap())).unwrap();
    }
    let both = place.objects(&["1/packs/"]);
    assert!(both.len() > ours.len());
    (place, copy)
}

#[test]
fn a_pack_that_is_not_part_of_the_chain_is_not_used() {
    let (place, _copy) = two_packs();
    let replica = place.replica("replica");
    place.init(&replica).unwrap();
    assert_identical(&replica, &place.source);
    assert_eq!(fs::read_dir(replica.join("data/_inflight")).unwrap().count(), 0);
}

/// One that has a pack, and all that is in it by itself as well.
fn place_with_both() -> Place {
    let place = Place::new();
    let source = place.open();
    place.add_remote(&source);
    for version in 1..=70 {
        commit_up_to(&source, version);
        source.sync().unwrap();
    }
    source.close().unwrap();
    assert_eq!(place.objects(&["1/packs/"]).len(), 1);
    assert_eq!(place.objects(&["/version-000042/"]).len(), 2, "manifest and bundle");
    place
}

#[test]
fn a_damaged_pack_is_passed_over_where_all_of_it_lies_by_itself_too() {
    let place = place_with_both();
    let pack = place.object(&["1/packs/"]);
    let good = fs::read(&pack).unwrap();
    for at in [8, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&pack, &bad).unwrap();
        let replica = place.replica(&format!("replica-{at}"));
        place.init(&replica).unwrap();
        assert_identical(&replica, &place.source);
        assert_eq!(fs::read_dir(replica.join("data/_inflight")).unwrap().count(), 0);
    }
    // A version that is neither here nor there is one of the damaged pack.
    let bundle = place.object(&["/version-000042/", "bundle"]);
    fs::remove_file(bundle).unwrap();
    let error = place.init(&place.replica("without")).unwrap_err();
    let named = matches!(&error, ReplicateError::Corrupt { key, .. } if key.contains("packs/"));
    assert!(named, "{error}");
    fs::write(&pack, &good).unwrap();
    place.init(&place.replica("without")).unwrap();
    assert_identical(&place.replica("without"), &place.source);
}

/// A copy packed the range, and was second from version 31 on: what is below that lies in its pack alone.
#[test]
fn a_pack_of_which_only_the_beginning_is_part_of_the_chain_is_used_as_far_as_it_is() {
    let place = Place::new();
    let source = place.open();
    commit_up_to(&source, 30);
    source.close().unwrap();
    drop(source);
    let copy = Place::new();
    fs::remove_dir_all(&copy.source).unwrap();
    copy_directory(&place.source, &copy.source);
    let source = place.open();
    place.add_remote(&source);
    for version in 31..=70 {
        commit_up_to(&source, version);
        source.sync().unwrap();
    }
    source.close().unwrap();
    let theirs = copy.open();
    commit_up_to(&theirs, 69);
    copy.add_remote(&theirs);
    theirs.sync().unwrap();
    theirs.close().unwrap();
    let same = |place: &Place| fs::read(place.object(&["/version-000030/", "manifest"])).unwrap();
    assert!(same(&place) == same(&copy), "both begin alike");

    for pack in place.objects(&["1/packs/"]) {
        fs::remove_file(pack).unwrap();
    }
    for version in 1..=30 {
        fs::remove_file(place.object(&[&format!("/version-{version:06}/"), "bundle"])).unwrap();
    }
    let pack = copy.object(&["1/packs/"]);
    let folder = place.backups.join("backups/1/packs");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(&pack, folder.join(pack.file_name().unwrap())).unwrap();
    let replica = place.replica("replica");
    let store = place.store();
    place.init_from(&store, &replica, &InitOptions::default()).unwrap();
    assert_identical(&replica, &place.source);
    let packs = store.got().into_iter().filter(|(key, _)| key.contains("packs/")).map(|(_, times)| times);
    assert_eq!(packs.collect::<Vec<_>>(), [1], "the pack was fetched once");
}

#[test]
fn a_head_that_names_what_is_not_there_is_found_out_before_anything_is_planned() {
    let place = Place::pushed(100);
    let path = place.object(&["HEAD.json"]);
    let good = fs::read_to_string(&path).unwrap();
    let head: serde_json::Value = serde_json::from_str(&good).unwrap();
    let (mut far, mut wrong) = (head.clone(), head.clone());
    far["version"] = 900_000_042_u64.into();
    wrong["manifest"] = "0".repeat(64).into();

    // Of versions that are not there it is said that they are missing, and the others are had.
    fs::write(&path, far.to_string()).unwrap();
    let restored = place.restore(&place.store(), &place.replica("far"), &InitOptions::default()).unwrap();
    let (first, last) = (Version(101), Version(900_000_042));
    let missing = Shortfall::Missing { place: "the backups".into(), first, last };
    assert_eq!(restored.shortfall, Some(missing));
    assert_identical(&place.replica("far"), &place.source);

    // Of the tip either HEAD or its manifest is damaged. Earlier versions do not depend on it.
    fs::write(&path, wrong.to_string()).unwrap();
    let (replica, store) = (place.replica("wrong"), place.store());
    let error = place.init_from(&store, &replica, &InitOptions::default()).unwrap_err();
    let named = matches!(&error, ReplicateError::BrokenChain { key, .. } if key == "HEAD.json");
    assert!(named, "{error}");
    assert_eq!(error.restorable(), Some(Version(99)));
    assert!(store.got().keys().all(|key| !key.contains("packs/")), "{:?}", store.got());
    let before = InitOptions { at: Some(At::Version(Version(99))), tip: false };
    assert_eq!(place.init_from(&store, &place.replica("99"), &before).unwrap().version, Version(99));
    fs::write(&path, &good).unwrap();
    place.init(&replica).unwrap();
    assert_identical(&replica, &place.source);
}

/// Where the manifest that lies by itself is lost, the packs are asked, of which one is that of a second writer.
#[test]
fn of_several_packs_that_one_counts_that_has_our_log_entry() {
    let (place, _copy) = two_packs();
    let replica = place.replica("replica");
    let options = InitOptions { at: Some(At::Version(Version(100))), tip: false };
    place.init_from(&place.store(), &replica, &options).unwrap();
    let manifest = place.object(&["/version-000100/", "manifest"]);
    let digest = blake3::hash(&fs::read(&manifest).unwrap()).to_hex().to_string();
    fs::remove_file(manifest).unwrap();
    let claimed = promote_in_store(&replica, &place.store().open()).unwrap();
    assert_eq!((claimed.fork, claimed.manifest), (Version(100), digest));
}

/// Cancels as soon as somebody waits for an answer that does not come.
struct CancelInSilence(Arc<Watched>);

impl Progress for CancelInSilence {
    fn begin(&self, _what: &str, _total_bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn cancelled(&self) -> bool {
        self.0.is_silent()
    }
}

#[test]
fn a_cancelled_init_does_not_wait_for_a_store_that_does_not_answer() {
    let place = Place::pushed(66);
    let whole = place.store();
    place.init_from(&whole, &place.replica("whole"), &InitOptions::default()).unwrap();
    let options = InitOptions::default();
    for silent in 0..whole.requests() {
        let (store, replica) = (place.store(), place.replica(&format!("replica-{silent}")));
        store.silent_after(Some(silent));
        let progress = CancelInSilence(store.clone());
        let error =
            init_from_store(&replica, &place.config(), &store.open(), &options, &progress).unwrap_err();
        assert!(matches!(error, ReplicateError::Stopped { .. }), "{silent}: {error}");
    }
}

fn copy_directory(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Cancels once so many bytes have come.
struct CancelAt(AtomicU64);

impl Progress for CancelAt {
    fn begin(&self, _what: &str, _total_bytes: u64) {}
    fn advance(&self, bytes: u64) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
    }
    fn end(&self) {}
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn a_cancelled_init_goes_on_later() {
    let place = Place::pushed(200);
    let replica = place.replica("replica");
    let store: Store = place.store().open();
    let progress = CancelAt(AtomicU64::new(20_000));
    let options = InitOptions::default();
    let error = init_from_store(&replica, &place.config(), &store, &options, &progress).unwrap_err();
    assert!(matches!(error, ReplicateError::Stopped { .. }), "{error}");
    assert_prefix(&replica, &place.source);
    init_from_store(&replica, &place.config(), &store, &options, &NoProgress).unwrap();
    assert_identical(&replica, &place.source);
}

#[test]
fn the_source_goes_on_while_a_replica_is_made() {
    let place = Place::pushed(150);
    let source = place.open();
    let replica = place.replica("replica");
    let writer = {
        let source = source.clone();
        std::thread::spawn(move || {
            for version in 151..=190 {
                commit_up_to(&source, version);
                source.sync().unwrap();
            }
        })
    };
    let position = place.init(&replica).unwrap();
    assert!(position.version >= Version(150));
    writer.join().unwrap();
    let follower = open(&replica);
    follower.sync().unwrap();
    assert_eq!(follower.position(), source.position());
    assert_identical(&replica, &place.source);
    let _keep: Arc<Steward> = source;
}
