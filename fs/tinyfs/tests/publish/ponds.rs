//! A source and a follower of it, which is given its versions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use pond_tinyfs::*;

/// A tree that changes, its versions, and a tree that follows.
pub struct Pond {
    pub store: Arc<MemoryPersistence>,
    pub source: TinyFs,
    pub follower: TinyFs,
    /// Each version as a tree of its own, made from the one before, with what it showed then.
    pub versions: RefCell<Vec<(TinyFs, Shown)>>,
    pub caller: Caller,
}

impl Pond {
    pub fn new() -> Self {
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
    pub fn version(&self) -> (Vec<Row>, Lsn) {
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
    pub fn keep(&self, rows: Vec<Row>, lsn: Lsn) {
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

    pub fn publish(&self) -> Vec<Stale> {
        let (rows, lsn) = self.version();
        self.follower.publish(rows, lsn).unwrap()
    }

    pub fn split<'a>(&self, path: &'a str) -> (NodeId, &'a [u8]) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.source.resolve(parent.as_bytes()).unwrap().id, name.as_bytes())
    }

    pub fn id(&self, path: &str) -> NodeId {
        self.source.resolve(path.as_bytes()).unwrap().id
    }

    pub fn mkdir(&self, path: &str) {
        let (parent, name) = self.split(path);
        let made = self.source.make(&self.caller, parent, name, Make::Directory { mode: 0o755 }).unwrap();
        self.source.forget(made.id, 1);
    }

    pub fn write(&self, path: &str, bytes: &[u8]) {
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

    pub fn link(&self, path: &str, to: &str) {
        let (parent, name) = self.split(to);
        let linked = self.source.link(&self.caller, self.id(path), parent, name).unwrap();
        self.source.forget(linked.id, 1);
    }

    pub fn rename(&self, path: &str, to: &str, flags: RenameFlags) {
        let ((parent, name), (new_parent, new_name)) = (self.split(path), self.split(to));
        self.source.rename(&self.caller, parent, name, new_parent, new_name, flags).unwrap();
    }

    pub fn unlink(&self, path: &str) {
        let (parent, name) = self.split(path);
        self.source.unlink(&self.caller, parent, name).unwrap();
    }

    pub fn rmdir(&self, path: &str) {
        let (parent, name) = self.split(path);
        self.source.rmdir(&self.caller, parent, name).unwrap();
    }

    /// As a kernel does: one reference on each node of the path.
    pub fn look_up(&self, path: &str) -> Attributes {
        let mut at = self.follower.getattr(NodeId::ROOT).unwrap();
        for name in path.split('/') {
            at = self.follower.lookup(at.id, name.as_bytes()).unwrap();
        }
        at
    }

    pub fn read(&self, id: NodeId) -> Vec<u8> {
        read(&self.follower, id)
    }

    pub fn check(&self) {
        let fresh = TinyFs::following(self.store.load().unwrap(), self.store.clone());
        assert_eq!(dump(&self.follower), dump(&fresh));
        for (version, then) in self.versions.borrow().iter() {
            assert_eq!(dump(version), *then);
        }
    }
}

pub fn read(fs: &TinyFs, id: NodeId) -> Vec<u8> {
    fs.read(id, 0, 1 << 30).unwrap().fill(&**fs.persistence()).unwrap()
}

pub fn xattrs(fs: &TinyFs, id: NodeId) -> Vec<(Vec<u8>, Vec<u8>)> {
    let names = fs.listxattr(&Caller::root(), id).unwrap();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| (name.to_vec(), fs.getxattr(id, name).unwrap())).collect()
}

pub type Listing = Vec<(Vec<u8>, NodeId, u64)>;

pub fn list(fs: &TinyFs, id: NodeId) -> Listing {
    let mut list = Vec::new();
    fs.readdir(id, 0, &mut |entry| {
        list.push((entry.name.to_vec(), entry.id, u64::from(entry.offset as u32)));
        true
    })
    .unwrap();
    list
}

/// What there is to see under each path.
pub type Shown = BTreeMap<Vec<u8>, String>;

/// Everything there is to see by names; ids do not count.
pub fn dump(fs: &TinyFs) -> Shown {
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
