//! Random pairs of histories, a scratch's and the tip's: what the scratch did is published or refused exactly as a model says that
//! shares nothing with the tree, and then the tip, what is loaded from its rows, and a follower are as the model says.
//!
//! `POND_TRANSACTION_CASES` says how many pairs (500), `POND_TRANSACTION_SEED` with which it begins (0).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pond_tinyfs::*;

const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())]) }
    }

    fn name(&mut self) -> &'static [u8] {
        NAMES[self.below(NAMES.len())]
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Holds {
    Entries(BTreeMap<Vec<u8>, NodeId>),
    Bytes(Vec<u8>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Modelled {
    mode: u16,
    xattr: Option<u8>,
    holds: Holds,
}

impl Modelled {
    fn entries(&self) -> Option<&BTreeMap<Vec<u8>, NodeId>> {
        match &self.holds {
            Holds::Entries(entries) => Some(entries),
            Holds::Bytes(_) => None,
        }
    }

    fn attributes(&self) -> (u16, Option<u8>) {
        (self.mode, self.xattr)
    }
}

/// Nodes that have a name.
type Nodes = BTreeMap<NodeId, Modelled>;

fn entries(nodes: &mut Nodes, id: NodeId) -> &mut BTreeMap<Vec<u8>, NodeId> {
    match &mut nodes.get_mut(&id).unwrap().holds {
        Holds::Entries(entries) => entries,
        Holds::Bytes(_) => panic!("{id} is a file"),
    }
}

fn links(nodes: &Nodes, id: NodeId) -> usize {
    let named = nodes.values().filter_map(Modelled::entries).flat_map(BTreeMap::values);
    named.filter(|child| **child == id).count()
}

/// A tree that changes, and what a model says of it.
struct Side {
    fs: TinyFs,
    nodes: Nodes,
    /// All nodes that ever were, in the order in which they came: ids are random, and a seed shall do the same again.
    order: Vec<NodeId>,
    /// Nodes of which anything changed.
    touched: BTreeSet<NodeId>,
    /// Files of which content was written.
    written: BTreeSet<NodeId>,
    /// What somebody has open.
    open: Vec<NodeId>,
}

impl Side {
    fn new(fs: TinyFs, nodes: Nodes, order: Vec<NodeId>) -> Self {
        let (touched, written) = Default::default();
        Side { fs, nodes, order, touched, written, open: Vec::new() }
    }

    fn touch<const N: usize>(&mut self, ids: [NodeId; N]) {
        self.touched.extend(ids);
    }

    /// Forgets a node that has lost its last name.
    fn drop_unnamed(&mut self, id: NodeId) {
        if links(&self.nodes, id) == 0 {
            self.nodes.remove(&id);
        }
    }

    /// Does one random thing, here and in the model.
    fn step(&mut self, random: &mut Random) {
        let root = Caller::root();
        let all: Vec<NodeId> = self.order.iter().filter(|id| self.nodes.contains_key(*id)).copied().collect();
        let (directories, files): (Vec<NodeId>, Vec<NodeId>) =
            all.iter().partition(|id| self.nodes[*id].entries().is_some());
        let parent = random.of(&directories).unwrap();
        let name = random.name();
        match random.below(15) {
            0 | 1 => {
                let Ok(made) = self.fs.make(&root, parent, name, Make::Directory { mode: 0o755 }) else {
                    return;
                };
                self.fs.forget(made.id, 1);
                self.make(parent, name, made.id, Holds::Entries(BTreeMap::new()), 0o755);
            }
            2 | 3 => {
                let Ok(made) = self.fs.make(&root, parent, name, Make::File { mode: 0o644 }) else { return };
                self.fs.forget(made.id, 1);
                self.make(parent, name, made.id, Holds::Bytes(Vec::new()), 0o644);
            }
            4 | 5 => {
                let open = self.open.clone();
                let Some(file) = random.of(&files).or_else(|| random.of(&open)) else { return };
                let (at, length) = (random.below(40_000), random.below(30_000) + 1);
                self.write(file, at, &vec![random.below(255) as u8 + 1; length]);
            }
            6 => {
                let Some(file) = random.of(&files) else { return };
                let size = random.below(60_000);
                let change = SetAttributes { size: Some(size as u64), ..Default::default() };
                self.fs.setattr(&root, file, &change).unwrap();
                let Holds::Bytes(bytes) = &mut self.nodes.get_mut(&file).unwrap().holds else { return };
                bytes.resize(size, 0);
                self.written.insert(file);
                self.touch([file]);
            }
            7 => {
                let Some(id) = random.of(&all) else { return };
                let mode = [0o700, 0o755, 0o644][random.below(3)];
                let change = SetAttributes { mode: Some(mode), ..Default::default() };
                self.fs.setattr(&root, id, &change).unwrap();
                self.nodes.get_mut(&id).unwrap().mode = mode;
                self.touch([id]);
            }
            8 => {
                let Some(id) = random.of(&all) else { return };
                let value = random.below(3) as u8;
                self.fs.setxattr(&root, id, b"user.x", &[value], SetXattr::Any).unwrap();
                self.nodes.get_mut(&id).unwrap().xattr = Some(value);
                self.touch([id]);
            }
            9 => {
                let Some(file) = random.of(&files) else { return };
                if self.fs.link(&root, file, parent, name).is_ok() {
                    self.fs.forget(file, 1);
                    entries(&mut self.nodes, parent).insert(name.to_vec(), file);
                    self.touch([parent, file]);
                }
            }
            10 => {
                if let Ok(file) = self.fs.unlink(&root, parent, name) {
                    entries(&mut self.nodes, parent).remove(name);
                    self.touch([parent, file]);
                    self.drop_unnamed(file);
                }
            }
            11 => {
                if self.fs.rmdir(&root, parent, name).is_ok() {
                    let gone = entries(&mut self.nodes, parent).remove(name).unwrap();
                    self.touch([parent, gone]);
                    self.drop_unnamed(gone);
                }
            }
            12 | 13 => self.rename(random, parent, name, &directories),
            _ => {
                if random.below(2) == 0 {
                    let Some(&file) = self.nodes[&parent].entries().unwrap().get(name) else { return };
                    self.fs.lookup(parent, name).unwrap();
                    self.open.push(file);
                } else if let Some(file) = self.open.pop() {
                    self.fs.forget(file, 1);
                }
            }
        }
    }

    fn make(&mut self, parent: NodeId, name: &[u8], id: NodeId, holds: Holds, mode: u16) {
        self.order.push(id);
        self.nodes.insert(id, Modelled { mode, xattr: None, holds });
        entries(&mut self.nodes, parent).insert(name.to_vec(), id);
        self.touch([parent, id]);
    }

    fn write(&mut self, file: NodeId, at: usize, data: &[u8]) {
        if self.fs.write(&Caller::root(), file, at as u64, data, WriteFlags::default()).is_err() {
            return;
        }
        if let Some(Modelled { holds: Holds::Bytes(bytes), .. }) = self.nodes.get_mut(&file) {
            bytes.resize(bytes.len().max(at + data.len()), 0);
            bytes[at..at + data.len()].copy_from_slice(data);
            self.written.insert(file);
            self.touch([file]);
        }
    }

    fn rename(&mut self, random: &mut Random, parent: NodeId, name: &[u8], directories: &[NodeId]) {
        let (to, new_name) = (random.of(directories).unwrap(), random.name());
        let flags = RenameFlags { exchange: random.below(4) == 0, ..RenameFlags::default() };
        if self.fs.rename(&Caller::root(), parent, name, to, new_name, flags).is_err() {
            return;
        }
        let moved = self.nodes[&parent].entries().unwrap()[name];
        let other = self.nodes[&to].entries().unwrap().get(new_name).copied();
        if other == Some(moved) {
            return;
        }
        entries(&mut self.nodes, parent).remove(name);
        entries(&mut self.nodes, to).insert(new_name.to_vec(), moved);
        self.touch([parent, to, moved]);
        if let Some(other) = other {
            self.touch([other]);
            if flags.exchange {
                entries(&mut self.nodes, parent).insert(name.to_vec(), other);
            }
            self.drop_unnamed(other);
        }
    }
}

/// What both sides come to, or none where they clash.
fn merged(base: &Nodes, mine: &Side, tip: &Side) -> Option<Nodes> {
    let none = BTreeMap::new();
    let names = |nodes: &Nodes, id: &NodeId| nodes.get(id).and_then(Modelled::entries).cloned();
    let mut result = tip.nodes.clone();
    for (id, before) in base {
        let Some(after) = mine.nodes.get(id) else {
            // Ended here.
            if tip.nodes.contains_key(id) && tip.touched.contains(id) {
                return None;
            }
            continue;
        };
        if mine.written.contains(id) || before.attributes() != after.attributes() {
            let there = tip.nodes.get(id)?;
            let clashes = match there.entries() {
                Some(_) => there.attributes() != before.attributes(),
                None => tip.touched.contains(id),
            };
            if clashes {
                return None;
            }
            let now = result.get_mut(id).unwrap();
            (now.mode, now.xattr) = after.attributes();
            if let Holds::Bytes(_) = after.holds {
                now.holds = after.holds.clone();
            }
        }
    }
    for (id, before) in base {
        let Some(before) = before.entries() else { continue };
        let after = names(&mine.nodes, id).unwrap_or_default();
        let there = names(&tip.nodes, id);
        for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
            if before.get(name) == after.get(name) {
                continue;
            }
            if there.as_ref()?.get(name) != before.get(name) {
                return None;
            }
            match after.get(name) {
                Some(child) if base.contains_key(child) && !tip.nodes.contains_key(child) => return None,
                Some(child) => drop(entries(&mut result, *id).insert(name.clone(), *child)),
                None => drop(entries(&mut result, *id).remove(name)),
            }
        }
    }
    for (id, node) in mine.nodes.iter().filter(|(id, _)| !base.contains_key(id)) {
        let children = node.entries().unwrap_or(&none).values();
        if children.clone().any(|child| base.contains_key(child) && !tip.nodes.contains_key(child)) {
            return None;
        }
        result.insert(*id, node.clone());
    }
    for id in base.keys().filter(|id| !mine.nodes.contains_key(id)) {
        result.remove(id);
    }
    let unnamed: Vec<NodeId> = result
        .iter()
        .filter(|(id, node)| node.entries().is_none() && links(&result, **id) == 0)
        .map(|(id, _)| *id)
        .collect();
    unnamed.iter().for_each(|id| drop(result.remove(id)));
    // What is in a cycle is reached by nobody.
    let mut reached = BTreeSet::from([NodeId::ROOT]);
    let mut left = vec![NodeId::ROOT];
    while let Some(id) = left.pop() {
        for child in result[&id].entries().unwrap_or(&none).values() {
            if reached.insert(*child) {
                left.push(*child);
            }
        }
    }
    (reached.len() == result.len()).then_some(result)
}

/// A file's bytes in short.
fn short(bytes: &[u8]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    (bytes.len(), hasher.finish())
}

/// What a model shows under each path.
fn shown(nodes: &Nodes) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![(Vec::new(), NodeId::ROOT)];
    while let Some((path, id)) = left.pop() {
        let node = &nodes[&id];
        let (count, content) = match &node.holds {
            Holds::Entries(entries) => {
                let directories = entries.values().filter(|child| nodes[child].entries().is_some()).count();
                for (name, child) in entries {
                    left.push(([&path[..], b"/", name].concat(), *child));
                }
                (directories + 2, None)
            }
            Holds::Bytes(bytes) => (links(nodes, id), Some(short(bytes))),
        };
        all.insert(path, format!("{id} {:o} {:?} {count} {content:?}", node.mode, node.xattr));
    }
    all
}

/// What a tree shows. Files of a follower have other ids.
fn looked_at(fs: &TinyFs, with_ids: bool) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![(Vec::new(), NodeId::ROOT)];
    while let Some((path, id)) = left.pop() {
        let attributes = fs.getattr(id).unwrap();
        let content = match attributes.kind {
            FileType::Directory => {
                fs.readdir(id, 0, &mut |entry| {
                    if !matches!(entry.name, b"." | b"..") {
                        left.push(([&path[..], b"/", entry.name].concat(), entry.id));
                    }
                    true
                })
                .unwrap();
                None
            }
            _ => Some(short(&fs.read(id, 0, 1 << 20).unwrap().fill(&**fs.persistence()).unwrap())),
        };
        let xattr = fs.getxattr(id, b"user.x").ok().map(|value| value[0]);
        let shown = if with_ids { id.to_string() } else { String::new() };
        let Attributes { mode, nlink, .. } = attributes;
        all.insert(path, format!("{shown} {mode:o} {xattr:?} {nlink} {content:?}"));
    }
    all
}

fn without_ids(shown: &BTreeMap<Vec<u8>, String>) -> BTreeMap<Vec<u8>, String> {
    let cut = |line: &String| line[line.find(' ').unwrap()..].to_owned();
    shown.iter().map(|(path, line)| (path.clone(), cut(line))).collect()
}

/// Takes a cut, keeps it, and publishes it to a follower.
fn version(store: &MemoryPersistence, tip: &TinyFs, follower: &TinyFs) {
    keep(tip.cut(), store, tip, follower);
}

fn keep(cut: Cut, store: &MemoryPersistence, tip: &TinyFs, follower: &TinyFs) {
    let placed = store.store(&cut.rows);
    tip.stored(&placed);
    let mut rows = cut.rows;
    for row in &mut rows {
        if let Record::Extent(extent) = &mut row.record {
            let place = placed.iter().find(|p| (p.node, p.lsn, p.seq) == (row.node, row.lsn, row.seq));
            extent.content = ExtentContent::Stored(place.unwrap().location);
        }
    }
    follower.publish(rows, cut.cut_lsn).unwrap();
}

/// One pair of histories; whether the scratch's was published.
fn case(seed: u64) -> bool {
    let random = &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let store = MemoryPersistence::new();
    store.store(&[root_row(Timestamp::now(), 0, 0)]);
    let load = || store.load().unwrap();
    let empty = Modelled { mode: 0o755, xattr: None, holds: Holds::Entries(BTreeMap::new()) };
    let mut tip = Side::new(
        TinyFs::new(load(), store.clone()),
        Nodes::from([(NodeId::ROOT, empty)]),
        vec![NodeId::ROOT],
    );
    let follower = TinyFs::following(load(), store.clone());
    for _ in 0..20 + random.below(40) {
        tip.step(random);
    }
    version(&store, &tip.fs, &follower);
    let base = TinyFs::read_only(load(), store.clone());
    let before = tip.nodes.clone();
    assert_eq!(looked_at(&base, true), shown(&before));
    (tip.touched, tip.written) = Default::default();

    let persistence: Arc<dyn PersistenceLayer> = store.clone();
    let mut mine = Side::new(base.scratch(persistence), before.clone(), tip.order.clone());
    let (here, there) = (random.below(14), random.below(10));
    for _ in 0..here {
        mine.step(random);
        if random.below(5) == 0 {
            mine.fs.spill().unwrap();
        }
    }
    for _ in 0..there {
        tip.step(random);
        match random.below(6) {
            0 => version(&store, &tip.fs, &follower),
            1 => tip.fs.spill().unwrap(),
            _ => {}
        }
    }
    assert_eq!(looked_at(&mine.fs, true), shown(&mine.nodes));
    assert_eq!(looked_at(&tip.fs, true), shown(&tip.nodes));

    let mut changes = mine.fs.changes_since(&base);
    mine.fs.read_changes(&mut changes).unwrap();
    let was_empty = changes.is_empty();
    let expected = merged(&before, &mine, &tip);
    let last = tip.fs.last_lsn();
    match (tip.fs.publish_changes(&base, changes), &expected) {
        (Ok(published), Some(nodes)) => {
            assert_eq!(published.lsn, last.next(), "all of it is one operation");
            let is_written =
                mine.written.iter().any(|id| before.contains_key(id) && mine.nodes.contains_key(id));
            assert_eq!(was_empty, mine.nodes == before && !is_written);
            keep(published.before, &store, &tip.fs, &follower);
            keep(published.cut, &store, &tip.fs, &follower);
            assert!(!tip.fs.is_dirty());
            tip.nodes = nodes.clone();
            let came = mine.order.iter().filter(|id| !before.contains_key(*id));
            tip.order.extend(came);
        }
        (Err(NotPublished::Conflicts(conflicts)), None) => {
            assert!(!conflicts.is_empty());
            assert_eq!(tip.fs.last_lsn(), last);
            for conflict in conflicts {
                assert!(conflict.path.starts_with(b"/"), "{conflict:?}");
            }
        }
        (Ok(_), None) => panic!("seed {seed}: published, and the model says that the sides clash"),
        (Err(why), Some(_)) => {
            panic!("seed {seed}: refused, and the model says that it can be done: {why:?}")
        }
        (Err(why), None) => panic!("seed {seed}: {why:?}"),
    }
    let model = shown(&tip.nodes);
    assert_eq!(looked_at(&tip.fs, true), model);
    // What is open goes on, with or without a name.
    let is_file = |id: &&NodeId| tip.fs.getattr(**id).unwrap().kind == FileType::File;
    for &file in tip.open.iter().filter(is_file) {
        tip.fs.read(file, 0, 1 << 20).unwrap().fill(&**tip.fs.persistence()).unwrap();
    }
    version(&store, &tip.fs, &follower);
    let reopened = TinyFs::new(load(), store.clone());
    assert_eq!(looked_at(&reopened, true), model);
    assert_eq!(reopened.node_count(), tip.nodes.len() as u64, "every node is reached");
    assert_eq!(looked_at(&follower, false), without_ids(&model));
    // Others go on with what was published.
    for _ in 0..10 {
        tip.step(random);
    }
    version(&store, &tip.fs, &follower);
    assert_eq!(looked_at(&tip.fs, true), shown(&tip.nodes));
    assert_eq!(looked_at(&TinyFs::new(load(), store.clone()), true), shown(&tip.nodes));
    expected.is_some()
}

#[test]
fn what_a_scratch_did_is_published_or_refused_exactly_as_a_model_says() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let cases = number("POND_TRANSACTION_CASES", 500);
    let first = number("POND_TRANSACTION_SEED", 0);
    let mut published = 0;
    for seed in first..first + cases {
        let done = std::panic::catch_unwind(|| case(seed));
        published += u64::from(done.unwrap_or_else(|_| panic!("seed {seed}")));
    }
    println!("{published} of {cases} were published");
    assert!(cases < 500 || (published > cases / 5 && published < cases * 9 / 10), "{published} of {cases}");
}
