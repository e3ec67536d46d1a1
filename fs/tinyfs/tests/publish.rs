//! A follower that publishes version by version shows at each version the tree that a fresh fold of its rows makes, and
//! tells all that a kernel which cached the version before has to be told.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pond_tinyfs::*;
use proptest::prelude::*;

/// A tree that changes, its versions, and a tree that follows.
struct Pond {
    store: Arc<MemoryPersistence>,
    source: TinyFs,
    follower: TinyFs,
    /// Each version as a tree of its own, made from the one before, with what it showed then.
    versions: RefCell<Vec<(TinyFs, Shown)>>,
    caller: Caller,
}

impl Pond {
    fn new() -> Self {
        let store = MemoryPersistence::new();
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let source = TinyFs::new(store.load().unwrap(), store.clone());
        let follower = TinyFs::following(store.load().unwrap(), store.clone());
        let first = TinyFs::read_only(store.load().unwrap(), store.clone());
        let then = dump(&first);
        let versions = RefCell::new(vec![(first, then)]);
        Pond { store, source, follower, versions, caller: Caller::root() }
    }

    /// The rows of the next version, as the table has them.
    fn version(&self) -> (Vec<Row>, Lsn) {
        let cut = self.source.cut();
        let placed = self.store.store(&cut.rows);
        self.source.stored(&placed);
        let mut rows = cut.rows;
        for row in &mut rows {
            if let Record::Extent(extent) = &mut row.record {
                let place = placed.iter().find(|p| (p.node, p.lsn, p.seq) == (row.node, row.lsn, row.seq));
                extent.content = ExtentContent::Stored(place.unwrap().location);
            }
        }
        self.keep(rows.clone(), cut.cut_lsn);
        (rows, cut.cut_lsn)
    }

    /// Makes the tree of a version from that of the one before, which a tree that is loaded by itself must equal.
    fn keep(&self, rows: Vec<Row>, lsn: Lsn) {
        let mut versions = self.versions.borrow_mut();
        let (before, shown) = versions.last().unwrap();
        let version = TinyFs::read_only(before.later(rows, lsn).unwrap().tree, self.store.clone());
        let then = dump(&version);
        let mut loaded = self.store.load().unwrap();
        assert_eq!(version.share_with(&mut loaded) as u64, version.node_count());
        assert_eq!(dump(&TinyFs::read_only(loaded, self.store.clone())), then);
        assert_eq!(dump(before), *shown);
        versions.push((version, then));
    }

    fn publish(&self) -> Vec<Stale> {
        let (rows, lsn) = self.version();
        self.follower.publish(rows, lsn).unwrap()
    }

    fn split<'a>(&self, path: &'a str) -> (NodeId, &'a [u8]) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.source.resolve(parent.as_bytes()).unwrap().id, name.as_bytes())
    }

    fn id(&self, path: &str) -> NodeId {
        self.source.resolve(path.as_bytes()).unwrap().id
    }

    fn mkdir(&self, path: &str) {
        let (parent, name) = self.split(path);
        let made = self.source.make(&self.caller, parent, name, Make::Directory { mode: 0o755 }).unwrap();
        self.source.forget(made.id, 1);
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let (parent, name) = self.split(path);
        let made = self.source.make(&self.caller, parent, name, Make::File { mode: 0o644 });
        if let Ok(made) = made {
            self.source.forget(made.id, 1);
        }
        let id = self.id(path);
        let empty = SetAttributes { size: Some(0), ..Default::default() };
        self.source.setattr(&self.caller, id, &empty).unwrap();
        self.source.write(&self.caller, id, 0, bytes, WriteFlags::default()).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        let (parent, name) = self.split(to);
        let linked = self.source.link(&self.caller, self.id(path), parent, name).unwrap();
        self.source.forget(linked.id, 1);
    }

    fn rename(&self, path: &str, to: &str, flags: RenameFlags) {
        let ((parent, name), (new_parent, new_name)) = (self.split(path), self.split(to));
        self.source.rename(&self.caller, parent, name, new_parent, new_name, flags).unwrap();
    }

    fn unlink(&self, path: &str) {
        let (parent, name) = self.split(path);
        self.source.unlink(&self.caller, parent, name).unwrap();
    }

    fn rmdir(&self, path: &str) {
        let (parent, name) = self.split(path);
        self.source.rmdir(&self.caller, parent, name).unwrap();
    }

    /// As a kernel does: one reference on each node of the path.
    fn look_up(&self, path: &str) -> Attributes {
        let mut at = self.follower.getattr(NodeId::ROOT).unwrap();
        for name in path.split('/') {
            at = self.follower.lookup(at.id, name.as_bytes()).unwrap();
        }
        at
    }

    fn read(&self, id: NodeId) -> Vec<u8> {
        read(&self.follower, id)
    }

    fn check(&self) {
        let fresh = TinyFs::following(self.store.load().unwrap(), self.store.clone());
        assert_eq!(dump(&self.follower), dump(&fresh));
        for (version, then) in self.versions.borrow().iter() {
            assert_eq!(dump(version), *then);
        }
    }
}

fn read(fs: &TinyFs, id: NodeId) -> Vec<u8> {
    fs.read(id, 0, 1 << 30).unwrap().fill(&**fs.persistence()).unwrap()
}

fn xattrs(fs: &TinyFs, id: NodeId) -> Vec<(Vec<u8>, Vec<u8>)> {
    let names = fs.listxattr(&Caller::root(), id).unwrap();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| (name.to_vec(), fs.getxattr(id, name).unwrap())).collect()
}

type Listing = Vec<(Vec<u8>, NodeId, u64)>;

fn list(fs: &TinyFs, id: NodeId) -> Listing {
    let mut list = Vec::new();
    fs.readdir(id, 0, &mut |entry| {
        list.push((entry.name.to_vec(), entry.id, u64::from(entry.offset as u32)));
        true
    })
    .unwrap();
    list
}

/// What there is to see under each path.
type Shown = BTreeMap<Vec<u8>, String>;

/// Everything there is to see by names; ids do not count.
fn dump(fs: &TinyFs) -> Shown {
    let mut all = BTreeMap::new();
    let mut stack = vec![(Vec::new(), NodeId::ROOT)];
    while let Some((path, id)) = stack.pop() {
        let attributes = fs.getattr(id).unwrap();
        assert_eq!(attributes.id, id);
        let content = match attributes.kind {
            FileType::File => format!("{:?}", read(fs, id)),
            FileType::Symlink => format!("{:?}", fs.readlink(id)),
            FileType::Directory => {
                let mut names = Vec::new();
                for (name, child, cookie) in list(fs, id) {
                    names.push((name.clone(), cookie));
                    if name != b"." && name != b".." {
                        stack.push(([&path[..], b"/", &name[..]].concat(), child));
                    }
                }
                format!("{names:?} {:?}", fs.parent(id).map(|parent| fs.getattr(parent).unwrap().ctime))
            }
            _ => String::new(),
        };
        let shown = Attributes { id: NodeId::ROOT, ..attributes };
        all.insert(path, format!("{shown:?} {:?} {content}", xattrs(fs, id)));
    }
    all
}

fn name(parent: NodeId, name: &str, child: NodeId) -> Stale {
    Stale::Name { parent, name: name.as_bytes().into(), child }
}

#[test]
fn an_open_file_keeps_its_bytes_while_its_name_shows_new_ones() {
    let pond = Pond::new();
    pond.write("f", b"first");
    assert_eq!(pond.publish(), [Stale::Attributes(NodeId::ROOT), Stale::Listing(NodeId::ROOT)]);
    let first = pond.look_up("f");
    pond.write("f", b"second one");
    let stale = pond.publish();
    assert_eq!(stale, [name(NodeId::ROOT, "f", first.id), Stale::Listing(NodeId::ROOT)]);
    let second = pond.look_up("f");
    assert_ne!(second.id, first.id);
    assert_eq!((pond.read(first.id), pond.read(second.id)), (b"first".to_vec(), b"second one".to_vec()));
    assert_eq!(pond.follower.getattr(first.id).unwrap(), first);
    assert!(!pond.follower.has_name(first.id) && pond.follower.has_name(second.id));
    // Twice more, and each version stays.
    pond.write("f", b"3");
    assert_eq!(pond.publish(), [name(NodeId::ROOT, "f", second.id), Stale::Listing(NodeId::ROOT)]);
    assert_eq!(pond.read(second.id), b"second one");
    assert_eq!(pond.follower.frozen_count(), 2);
    pond.follower.forget(first.id, 1);
    pond.follower.forget(second.id, 1);
    assert_eq!(pond.follower.frozen_count(), 0);
    assert!(pond.follower.getattr(first.id).is_err() && pond.follower.getattr(second.id).is_err());
    pond.check();
    // Nobody holds the third: the file keeps its id.
    let third = pond.look_up("f");
    pond.follower.forget(third.id, 1);
    pond.write("f", b"4");
    assert_eq!(pond.publish(), []);
    assert_eq!(pond.look_up("f").id, third.id);
    assert_eq!(pond.read(third.id), b"4");
}

#[test]
fn every_name_of_a_hard_linked_file_is_told_and_all_lead_to_one_id() {
    let pond = Pond::new();
    pond.mkdir("d");
    pond.write("a", b"1");
    pond.link("a", "b");
    pond.link("a", "d/c");
    pond.link("a", "never looked up");
    pond.publish();
    let old = pond.look_up("a").id;
    let d = pond.look_up("d").id;
    assert_eq!((pond.look_up("b").id, pond.look_up("d/c").id), (old, old));
    pond.follower.forget(d, 1);
    let mut parents = vec![NodeId::ROOT, d];
    parents.sort();
    assert_eq!(pond.follower.found_in(old), parents);
    pond.write("a", b"2");
    let stale = pond.publish();
    // The deepest first.
    assert_eq!(stale[..3], [name(d, "c", old), name(NodeId::ROOT, "a", old), name(NodeId::ROOT, "b", old)]);
    let new = pond.look_up("never looked up").id;
    assert_eq!((pond.look_up("b").id, pond.look_up("d/c").id), (new, new));
    assert_eq!((pond.read(old), pond.read(new)), (b"1".to_vec(), b"2".to_vec()));
    pond.check();
}

#[test]
fn a_file_that_moves_and_changes_goes_under_its_old_names() {
    let pond = Pond::new();
    pond.mkdir("d");
    pond.write("f", b"1");
    pond.publish();
    let old = pond.look_up("f").id;
    pond.rename("f", "d/g", RenameFlags::default());
    pond.write("d/g", b"2");
    let stale = pond.publish();
    assert!(stale.contains(&name(NodeId::ROOT, "f", old)), "{stale:?}");
    assert_eq!(pond.read(old), b"1");
    let new = pond.look_up("d/g").id;
    assert_eq!(pond.read(new), b"2");
    // Moved only: the same file.
    pond.rename("d/g", "h", RenameFlags::default());
    let stale = pond.publish();
    assert!(stale.contains(&name(pond.id("d"), "g", new)), "{stale:?}");
    assert!(stale.contains(&Stale::Attributes(new)), "{stale:?}");
    assert!(pond.follower.has_name(new));
    assert_eq!(pond.look_up("h").id, new);
    pond.check();
}

#[test]
fn what_is_removed_with_its_directories_stays_readable_and_is_told_from_below() {
    let pond = Pond::new();
    pond.mkdir("a");
    pond.mkdir("a/b");
    pond.write("a/b/f", b"content");
    pond.publish();
    let f = pond.look_up("a/b/f").id;
    let (a, b) = (pond.id("a"), pond.id("a/b"));
    // Changed, then removed, within one version: the bytes of the last version that had it stay.
    pond.write("a/b/f", b"more content");
    pond.unlink("a/b/f");
    pond.rmdir("a/b");
    pond.rmdir("a");
    pond.write("a", b"a file");
    let stale = pond.publish();
    assert_eq!(stale[..3], [name(b, "f", f), name(a, "b", b), name(NodeId::ROOT, "a", a)]);
    assert_eq!(pond.read(f), b"content");
    assert_eq!(pond.follower.getattr(f).unwrap().nlink, 0);
    assert_eq!(list(&pond.follower, b), []);
    assert!(pond.follower.lookup(b, b"f").is_err());
    assert_eq!(pond.read(pond.look_up("a").id), b"a file");
    pond.check();
    let with = pond.follower.node_count();
    for id in [f, a, b] {
        assert!(!pond.follower.has_name(id));
        pond.follower.forget(id, 1);
    }
    assert_eq!(pond.follower.node_count(), with - 3);
}

#[test]
fn exchanged_names_are_both_told() {
    let pond = Pond::new();
    pond.mkdir("d");
    pond.mkdir("d/in");
    pond.write("f", b"1");
    pond.publish();
    let (d, f) = (pond.look_up("d").id, pond.look_up("f").id);
    pond.rename("d", "f", RenameFlags { exchange: true, ..Default::default() });
    let stale = pond.publish();
    assert_eq!(stale[..2], [name(NodeId::ROOT, "d", d), name(NodeId::ROOT, "f", f)]);
    assert_eq!((pond.look_up("d").id, pond.look_up("f").id), (f, d));
    pond.check();
}

#[test]
fn a_directory_that_moves_is_listed_anew() {
    let pond = Pond::new();
    for path in ["a", "b", "a/moved"] {
        pond.mkdir(path);
    }
    pond.publish();
    let moved = pond.look_up("a/moved").id;
    pond.rename("a/moved", "b/moved", RenameFlags::default());
    // Its `..` is another directory now.
    assert!(pond.publish().contains(&Stale::Listing(moved)));
    pond.check();
}

#[test]
fn attributes_alone_keep_the_id() {
    let pond = Pond::new();
    pond.write("f", b"1");
    pond.publish();
    let f = pond.look_up("f").id;
    let change = SetAttributes { mode: Some(0o600), ..Default::default() };
    pond.source.setattr(&pond.caller, pond.id("f"), &change).unwrap();
    pond.source.setxattr(&pond.caller, pond.id("f"), b"user.x", b"y", SetXattr::Any).unwrap();
    assert_eq!(pond.publish(), [Stale::Attributes(f)]);
    assert_eq!(pond.look_up("f").mode, 0o600);
    assert_eq!(pond.publish(), []);
    pond.check();
}

#[test]
fn several_versions_at_once_are_one_step() {
    let pond = Pond::new();
    pond.write("f", b"1");
    pond.publish();
    let old = pond.look_up("f").id;
    let mut rows = Vec::new();
    let mut last = Lsn(0);
    for n in 0..5u8 {
        pond.write("f", &[n; 3]);
        pond.write(&format!("new{n}"), b"x");
        if n > 0 {
            pond.unlink(&format!("new{}", n - 1));
        }
        let (more, lsn) = pond.version();
        rows.extend(more);
        last = lsn;
    }
    // In any order.
    rows.reverse();
    pond.follower.publish(rows, last).unwrap();
    assert_eq!((pond.read(old), pond.follower.frozen_count()), (b"1".to_vec(), 1));
    assert_eq!(pond.read(pond.look_up("f").id), [4; 3]);
    assert_eq!(pond.follower.last_lsn(), last);
    pond.check();
}

/// Rows that make no tree, each with what the error must say.
#[test]
fn rows_that_fit_nothing_change_nothing() {
    let pond = Pond::new();
    pond.mkdir("d");
    pond.write("d/f", b"1234");
    pond.link("d/f", "other");
    let (rows, lsn) = pond.version();
    pond.follower.publish(rows.clone(), lsn).unwrap();
    let opened = pond.look_up("d/f");
    let before = dump(&pond.follower);

    pond.write("d/f", b"5678");
    pond.mkdir("d/sub");
    pond.unlink("other");
    pond.write("new", b"9");
    let (next, next_lsn) = pond.version();
    let is_node = |row: &Row, id: NodeId| row.node == id && matches!(row.record, Record::Node(_));
    let (f, d, new) = (pond.id("d/f"), pond.id("d"), pond.id("new"));
    let change = |id: NodeId, change: &dyn Fn(&mut NodeRecord)| {
        let mut rows = next.clone();
        for row in rows.iter_mut().filter(|row| is_node(row, id)) {
            let Record::Node(record) = &mut row.record else { unreachable!() };
            change(record);
        }
        rows
    };
    let without =
        |without: &dyn Fn(&Row) -> bool| next.iter().filter(|row| !without(row)).cloned().collect::<Vec<_>>();
    let mut other_kind = next.clone();
    for row in &mut other_kind {
        if let Record::Entries(changes) = &mut row.record {
            changes.iter_mut().filter(|change| change.child == new).for_each(|c| c.kind = FileType::Fifo);
        }
    }
    let bad = [
        ("published before", rows),
        ("names node", without(&|row| row.node == new)),
        ("no attributes", without(&|row| is_node(row, new))),
        ("link count", change(d, &|record| record.nlink = 2)),
        ("should have", change(f, &|record| record.nlink = 2)),
        ("size", change(f, &|record| record.size = 1)),
        ("next cookie", change(d, &|record| record.next_cookie = 3)),
        ("says fifo and its node file", other_kind),
        ("names", without(&|row| row.node == NodeId::ROOT && matches!(row.record, Record::Entries(_)))),
        ("the root is missing", change(NodeId::ROOT, &|record| record.nlink = 0)),
    ];
    for (expected, rows) in bad {
        let error = pond.follower.publish(rows, next_lsn).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(dump(&pond.follower), before, "{expected}");
        assert_eq!((pond.follower.last_lsn(), pond.follower.frozen_count()), (lsn, 0));
        assert_eq!(pond.follower.getattr(opened.id).unwrap(), opened);
    }
    pond.follower.publish(next, next_lsn).unwrap();
    pond.check();
    assert_eq!(pond.read(opened.id), b"1234");
}

#[test]
fn only_a_tree_that_follows_takes_changes_and_keeps_by_which_names_files_were_found() {
    let pond = Pond::new();
    pond.write("f", b"1");
    let (rows, lsn) = pond.version();
    let fixed = TinyFs::read_only(pond.store.load().unwrap(), pond.store.clone());
    for fs in [&pond.source, &fixed] {
        let error = fs.publish(rows.clone(), lsn).unwrap_err().to_string();
        assert!(error.contains("does not follow"), "{error}");
    }
    let id = fixed.lookup(NodeId::ROOT, b"f").unwrap().id;
    assert_eq!(fixed.found_in(id), []);
}

#[test]
fn a_file_of_very_many_names_was_found_where_it_was_looked_up() {
    let pond = Pond::new();
    pond.write("f", b"1");
    let id = pond.source.lookup(NodeId::ROOT, b"f").unwrap().id;
    let mut directories = Vec::new();
    for d in 0..40 {
        let name = format!("d{d}");
        let make = Make::Directory { mode: 0o755 };
        let directory = pond.source.make(&pond.caller, NodeId::ROOT, name.as_bytes(), make).unwrap().id;
        for n in 0..5 {
            pond.source.link(&pond.caller, id, directory, format!("{n}").as_bytes()).unwrap();
        }
        directories.push(directory);
    }
    pond.publish();
    let fs = &pond.follower;
    // Some twice, none in order.
    for d in (0..40).rev().chain(10..20) {
        for name in ["3", "0", "3", "4"] {
            assert_eq!(fs.lookup(directories[d], name.as_bytes()).unwrap().id, id);
        }
    }
    directories.sort_unstable();
    assert_eq!(fs.found_in(id), directories);
    let gone = directories[7];
    for n in 0..5 {
        pond.source.unlink(&pond.caller, gone, format!("{n}").as_bytes()).unwrap();
    }
    pond.publish();
    assert_eq!(fs.found_in(id), directories.into_iter().filter(|&d| d != gone).collect::<Vec<_>>());
    fs.forget(id, u64::MAX);
    assert_eq!(fs.found_in(id), []);
}

#[test]
fn a_follower_that_becomes_a_source_writes_rows_under_the_nodes_own_ids() {
    let pond = Pond::new();
    pond.write("f", b"1");
    pond.publish();
    let old = pond.look_up("f").id;
    pond.write("f", b"2");
    pond.publish();
    let shown = pond.look_up("f").id;
    assert_ne!(shown, old);
    pond.follower.set_read_only(false);
    let follower = &pond.follower;
    assert_eq!(
        follower.write(&pond.caller, old, 0, b"x", WriteFlags::default()).unwrap_err().errno(),
        libc::ESTALE
    );
    follower.write(&pond.caller, shown, 1, b"3", WriteFlags::default()).unwrap();
    let flags = RenameFlags::default();
    let moved = follower.rename(&pond.caller, NodeId::ROOT, b"f", NodeId::ROOT, b"g", flags).unwrap().moved;
    assert_eq!(moved, shown);
    let cut = follower.cut();
    assert!(cut.rows.iter().all(|row| row.node == NodeId::ROOT || row.node == pond.id("f")));
    pond.store.store(&cut.rows);
    pond.check();
    assert_eq!(follower.unlink(&pond.caller, NodeId::ROOT, b"g").unwrap(), shown);
    assert_eq!(pond.read(shown), b"23");
    let with = follower.node_count();
    follower.forget(shown, 1);
    follower.forget(old, 1);
    assert_eq!((follower.node_count(), follower.frozen_count()), (with - 1, 0));
}

/// What a kernel caches of the follower, without any invalidation but those that it is told.
#[derive(Default)]
struct Kernel {
    dentries: HashMap<(NodeId, Vec<u8>), NodeId>,
    inodes: HashMap<NodeId, Inode>,
    listings: HashMap<NodeId, Listing>,
}

struct Inode {
    lookups: u64,
    attributes: Attributes,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: Option<Vec<u8>>,
    /// Names that lead here, and programs that have it open.
    holders: u64,
}

impl Kernel {
    /// Looks a path up; says what it leads to.
    fn walk(&mut self, fs: &TinyFs, path: &[u8]) -> Option<NodeId> {
        let mut at = NodeId::ROOT;
        for name in path.split(|byte| *byte == b'/') {
            if let Some(&child) = self.dentries.get(&(at, name.to_vec())) {
                at = child;
                continue;
            }
            let attributes = fs.lookup(at, name).ok()?;
            self.dentries.insert((at, name.to_vec()), attributes.id);
            let inode = self.inode(fs, attributes);
            inode.lookups += 1;
            inode.holders += 1;
            at = attributes.id;
        }
        if self.inodes[&at].attributes.kind == FileType::Directory {
            self.listings.insert(at, list(fs, at));
        }
        Some(at)
    }

    fn inode(&mut self, fs: &TinyFs, attributes: Attributes) -> &mut Inode {
        self.inodes.entry(attributes.id).or_insert_with(|| Inode {
            lookups: 0,
            attributes,
            xattrs: xattrs(fs, attributes.id),
            bytes: (attributes.kind == FileType::File).then(|| read(fs, attributes.id)),
            holders: 0,
        })
    }

    fn let_go(&mut self, fs: &TinyFs, id: NodeId) {
        let inode = self.inodes.get_mut(&id).unwrap();
        inode.holders -= 1;
        // A name keeps its directory.
        if inode.holders == 0 && !self.dentries.keys().any(|(parent, _)| *parent == id) {
            let inode = self.inodes.remove(&id).unwrap();
            self.listings.remove(&id);
            fs.forget(id, inode.lookups);
        } else if inode.holders == 0 {
            inode.holders += 1;
            let names: Vec<_> = self.dentries.keys().filter(|(parent, _)| *parent == id).cloned().collect();
            names.iter().for_each(|(parent, name)| self.drop_name(fs, *parent, name));
            self.let_go(fs, id);
        }
    }

    fn drop_name(&mut self, fs: &TinyFs, parent: NodeId, name: &[u8]) {
        if let Some(child) = self.dentries.remove(&(parent, name.to_vec())) {
            self.let_go(fs, child);
        }
    }

    fn told(&mut self, fs: &TinyFs, stale: &[Stale]) {
        for stale in stale {
            match stale {
                Stale::Name { parent, name, .. } => self.drop_name(fs, *parent, name),
                Stale::Attributes(id) => {
                    if let Some(inode) = self.inodes.get_mut(id) {
                        inode.attributes = fs.getattr(*id).unwrap();
                        inode.xattrs = xattrs(fs, *id);
                    }
                }
                Stale::Listing(id) => drop(self.listings.remove(id)),
            }
        }
    }

    fn check(&self, fs: &TinyFs) {
        for ((parent, name), child) in &self.dentries {
            let found = fs.lookup(*parent, name).unwrap();
            fs.forget(found.id, 1);
            assert_eq!(found.id, *child, "{:?}", String::from_utf8_lossy(name));
        }
        for (id, inode) in &self.inodes {
            assert_eq!(fs.getattr(*id).unwrap(), inode.attributes);
            assert_eq!(xattrs(fs, *id), inode.xattrs);
            if let Some(bytes) = &inode.bytes {
                assert_eq!(&read(fs, *id), bytes);
            }
        }
        for (id, listing) in &self.listings {
            let own =
                |listing: Listing| listing.into_iter().filter(|(name, ..)| name != b"..").collect::<Vec<_>>();
            assert_eq!(own(list(fs, *id)), own(listing.clone()));
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Make(String, u8),
    Link(String, String),
    Remove(String),
    Rename(String, String, bool),
    Write(String, u64, u8, usize),
    Truncate(String, u64),
    Punch(String, u64, u64),
    Mode(String, u16),
    Xattr(String, u8),
    Version,
    Walk(String, bool),
    Close(u8),
    Evict(u8),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|names| names.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (path(), 0u8..5).prop_map(|(p, k)| Op::Make(p, k)),
        2 => (path(), path()).prop_map(|(p, t)| Op::Link(p, t)),
        3 => path().prop_map(Op::Remove),
        4 => (path(), path(), any::<bool>()).prop_map(|(p, t, x)| Op::Rename(p, t, x)),
        5 => (path(), 0u64..300_000, any::<u8>(), 1usize..5000).prop_map(|(p, o, b, n)| Op::Write(p, o, b, n)),
        2 => (path(), 0u64..300_000).prop_map(|(p, n)| Op::Truncate(p, n)),
        1 => (path(), 0u64..300_000, 1u64..100_000).prop_map(|(p, o, n)| Op::Punch(p, o, n)),
        1 => (path(), 0u16..0o1000).prop_map(|(p, m)| Op::Mode(p, m)),
        1 => (path(), any::<u8>()).prop_map(|(p, b)| Op::Xattr(p, b)),
        6 => Just(Op::Version),
        9 => (path(), any::<bool>()).prop_map(|(p, o)| Op::Walk(p, o)),
        2 => any::<u8>().prop_map(Op::Close),
        2 => any::<u8>().prop_map(Op::Evict),
    ]
}

/// A change of the source; what cannot be is left.
fn change(pond: &Pond, op: &Op) -> Result<(), Error> {
    let (fs, caller) = (&pond.source, &pond.caller);
    let split = |path: &str| {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        fs.resolve(parent.as_bytes()).map(|parent| (parent.id, name.as_bytes().to_vec()))
    };
    let id = |path: &str| fs.resolve(path.as_bytes()).map(|found| found.id);
    match op {
        Op::Make(path, kind) => {
            let (parent, name) = split(path)?;
            let what = match kind {
                0 | 1 => Make::Directory { mode: 0o755 },
                2 => Make::Symlink { target: b"a/b" },
                _ => Make::File { mode: 0o644 },
            };
            fs.forget(fs.make(caller, parent, &name, what)?.id, 1);
        }
        Op::Link(path, to) => {
            let (parent, name) = split(to)?;
            fs.forget(fs.link(caller, id(path)?, parent, &name)?.id, 1);
        }
        Op::Remove(path) => {
            let (parent, name) = split(path)?;
            if fs.unlink(caller, parent, &name).is_err() {
                fs.rmdir(caller, parent, &name)?;
            }
        }
        Op::Rename(path, to, exchange) => {
            let ((parent, name), (new_parent, new_name)) = (split(path)?, split(to)?);
            let flags = RenameFlags { exchange: *exchange, no_replace: false };
            fs.rename(caller, parent, &name, new_parent, &new_name, flags)?;
        }
        Op::Write(path, offset, byte, length) => {
            fs.write(caller, id(path)?, *offset, &vec![*byte; *length], WriteFlags::default())?;
        }
        Op::Truncate(path, size) => {
            let change = SetAttributes { size: Some(*size), ..Default::default() };
            fs.setattr(caller, id(path)?, &change)?;
        }
        Op::Punch(path, offset, length) => {
            fs.fallocate(caller, id(path)?, *offset, *length, Fallocate::PunchHole)?;
        }
        Op::Mode(path, mode) => {
            fs.setattr(caller, id(path)?, &SetAttributes { mode: Some(*mode), ..Default::default() })?;
        }
        Op::Xattr(path, byte) => {
            fs.setxattr(caller, id(path)?, b"user.x", &[*byte], SetXattr::Any)?;
        }
        Op::Version | Op::Walk(..) | Op::Close(_) | Op::Evict(_) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("POND_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_kernel_that_is_told_what_is_stale_never_shows_anything_old(
        ops in prop::collection::vec(op(), 1..120)
    ) {
        let pond = Pond::new();
        let mut kernel = Kernel::default();
        let root = pond.follower.getattr(NodeId::ROOT).unwrap();
        kernel.inode(&pond.follower, root).holders = 1;
        let mut opened: Vec<NodeId> = Vec::new();
        for op in ops.iter().chain([&Op::Version]) {
            match op {
                Op::Version => {
                    let stale = pond.publish();
                    kernel.told(&pond.follower, &stale);
                    kernel.check(&pond.follower);
                    pond.check();
                }
                Op::Walk(path, open) => {
                    let found = kernel.walk(&pond.follower, path.as_bytes());
                    if *open && let Some(id) = found {
                        kernel.inodes.get_mut(&id).unwrap().holders += 1;
                        opened.push(id);
                    }
                }
                Op::Close(n) if !opened.is_empty() => {
                    let id = opened.swap_remove(*n as usize % opened.len());
                    kernel.let_go(&pond.follower, id);
                }
                Op::Evict(n) if !kernel.dentries.is_empty() => {
                    let mut names: Vec<_> = kernel.dentries.keys().cloned().collect();
                    names.sort();
                    let (parent, name) = names[*n as usize % names.len()].clone();
                    kernel.drop_name(&pond.follower, parent, &name);
                }
                // What the source refuses, the follower never hears of.
                op => drop(change(&pond, op)),
            }
        }
        opened.iter().for_each(|id| kernel.let_go(&pond.follower, *id));
        let names: Vec<_> = kernel.dentries.keys().cloned().collect();
        names.iter().for_each(|(parent, name)| kernel.drop_name(&pond.follower, *parent, name));
        prop_assert_eq!(pond.follower.frozen_count(), 0);
        prop_assert_eq!(pond.follower.node_count(), pond.source.node_count());
    }
}

#[test]
fn a_large_directory_is_amended_as_a_fold_would() {
    let pond = Pond::new();
    for n in 0..300 {
        pond.write(&format!("{n}"), b"");
    }
    pond.publish();
    pond.check();
    // The last entry goes, so that new cookies come after one that is not there any more, and many others do.
    for n in (0..300).rev().filter(|n| n % 7 != 0 || *n > 200) {
        pond.unlink(&n.to_string());
    }
    pond.publish();
    pond.check();
    pond.write("new", b"1");
    pond.rename("7", "14", RenameFlags::default());
    pond.publish();
    pond.check();
    pond.unlink("new");
    pond.write("new", b"2");
    pond.mkdir("d");
    pond.publish();
    pond.check();
}
