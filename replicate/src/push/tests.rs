use pond_oplog::{Timeline, Version};
use uuid::Uuid;

use super::testing::{FAULTS, Fault, Faulty, KILLS, TestPond, assert_complete};
use super::{Pusher, Source};
use crate::format::{self, Head, Kind};
use crate::history::timeline::{self, Claim, Fork};
use crate::store::Store;
use crate::{ReplicateError, StoreError};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    crate::remote::runtime().unwrap().block_on(future)
}

/// One run in a process of its own.
async fn push(source: Source, pushed: Option<Version>) -> Result<Version, ReplicateError> {
    let mut pusher = Pusher::open(source, pushed).await?;
    pusher.push().await?;
    Ok(pusher.tip())
}

async fn keys(store: &Store) -> Vec<String> {
    store.list("").await.unwrap().into_iter().map(|object| object.key).collect()
}

fn packs(keys: &[String]) -> Vec<(u64, u64)> {
    keys.iter()
        .filter_map(|key| format::parse_pack_key(key))
        .map(|(first, last, _)| (first.0, last.0))
        .collect()
}

#[test]
fn each_version_is_shipped_once_and_a_run_ships_all_that_are_owed() {
    let pond = TestPond::with_versions(3);
    let faulty = Faulty::new();
    let store = faulty.store(0);
    block_on(async {
        let mut pusher = Pusher::open(pond.source(&store), None).await.unwrap();
        pusher.push().await.unwrap();
        assert_eq!(assert_complete(&store, &pond, Version(3)).await, 3);
        faulty.heal();
        pusher.push().await.unwrap();
        assert_eq!(faulty.requests(), 1, "nothing is owed, and the store is still what it was: HEAD");
        faulty.heal();
        pond.commit_up_to(4);
        pusher.push().await.unwrap();
        assert_eq!(faulty.requests(), 4, "bundle, manifest, timelines, HEAD");
        pond.commit_up_to(9);
        assert_eq!(push(pond.source(&store), Some(Version(4))).await.unwrap(), Version(9));
        assert_eq!(assert_complete(&store, &pond, Version(9)).await, 9);
    });
}

#[test]
fn a_push_that_is_behind_ships_packs_and_one_that_keeps_up_adds_them() {
    let pond = TestPond::with_versions(140);
    let (behind, keeping_up) = (Faulty::new(), Faulty::new());
    block_on(async {
        let store = behind.store(0);
        assert_eq!(push(pond.source(&store), None).await.unwrap(), pond.tip());
        assert!(behind.requests() < 220, "{}", behind.requests());
        let singles = assert_complete(&store, &pond, pond.tip()).await;
        assert_eq!(singles, 13, "what comes after the packs");
        assert_eq!(packs(&keys(&store).await), [(1, 63), (64, 127)]);

        let other = keeping_up.store(0);
        for tip in [1, 2, 50, 63, 64, 100, 130, 140] {
            let mut source = pond.source(&other);
            source.newest = std::sync::Arc::new(move || Version(tip));
            assert_eq!(push(source, None).await.unwrap(), Version(tip));
        }
        assert_eq!(assert_complete(&other, &pond, pond.tip()).await, 140);
        assert_eq!(packs(&keys(&other).await), [(1, 63), (64, 127)]);
        // Verbatim, and the same however it got there.
        let pack =
            |keys: Vec<String>| keys.into_iter().filter(|key| key.ends_with(".pack")).collect::<Vec<_>>();
        assert_eq!(pack(keys(&store).await), pack(keys(&other).await));
    });
}

#[test]
fn whatever_fails_the_next_run_completes_the_chain() {
    // Several kinds of shipment: root, a pack, single versions.
    let pond = TestPond::with_versions(66);
    block_on(async {
        let clean = Faulty::new();
        push(pond.source(&clean.store(0)), None).await.unwrap();
        let requests = clean.requests();
        let complete = keys(&clean.store(0)).await;
        for fault in FAULTS.into_iter().chain(KILLS) {
            // The manifests that follow the pack are all alike.
            let alike = 16..requests - 16;
            for at in (0..requests).filter(|at| !alike.contains(at) || at % 9 == 0) {
                let faulty = Faulty::new();
                faulty.fail(at, 1, fault);
                let result = faulty.unless_killed(push(pond.source(&faulty.store(0)), None)).await;
                faulty.heal();
                let failed = result.is_none_or(|result| result.is_err());
                let tip = push(pond.source(&faulty.store(0)), None)
                    .await
                    .unwrap_or_else(|error| panic!("{fault:?} at {at} (failed: {failed}): {error}"));
                assert_eq!(tip, pond.tip());
                if at % 3 == 0 || tip != pond.tip() {
                    assert_complete(&faulty.store(0), &pond, pond.tip()).await;
                }
                let found = keys(&faulty.store(0)).await;
                let missing: Vec<_> = complete
                    .iter()
                    .filter(|key| !key.contains("timelines") && !found.contains(key))
                    .filter(|key| !key.contains("pack"))
                    .collect();
                assert!(missing.is_empty(), "{fault:?} at {at}: {missing:?}");
                assert_eq!(packs(&found), [(1, 63)], "{fault:?} at {at}");
            }
        }
    });
}

#[test]
fn what_heals_within_a_run_is_not_noticed() {
    let pond = TestPond::with_versions(4);
    block_on(async {
        let clean = Faulty::new();
        push(pond.source(&clean.store(0)), None).await.unwrap();
        for fault in FAULTS {
            for at in 0..clean.requests() {
                let faulty = Faulty::new();
                faulty.fail(at, 2, fault);
                push(pond.source(&faulty.store(3)), None)
                    .await
                    .unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
                assert_complete(&faulty.store(0), &pond, pond.tip()).await;
            }
        }
    });
}

#[test]
fn of_two_copies_exactly_one_wins_and_the_other_changes_nothing() {
    for (versions, after) in [(3, 5), (3, 70), (60, 135)] {
        let one = TestPond::with_versions(versions);
        let two = one.copy();
        let store = Faulty::new().store(0);
        block_on(async {
            push(one.source(&store), None).await.unwrap();
            let mut first = Pusher::open(one.source(&store), None).await.unwrap();
            let mut second = Pusher::open(two.source(&store), None).await.unwrap();
            one.commit_up_to(after);
            two.commit_up_to(after);
            first.push().await.unwrap();
            let before = store.list("").await.unwrap();
            let head = store.get(format::HEAD_KEY).await.unwrap();
            let error = second.push().await.unwrap_err();
            assert!(matches!(error, ReplicateError::SecondWriter { .. }), "{error}");
            assert!(error.to_string().contains(&format!("version {}", versions + 1)), "{error}");
            // It stays so in later runs, also when the pond goes on.
            two.commit_up_to(after + 70);
            let error = push(two.source(&store), Some(Version(versions))).await.unwrap_err();
            assert!(matches!(error, ReplicateError::SecondWriter { .. }), "{error}");
            assert_eq!(store.get(format::HEAD_KEY).await.unwrap(), head);
            let manifests = |objects: &[crate::store::ObjectInfo]| {
                let counts = |key: &&String| key.ends_with("manifest.json") || key.ends_with(".pack");
                objects.iter().map(|object| &object.key).filter(counts).cloned().collect::<Vec<_>>()
            };
            assert_eq!(manifests(&before), manifests(&store.list("").await.unwrap()));
            assert_complete(&store, &one, Version(after)).await;
        });
    }
}

#[test]
fn two_copies_that_push_at_once_leave_one_chain() {
    let one = TestPond::with_versions(2);
    let two = one.copy();
    let faulty = Faulty::new();
    block_on(async {
        let store = faulty.store(3);
        push(one.source(&store), None).await.unwrap();
        one.commit_up_to(20);
        two.commit_up_to(90);
        let (a, b) = futures::join!(push(one.source(&store), None), push(two.source(&store), None));
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
        let winner = if a.is_ok() { &one } else { &two };
        assert_complete(&store, winner, winner.tip()).await;
    });
}

/// Versions up to which each of two copies pushes: one packs, both do, none does. They differ from version 31 on.
const DIVERGED: u64 = 30;
const COPIES: [(u64, u64); 3] = [(100, 40), (70, 80), (40, 50)];

fn diverged(tips: (u64, u64)) -> [TestPond; 2] {
    let one = TestPond::with_versions(DIVERGED);
    let two = one.copy();
    one.commit_up_to(tips.0);
    two.write("only here", b"");
    two.commit_up_to(tips.1);
    [one, two]
}

async fn assert_one_won(
    store: &Store,
    ponds: &[TestPond; 2],
    results: [&Result<Version, ReplicateError>; 2],
    case: &str,
) {
    let winner = match results.map(|result| result.is_ok()) {
        [true, false] => 0,
        [false, true] => 1,
        _ => panic!("{case}: {results:?}"),
    };
    let error = results[1 - winner].as_ref().unwrap_err();
    assert!(matches!(error, ReplicateError::SecondWriter { .. }), "{case}: {error}");
    assert_complete(store, &ponds[winner], ponds[winner].tip()).await;
    // So it stays.
    for (i, pond) in ponds.iter().enumerate() {
        let again = push(pond.source(store), None).await;
        assert_eq!(again.is_ok(), i == winner, "{case}: {again:?}");
    }
    assert_complete(store, &ponds[winner], ponds[winner].tip()).await;
}

#[test]
fn of_copies_that_differ_within_a_range_one_wins_in_either_order() {
    for tips in COPIES {
        let ponds = diverged(tips);
        for first in [0, 1] {
            let store = Faulty::new().store(0);
            block_on(async {
                let one = push(ponds[first].source(&store), None).await;
                let two = push(ponds[1 - first].source(&store), None).await;
                let results = if first == 0 { [&one, &two] } else { [&two, &one] };
                assert_one_won(&store, &ponds, results, &format!("{tips:?}, {first} first")).await;
            });
        }
    }
}

#[test]
fn of_copies_that_differ_within_a_range_one_wins_also_where_they_meet() {
    for tips in COPIES {
        let ponds = diverged(tips);
        for ahead in [0, 1] {
            // Each of the other's requests may be the one before which the second comes in.
            for pause in [1, 2, 4, 6, 20, 35, 36, 60, 94, 97, 121] {
                let faulty = Faulty::new();
                let store = faulty.store(3);
                block_on(async {
                    let done = std::cell::Cell::new(false);
                    let late = async {
                        while faulty.requests() < pause && !done.get() {
                            tokio::task::yield_now().await;
                        }
                        push(ponds[1 - ahead].source(&store), None).await
                    };
                    let early = async {
                        let result = push(ponds[ahead].source(&store), None).await;
                        done.set(true);
                        result
                    };
                    let (one, two) = futures::join!(early, late);
                    let results = if ahead == 0 { [&one, &two] } else { [&two, &one] };
                    let case = format!("{tips:?}, {ahead} ahead by {pause}");
                    assert_one_won(&store, &ponds, results, &case).await;
                });
            }
        }
    }
}

#[test]
fn a_pack_that_was_cut_off_gives_its_bundles_to_the_one_that_is_made_later() {
    let pond = TestPond::with_versions(70);
    block_on(async {
        let faulty = Faulty::new();
        // In the midst of the manifests that follow the pack.
        faulty.fail(40, 1, Fault::KilledAfter);
        let source = Source { level: 9, ..pond.source(&faulty.store(0)) };
        assert!(faulty.unless_killed(push(source, None)).await.is_none());
        faulty.heal();
        let store = faulty.store(0);
        let cut_off: Vec<_> = keys(&store).await.into_iter().filter(|key| key.ends_with(".pack")).collect();
        assert_eq!(push(pond.source(&store), None).await.unwrap(), pond.tip());
        let singles = assert_complete(&store, &pond, pond.tip()).await;
        assert!((8..70).contains(&singles), "{singles}");
        // The new one has all that the one that was cut off had, which is gone.
        let packs: Vec<_> = keys(&store).await.into_iter().filter(|key| key.ends_with(".pack")).collect();
        assert_eq!((cut_off.len(), packs.len()), (1, 1));
        assert_ne!(cut_off, packs);
    });
}

#[test]
fn the_pack_of_a_writer_that_lost_does_not_stand_for_ones_own() {
    let one = TestPond::with_versions(DIVERGED);
    let two = one.copy();
    two.write("only here", b"");
    two.commit_up_to(70);
    let packed = async |store: &Store| {
        let keys = keys(store).await;
        keys.into_iter().filter(|key| key.ends_with(".pack")).collect::<Vec<_>>()
    };
    block_on(async {
        let elsewhere = Faulty::new().store(0);
        push(two.source(&elsewhere), None).await.unwrap();
        let theirs = packed(&elsewhere).await.remove(0);
        // Shipped version by version, so that nothing needs the pack.
        let store = Faulty::new().store(0);
        one.commit_up_to(60);
        push(one.source(&store), None).await.unwrap();
        one.commit_up_to(70);
        push(one.source(&store), None).await.unwrap();
        let ours = packed(&store).await;
        store.delete(&ours[0]).await.unwrap();
        store.put(&theirs, elsewhere.get(&theirs).await.unwrap().unwrap()).await.unwrap();

        for _ in 0..2 {
            push(one.source(&store), None).await.unwrap();
            let mut expected = vec![theirs.clone(), ours[0].clone()];
            expected.sort();
            assert_eq!(packed(&store).await, expected);
        }
        assert_complete(&store, &one, one.tip()).await;
    });
}

#[test]
fn an_old_manifest_that_is_damaged_does_not_stop_the_push_of_new_versions() {
    let pond = TestPond::with_versions(60);
    let store = Faulty::new().store(0);
    block_on(async {
        push(pond.source(&store), None).await.unwrap();
        store.put(&format::manifest_key(Timeline(1), Version(7)), "{".into()).await.unwrap();
        pond.commit_up_to(66);
        assert_eq!(push(pond.source(&store), None).await.unwrap(), Version(66));
        assert!(packs(&keys(&store).await).is_empty());
    });
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn a_disk_that_takes_the_place_of_another_is_brought_up_to_date_without_a_gap() {
    let pond = TestPond::with_versions(8);
    let dir = tempfile::tempdir().unwrap();
    let (place, other) = (dir.path().join("place"), dir.path().join("other"));
    std::fs::create_dir(&place).unwrap();
    let config = format!("storage_type: local\npath: {}\n", place.display());
    let store = Store::open(&crate::config::RemoteConfig::parse(config.as_bytes()).unwrap()).unwrap();
    block_on(async {
        push(pond.source(&store), None).await.unwrap();
        copy_directory(&place, &other);
        pond.commit_up_to(12);
        let mut pusher = Pusher::open(pond.source(&store), None).await.unwrap();
        pusher.push().await.unwrap();
        let third = dir.path().join("third");
        for (out, into) in [(&third, &other), (&other, &third)] {
            std::fs::rename(&place, out).unwrap();
            std::fs::rename(into, &place).unwrap();
            pond.commit_up_to(pond.tip().0 + 2);
            pusher.push().await.unwrap();
            assert_complete(&store, &pond, pond.tip()).await;
        }
        // Nothing is written into the directory that an unmounted disk leaves.
        std::fs::rename(&place, &third).unwrap();
        std::fs::create_dir(&place).unwrap();
        pond.commit_up_to(pond.tip().0 + 1);
        let error = pusher.push().await.unwrap_err();
        assert!(matches!(error, ReplicateError::Emptied { .. }), "{error}");
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    });
}

#[test]
fn a_gap_below_the_tip_is_noticed_and_filled() {
    let pond = TestPond::with_versions(20);
    block_on(async {
        for gap in [1..3, 12..20, 19..20] {
            for head in [true, false] {
                let store = Faulty::new().store(0);
                push(pond.source(&store), None).await.unwrap();
                for object in store.list("1").await.unwrap() {
                    let of = |version: u64| object.key.contains(&format::version_folder(Version(version)));
                    if gap.clone().any(of) {
                        store.delete(&object.key).await.unwrap();
                    }
                }
                if !head {
                    store.delete(format::HEAD_KEY).await.unwrap();
                }
                push(pond.source(&store), None).await.unwrap();
                // With HEAD only the version before the tip is looked at.
                if !head || gap.end == 20 {
                    assert_complete(&store, &pond, pond.tip()).await;
                }
            }
        }
    });
}

#[test]
fn bases_that_head_names_and_are_not_there_are_not_believed() {
    let pond = TestPond::with_versions(5);
    let store = Faulty::new().store(0);
    block_on(async {
        push(pond.source(&store), None).await.unwrap();
        let good: Head = read(&store, format::HEAD_KEY).await;
        for (root, base) in [(0, 3), (2, 2), (2, 0), (0, 99)] {
            let bad = Head { root, newest_base: base, ..good.clone() };
            store.put(format::HEAD_KEY, format::encode(&bad).unwrap()).await.unwrap();
            push(pond.source(&store), None).await.unwrap();
            let found: Head = read(&store, format::HEAD_KEY).await;
            assert_eq!(Head { since_base: good.since_base, ..found }, good);
        }
    });
}

#[test]
fn a_base_does_not_take_head_from_a_higher_timeline_whatever_its_number() {
    let pond = TestPond::with_versions(5);
    let store = Faulty::new().store(0);
    block_on(async {
        let mut pusher = Pusher::open(pond.source(&store), None).await.unwrap();
        pusher.push().await.unwrap();
        let head = store.get(format::HEAD_KEY).await.unwrap();
        let fork = Fork { parent: Timeline(1), version: Version(2), manifest: "0".repeat(64) };
        timeline::claim(&store, pusher.source.pond_id, Timeline(5), Uuid::new_v4(), Some(fork))
            .await
            .unwrap();
        let error = pusher.write_base().await.unwrap_err();
        assert!(matches!(error, ReplicateError::Superseded { theirs: Timeline(5), .. }), "{error}");
        assert_eq!(store.get(format::HEAD_KEY).await.unwrap(), head);
        pond.commit_up_to(6);
        let mut pusher = Pusher::open(pond.source(&store), None).await.map(drop).unwrap_err();
        assert!(matches!(&mut pusher, ReplicateError::Superseded { theirs: Timeline(5), .. }), "{pusher}");
    });
}

#[test]
fn a_fork_that_is_not_this_ponds_history_is_refused_also_before_anything_follows_it() {
    let old = TestPond::with_versions(20);
    let (left, right) = (TestPond::copy(&old), old.copy());
    old.commit_up_to(25);
    left.commit_up_to(25);
    let store = Faulty::new().store(0);
    block_on(async {
        push(old.source(&store), None).await.unwrap();
        let key = format::manifest_key(Timeline(1), Version(24));
        let manifest = format::digest(&store.get(&key).await.unwrap().unwrap());
        let fork = Fork { parent: Timeline(1), version: Version(24), manifest };
        let pond_id = old.source(&store).pond_id;
        timeline::claim(&store, pond_id, Timeline(2), Uuid::new_v4(), Some(fork)).await.unwrap();
        // A replica of another store, whose version 24 is another, was promoted to the same number.
        for other in [&left, &right] {
            other.steward.oplog().set_timeline(Timeline(2));
            other.commit_up_to(30);
            let error = push(other.source(&store), None).await.unwrap_err();
            assert!(matches!(error, ReplicateError::SecondWriter { .. }), "{error}");
        }
    });
}

#[test]
fn a_store_of_another_pond_is_refused() {
    let (one, two) = (TestPond::with_versions(2), TestPond::with_versions(2));
    let store = Faulty::new().store(0);
    block_on(async {
        push(one.source(&store), None).await.unwrap();
        let error = push(two.source(&store), None).await.unwrap_err();
        assert!(matches!(error, ReplicateError::ForeignPond { .. }), "{error}");
        // Also without HEAD.
        store.delete(format::HEAD_KEY).await.unwrap();
        let error = push(two.source(&store), None).await.unwrap_err();
        assert!(matches!(error, ReplicateError::ForeignPond { .. }), "{error}");
        assert_eq!(push(one.source(&store), None).await.unwrap(), Version(2));
        assert_complete(&store, &one, Version(2)).await;
    });
}

#[test]
fn head_is_only_a_hint() {
    let pond = TestPond::with_versions(130);
    let store = Faulty::new().store(0);
    block_on(async {
        push(pond.source(&store), None).await.unwrap();
        let head = store.get(format::HEAD_KEY).await.unwrap().unwrap();
        let mut old: Head = format::decode("HEAD", &head).unwrap();
        (old.version, old.manifest) = (0, base_digest(&store).await);
        for hint in [None, Some(b"{".to_vec()), Some(serde_json::to_vec(&old).unwrap())] {
            match hint {
                Some(bytes) => store.put(format::HEAD_KEY, bytes.into()).await.unwrap(),
                None => store.delete(format::HEAD_KEY).await.unwrap(),
            }
            assert_eq!(push(pond.source(&store), Some(Version(130))).await.unwrap(), Version(130));
            assert_complete(&store, &pond, Version(130)).await;
        }
    });
}

async fn base_digest(store: &Store) -> String {
    let base = store.get(&format::base_manifest_key(Timeline(1), Version(0))).await.unwrap().unwrap();
    format::digest(&base)
}

#[test]
fn a_store_that_was_emptied_is_told_from_a_new_one() {
    let pond = TestPond::with_versions(2);
    let store = Faulty::new().store(0);
    block_on(async {
        let error = push(pond.source(&store), Some(Version(1))).await.unwrap_err();
        assert!(matches!(error, ReplicateError::Emptied { .. }), "{error}");
        assert!(keys(&store).await.is_empty());
        push(pond.source(&store), None).await.unwrap();
    });
}

#[test]
fn a_higher_timeline_ends_pushing() {
    let pond = TestPond::with_versions(3);
    let faulty = Faulty::new();
    let store = faulty.store(0);
    block_on(async {
        let mut pusher = Pusher::open(pond.source(&store), None).await.unwrap();
        pusher.push().await.unwrap();
        let head = store.get(format::HEAD_KEY).await.unwrap();
        let fork = Fork { parent: Timeline(1), version: Version(2), manifest: "0".repeat(64) };
        let pond_id = pond.source(&store).pond_id;
        let claim =
            timeline::claim(&store, pond_id, Timeline(2), Uuid::new_v4(), Some(fork.clone())).await.unwrap();
        assert!(matches!(claim, Claim::Ours(_)));
        assert!(matches!(
            timeline::claim(&store, pond_id, Timeline(2), Uuid::new_v4(), Some(fork)).await.unwrap(),
            Claim::Taken(_)
        ));
        pond.commit_up_to(5);
        for pushed in [pusher.push().await, push(pond.source(&store), None).await.map(drop)] {
            let error = pushed.unwrap_err();
            assert!(matches!(error, ReplicateError::Superseded { theirs: Timeline(2), .. }), "{error}");
        }
        assert_eq!(store.get(format::HEAD_KEY).await.unwrap(), head, "HEAD is the new timeline's");
    });
}

#[test]
fn a_timeline_of_its_own_forks_from_what_the_store_has() {
    // As a promoted replica finds the store of its old source: which shipped less, as much, more, and much more.
    for (shipped, promoted_at, more) in [(5, 7, 3), (5, 5, 3), (66, 10, 60), (66, 63, 3), (66, 0, 3)] {
        let old = TestPond::with_versions(promoted_at);
        let new = old.copy();
        new.steward.oplog().set_timeline(Timeline(2));
        new.commit_up_to(promoted_at + more);
        old.commit_up_to(shipped);
        let store = Faulty::new().store(0);
        block_on(async {
            let mut source = old.source(&store);
            source.newest = std::sync::Arc::new(move || Version(shipped));
            push(source, None).await.unwrap();
            let source = new.source(&store);
            assert_eq!(source.timeline, Timeline(2));
            assert_eq!(push(source.clone(), None).await.unwrap(), new.tip());
            let timeline = timeline::load(&store, source.pond_id, Timeline(2)).await.unwrap().unwrap();
            let fork = Version(timeline.fork_version.unwrap());
            assert_eq!((timeline.parent, fork), (Some(Timeline(1)), Version(shipped.min(promoted_at))));
            let mut head: Head = read(&store, format::HEAD_KEY).await;
            assert_eq!((head.timeline, head.version), (Timeline(2), new.tip().0));
            assert_eq!((head.root, head.root_timeline), (0, Timeline(1)));
            // The first version after the fork follows the fork's manifest.
            let key = format::manifest_key(Timeline(2), fork.next());
            let manifest: format::Manifest = read(&store, &key).await;
            manifest.check(&key, Kind::Delta, fork.next()).unwrap();
            assert_eq!(manifest.parent, timeline.fork_manifest);
            // Found again, with and without HEAD.
            assert_eq!(push(source.clone(), None).await.unwrap(), new.tip());
            store.delete(format::HEAD_KEY).await.unwrap();
            assert_eq!(push(source, None).await.unwrap(), new.tip());
            let found: Head = read(&store, format::HEAD_KEY).await;
            head.since_base = found.since_base;
            assert_eq!(found, head);
            // The old source sees it, ships nothing more and leaves HEAD alone.
            old.commit_up_to(shipped + 1);
            let error = push(old.source(&store), None).await.unwrap_err();
            assert!(matches!(error, ReplicateError::Superseded { theirs: Timeline(2), .. }), "{error}");
            assert_eq!(read::<Head>(&store, format::HEAD_KEY).await, head);
        });
    }
}

async fn read<T: serde::de::DeserializeOwned>(store: &Store, key: &str) -> T {
    format::decode(key, &store.get(key).await.unwrap().unwrap()).unwrap()
}

#[test]
fn large_commits_go_in_parts_and_are_not_packed() {
    let pond = TestPond::with_versions(1);
    // Does not shrink.
    let mut content = vec![0; 40 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    pond.write("large", &content);
    let requests = {
        let faulty = Faulty::new();
        let store = faulty.store(0);
        block_on(async {
            push(pond.source(&store), None).await.unwrap();
            assert_complete(&store, &pond, pond.tip()).await;
        });
        faulty.requests()
    };
    block_on(async {
        for at in (0..requests).step_by(2) {
            let faulty = Faulty::new();
            faulty.fail(at, 1, Fault::LostAnswer);
            drop(push(pond.source(&faulty.store(0)), None).await);
            faulty.heal();
            push(pond.source(&faulty.store(0)), None).await.unwrap();
        }
        let faulty = Faulty::new();
        let store = faulty.store(0);
        pond.commit_up_to(63);
        push(pond.source(&store), None).await.unwrap();
        assert_complete(&store, &pond, pond.tip()).await;
        let pack = store.list("1/packs").await.unwrap().remove(0);
        assert!(pack.length < 1 << 20, "{}", pack.length);
    });
}

#[test]
fn a_second_base_is_written_when_there_is_enough_to_save() {
    let pond = TestPond::with_versions(20);
    let store = Faulty::new().store(0);
    block_on(async {
        let mut pusher = Pusher::open(pond.source(&store), None).await.unwrap();
        pusher.push().await.unwrap();
        pusher.write_base().await.unwrap();
        assert_eq!(pusher.chain.newest_base, (Version(20), Timeline(1)));
        assert_eq!(pusher.chain.since_base, 0);
        assert_complete(&store, &pond, Version(20)).await;
        pond.commit_up_to(22);
        pusher.push().await.unwrap();
        assert!(pusher.chain.since_base > 0);
        let chain = pusher.chain.clone();
        // Found again, also without HEAD.
        assert_eq!(Pusher::open(pond.source(&store), None).await.unwrap().chain, chain);
        store.delete(format::HEAD_KEY).await.unwrap();
        let found = Pusher::open(pond.source(&store), None).await.unwrap().chain.clone();
        assert_eq!(
            (found.newest_base, found.digest, found.root),
            (chain.newest_base, chain.digest, chain.root)
        );
    });
}

#[test]
fn a_store_that_ignores_conditions_is_found_out() {
    let mut faulty = Faulty::new();
    block_on(async {
        faulty.store(0).probe().await.unwrap();
        assert!(keys(&faulty.store(0)).await.is_empty(), "nothing is left behind");
        faulty.ignores_conditions = true;
        let error: StoreError = faulty.store(0).probe().await.unwrap_err();
        assert!(error.to_string().contains("put-if-absent"), "{error}");
        assert!(keys(&faulty.store(0)).await.is_empty(), "nothing is left behind");
        faulty.ignores_conditions = false;
        for fault in FAULTS {
            for at in 0..8 {
                faulty.fail(at, 1, fault);
                faulty.store(2).probe().await.unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
            }
        }
    });
}
