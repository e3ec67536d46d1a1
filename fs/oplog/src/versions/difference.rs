//! What differs between two versions: from the rows between them, not by walking two trees.
//!
//! A node of which no row lies between the two cuts is the same in both. The trees say what the others were and are; where rows
//! spoke of content, bytes are compared, since what was written may be what was there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use pond_tinyfs::{Attributes, Caller, Error, FileType, NodeId, Record, Row, TinyFs, Xattrs};

use crate::versions::names::{Hint, Link, Names};
use crate::versions::view::View;
use crate::versions::views::Views;
use crate::{At, OpLogError, Position};

/// Bytes that are compared at a time.
const CHUNK: u64 = 1 << 20;

/// What differs between two versions.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The version from which it leads.
    pub from: Position,
    /// The version to which it leads; it may be the older one.
    pub to: Position,
    /// Nodes that differ, by their first paths.
    pub changes: Vec<Change>,
}

/// A node that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Which.
    pub node: NodeId,
    /// As it was; none if it was not there.
    pub before: Option<Side>,
    /// As it became; none if it is not there any more.
    pub after: Option<Side>,
    /// Whether its bytes differ: content, a symlink's target, a factory's configuration.
    pub content: bool,
    /// Whether names in it came, went or changed, if it is a directory: its times follow from that.
    pub entries: bool,
    /// Attributes that differ, where it is in both.
    pub attributes: Vec<Attribute>,
    /// The node that had its name before, if it took that one's place: what [`Change::before`] tells of. Only
    /// [`Difference::by_paths`] finds such.
    pub replaces: Option<NodeId>,
}

/// A node in one version.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Its attributes.
    pub attributes: Attributes,
    /// Its names, by their paths.
    pub links: Vec<Link>,
}

/// What `stat` and `getfattr` show that may differ. The time of the last change of attributes is none: every change changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// Permission bits.
    Mode,
    /// Owner.
    Owner,
    /// Group.
    Group,
    /// Device number.
    Device,
    /// When the content last changed.
    Mtime,
    /// When it was last accessed, as was set by hand: reading changes nothing.
    Atime,
    /// Extended attributes, and so access control lists.
    Xattrs,
}

impl Attribute {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Attribute::Mode => "mode",
            Attribute::Owner => "owner",
            Attribute::Group => "group",
            Attribute::Device => "device",
            Attribute::Mtime => "mtime",
            Attribute::Atime => "atime",
            Attribute::Xattrs => "xattrs",
        }
    }
}

impl Change {
    /// The node's kind.
    pub fn kind(&self) -> Option<FileType> {
        self.after.as_ref().or(self.before.as_ref()).map(|side| side.attributes.kind)
    }

    /// Names that it had and has no more. That a directory above it is called otherwise counts for nothing.
    pub fn names_gone(&self) -> Vec<&Link> {
        less(self.before.as_ref(), self.after.as_ref())
    }

    /// Names that it has and had not.
    pub fn names_come(&self) -> Vec<&Link> {
        less(self.after.as_ref(), self.before.as_ref())
    }

    /// Whether only the times of a directory differ, because names in it do.
    pub fn is_by_entries_alone(&self) -> bool {
        let times = |attribute: &Attribute| *attribute == Attribute::Mtime;
        self.entries
            && self.before.is_some()
            && self.after.is_some()
            && self.attributes.iter().all(times)
            && self.names_gone().is_empty()
            && self.names_come().is_empty()
    }

    fn is_none(&self) -> bool {
        !self.content
            && self.attributes.is_empty()
            && self.names_gone().is_empty()
            && self.names_come().is_empty()
            && self.before.is_some() == self.after.is_some()
    }
}

fn less<'a>(some: Option<&'a Side>, others: Option<&Side>) -> Vec<&'a Link> {
    let of_others = |link: &Link| {
        let mut links = others.into_iter().flat_map(|side| &side.links);
        links.any(|other| other.parent == link.parent && other.name() == link.name())
    };
    some.into_iter().flat_map(|side| &side.links).filter(|link| !of_others(link)).collect()
}

/// What rows between two versions say of a node.
#[derive(Default)]
struct Touched {
    hint: Hint,
    /// Stretches of content that were written or became holes.
    ranges: Vec<Range<u64>>,
    entries: bool,
}

impl Views {
    /// What differs between two versions, whichever is the older one. The work and the memory go with the rows between them, beside what
    /// opening the two takes.
    pub fn difference(&self, from: At, to: At) -> Result<Difference, OpLogError> {
        let (from, to) = (self.open(from)?, self.open(to)?);
        let (older, newer) = match from.position.version <= to.position.version {
            true => (&from, &to),
            false => (&to, &from),
        };
        let mut touched: BTreeMap<NodeId, Touched> = BTreeMap::new();
        self.rows_between(older, newer, |row| note(&mut touched, row))?;
        let changes = compare(&from, &to, touched).map_err(|source| OpLogError::Compare {
            from: from.position.version,
            to: to.position.version,
            source,
        })?;
        Ok(Difference { from: from.position.clone(), to: to.position.clone(), changes })
    }
}

impl Views {
    /// The nodes of which rows lie between two versions; all others are the same in both.
    pub fn touched(&self, from: At, to: At) -> Result<BTreeSet<NodeId>, OpLogError> {
        let (from, to) = (self.open(from)?, self.open(to)?);
        let (older, newer) = match from.position.version <= to.position.version {
            true => (&from, &to),
            false => (&to, &from),
        };
        let mut nodes = BTreeSet::new();
        self.rows_between(older, newer, |row| {
            nodes.insert(row.node);
        })?;
        Ok(nodes)
    }
}

fn note(touched: &mut BTreeMap<NodeId, Touched>, row: Row) {
    let node = touched.entry(row.node).or_default();
    node.hint.home = Some(row.part);
    match row.record {
        Record::Node(_) => {}
        Record::Extent(extent) => {
            push(&mut node.ranges, extent.offset..extent.offset.saturating_add(extent.length.into()));
        }
        Record::Hole { offset, length } => {
            let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
            push(&mut node.ranges, offset..end);
        }
        Record::Entries(changes) => {
            node.entries = true;
            for change in changes.into_iter().filter(|change| !change.name.is_empty()) {
                let child = touched.entry(change.child).or_default();
                child.hint.entries.insert((row.node, change.name));
            }
        }
    }
}

/// Most writes go on where the one before ended.
fn push(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

fn compare(from: &View, to: &View, touched: BTreeMap<NodeId, Touched>) -> Result<Vec<Change>, Error> {
    let hints = touched.iter().map(|(node, touched)| (*node, touched.hint.clone())).collect();
    let (before, after) = (Names::find(&from.fs, &hints)?, Names::find(&to.fs, &hints)?);
    let side = |fs: &TinyFs, names: &Names<'_>, node| {
        let attributes = fs.getattr(node).ok()?;
        Some(Side { attributes, links: names.of(node) })
    };
    let mut changes = Vec::new();
    for (node, touched) in touched {
        let (before, after) = (side(&from.fs, &before, node), side(&to.fs, &after, node));
        let (content, attributes) = match (&before, &after) {
            // It came and went in between.
            (None, None) => continue,
            (Some(before), Some(after)) => {
                let (before, after) = (&before.attributes, &after.attributes);
                let content = content_differs(&from.fs, before, &to.fs, after, touched.ranges)?;
                (content, attributes_that_differ(&from.fs, before, &to.fs, after)?)
            }
            _ => (false, Vec::new()),
        };
        let entries = touched.entries;
        let change = Change { node, before, after, content, entries, attributes, replaces: None };
        if !change.is_none() {
            changes.push(change);
        }
    }
    let first = |change: &Change| {
        let side = change.after.as_ref().or(change.before.as_ref());
        side.and_then(|side| side.links.first()).map(|link| link.path.clone())
    };
    changes.sort_by_cached_key(first);
    Ok(changes)
}

fn attributes_that_differ(
    from: &TinyFs,
    before: &Attributes,
    to: &TinyFs,
    after: &Attributes,
) -> Result<Vec<Attribute>, Error> {
    let all = [
        (Attribute::Mode, before.mode != after.mode),
        (Attribute::Owner, before.uid != after.uid),
        (Attribute::Group, before.gid != after.gid),
        (Attribute::Device, before.rdev != after.rdev),
        (Attribute::Mtime, before.mtime != after.mtime),
        (Attribute::Atime, before.atime != after.atime),
        (Attribute::Xattrs, xattrs(from, before.id)? != xattrs(to, after.id)?),
    ];
    Ok(all.into_iter().filter_map(|(attribute, differs)| differs.then_some(attribute)).collect())
}

/// All extended attributes of a node, whoever may see them.
fn xattrs(fs: &TinyFs, node: NodeId) -> Result<Xattrs, Error> {
    let names = fs.listxattr(&Caller::root(), node)?;
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names.map(|name| Ok((name.into(), fs.getxattr(node, name)?.into()))).collect()
}

fn content_differs(
    from: &TinyFs,
    before: &Attributes,
    to: &TinyFs,
    after: &Attributes,
    mut ranges: Vec<Range<u64>>,
) -> Result<bool, Error> {
    match after.kind {
        FileType::Symlink => return Ok(from.readlink(before.id)? != to.readlink(after.id)?),
        FileType::Dynamic => return Ok(from.dynamic(before.id)? != to.dynamic(after.id)?),
        FileType::File if before.size != after.size => return Ok(true),
        FileType::File => {}
        _ => return Ok(false),
    }
    ranges.sort_unstable_by_key(|range| range.start);
    // What lies before it was compared, or is of no row.
    let mut at = 0;
    for range in ranges {
        let end = range.end.min(after.size);
        at = at.max(range.start);
        while at < end {
            let length = CHUNK.min(end - at);
            if bytes(from, before.id, at, length)? != bytes(to, after.id, at, length)? {
                return Ok(true);
            }
            at += length;
        }
    }
    Ok(false)
}

fn bytes(fs: &TinyFs, node: NodeId, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    // At most CHUNK.
    let plan = fs.read(node, offset, length as usize)?;
    Ok(plan.fill(fs.persistence().as_ref())?)
}

mod by_paths;
#[cfg(test)]
mod tests;
