//! What was done in a scratch, published: one kind of change or conflict at a time.

use std::sync::Arc;

use pond_tinyfs::*;

/// A tip with `/d/f` (100,000 bytes), `/d/old` and `/e`, and the version that it is.
fn begun() -> (Arc<MemoryPersistence>, TinyFs, TinyFs) {
    let store = MemoryPersistence::new();
    store.store(&[root_row(Timestamp::now(), 0, 0)]);
    let tip = TinyFs::new(store.load().unwrap(), store.clone());
    let root = Caller::root();
    let d = tip.make(&root, NodeId::ROOT, b"d", Make::Directory { mode: 0o755 }).unwrap().id;
    let f = tip.make(&root, d, b"f", Make::File { mode: 0o644 }).unwrap().id;
    tip.write(&root, f, 0, &[1; 100_000], WriteFlags::default()).unwrap();
    tip.make(&root, d, b"old", Make::File { mode: 0o644 }).unwrap();
    tip.make(&root, NodeId::ROOT, b"e", Make::Directory { mode: 0o755 }).unwrap();
    tip.stored(&store.store(&tip.cut().rows));
    let version = TinyFs::read_only(store.load().unwrap(), store.clone());
    (store, tip, version)
}

fn published(
    store: &MemoryPersistence,
    tip: &TinyFs,
    version: &TinyFs,
    scratch: &TinyFs,
) -> Result<PublishedChanges, NotPublished> {
    let mut changes = scratch.changes_since(version);
    scratch.read_changes(&mut changes).unwrap();
    let published = tip.publish_changes(version, changes)?;
    for cut in [&published.before, &published.cut] {
        tip.stored(&store.store(&cut.rows));
    }
    assert!(!tip.is_dirty());
    assert_eq!(published.cut.cut_lsn, published.lsn);
    assert!(published.cut.rows.iter().all(|row| row.lsn == published.lsn), "nothing but what was published");
    Ok(published)
}

#[test]
fn every_kind_of_node_arrives_as_the_scratch_left_it_beside_what_others_did() {
    let (store, tip, version) = begun();
    let scratch = version.scratch(store.clone());
    let root = Caller::root();
    let id = |path: &[u8]| version.resolve(path).unwrap().id;
    let (d, f, e) = (id(b"/d"), id(b"/d/f"), id(b"/e"));
    scratch.make(&root, e, b"link", Make::Symlink { target: b"../d/f" }).unwrap();
    let device = Make::Special { kind: FileType::CharDevice, mode: 0o600, rdev: 7 };
    scratch.make(&root, e, b"device", device).unwrap();
    let factory = Make::Dynamic { factory: "exec-log", mode: 0o644, configuration: b"path: /x" };
    scratch.make(&root, e, b"node", factory).unwrap();
    scratch.fallocate(&root, f, 20_000, 30_000, Fallocate::PunchHole).unwrap();
    scratch.write(&root, f, 90_000, &[2; 20_000], WriteFlags::default()).unwrap();
    scratch.link(&root, f, e, b"here").unwrap();
    let then = Timestamp::from_parts(1_000_000_000, 5);
    let mtime = SetAttributes { mtime: Some(TimeOrNow::At(then)), ..Default::default() };
    for node in [f, e] {
        scratch.setattr(&root, node, &mtime).unwrap();
    }
    // Another link to another node, another name in the same directory.
    tip.link(&root, id(b"/d/old"), d, b"there").unwrap();
    let done = published(&store, &tip, &version, &scratch).unwrap();
    assert!(done.stale.contains(&Stale::Attributes(f)) && done.stale.contains(&Stale::Listing(e)));
    for fs in [&tip, &TinyFs::new(store.load().unwrap(), store.clone())] {
        let at = |path: &[u8]| fs.resolve(path).unwrap();
        assert_eq!(&fs.readlink(at(b"/e/link").id).unwrap()[..], b"../d/f");
        assert_eq!((at(b"/e/device").kind, at(b"/e/device").rdev), (FileType::CharDevice, 7));
        assert_eq!(
            fs.read(at(b"/e/node").id, 0, 99).unwrap().fill(&**fs.persistence()).unwrap(),
            b"path: /x"
        );
        assert_eq!((at(b"/e/here").id, at(b"/d/f").nlink, at(b"/d/there").nlink), (f, 2, 2));
        assert_eq!((at(b"/d/f").mtime, at(b"/e").mtime, at(b"/d/f").size), (then, then, 110_000));
        let mut expected = vec![1; 90_000];
        expected[20_000..50_000].fill(0);
        expected.resize(110_000, 2);
        assert!(fs.read(f, 0, 1 << 20).unwrap().fill(&**fs.persistence()).unwrap() == expected);
        assert_eq!(fs.seek_hole(f, 0).unwrap(), 20_480);
    }
}

#[test]
fn two_links_to_one_file_made_on_both_sides_are_both_counted() {
    let (store, tip, version) = begun();
    let scratch = version.scratch(store.clone());
    let root = Caller::root();
    let (f, e) = (version.resolve(b"/d/f").unwrap().id, version.resolve(b"/e").unwrap().id);
    scratch.link(&root, f, e, b"one").unwrap();
    tip.link(&root, f, e, b"other").unwrap();
    published(&store, &tip, &version, &scratch).unwrap();
    assert_eq!(tip.getattr(f).unwrap().nlink, 3);
}

#[test]
fn conflicts_are_told_by_path() {
    let (store, tip, version) = begun();
    let scratch = version.scratch(store.clone());
    let root = Caller::root();
    let id = |path: &[u8]| version.resolve(path).unwrap().id;
    let (d, f, e) = (id(b"/d"), id(b"/d/f"), id(b"/e"));
    for (fs, byte) in [(&tip, 7), (&scratch, 8)] {
        fs.write(&root, f, 0, &[byte], WriteFlags::default()).unwrap();
        fs.make(&root, d, b"new", Make::File { mode: 0o644 }).unwrap();
    }
    scratch.rmdir(&root, NodeId::ROOT, b"e").unwrap();
    tip.make(&root, e, b"x", Make::File { mode: 0o644 }).unwrap();
    let last = tip.last_lsn();
    let Err(NotPublished::Conflicts(conflicts)) = published(&store, &tip, &version, &scratch) else {
        panic!()
    };
    let told: Vec<_> = conflicts.iter().map(|conflict| (&conflict.path[..], conflict.clash)).collect();
    assert_eq!(told, [(&b"/d/f"[..], Clash::Changed), (b"/d/new", Clash::Name), (b"/e", Clash::EndedHere)]);
    assert_eq!(tip.last_lsn(), last);
    // Directories that were moved into each other.
    let (store, tip, version) = begun();
    let scratch = version.scratch(store.clone());
    let (d, e) = (version.resolve(b"/d").unwrap().id, version.resolve(b"/e").unwrap().id);
    scratch.rename(&root, NodeId::ROOT, b"d", e, b"d", RenameFlags::default()).unwrap();
    tip.rename(&root, NodeId::ROOT, b"e", d, b"e", RenameFlags::default()).unwrap();
    let Err(NotPublished::Conflicts(conflicts)) = published(&store, &tip, &version, &scratch) else {
        panic!()
    };
    assert_eq!(conflicts, [Conflict { path: b"/d".to_vec(), clash: Clash::Cycle }]);
}

#[test]
fn names_in_directories_that_went_are_called_stale_before_the_directories() {
    let (store, tip, version) = begun();
    let scratch = version.scratch(store.clone());
    let root = Caller::root();
    let id = |path: &[u8]| version.resolve(path).unwrap().id;
    let (d, f, old) = (id(b"/d"), id(b"/d/f"), id(b"/d/old"));
    scratch.unlink(&root, d, b"f").unwrap();
    scratch.unlink(&root, d, b"old").unwrap();
    scratch.rmdir(&root, NodeId::ROOT, b"d").unwrap();
    let stale = published(&store, &tip, &version, &scratch).unwrap().stale;
    let place = |child: NodeId| {
        let is_it = |stale: &Stale| matches!(stale, Stale::Name { child: at, .. } if *at == child);
        stale.iter().position(is_it).unwrap()
    };
    assert!(place(f) < place(d) && place(old) < place(d), "{stale:?}");
}
