use std::path::Path;

use super::*;
use crate::upkeep::histories::{Pond, Random, directories, operation};
use crate::{MergeLimits, Options, Version};

/// All that is compared of a node.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    links: BTreeSet<(NodeId, Vec<u8>)>,
    attributes: (u16, u32, u32, u32, i64, i64, Xattrs),
    content: Vec<u8>,
}

type Model = BTreeMap<NodeId, Node>;

/// Every node of a tree, found by walking it.
fn model(fs: &TinyFs) -> Model {
    let mut nodes: Model = BTreeMap::new();
    let mut add = |node: NodeId, link: (NodeId, Vec<u8>)| {
        let seen = fs.getattr(node).unwrap();
        let content = match seen.kind {
            FileType::File => bytes(fs, node, 0, seen.size).unwrap(),
            FileType::Symlink => fs.readlink(node).unwrap().to_vec(),
            _ => Vec::new(),
        };
        let xattrs = xattrs(fs, node).unwrap();
        let (mtime, atime) = (seen.mtime.0, seen.atime.0);
        let attributes = (seen.mode, seen.uid, seen.gid, seen.rdev, mtime, atime, xattrs);
        let node = nodes.entry(node).or_insert(Node { links: BTreeSet::new(), attributes, content });
        node.links.insert(link);
    };
    add(NodeId::ROOT, (NodeId::ROOT, Vec::new()));
    for (directory, entries) in directories(fs) {
        entries.into_iter().for_each(|(name, node, _)| add(node, (directory, name)));
    }
    nodes
}

/// Checks a difference against two trees that were walked; how many nodes differ.
fn check(difference: &Difference, before: &Model, after: &Model, what: &str) -> usize {
    let links = |side: &Option<Side>| {
        let links = side.iter().flat_map(|side| &side.links);
        links.map(|link| (link.parent, link.name().to_vec())).collect::<BTreeSet<_>>()
    };
    let told: BTreeMap<NodeId, &Change> =
        difference.changes.iter().map(|change| (change.node, change)).collect();
    assert_eq!(told.len(), difference.changes.len(), "{what}");
    let all: BTreeSet<NodeId> = before.keys().chain(after.keys()).copied().collect();
    let mut differ = 0;
    for node in all {
        let (old, new) = (before.get(&node), after.get(&node));
        let Some(change) = told.get(&node) else {
            assert_eq!(old, new, "{what}: nothing was told of {node}");
            continue;
        };
        differ += 1;
        assert_ne!(old, new, "{what}: {change:?}");
        assert_eq!(
            (change.before.is_some(), change.after.is_some()),
            (old.is_some(), new.is_some()),
            "{what}"
        );
        for (side, model) in [(&change.before, old), (&change.after, new)] {
            let expected = model.map(|node| node.links.clone()).unwrap_or_default();
            assert_eq!(links(side), expected, "{what}: {change:?}");
        }
        if let (Some(old), Some(new)) = (old, new) {
            assert_eq!(change.content, old.content != new.content, "{what}: {change:?}");
            assert_eq!(change.attributes.is_empty(), old.attributes == new.attributes, "{what}: {change:?}");
        }
    }
    assert_eq!(differ, difference.changes.len(), "{what}: more nodes than there are");
    // Paths lead to the nodes.
    differ
}

fn paths_lead_to_their_nodes(side: Option<&Side>, view: &View) {
    for (link, node) in side.iter().flat_map(|side| side.links.iter().map(|link| (link, side.attributes.id)))
    {
        assert_eq!(view.fs.resolve(&link.path).unwrap().id, node);
    }
}

fn check_pairs(pond: &Path, floor: u64, newest: u64, random: &mut Random, what: &str) -> usize {
    let views = Views::new(pond, &Options::default());
    let mut differ = 0;
    for _ in 0..4 {
        let [from, to] = [(); 2].map(|()| Version(floor + random.below(newest - floor + 1)));
        // Opened on their own: neither may have been made from the other.
        let fresh = |version| Views::new(pond, &Options::default()).open(At::Version(version)).unwrap();
        let (before, after) = (fresh(from), fresh(to));
        let difference = views.difference(At::Version(from), At::Version(to)).unwrap();
        assert_eq!((difference.from.version, difference.to.version), (from, to));
        let what = format!("{what}, versions {from} to {to}");
        differ += check(&difference, &model(&before.fs), &model(&after.fs), &what);
        for change in &difference.changes {
            paths_lead_to_their_nodes(change.before.as_ref(), &before);
            paths_lead_to_their_nodes(change.after.as_ref(), &after);
        }
    }
    differ
}

/// Random histories, merged, pruned and cleaned at random; more of them with POND_DIFFERENCE_CASES.
#[test]
fn what_differs_between_any_two_versions_is_what_walking_both_trees_finds() {
    let cases = std::env::var("POND_DIFFERENCE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2);
    let mut differ = 0;
    for seed in 1..=cases {
        let mut random = Random(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut pond = Pond::new();
        let mut floor = 0;
        for _round in 0..3 {
            for _ in 0..12 {
                for _ in 0..random.below(8) + 1 {
                    operation(&pond.fs, &mut random);
                }
                pond.commit();
                if random.below(8) == 0 {
                    pond.merge(random.below(6) as usize + 2);
                }
            }
            let newest = pond.oplog.position().version.0;
            differ += check_pairs(pond.dir.path(), floor, newest, &mut random, &format!("seed {seed}"));
            floor = (floor + 1 + random.below((newest - floor) / 2)).min(newest);
            pond.prune(floor, &MergeLimits::default());
            if random.below(2) == 0 {
                pond.clean();
            }
            let newest = pond.oplog.position().version.0;
            differ +=
                check_pairs(pond.dir.path(), floor, newest, &mut random, &format!("seed {seed}, pruned"));
        }
    }
    assert!(differ > 40 * cases as usize, "{differ} nodes differed in {cases} cases");
}

#[test]
fn a_directory_that_moved_is_one_change_and_what_was_written_as_it_was_is_none() {
    use pond_tinyfs::{Make, RenameFlags, WriteFlags};

    let mut pond = Pond::new();
    let root = Caller::root();
    let make = |pond: &Pond, parent, name: &[u8], what| pond.fs.make(&root, parent, name, what).unwrap().id;
    let write = |pond: &Pond, file, data: &[u8]| {
        pond.fs.write(&root, file, 0, data, WriteFlags::default()).unwrap();
    };
    let directory = make(&pond, NodeId::ROOT, b"d", Make::Directory { mode: 0o755 });
    let file = make(&pond, directory, b"f", Make::File { mode: 0o644 });
    let other = make(&pond, directory, b"g", Make::File { mode: 0o644 });
    write(&pond, file, b"same");
    pond.commit();
    let flags = RenameFlags::default();
    pond.fs.rename(&root, NodeId::ROOT, b"d", NodeId::ROOT, b"e", flags).unwrap();
    write(&pond, file, b"same");
    pond.fs.link(&root, other, NodeId::ROOT, b"h").unwrap();
    pond.commit();

    let views = Views::new(pond.dir.path(), &Options::default());
    let difference = views.difference(At::Version(Version(1)), At::Tip).unwrap();
    let shown: Vec<_> = difference.changes.iter().filter(|change| !change.is_by_entries_alone()).collect();
    let text = |links: Vec<&Link>| -> Vec<String> {
        links.iter().map(|link| String::from_utf8(link.path.clone()).unwrap()).collect()
    };
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert_eq!(
        (text(shown[0].names_gone()), text(shown[0].names_come())),
        (vec!["/d".into()], vec!["/e".into()])
    );
    assert_eq!(shown[1].node, file);
    assert!(!shown[1].content && shown[1].attributes == [Attribute::Mtime]);
    assert_eq!((text(shown[2].names_gone()), text(shown[2].names_come())), (vec![], vec!["/h".to_owned()]));
    assert!(views.difference(At::Tip, At::Tip).unwrap().changes.is_empty());
}
