//! Makes part of a tree what it was in a version: writes only what differs.
//!
//! What differs is made anew beside its place and renamed over it, complete, by the [`Copier`]; only a file that has hard links
//! outside of what is restored, and still is the same node, is written in place, so that they stay its links. What no longer
//! differs but in attributes gets those alone.

use std::collections::{HashMap, HashSet};
use std::io;

use pond_tinyfs::{FileType, RESERVED_NAME};
use serde::Serialize;
use serde_json::json;

use crate::copier::{Copier, Side};
use crate::error::{self, Advised, Failure, Result};
use crate::interrupt;
use crate::output::Notices;
use crate::path::TreePath;
use crate::target::{Identity, Source, Stat};

/// How much is compared at once, bytes.
const CHUNK: usize = 1 << 20;

/// What is done to a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is not there and is made.
    Create,
    /// Its content is put back, or it is another file, or of another kind.
    Write,
    /// It becomes a name of what is restored under another name too.
    Link,
    /// Its attributes are put back.
    Attributes,
    /// The version did not have it.
    Remove,
}

impl Action {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Write => "write",
            Action::Link => "link",
            Action::Attributes => "attributes",
            Action::Remove => "remove",
        }
    }
}

/// What becomes of what is there already and is not what is restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// It becomes what the version had.
    Replace,
    /// It stays, and that is an error.
    Keep,
    /// An earlier run that was cut off made it: its attributes may be put right, its content stays.
    Begun,
}

/// How to restore.
pub struct How {
    /// What the version did not have goes.
    pub delete: bool,
    /// Nothing is changed.
    pub dry_run: bool,
    /// What is there already.
    pub existing: Existing,
    /// Whether the tree is not the pond's own: its node numbers mean nothing to the version, and a factory's node becomes the file that
    /// it looks like.
    pub elsewhere: bool,
    /// Never removed, whatever the version had.
    pub spared: Option<TreePath>,
    /// Nodes whose content may differ from that of the version; all, if none. What is the same node and not among them is not read.
    pub written: Option<HashSet<u64>>,
}

/// Why something is left as it is.
fn kept() -> Stop {
    let why = "something else is there already";
    Advised::io(io::ErrorKind::AlreadyExists, why, "--overwrite replaces it").into()
}

/// Restores from a version to the present tree.
pub struct Restorer<'a> {
    from: Side<'a>,
    to: Side<'a>,
    copier: Copier<'a>,
    how: &'a How,
    notices: Notices,
    /// Names within what is restored of nodes that have several links.
    names: HashMap<Identity, u64>,
    /// Where those were restored first.
    linked: HashMap<Identity, TreePath>,
    /// Whose restored content the nodes of the present tree have.
    claimed: HashMap<Identity, Identity>,
    done: Vec<(Action, TreePath)>,
    failed: u64,
}

impl<'a> Restorer<'a> {
    /// From a version's tree to the present one, with a copier to that.
    pub fn new(from: Side<'a>, to: Side<'a>, copier: Copier<'a>, how: &'a How, notices: Notices) -> Self {
        let (names, linked, claimed) = (HashMap::new(), HashMap::new(), HashMap::new());
        Restorer { from, to, copier, how, notices, names, linked, claimed, done: Vec::new(), failed: 0 }
    }

    /// What was done, or would be, and how many nodes could not be restored.
    pub fn end(self) -> (Vec<(Action, TreePath)>, u64) {
        (self.done, self.failed + self.copier.copied().failed)
    }

    /// Restores a node and all below it. What cannot be restored is reported and counted, and the others go on; it fails only if
    /// nothing more can work.
    pub fn restore(&mut self, from: &TreePath, to: &TreePath) -> Result {
        self.count_names(from).map_err(|error| self.failure(from, &error))?;
        self.restore_and_report(from, to)
    }

    /// Makes a directory that is missing above what is restored.
    pub fn make_parent(&mut self, to: &TreePath) -> Result {
        if !self.how.dry_run {
            self.to.tree.make_directory(to, 0o700).map_err(|error| self.failure(to, &error))?;
        }
        self.done.push((Action::Create, to.clone()));
        Ok(())
    }

    /// Gives a directory the attributes that the version's had.
    pub fn finish_parent(&mut self, from: &TreePath, to: &TreePath) -> Result {
        if self.how.dry_run {
            return Ok(());
        }
        let stat = self.from.tree.stat(from);
        stat.and_then(|stat| self.copier.set_attributes_of(self.from, from, to, &stat))
            .map_err(|error| self.failure(to, &error))
    }

    fn failure(&self, path: &TreePath, error: &io::Error) -> Failure {
        Failure::because(format!("cannot restore {path}{}", self.from.suffix), error)
    }

    fn count_names(&mut self, path: &TreePath) -> io::Result<()> {
        let mut left = vec![(path.clone(), self.from.tree.stat(path)?)];
        while let Some((path, stat)) = left.pop() {
            if stat.is_directory() {
                let entries = self.from.tree.entries(&path)?;
                left.extend(entries.into_iter().map(|(name, stat)| (path.join(&name), stat)));
            } else if stat.nlink > 1 {
                *self.names.entry(stat.identity).or_default() += 1;
            }
        }
        Ok(())
    }

    fn restore_and_report(&mut self, from: &TreePath, to: &TreePath) -> Result {
        interrupt::check()?;
        let error = match self.restore_node(from, to) {
            Ok(()) => return Ok(()),
            Err(Stop::Failure(failure)) => return Err(failure),
            Err(Stop::Error(error)) => error,
        };
        let failure = self.failure(from, &error);
        match &failure {
            Failure::Failed(report) if !error::ends_writing(&error) => {
                self.failed += 1;
                self.notices.failure(report);
                Ok(())
            }
            _ => Err(failure),
        }
    }

    fn restore_node(&mut self, from: &TreePath, to: &TreePath) -> Result<(), Stop> {
        let stat = self.from.tree.stat(from)?;
        let existing = match self.to.tree.existing(to) {
            // Where nothing is made, what it would be in is not there either.
            Err(error) if self.how.dry_run && error.kind() == io::ErrorKind::NotADirectory => None,
            existing => existing?,
        };
        let existing = match existing {
            Some(now) if now.is_directory() != stat.is_directory() => {
                if !self.how.delete {
                    let (was, is) = (stat.kind.name(), now.kind.name());
                    let why = format!("it was a {was} and is a {is} now");
                    let next = "remove that first, restore with --delete, or --to another name";
                    return Err(Advised::io(io::ErrorKind::Other, why, next).into());
                }
                self.remove(to, &now)?;
                None
            }
            existing => existing,
        };
        match stat.is_directory() {
            true => self.restore_directory(from, to, &stat, existing),
            false => self.restore_leaf(from, to, &stat, existing),
        }
    }

    fn restore_directory(
        &mut self,
        from: &TreePath,
        to: &TreePath,
        stat: &Stat,
        existing: Option<Stat>,
    ) -> Result<(), Stop> {
        if existing.is_none() {
            self.done.push((Action::Create, to.clone()));
            if !self.how.dry_run {
                self.to.tree.make_directory(to, 0o700)?;
            }
        }
        let entries = self.from.tree.entries(from)?;
        if existing.is_some() && self.how.delete {
            let kept: HashSet<&[u8]> = entries.iter().map(|(name, _)| name.as_slice()).collect();
            for (name, now) in self.to.tree.entries(to)? {
                let is_ponds_own = to.name().is_none() && name == RESERVED_NAME && !self.how.elsewhere;
                let is_spared = self.how.spared.as_ref() == Some(&to.join(&name));
                if !kept.contains(name.as_slice()) && !is_ponds_own && !is_spared {
                    self.remove(&to.join(&name), &now)?;
                }
            }
        }
        for (name, _) in &entries {
            self.restore_and_report(&from.join(name), &to.join(name))?;
        }
        if existing.is_none() {
            return Ok(self.finish_parent(from, to)?);
        }
        if self.how.existing == Existing::Keep {
            return Ok(());
        }
        // As it is now: what came and went in it has changed its times.
        let before = existing.unwrap_or(*stat);
        let now = if self.how.dry_run { before } else { self.to.tree.stat(to)? };
        let told = self.attributes_differ(from, to, stat, &before)?;
        if told {
            self.done.push((Action::Attributes, to.clone()));
        }
        if !self.how.dry_run && (told || self.attributes_differ(from, to, stat, &now)?) {
            self.set_attributes(from, to, stat)?;
        }
        Ok(())
    }

    fn restore_leaf(
        &mut self,
        from: &TreePath,
        to: &TreePath,
        stat: &Stat,
        existing: Option<Stat>,
    ) -> Result<(), Stop> {
        if let Some(first) = self.linked.get(&stat.identity).cloned() {
            return self.link(&first, to, existing);
        }
        let is_same_node =
            !self.how.elsewhere && existing.is_some_and(|now| now.identity.inode == stat.identity.inode);
        // What another node of the version has become is no longer there for this one.
        let existing = existing.map(|now| (now, self.claimed.contains_key(&now.identity)));
        let outside =
            stat.nlink > 1 && self.names.get(&stat.identity).is_some_and(|names| *names < stat.nlink);
        let action = match &existing {
            None => Some(Action::Create),
            Some((_, true)) => Some(Action::Write),
            Some((now, false)) if !self.has_same_content(from, to, stat, now, is_same_node)? => {
                Some(Action::Write)
            }
            Some((now, false)) => self.attributes_differ(from, to, stat, now)?.then_some(Action::Attributes),
        };
        match (action, self.how.existing) {
            (Some(Action::Write | Action::Attributes), Existing::Keep)
            | (Some(Action::Write), Existing::Begun) => return Err(kept()),
            _ => {}
        }
        let failed = self.copier.copied().failed;
        if !self.how.dry_run {
            match (action, &existing) {
                (Some(Action::Write), Some((now, false)))
                    if outside && is_same_node && stat.is_file() && now.is_file() =>
                {
                    self.write_over(from, to, stat)?;
                    self.set_attributes(from, to, stat)?;
                }
                (Some(Action::Write | Action::Create), _)
                    if stat.kind == FileType::Dynamic && !self.how.elsewhere =>
                {
                    let why = "it was a factory's node, which only `pond mknod` makes";
                    let next = "`pond cat` shows its configuration";
                    return Err(Advised::io(io::ErrorKind::Other, why, next).into());
                }
                (Some(Action::Write | Action::Create), _) => self.copier.copy(self.from, from, to)?,
                (Some(_), _) => self.set_attributes(from, to, stat)?,
                (None, _) => {}
            }
            if let Some(now) = self.to.tree.existing(to)? {
                self.claimed.insert(now.identity, stat.identity);
            }
        }
        // What the copier could not do it has reported.
        if let Some(action) = action.filter(|_| self.copier.copied().failed == failed) {
            self.done.push((action, to.clone()));
        }
        if stat.nlink > 1 {
            self.linked.insert(stat.identity, to.clone());
            self.copier.has_copied(stat.identity, to);
        }
        Ok(())
    }

    /// Makes a path a name of what was restored under its first one.
    fn link(&mut self, first: &TreePath, to: &TreePath, existing: Option<Stat>) -> Result<(), Stop> {
        let target = self.to.tree.existing(first)?;
        let is_linked = match (&existing, &target) {
            (Some(now), Some(target)) => now.identity == target.identity,
            _ => false,
        };
        if is_linked {
            return Ok(());
        }
        if existing.is_some() && self.how.existing != Existing::Replace {
            return Err(kept());
        }
        if !self.how.dry_run {
            self.copier.link_over(first, to)?;
        }
        self.done.push((Action::Link, to.clone()));
        Ok(())
    }

    fn has_same_content(
        &self,
        from: &TreePath,
        to: &TreePath,
        stat: &Stat,
        now: &Stat,
        is_same_node: bool,
    ) -> io::Result<bool> {
        // A mount shows a factory's node as the file that it looks like.
        let kinds = |kind| if kind == FileType::Dynamic { FileType::File } else { kind };
        if kinds(stat.kind) != kinds(now.kind) {
            return Ok(false);
        }
        match stat.kind {
            FileType::Symlink => Ok(self.from.tree.read_link(from)? == self.to.tree.read_link(to)?),
            FileType::File | FileType::Dynamic if stat.size != now.size => Ok(false),
            FileType::File | FileType::Dynamic => {
                let written = self.how.written.as_ref();
                if is_same_node && written.is_some_and(|written| !written.contains(&stat.identity.inode)) {
                    return Ok(true);
                }
                same_bytes(self.from.tree.open(from)?.as_ref(), self.to.tree.open(to)?.as_ref())
            }
            _ => Ok(stat.device == now.device),
        }
    }

    /// Writes those chunks in which the file differs from what it was. Not broken off by Ctrl-C: it would be half of each.
    fn write_over(&mut self, from: &TreePath, to: &TreePath, stat: &Stat) -> io::Result<()> {
        let (source_tree, tree) = (self.from.tree, self.to.tree);
        let source = source_tree.open(from)?;
        let mut sink = tree.open_to_write(to)?;
        if stat.allocated < stat.size {
            // Holes come back only where nothing is.
            sink.set_size(0)?;
        }
        let present = tree.open(to)?;
        let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
        let [was, is] = &mut buffers;
        let mut at = 0;
        while let Some(data) = source.data_after(at)? {
            at = data.start;
            while at < data.end {
                let most = usize::try_from(data.end - at).unwrap_or(CHUNK).min(CHUNK);
                let length = read_whole(source.as_ref(), at, &mut was[..most])?;
                if length == 0 {
                    break;
                }
                let there = read_whole(present.as_ref(), at, &mut is[..length])?;
                if is[..there] != was[..length] {
                    sink.write_at(at, &was[..length])?;
                }
                at += length as u64;
            }
            at = data.end;
        }
        sink.set_size(stat.size)
    }

    fn attributes_differ(&self, from: &TreePath, to: &TreePath, stat: &Stat, now: &Stat) -> io::Result<bool> {
        let own = |stat: &Stat| {
            // A symlink has no permissions of its own.
            let mode = if stat.kind == FileType::Symlink { 0 } else { stat.mode };
            // Whoever reads a file on the host changes when it was read last.
            let atime = (!self.how.elsewhere).then_some(stat.atime);
            (mode, stat.uid, stat.gid, atime, stat.mtime)
        };
        if own(stat) != own(now) {
            return Ok(true);
        }
        let sorted = |mut xattrs: Vec<(Vec<u8>, Vec<u8>)>| {
            xattrs.sort();
            xattrs
        };
        Ok(sorted(self.from.tree.xattrs(from)?) != sorted(self.to.tree.xattrs(to)?))
    }

    fn set_attributes(&mut self, from: &TreePath, to: &TreePath, stat: &Stat) -> io::Result<()> {
        let wanted: HashSet<Vec<u8>> =
            self.from.tree.xattrs(from)?.into_iter().map(|(name, _)| name).collect();
        for (name, _) in self.to.tree.xattrs(to)? {
            if !wanted.contains(&name) {
                self.to.tree.remove_xattr(to, &name)?;
            }
        }
        self.copier.set_attributes_of(self.from, from, to, stat)
    }

    fn remove(&mut self, path: &TreePath, stat: &Stat) -> Result<(), Stop> {
        interrupt::check()?;
        if stat.is_directory() {
            for (name, below) in self.to.tree.entries(path)? {
                self.remove(&path.join(&name), &below)?;
            }
        }
        self.done.push((Action::Remove, path.clone()));
        match (self.how.dry_run, stat.is_directory()) {
            (true, _) => Ok(()),
            (false, true) => Ok(self.to.tree.remove_directory(path)?),
            (false, false) => Ok(self.to.tree.unlink(path)?),
        }
    }
}

/// Why a node was not restored.
enum Stop {
    /// Because of this; others may fare better.
    Error(io::Error),
    /// Because nothing goes on.
    Failure(Failure),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Error(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failure(failure)
    }
}

/// What was done, for programs.
pub fn summary(done: &[(Action, TreePath)], failed: u64) -> serde_json::Value {
    let count = |action| done.iter().filter(|(done, _)| *done == action).count();
    json!({
        "created": count(Action::Create),
        "written": count(Action::Write),
        "linked": count(Action::Link),
        "attributes": count(Action::Attributes),
        "removed": count(Action::Remove),
        "failed": failed,
    })
}

fn same_bytes(one: &dyn Source, other: &dyn Source) -> io::Result<bool> {
    let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
    let [a, b] = &mut buffers;
    let mut at = 0;
    loop {
        let (read, also) = (read_whole(one, at, a)?, read_whole(other, at, b)?);
        if a[..read] != b[..also] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
        at += read as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn read_whole(source: &dyn Source, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match source.read_at(at + read as u64, &mut buffer[read..])? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}
