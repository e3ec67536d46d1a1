//! Copies nodes from one tree to another, each whole or not at all.
//!
//! Everything but a directory is made under a temporary name beside its place, completed (content, owner,
//! extended attributes, mode, times) and then renamed over it. Directories get their attributes after their
//! entries. What `stat` and `getfattr` show is kept, but for ctime and what the other side refuses:
//! a foreign owner is silently dropped where we may not give files away (with setuid and setgid), a refused extended
//! attribute is reported.

use std::collections::HashMap;
use std::io;

use pond_tinyfs::FileType;
use serde::Serialize;

use crate::error::{self, Advised, Failure, Result};
use crate::interrupt;
use crate::output::Notices;
use crate::path::{TreePath, escape};
use crate::progress::Progress;
use crate::target::{FileTree, Identity, Sink, Source, Stat};

/// How much is read and written at once.
const CHUNK: usize = 1 << 20;

/// Why a file does not take the place of a device node, a fifo or a socket.
const REPLACES_SPECIAL: &str = "it is a device node, a fifo or a socket, which a copy would replace";

/// What temporary names begin with; one is left behind only if the process is killed.
const TEMPORARY_PREFIX: &str = ".pond-copy-";

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Regular files, by their first names.
    pub files: u64,
    /// Directories, those that existed included.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Further names of what was copied already.
    pub hard_links: u64,
    /// Fifos, sockets and device nodes.
    pub special: u64,
    /// Bytes of content; holes are none.
    pub bytes: u64,
    /// Nodes that could not be copied.
    pub failed: u64,
}

/// One side of a copy: a tree, and how its paths are shown.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The tree.
    pub tree: &'a dyn FileTree,
    /// "" or "host:".
    pub prefix: &'static str,
    /// "" or "@42".
    pub suffix: &'a str,
}

impl Side<'_> {
    /// A path of it, for people.
    pub fn show(&self, path: &TreePath) -> String {
        format!("{}{path}{}", self.prefix, self.suffix)
    }
}

/// Copies from one tree to another.
pub struct Copier<'a> {
    from: Side<'a>,
    to: Side<'a>,
    progress: &'a Progress,
    notices: Notices,
    /// The pond's own directory, which nothing is copied from.
    pond: Option<Identity>,
    /// The directory that a copied one becomes, once it is there: it may lie within what is copied, by a mount.
    becoming: Option<Identity>,
    /// Where nodes with several names were first copied to.
    linked: HashMap<Identity, TreePath>,
    copied: Copied,
    temporaries: u64,
    buffer: Vec<u8>,
}

/// Why a node was not copied.
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

impl<'a> Copier<'a> {
    /// To this side, and nothing from the pond's own directory.
    pub fn new(to: Side<'a>, pond: Option<Identity>, progress: &'a Progress, notices: Notices) -> Self {
        Copier {
            from: to,
            to,
            progress,
            notices,
            pond,
            becoming: None,
            linked: HashMap::new(),
            copied: Copied::default(),
            temporaries: 0,
            buffer: vec![0; CHUNK],
        }
    }

    /// What was copied so far.
    pub fn copied(&self) -> Copied {
        self.copied
    }

    /// A node that has several names was copied to this place by other means: its other names become links of that.
    pub fn has_copied(&mut self, node: Identity, to: &TreePath) {
        self.linked.insert(node, to.clone());
    }

    /// Gives what is at a place the attributes of what was copied there, or is the same.
    pub fn set_attributes_of(
        &mut self,
        side: Side<'a>,
        from: &TreePath,
        to: &TreePath,
        stat: &Stat,
    ) -> io::Result<()> {
        self.from = side;
        self.set_attributes(from, to, stat)
    }

    /// Makes a place a name of another node; what was there is replaced.
    pub fn link_over(&mut self, first: &TreePath, to: &TreePath) -> io::Result<()> {
        let temporary = self.temporary(to);
        let linked = self.to.tree.link(first, &temporary).and_then(|()| self.to.tree.rename(&temporary, to));
        if linked.is_err() {
            // It may never have been made; and the user needs the first error, not this one.
            self.to.tree.unlink(&temporary).ok();
        }
        linked
    }

    /// A name beside a place that nothing has.
    fn temporary(&mut self, to: &TreePath) -> TreePath {
        self.temporaries += 1;
        let name = format!("{TEMPORARY_PREFIX}{}-{}", std::process::id(), self.temporaries);
        to.parent().join(name.as_bytes())
    }

    /// Copies a node and all below it to a place where nothing is, or what may be replaced. A node that cannot be
    /// copied is reported and counted and the others go on; it fails only if nothing more can work.
    pub fn copy(&mut self, side: Side<'a>, from: &TreePath, to: &TreePath) -> Result {
        self.from = side;
        self.becoming = None;
        self.copy_and_report(from, to)
    }

    fn copy_and_report(&mut self, from: &TreePath, to: &TreePath) -> Result {
        interrupt::check()?;
        self.progress.item(&self.from.show(from));
        let error = match self.copy_node(from, to) {
            Ok(()) => return Ok(()),
            Err(Stop::Failure(failure)) => return Err(failure),
            Err(Stop::Error(error)) => error,
        };
        let what = format!("cannot copy {} to {}", self.from.show(from), self.to.show(to));
        let failure = Failure::because(what, &error);
        match &failure {
            Failure::Failed(report) if !error::ends_writing(&error) => {
                self.copied.failed += 1;
                self.progress.pause(|| self.notices.failure(report));
                Ok(())
            }
            _ => Err(failure),
        }
    }

    fn copy_node(&mut self, from: &TreePath, to: &TreePath) -> Result<(), Stop> {
        let stat = self.from.tree.stat(from)?;
        let is = |what: Option<Identity>| stat.is_directory() && what == Some(stat.identity);
        if is(self.pond) {
            return Err(io::Error::other("it is the pond's own directory").into());
        }
        if is(self.becoming) {
            return Err(io::Error::other("it is what is being copied to").into());
        }
        let existing = self.to.tree.existing(to)?;
        match existing {
            Some(existing) if existing.identity == stat.identity => {
                Err(io::Error::other("they are the same").into())
            }
            Some(existing) if existing.is_directory() && !stat.is_directory() => {
                Err(io::Error::from_raw_os_error(libc::EISDIR).into())
            }
            Some(existing) if !existing.is_directory() && stat.is_directory() => {
                Err(io::Error::from_raw_os_error(libc::ENOTDIR).into())
            }
            // What is named may be what all programs of the machine use, as /dev/null is.
            Some(existing) if existing.is_special() && !stat.is_special() => Err(Advised::io(
                io::ErrorKind::Other,
                REPLACES_SPECIAL,
                "remove it first, or choose another name",
            )
            .into()),
            existing if stat.is_directory() => self.copy_directory(from, to, &stat, existing.is_some()),
            existing => self.copy_leaf(from, to, &stat, existing.as_ref()),
        }
    }

    fn copy_directory(
        &mut self,
        from: &TreePath,
        to: &TreePath,
        stat: &Stat,
        exists: bool,
    ) -> Result<(), Stop> {
        if !exists {
            self.to.tree.make_directory(to, 0o700)?;
        }
        if self.becoming.is_none() {
            self.becoming = Some(self.to.tree.stat(to)?.identity);
        }
        for (name, _) in self.from.tree.entries(from)? {
            self.copy_and_report(&from.join(&name), &to.join(&name))?;
        }
        self.set_attributes(from, to, stat)?;
        self.copied.directories += 1;
        Ok(())
    }

    fn copy_leaf(
        &mut self,
        from: &TreePath,
        to: &TreePath,
        stat: &Stat,
        existing: Option<&Stat>,
    ) -> Result<(), Stop> {
        let first = self.linked.get(&stat.identity).cloned();
        if let (Some(first), Some(existing)) = (&first, existing)
            && self.to.tree.stat(first)?.identity == existing.identity
        {
            // Renaming one name of a node over another of its names would do nothing, and leave both.
            self.copied.hard_links += 1;
            return Ok(());
        }
        let temporary = self.temporary(to);
        let made = match &first {
            Some(first) => self.to.tree.link(first, &temporary).map_err(Stop::Error),
            None => self.make(from, &temporary, stat),
        };
        let placed = made.and_then(|()| Ok(self.to.tree.rename(&temporary, to)?));
        if placed.is_err() {
            // It may never have been made; and the user needs the first error, not this one.
            self.to.tree.unlink(&temporary).ok();
            return placed;
        }
        match (&first, stat.kind) {
            (Some(_), _) => self.copied.hard_links += 1,
            (None, FileType::Symlink) => self.copied.symlinks += 1,
            (None, _) if stat.is_file() => self.copied.files += 1,
            (None, _) => self.copied.special += 1,
        }
        if stat.nlink > 1 && first.is_none() {
            self.linked.insert(stat.identity, to.clone());
        }
        Ok(())
    }

    /// Makes a copy, complete with its attributes, under a name of its own.
    fn make(&mut self, from: &TreePath, to: &TreePath, stat: &Stat) -> Result<(), Stop> {
        match stat.kind {
            FileType::Symlink => {
                self.to.tree.make_symlink(to, &self.from.tree.read_link(from)?)?;
            }
            FileType::File | FileType::Dynamic => {
                let (source_tree, sink_tree) = (self.from.tree, self.to.tree);
                let source = source_tree.open(from)?;
                let mut sink = sink_tree.create(to)?;
                self.copy_bytes(source.as_ref(), sink.as_mut(), stat)?;
            }
            kind => self.to.tree.make_special(to, kind, stat.device)?,
        }
        Ok(self.set_attributes(from, to, stat)?)
    }

    fn copy_bytes(&mut self, source: &dyn Source, sink: &mut dyn Sink, stat: &Stat) -> Result<(), Stop> {
        let mut at = 0;
        if stat.allocated < stat.size {
            while at < stat.size {
                let Some(data) = source.data_after(at)? else { break };
                at = self.copy_range(source, sink, data.start, data.end)?;
                if at < data.end {
                    // It ends earlier than it said: truncated meanwhile, or a file of /sys.
                    return Ok(sink.set_size(at)?);
                }
            }
            self.progress.advance(stat.size.saturating_sub(stat.allocated));
            at = at.max(stat.size);
            sink.set_size(at)?;
        }
        // Up to where it ends now: it may have grown, and files of /proc say that they have no size.
        self.copy_range(source, sink, at, u64::MAX)?;
        Ok(())
    }

    /// Copies up to `end` or the end of the file; returns how far it came.
    fn copy_range(
        &mut self,
        source: &dyn Source,
        sink: &mut dyn Sink,
        mut at: u64,
        end: u64,
    ) -> Result<u64, Stop> {
        while at < end {
            interrupt::check()?;
            let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let length = source.read_at(at, &mut self.buffer[..most])?;
            if length == 0 {
                break;
            }
            sink.write_at(at, &self.buffer[..length])?;
            at += length as u64;
            self.copied.bytes += length as u64;
            self.progress.advance(length as u64);
        }
        Ok(at)
    }

    /// Owner first, since that clears setuid and capabilities; times last, since all else changes them.
    fn set_attributes(&mut self, from: &TreePath, to: &TreePath, stat: &Stat) -> io::Result<()> {
        let tree = self.to.tree;
        let owned = match tree.set_owner(to, stat.uid, stat.gid) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                // The group alone may be one of ours.
                let now = tree.stat(to)?;
                match tree.set_owner(to, now.uid, stat.gid) {
                    Err(error) if error.raw_os_error() == Some(libc::EPERM) => false,
                    other => other.map(|()| now.uid == stat.uid)?,
                }
            }
            other => other.map(|()| true)?,
        };
        for (name, value) in self.from.tree.xattrs(from)? {
            match tree.set_xattr(to, &name, &value) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM)) => {
                    let text = format!(
                        "{}: the attribute {} is not kept: {}",
                        self.from.show(from),
                        escape(&name),
                        crate::error::chain(&error)
                    );
                    self.progress.pause(|| self.notices.warn(&text));
                }
                other => other?,
            }
        }
        if stat.kind != FileType::Symlink {
            let privileged = if owned { 0 } else { 0o6000 };
            tree.set_mode(to, stat.mode & !privileged)?;
        }
        tree.set_times(to, stat.atime, stat.mtime)
    }
}

/// Bytes of all files below a node, as their sizes say: what a progress bar counts up to.
pub fn total_size(tree: &dyn FileTree, path: &TreePath) -> io::Result<u64> {
    let stat = tree.stat(path)?;
    if !stat.is_directory() {
        return Ok(if stat.is_file() { stat.size } else { 0 });
    }
    let mut total = 0;
    for (name, stat) in tree.entries(path)? {
        if stat.is_directory() {
            total += total_size(tree, &path.join(&name))?;
        } else if stat.is_file() {
            total += stat.size;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::LogFormat;
    use crate::path::GivenPath;
    use crate::target::HostTree;
    use std::fs;
    use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn copy(from: &Path, to: &Path) -> Copied {
        let tree = HostTree::host();
        let side = Side { tree: &tree, prefix: "host:", suffix: "" };
        let notices = Notices::new(LogFormat::Text, false);
        let progress = Progress::new("copy", 0, notices);
        let mut copier = Copier::new(side, None, &progress, notices);
        let path = |path: &Path| tree.resolve(&GivenPath::on_host(path).unwrap(), false).unwrap();
        copier.copy(side, &path(from), &path(to)).unwrap();
        copier.copied()
    }

    #[test]
    fn a_tree_is_copied_with_modes_times_links_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/file"), b"hello").unwrap();
        fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(from.join("sub/file"), from.join("other")).unwrap();
        symlink("sub/file", from.join("link")).unwrap();
        let sparse = fs::File::create(from.join("sparse")).unwrap();
        sparse.write_all_at(b"end", 8 << 20).unwrap();
        sparse.set_len(16 << 20).unwrap();
        fs::set_permissions(from.join("sub"), fs::Permissions::from_mode(0o500)).unwrap();

        let copied = copy(&from, &to);
        assert_eq!((copied.files, copied.directories, copied.symlinks, copied.hard_links), (2, 2, 1, 1));
        assert_eq!(copied.failed, 0);
        let stat = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
        assert_eq!(stat("sub").mode() & 0o7777, 0o500);
        assert_eq!(stat("sub/file").mode() & 0o7777, 0o640);
        assert_eq!(stat("sub/file").ino(), stat("other").ino());
        let time = fs::metadata(from.join("sub/file")).unwrap().modified().unwrap();
        assert_eq!(stat("sub/file").modified().unwrap(), time);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("sub/file"));
        assert_eq!(stat("sparse").size(), 16 << 20);
        assert!(stat("sparse").blocks() * 512 < 1 << 20);
        assert_eq!(fs::read(from.join("sparse")).unwrap(), fs::read(to.join("sparse")).unwrap());
        // Again, over what is there.
        assert_eq!(copy(&from, &to).failed, 0);
        assert_eq!(stat("sub/file").nlink(), 2);
    }

    #[test]
    fn a_file_does_not_replace_a_directory_nor_the_other_way_round() {
        let dir = tempfile::tempdir().unwrap();
        let (file, directory) = (dir.path().join("f"), dir.path().join("d"));
        fs::write(&file, b"x").unwrap();
        fs::create_dir(&directory).unwrap();
        assert_eq!(copy(&file, &directory).failed, 1);
        assert_eq!(copy(&directory, &file).failed, 1);
        assert_eq!(copy(&file, &file).failed, 1);
        assert_eq!(fs::read(&file).unwrap(), b"x");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_file_does_not_replace_what_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (file, socket) = (dir.path().join("f"), dir.path().join("s"));
        fs::write(&file, b"x").unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let before = fs::symlink_metadata(&socket).unwrap().ino();
        assert_eq!(copy(&file, &socket).failed, 1);
        let after = fs::symlink_metadata(&socket).unwrap();
        assert!(after.file_type().is_socket() && after.ino() == before);
        // One of its kind does, as where a tree is copied again.
        let other = dir.path().join("other");
        assert_eq!(copy(&socket, &other).failed, 0);
        assert_eq!(copy(&socket, &other).failed, 0);
    }
}
