use pond_tinyfs::{Caller, Make, RenameFlags, TinyFs, WriteFlags};

use super::*;
use crate::upkeep::histories::{Pond, Random, directories, operation};
use crate::{At, MergeLimits, Options, Views};

/// All paths of a tree, and the nodes that they lead to.
fn paths(fs: &TinyFs) -> BTreeMap<Vec<u8>, NodeId> {
    let all = directories(fs);
    let mut found = BTreeMap::new();
    let mut left = vec![(Vec::new(), NodeId::ROOT)];
    while let Some((path, directory)) = left.pop() {
        for (name, node, is_directory) in &all[&directory] {
            let path = [&path[..], b"/", name].concat();
            if *is_directory {
                left.push((path.clone(), *node));
            }
            found.insert(path, *node);
        }
    }
    found
}

/// One version, found by walking its tree.
struct Walked {
    paths: BTreeMap<Vec<u8>, NodeId>,
    /// Size and time of the last change of each node.
    nodes: BTreeMap<NodeId, (u64, i64)>,
}

fn walk(views: &Views, version: u64) -> Walked {
    let view = views.open(At::Version(Version(version))).unwrap();
    let paths = paths(view.fs());
    let attributes = |node: NodeId| view.fs().getattr(node).unwrap();
    let nodes =
        paths.values().map(|&node| (node, (attributes(node).size, attributes(node).ctime.0))).collect();
    Walked { paths, nodes }
}

fn check(pond: &Pond, floor: u64, what: &str) {
    let views = Views::new(pond.dir.path(), &Options::default());
    let newest = pond.oplog.position().version.0;
    let versions: BTreeMap<u64, Walked> =
        (floor..=newest).map(|version| (version, walk(&views, version))).collect();
    let past = views.past().unwrap();
    let all: BTreeSet<&Vec<u8>> = versions.values().flat_map(|walked| walked.paths.keys()).collect();

    let gone: BTreeMap<Vec<u8>, u64> = past
        .gone()
        .unwrap()
        .into_iter()
        .filter(|gone| !gone.is_taken)
        .map(|gone| (gone.path, gone.commit.position.version.0))
        .collect();
    let lives = past.lives(&|_| true).unwrap();
    for path in &all {
        let its = lives.iter().filter(|life| life.path == **path);
        let told: Vec<u64> = its
            .flat_map(|life| life.first.position.version.0..=life.last.map_or(newest, |last| last.0))
            .collect();
        let there = versions.iter().filter(|(_, walked)| walked.paths.contains_key(*path));
        let there: Vec<u64> = there.map(|(version, _)| *version).collect();
        assert_eq!(told, there, "{what}: {path:?}");
    }
    for path in &all {
        let (last, walked) =
            versions.iter().rev().find(|(_, walked)| walked.paths.contains_key(*path)).unwrap();
        let node = walked.paths[*path];
        if *last == newest {
            assert!(!gone.contains_key(*path), "{what}: {path:?} is there");
        } else if !versions[&(last + 1)].nodes.contains_key(&node) {
            assert_eq!(gone.get(*path), Some(&(last + 1)), "{what}: {}", String::from_utf8_lossy(path));
        }
        let events = past.of_path(path).unwrap();
        let at: BTreeSet<u64> = events.iter().map(|event| event.commit.position.version.0).collect();
        assert_eq!(at.len(), events.len(), "{what}: one event of a version");
        for version in floor + 1..=newest {
            let (before, after) =
                (versions[&(version - 1)].nodes.get(&node), versions[&version].nodes.get(&node));
            let changed = before != after;
            let renamed = versions[&(version - 1)].paths.get(*path) != versions[&version].paths.get(*path)
                && versions[&version].paths.contains_key(*path);
            if changed {
                assert!(
                    at.contains(&version),
                    "{what}: {} in {version}: {events:?}",
                    String::from_utf8_lossy(path)
                );
            }
            if !changed && !renamed && versions[&version].paths.get(*path) == Some(&node) {
                assert!(
                    !at.contains(&version),
                    "{what}: {} in {version}: {events:?}",
                    String::from_utf8_lossy(path)
                );
            }
        }
        let told = events.last().unwrap();
        let there = versions[&told.commit.position.version.0].nodes.get(&node);
        assert_eq!(there.is_none(), told.what == Became::Removed, "{what}: {told:?}");
        if let Some((size, _)) = there.filter(|_| told.kind != FileType::Directory) {
            assert_eq!(*size, told.size, "{what}: {told:?}");
        }
    }
}

/// Random histories, merged, pruned and cleaned at random; more of them with POND_PAST_CASES.
#[test]
fn what_became_of_each_path_is_what_walking_every_version_finds() {
    let cases = std::env::var("POND_PAST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2);
    for seed in 1..=cases {
        let mut random = Random(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut pond = Pond::new();
        let mut floor = 0;
        for round in 0..2 {
            for _ in 0..15 {
                for _ in 0..random.below(5) + 1 {
                    operation(&pond.fs, &mut random);
                }
                pond.commit();
                if random.below(8) == 0 {
                    pond.merge(random.below(6) as usize + 2);
                }
            }
            check(&pond, floor, &format!("seed {seed}, round {round}"));
            let newest = pond.oplog.position().version.0;
            floor = (floor + 1 + random.below((newest - floor) / 2)).min(newest);
            pond.prune(floor, &MergeLimits::default());
            pond.clean();
            check(&pond, floor, &format!("seed {seed}, round {round}, pruned"));
        }
    }
}

#[test]
fn a_file_is_followed_through_renames_and_through_files_that_take_its_name() {
    let mut pond = Pond::new();
    let root = Caller::root();
    let make = |pond: &Pond, name: &[u8]| {
        let file = pond.fs.make(&root, NodeId::ROOT, name, Make::File { mode: 0o644 }).unwrap().id;
        pond.fs.write(&root, file, 0, name, WriteFlags::default()).unwrap();
    };
    let rename = |pond: &Pond, from: &[u8], to: &[u8]| {
        pond.fs.rename(&root, NodeId::ROOT, from, NodeId::ROOT, to, RenameFlags::default()).unwrap();
    };
    make(&pond, b"draft");
    pond.commit();
    rename(&pond, b"draft", b"final");
    pond.commit();
    // As editors save.
    make(&pond, b"final.tmp");
    rename(&pond, b"final.tmp", b"final");
    pond.commit();
    make(&pond, b"other");
    pond.commit();
    pond.fs.unlink(&root, NodeId::ROOT, b"final").unwrap();
    pond.commit();

    let views = Views::new(pond.dir.path(), &Options::default());
    let past = views.past().unwrap();
    let told: Vec<(u64, Became, u64)> = past
        .of_path(b"/final")
        .unwrap()
        .iter()
        .map(|event| (event.commit.position.version.0, event.what, event.size))
        .collect();
    let expected =
        [(1, Became::Created, 5), (2, Became::Moved, 5), (3, Became::Replaced, 9), (5, Became::Removed, 9)];
    assert_eq!(told, expected);
    assert!(past.of_path(b"/nothing").unwrap().is_empty());
    let gone = past.gone().unwrap();
    assert_eq!(gone.iter().map(|gone| gone.path.as_slice()).collect::<Vec<_>>(), [b"/final"]);
    assert_eq!(gone[0].commit.position.version, Version(5));
}
