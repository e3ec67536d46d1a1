//! Inode numbers: what each that the kernel was given stands for.
//!
//! A node goes by its own id of 63 bits, for which no table is needed. Whatever else is shown has a number from the table here, with
//! the top bit set, which no id has. With `inode32` all numbers have 32 bits, and nodes go through the table like the rest.
//!
//! A number stands for one thing as long as the mount lives: it is given to another only once all 32-bit numbers went round,
//! and then only if its own thing is gone. Two things with the same number would look like hard links of one file. A node
//! keeps its number while it exists, also while the kernel has forgotten it; what is not a node goes with the kernel's last
//! reference. A node of an old version has a number that is made of both (see `old`); with `inode32` it has one from the table,
//! which stays until the version is let go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use pond_tinyfs::{Errno, NodeId};

use crate::inodes::content::Snapshot;
use crate::inodes::old::{OldKey, OldNode};

/// An inode number, as `stat` and the kernel know it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Ino(pub(crate) u64);

impl Ino {
    /// The root directory, for us, the kernel and FUSE.
    pub(crate) const ROOT: Ino = Ino(1);
}

/// What a number stands for.
#[derive(Clone, Debug)]
pub(crate) enum Object {
    /// A node of the tree.
    Node(NodeId),
    /// The directory `.pond`.
    OwnDirectory,
    /// A file in it, as it was when it was looked up.
    Snapshot(Arc<Snapshot>),
    /// The directory `.pond/versions`.
    Versions,
    /// The root of an old version that was listed there and not looked at yet.
    Listed(u64),
    /// A node of an old version.
    Old(OldNode),
}

impl Object {
    fn old_key(&self) -> Option<OldKey> {
        match self {
            Object::Listed(version) => Some(OldKey::root(*version)),
            Object::Old(node) => Some(node.key()),
            _ => None,
        }
    }
}

/// From which numbers the table takes, and the mark that they all have.
struct Range {
    mark: u64,
    first: u64,
    last: u64,
    /// The number of `.pond`; that of `.pond/versions` comes after it.
    own_directory: u64,
}

/// Beside ids of nodes, which do not have the top bit.
const BESIDE_IDS: Range = Range { mark: 1 << 63, first: 2, last: OLD - 17, own_directory: 0 };

/// All that 32 bits hold, but for 0, the root, `.pond` and `.pond/versions`, and some at the end that are only shown.
const NARROW: Range = Range { mark: 0, first: 4, last: u32::MAX as u64 - 16, own_directory: 2 };

/// The mark that numbers of nodes of old versions have below the top bit.
const OLD: u64 = 1 << 62;

/// The inode numbers of a mount.
pub(crate) struct Inodes {
    narrow: bool,
    range: &'static Range,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    /// The number that was given last, without its mark.
    last: u64,
    held: HashMap<Ino, Held>,
    /// With 32 bits: the numbers of nodes.
    numbers: HashMap<NodeId, Ino>,
    /// With 32 bits: the numbers of nodes of old versions.
    old_numbers: HashMap<u64, HashMap<NodeId, Ino>>,
}

struct Held {
    object: Object,
    /// Those that the kernel has not given back.
    references: u64,
}

// What every request asks is inlined, so that a node that goes by its id costs a comparison.
impl Inodes {
    /// With `inode32` no number has more than 32 bits.
    pub(crate) fn new(inode32: bool) -> Self {
        let range = if inode32 { &NARROW } else { &BESIDE_IDS };
        let mut table = Table { last: range.first - 1, ..Table::default() };
        if inode32 {
            table.held.insert(Ino::ROOT, Held { object: Object::Node(NodeId::ROOT), references: 0 });
            table.numbers.insert(NodeId::ROOT, Ino::ROOT);
        }
        let inodes = Inodes { narrow: inode32, range, table: RwLock::default() };
        table.held.insert(inodes.own_directory(), Held { object: Object::OwnDirectory, references: 0 });
        table.held.insert(inodes.versions(), Held { object: Object::Versions, references: 0 });
        *inodes.table.write() = table;
        inodes
    }

    /// Whether no number has more than 32 bits.
    #[inline]
    pub(crate) fn narrow(&self) -> bool {
        self.narrow
    }

    /// The number of `.pond`.
    #[inline]
    pub(crate) fn own_directory(&self) -> Ino {
        Ino(self.range.mark | self.range.own_directory)
    }

    /// The number of `.pond/versions`.
    pub(crate) fn versions(&self) -> Ino {
        Ino(self.range.mark | (self.range.own_directory + 1))
    }

    /// A number for a listing that nothing can be asked of, one of a few.
    pub(crate) fn only_to_show(&self, n: usize) -> Ino {
        Ino(self.range.mark | (self.range.last + 1 + n as u64))
    }

    /// What a number stands for; `ESTALE` if it stands for nothing any more.
    #[inline]
    pub(crate) fn find(&self, ino: Ino) -> Result<Object, Errno> {
        match NodeId::new(ino.0).filter(|_| !self.narrow) {
            Some(id) => Ok(Object::Node(id)),
            None => self.find_in_table(ino),
        }
    }

    fn find_in_table(&self, ino: Ino) -> Result<Object, Errno> {
        self.table.read().held.get(&ino).map(|held| held.object.clone()).ok_or(Errno::STALE)
    }

    /// A node's number, to show.
    #[inline]
    pub(crate) fn number(&self, id: NodeId) -> Ino {
        if self.narrow { self.number_in_table(id) } else { Ino(id.get()) }
    }

    fn number_in_table(&self, id: NodeId) -> Ino {
        let known = self.table.read().numbers.get(&id).copied();
        known.unwrap_or_else(|| self.table.write().number(self.range, id))
    }

    /// A node's number, if it was ever given out.
    pub(crate) fn known(&self, id: NodeId) -> Option<Ino> {
        if self.narrow { self.table.read().numbers.get(&id).copied() } else { Some(Ino(id.get())) }
    }

    /// A node's number, for the kernel to keep until it forgets it. The node itself must have its reference already.
    #[inline]
    pub(crate) fn refer(&self, id: NodeId) -> Ino {
        if self.narrow { self.refer_in_table(id) } else { Ino(id.get()) }
    }

    fn refer_in_table(&self, id: NodeId) -> Ino {
        let mut table = self.table.write();
        let ino = table.number(self.range, id);
        table.refer(ino);
        ino
    }

    /// A number for what is no node, for the kernel to keep until it forgets it.
    pub(crate) fn add(&self, snapshot: Arc<Snapshot>) -> Ino {
        self.table.write().add(self.range, Object::Snapshot(snapshot), 1)
    }

    /// The number of a node of an old version, to show.
    pub(crate) fn old_number(&self, key: OldKey) -> Ino {
        if self.narrow {
            self.table.write().old_number(self.range, key)
        } else {
            self.table.read().place_of(key)
        }
    }

    /// The number of a node of an old version, for the kernel to keep until it forgets it.
    pub(crate) fn refer_old(&self, node: OldNode) -> Ino {
        self.refer_as(node.key(), Object::Old(node))
    }

    /// The number of an old version's root, for the kernel to keep until it forgets it, without the version itself.
    pub(crate) fn refer_listed(&self, version: u64) -> Ino {
        self.refer_as(OldKey::root(version), Object::Listed(version))
    }

    fn refer_as(&self, key: OldKey, object: Object) -> Ino {
        let mut table = self.table.write();
        let ino = if self.narrow { table.old_number(self.range, key) } else { table.place_of(key) };
        let held = table.held.entry(ino).or_insert_with(|| Held { object: object.clone(), references: 0 });
        held.references += 1;
        // What was only listed is looked at now.
        if let Object::Listed(_) = held.object {
            held.object = object;
        }
        ino
    }

    /// What the kernel holds of an old version's root: the version, if it is open.
    pub(crate) fn held_root(&self, version: u64) -> Option<OldNode> {
        let table = self.table.read();
        let key = OldKey::root(version);
        let ino = match self.narrow {
            true => *table.old_numbers.get(&version)?.get(&key.id)?,
            false => table.place_of(key),
        };
        match &table.held.get(&ino)?.object {
            Object::Old(node) if node.key() == key => Some(node.clone()),
            _ => None,
        }
    }

    /// The nodes of an old version that the kernel holds.
    pub(crate) fn held_of(&self, version: u64) -> HashSet<NodeId> {
        let table = self.table.read();
        let keys = table.held.values().filter_map(|held| held.object.old_key());
        keys.filter(|key| key.version == version).map(|key| key.id).collect()
    }

    /// With `inode32`: the numbers of old versions for which this says `false` are free.
    pub(crate) fn retain_old(&self, is_open: impl Fn(u64) -> bool) {
        if self.narrow {
            self.table.write().old_numbers.retain(|version, _| is_open(*version));
        }
    }

    /// One more reference on a number that was given out, for the kernel to keep; `false` if it stands for nothing any more.
    pub(crate) fn refer_again(&self, ino: Ino) -> bool {
        (!self.narrow && ino.0 & self.range.mark == 0) || self.table.write().refer(ino)
    }

    /// Gives references back. After the last, what is no node is gone; a node is returned, for [`gone`](Self::gone) if it
    /// exists no more.
    #[must_use]
    #[inline]
    pub(crate) fn forget(&self, ino: Ino, references: u64) -> Option<NodeId> {
        let is_in_table = self.narrow || ino.0 & self.range.mark != 0;
        if is_in_table { self.forget_in_table(ino, references) } else { None }
    }

    fn forget_in_table(&self, ino: Ino, references: u64) -> Option<NodeId> {
        let mut table = self.table.write();
        let held = table.held.get_mut(&ino)?;
        held.references = held.references.saturating_sub(references);
        match held.object {
            _ if held.references > 0 => None,
            Object::OwnDirectory | Object::Versions => None,
            Object::Snapshot(_) | Object::Listed(_) | Object::Old(_) => {
                table.held.remove(&ino);
                None
            }
            Object::Node(id) => Some(id),
        }
    }

    /// The node is gone; its number goes, unless the kernel has it and will forget it.
    pub(crate) fn gone(&self, id: NodeId) {
        if !self.narrow {
            return;
        }
        let mut table = self.table.write();
        if let Some(&ino) = table.numbers.get(&id)
            && table.held.get(&ino).is_none_or(|held| held.references == 0)
        {
            table.remove(ino, id);
        }
    }
}

impl Table {
    fn add(&mut self, range: &Range, object: Object, references: u64) -> Ino {
        let ino = self.free(range);
        self.held.insert(ino, Held { object, references });
        ino
    }

    /// The next number that nothing has.
    fn free(&mut self, range: &Range) -> Ino {
        loop {
            self.last = if self.last < range.last { self.last + 1 } else { range.first };
            let ino = Ino(range.mark | self.last);
            if !self.held.contains_key(&ino) {
                return ino;
            }
        }
    }

    fn number(&mut self, range: &Range, id: NodeId) -> Ino {
        if let Some(&ino) = self.numbers.get(&id) {
            return ino;
        }
        let ino = self.add(range, Object::Node(id), 0);
        self.numbers.insert(id, ino);
        ino
    }

    /// Where a node of an old version is or would be among numbers of 64 bits.
    fn place_of(&self, key: OldKey) -> Ino {
        let mut mixed = key.mixed();
        loop {
            let ino = Ino(BESIDE_IDS.mark | OLD | (mixed & (OLD - 1)));
            match self.held.get(&ino) {
                Some(held) if held.object.old_key() != Some(key) => mixed += 1,
                _ => return ino,
            }
        }
    }

    /// The number of 32 bits that a node of an old version has or gets.
    fn old_number(&mut self, range: &Range, key: OldKey) -> Ino {
        let known = self.old_numbers.get(&key.version).and_then(|numbers| numbers.get(&key.id)).copied();
        let is_its_own = |ino: &Ino| self.held.get(ino).is_none_or(|held| held.object.old_key() == Some(key));
        if let Some(ino) = known.filter(is_its_own) {
            return ino;
        }
        let ino = self.free(range);
        self.old_numbers.entry(key.version).or_default().insert(key.id, ino);
        ino
    }

    fn refer(&mut self, ino: Ino) -> bool {
        self.held.get_mut(&ino).map(|held| held.references += 1).is_some()
    }

    fn remove(&mut self, ino: Ino, id: NodeId) {
        self.held.remove(&ino);
        self.numbers.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> NodeId {
        NodeId::new(n).unwrap()
    }

    fn node(inodes: &Inodes, ino: Ino) -> Option<NodeId> {
        match inodes.find(ino) {
            Ok(Object::Node(id)) => Some(id),
            _ => None,
        }
    }

    #[test]
    fn nodes_go_by_their_ids_and_by_small_numbers_if_asked_for() {
        let large = id(0x7123_4567_89ab_cdef);
        let wide = Inodes::new(false);
        assert_eq!((wide.refer(large), wide.number(large)), (Ino(large.get()), Ino(large.get())));
        assert_eq!(node(&wide, Ino(large.get())), Some(large));
        let narrow = Inodes::new(true);
        assert_eq!(narrow.known(large), None);
        let number = narrow.number(large);
        assert!(number.0 <= u64::from(u32::MAX));
        assert_eq!((narrow.refer(large), narrow.known(large)), (number, Some(number)));
        assert_eq!(node(&narrow, number), Some(large));
        assert_eq!(narrow.find(Ino(large.get())).unwrap_err(), Errno::STALE);
        for inodes in [wide, narrow] {
            assert_eq!(
                (inodes.number(NodeId::ROOT), node(&inodes, Ino::ROOT)),
                (Ino::ROOT, Some(NodeId::ROOT))
            );
            assert!(matches!(inodes.find(inodes.own_directory()), Ok(Object::OwnDirectory)));
            assert_eq!(inodes.forget(inodes.own_directory(), 1), None);
            assert!(matches!(inodes.find(inodes.own_directory()), Ok(Object::OwnDirectory)));
        }
    }

    #[test]
    fn a_node_keeps_its_number_until_it_is_gone_and_forgotten() {
        let inodes = Inodes::new(true);
        let number = inodes.refer(id(77));
        inodes.refer(id(77));
        inodes.gone(id(77));
        assert_eq!(inodes.forget(number, 1), None, "the kernel has one reference left");
        inodes.gone(id(77));
        assert_eq!(node(&inodes, number), Some(id(77)));
        assert_eq!(inodes.forget(number, 1), Some(id(77)));
        assert_eq!(inodes.number(id(77)), number, "it exists");
        inodes.gone(id(77));
        assert_eq!(node(&inodes, number), None);
        assert_ne!(inodes.number(id(78)), number);
        assert_ne!(inodes.number(id(77)), number);
    }

    #[test]
    fn numbers_that_went_round_skip_those_that_are_in_use() {
        let inodes = Inodes::new(true);
        let first = inodes.refer(id(1000));
        let gone = inodes.number(id(1001));
        let kept = inodes.number(id(1002));
        inodes.gone(id(1001));
        inodes.table.write().last = NARROW.last;
        assert_eq!(inodes.number(id(1003)), gone);
        assert!(![first, kept, gone].contains(&inodes.number(id(1004))));
        assert_eq!(node(&inodes, first), Some(id(1000)));
    }
}
