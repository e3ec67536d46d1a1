//! Scratches: what is changed there is seen there only, leaves memory, and leaves nothing.

use std::sync::Arc;

use pond_tinyfs::{
    Caller, Fallocate, Make, MemoryPersistence, NodeId, SetAttributes, SetXattr, Timestamp, TinyFs,
    WriteFlags, root_row,
};

/// A version with `/d/f` (300,000 bytes), `/d/g`, another name of it, and `/e`, empty.
fn version() -> (TinyFs, Arc<MemoryPersistence>) {
    let store = MemoryPersistence::new();
    store.store(&[root_row(Timestamp::now(), 0, 0)]);
    let fs = TinyFs::new(store.load().unwrap(), store.clone());
    let root = Caller::root();
    let d = fs.make(&root, NodeId::ROOT, b"d", Make::Directory { mode: 0o755 }).unwrap().id;
    let f = fs.make(&root, d, b"f", Make::File { mode: 0o644 }).unwrap().id;
    fs.write(&root, f, 0, &[1; 300_000], WriteFlags::default()).unwrap();
    fs.link(&root, f, d, b"g").unwrap();
    fs.make(&root, NodeId::ROOT, b"e", Make::File { mode: 0o600 }).unwrap();
    store.store(&fs.cut().rows);
    (TinyFs::read_only(store.load().unwrap(), store.clone()), store)
}

fn content(fs: &TinyFs, path: &[u8]) -> Vec<u8> {
    let id = fs.resolve(path).unwrap().id;
    fs.read(id, 0, 1 << 20).unwrap().fill(&**fs.persistence()).unwrap()
}

#[test]
fn two_scratches_of_one_version_see_neither_each_other_nor_change_it() {
    let (version, store) = version();
    let (one, other) = (version.scratch(store.clone()), version.scratch(store.clone()));
    let root = Caller::root();
    let f = one.resolve(b"/d/f").unwrap().id;
    let d = one.resolve(b"/d").unwrap().id;
    one.write(&root, f, 100, b"one", WriteFlags::default()).unwrap();
    one.setxattr(&root, f, b"user.a", b"1", SetXattr::Any).unwrap();
    one.rename(&root, d, b"g", NodeId::ROOT, b"h", Default::default()).unwrap();
    one.make(&root, d, b"new", Make::File { mode: 0o600 }).unwrap();
    other.unlink(&root, NodeId::ROOT, b"e").unwrap();
    other.write(&root, f, 100, b"two", WriteFlags::default()).unwrap();
    one.spill().unwrap();
    other.spill().unwrap();
    assert_eq!(&content(&one, b"/h")[99..104], b"\x01one\x01");
    assert_eq!(&content(&other, b"/d/g")[99..104], b"\x01two\x01");
    assert_eq!(content(&version, b"/d/f"), [1; 300_000]);
    assert!(one.resolve(b"/d/g").is_err() && other.resolve(b"/h").is_err());
    assert!(one.resolve(b"/e").is_ok() && other.resolve(b"/d/new").is_err());
    assert!(version.resolve(b"/e").is_ok() && version.resolve(b"/h").is_err());
    assert!(other.getxattr(f, b"user.a").is_err() && version.getxattr(f, b"user.a").is_err());
}

#[test]
fn what_is_written_leaves_memory_and_nothing_waits_for_a_commit() {
    let (version, store) = version();
    let scratch = version.scratch(store);
    let root = Caller::root();
    let f = scratch.resolve(b"/d/f").unwrap().id;
    let mut expected = vec![1u8; 300_000];
    for n in 0..200usize {
        let (at, length) = (n * 7919 % 290_000, n * 131 % 9000 + 1);
        scratch.write(&root, f, at as u64, &vec![n as u8; length], WriteFlags::default()).unwrap();
        expected[at..at + length].fill(n as u8);
        if n % 50 == 49 {
            assert!(scratch.unspilled_bytes() > 0);
            scratch.spill().unwrap();
            assert_eq!(scratch.dirty_bytes(), 0);
        }
        if n % 70 == 0 {
            scratch.fallocate(&root, f, at as u64, 5000, Fallocate::PunchHole).unwrap();
            expected[at..at + 5000].fill(0);
        }
    }
    scratch.setattr(&root, f, &SetAttributes { size: Some(250_000), ..Default::default() }).unwrap();
    scratch.setattr(&root, f, &SetAttributes { size: Some(260_000), ..Default::default() }).unwrap();
    expected.truncate(250_000);
    expected.resize(260_000, 0);
    assert!(content(&scratch, b"/d/g") == expected);
    for n in 0..1000 {
        let name = format!("{n}");
        scratch.make(&root, NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o600 }).unwrap();
        scratch.unlink(&root, NodeId::ROOT, name.as_bytes()).unwrap();
    }
    assert!(!scratch.is_dirty(), "no row is kept of what came and went");
}

#[test]
fn a_file_that_is_open_outlives_its_name_and_its_spill_goes_with_it() {
    let (version, store) = version();
    let scratch = version.scratch(store.clone());
    let root = Caller::root();
    // Known to a kernel before it changes for the first time.
    let e = scratch.lookup(NodeId::ROOT, b"e").unwrap().id;
    scratch.write(&root, e, 0, b"still here", WriteFlags::default()).unwrap();
    scratch.spill().unwrap();
    assert_eq!(store.spills(), 1);
    scratch.unlink(&root, NodeId::ROOT, b"e").unwrap();
    scratch.write(&root, e, 10, b", and more", WriteFlags::default()).unwrap();
    let read = scratch.read(e, 0, 100).unwrap().fill(&**scratch.persistence()).unwrap();
    assert_eq!(read, b"still here, and more");
    scratch.forget(e, 1);
    assert_eq!((store.spills(), scratch.dirty_bytes()), (0, 0));
    // Nobody knows this one.
    let f = scratch.resolve(b"/d/f").unwrap().id;
    let d = scratch.resolve(b"/d").unwrap().id;
    scratch.write(&root, f, 0, b"x", WriteFlags::default()).unwrap();
    scratch.spill().unwrap();
    scratch.unlink(&root, d, b"f").unwrap();
    assert_eq!(store.spills(), 1);
    scratch.rename(&root, NodeId::ROOT, b"d", NodeId::ROOT, b"c", Default::default()).unwrap();
    scratch.make(&root, d, b"f", Make::File { mode: 0o600 }).unwrap();
    scratch.rename(&root, d, b"f", d, b"g", Default::default()).unwrap();
    assert_eq!(store.spills(), 0);
}
