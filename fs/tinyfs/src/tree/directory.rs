//! The entries of one directory: by name in constant time, by cookie in order.
//!
//! Entries stand in a vector in the order of their cookies, which only grow, so that a
//! `readdir` continues by binary search however many entries came and went in between. A removed
//! entry leaves a tombstone (an empty name); when tombstones outnumber the living, the vector is
//! packed.

use std::sync::LazyLock;

use hashbrown::HashTable;

use crate::{EntryChange, EntryOp, FileType, NodeId};

/// Cookies of `.` and `..`; entries of the directory come after them.
pub(crate) const COOKIE_SELF: u64 = 1;
pub(crate) const COOKIE_PARENT: u64 = 2;
pub(crate) const FIRST_COOKIE: u64 = 3;

/// Tombstones that a small directory may keep before it is packed.
const TOLERATED_TOMBSTONES: usize = 32;

static HASHER: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);

fn hash(name: &[u8]) -> u64 {
    HASHER.hash_one(name)
}

/// One name.
#[derive(Clone, Debug)]
pub(crate) struct Dentry {
    pub(crate) cookie: u64,
    pub(crate) child: NodeId,
    pub(crate) name: Box<[u8]>,
    pub(crate) kind: FileType,
}

impl Dentry {
    fn is_tombstone(&self) -> bool {
        self.name.is_empty()
    }
}

/// A directory's entries, and how they changed since the last cut.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// The directory that holds this one; the root is its own parent.
    pub(crate) parent: NodeId,
    entries: Vec<Dentry>,
    index: HashTable<u32>,
    next_cookie: u64,
    /// Cookies from here on were handed out after the last cut.
    cut_cookie: u64,
    changes: Vec<EntryChange>,
}

impl Directory {
    pub(crate) fn new(parent: NodeId) -> Self {
        Directory {
            parent,
            entries: Vec::new(),
            index: HashTable::new(),
            next_cookie: FIRST_COOKIE,
            cut_cookie: FIRST_COOKIE,
            changes: Vec::new(),
        }
    }

    pub(crate) fn next_cookie(&self) -> u64 {
        self.next_cookie
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        let entries = &self.entries;
        self.index.find(hash(name), |&i| &*entries[i as usize].name == name).map(|&i| i as usize)
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Dentry> {
        self.position(name).map(|i| &self.entries[i])
    }

    /// Entries with a cookie greater than `cookie`, in order.
    pub(crate) fn after(&self, cookie: u64) -> impl Iterator<Item = &Dentry> {
        let start = self.entries.partition_point(|entry| entry.cookie <= cookie);
        self.entries[start..].iter().filter(|entry| !entry.is_tombstone())
    }

    /// The entry with this cookie.
    pub(crate) fn at(&self, cookie: u64) -> Option<&Dentry> {
        self.after(cookie.checked_sub(1)?).next().filter(|entry| entry.cookie == cookie)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Dentry> {
        self.after(0)
    }

    /// Adds a name that is not there yet, and notes the change.
    pub(crate) fn insert(&mut self, name: &[u8], child: NodeId, kind: FileType) {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        self.changes.push(EntryChange { name: name.into(), child, kind, cookie, op: EntryOp::Insert });
        self.put(Dentry { cookie, child, name: name.into(), kind });
    }

    /// Takes a name away, and notes the change.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Dentry> {
        let gone = self.take(name)?;
        self.changes.push(EntryChange {
            name: name.into(),
            child: gone.child,
            kind: gone.kind,
            cookie: gone.cookie,
            op: EntryOp::Remove,
        });
        Some(gone)
    }

    fn put(&mut self, entry: Dentry) {
        let Directory { entries, index, .. } = self;
        let hashed = hash(&entry.name);
        let position = entries.len() as u32;
        entries.push(entry);
        index.insert_unique(hashed, position, |&i| hash(&entries[i as usize].name));
    }

    fn take(&mut self, name: &[u8]) -> Option<Dentry> {
        let entries = &mut self.entries;
        let found = self.index.find_entry(hash(name), |&i| &*entries[i as usize].name == name).ok()?;
        let (position, _) = found.remove();
        let entry = &mut entries[position as usize];
        let gone = Dentry { name: std::mem::take(&mut entry.name), ..*entry };
        let tombstones = self.entries.len() - self.index.len();
        if tombstones > TOLERATED_TOMBSTONES && tombstones > self.entries.len() / 2 {
            self.pack();
        }
        Some(gone)
    }

    fn pack(&mut self) {
        self.entries.retain(|entry| !entry.is_tombstone());
        self.entries.shrink_to(self.entries.len() * 2);
        self.index.clear();
        let Directory { entries, index, .. } = self;
        for (i, entry) in entries.iter().enumerate() {
            index.insert_unique(hash(&entry.name), i as u32, |&i| hash(&entries[i as usize].name));
        }
    }

    /// As much of it as changes of these names concern: their entries, and the last one, whose cookie new ones exceed.
    pub(crate) fn excerpt<'a>(&self, names: impl Iterator<Item = &'a [u8]>) -> Directory {
        let mut positions: Vec<usize> = names.filter_map(|name| self.position(name)).collect();
        positions.extend(self.entries.len().checked_sub(1));
        positions.sort_unstable();
        positions.dedup();
        let mut excerpt = Directory::new(self.parent);
        excerpt.next_cookie = self.next_cookie;
        excerpt.cut_cookie = self.cut_cookie;
        for entry in positions.into_iter().map(|position| self.entries[position].clone()) {
            match entry.is_tombstone() {
                true => excerpt.entries.push(entry),
                false => excerpt.put(entry),
            }
        }
        excerpt
    }

    /// Takes over what became of an excerpt: `gone` are the names whose entries went, `come` those that have new
    /// ones, in the order of their cookies.
    pub(crate) fn amend<'a>(
        &mut self,
        excerpt: &Directory,
        gone: impl Iterator<Item = &'a [u8]>,
        come: Vec<Dentry>,
    ) {
        for name in gone {
            self.take(name);
        }
        for entry in come {
            self.put(entry);
        }
        self.next_cookie = excerpt.next_cookie;
        self.cut_cookie = excerpt.cut_cookie;
    }

    /// Takes all names away, without a note: the directory itself is gone.
    pub(crate) fn clear(&mut self) {
        self.entries = Vec::new();
        self.index = HashTable::new();
        self.changes = Vec::new();
    }

    /// Replays stored changes, in order; says what is wrong with one that cannot be.
    pub(crate) fn replay(&mut self, changes: Vec<EntryChange>) -> Result<(), String> {
        for change in changes {
            match change.op {
                EntryOp::Reset => {
                    self.entries.clear();
                    self.index.clear();
                }
                EntryOp::Remove => {
                    self.take(&change.name);
                }
                EntryOp::Insert => {
                    if change.name.is_empty() {
                        return Err("an entry has an empty name".into());
                    }
                    if self.entries.last().is_some_and(|last| last.cookie >= change.cookie) {
                        return Err(format!("cookie {} comes twice or out of order", change.cookie));
                    }
                    self.take(&change.name);
                    self.put(Dentry {
                        cookie: change.cookie,
                        child: change.child,
                        name: change.name,
                        kind: change.kind,
                    });
                }
            }
        }
        Ok(())
    }

    /// Sets the next cookie that the node's row names.
    pub(crate) fn set_next_cookie(&mut self, next: u64) -> Result<(), String> {
        if self.entries.last().is_some_and(|last| last.cookie >= next) {
            return Err(format!("next cookie {next} was handed out already"));
        }
        self.next_cookie = next.max(FIRST_COOKIE);
        self.cut_cookie = self.next_cookie;
        Ok(())
    }

    /// Gives memory back that a replay left over.
    pub(crate) fn shrink(&mut self) {
        if self.entries.len() > self.index.len() {
            self.pack();
        }
        self.entries.shrink_to_fit();
        let entries = &self.entries;
        self.index.shrink_to_fit(|&i| hash(&entries[i as usize].name));
    }

    /// Forgets what no row will tell.
    pub(crate) fn forget_changes(&mut self) {
        self.changes.clear();
    }

    pub(crate) fn is_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Takes the changes since the last cut: for each name only the last, and none for a name
    /// that came and went since.
    pub(crate) fn take_changes(&mut self) -> Vec<EntryChange> {
        let changes = std::mem::take(&mut self.changes);
        let since = std::mem::replace(&mut self.cut_cookie, self.next_cookie);
        if changes.len() == 1 {
            return changes;
        }
        // Per name: the index of its last change, and whether the name was there at the last cut.
        let mut last: hashbrown::HashMap<&[u8], (usize, bool), ahash::RandomState> =
            hashbrown::HashMap::with_capacity_and_hasher(changes.len(), HASHER.clone());
        for (i, change) in changes.iter().enumerate() {
            let was_there = change.op == EntryOp::Remove && change.cookie < since;
            let seen = last.entry(&change.name).or_insert((i, false));
            *seen = (i, seen.1 || was_there);
        }
        let keep: Vec<bool> = changes
            .iter()
            .enumerate()
            .map(|(i, change)| {
                let (at, was_there) = last[&*change.name];
                at == i && (change.op == EntryOp::Insert || was_there)
            })
            .collect();
        drop(last);
        let kept = changes.into_iter().zip(keep).filter(|(_, keep)| *keep);
        kept.map(|(change, _)| change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> NodeId {
        NodeId::new(n).unwrap()
    }

    #[test]
    fn reading_goes_on_where_it_stopped_while_entries_come_and_go() {
        let mut dir = Directory::new(NodeId::ROOT);
        for n in 0..1000u64 {
            dir.insert(format!("f{n}").as_bytes(), id(n + 10), FileType::File);
        }
        let seen: Vec<u64> = dir.after(0).take(500).map(|e| e.cookie).collect();
        let last = *seen.last().unwrap();
        for n in 0..900 {
            assert!(dir.remove(format!("f{n}").as_bytes()).is_some());
        }
        dir.insert(b"new", id(5000), FileType::File);
        let rest: Vec<Vec<u8>> = dir.after(last).map(|e| e.name.to_vec()).collect();
        assert_eq!(rest.len(), 101);
        assert_eq!(rest[0], b"f900");
        assert_eq!(rest[100], b"new");
        assert!(dir.get(b"f950").is_some() && dir.get(b"f0").is_none());
    }

    #[test]
    fn a_name_that_came_and_went_between_cuts_leaves_no_change() {
        let mut dir = Directory::new(NodeId::ROOT);
        dir.insert(b"a", id(10), FileType::File);
        assert_eq!(dir.take_changes().len(), 1);
        dir.insert(b"tmp", id(11), FileType::File);
        dir.remove(b"tmp");
        assert_eq!(dir.take_changes(), vec![]);
        // Was there, went, came and went again: the removal must stay.
        dir.remove(b"a");
        dir.insert(b"a", id(12), FileType::File);
        dir.remove(b"a");
        let changes = dir.take_changes();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].op, EntryOp::Remove);
    }
}
