//! A model of a kernel that caches what the follower shows, told of what is stale, under random operations.

use std::collections::HashMap;

use pond_tinyfs::*;
use proptest::prelude::*;

use crate::ponds::{Listing, Pond, list, read, xattrs};

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
