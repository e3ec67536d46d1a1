//! `pond list`.

use pond_tinyfs::FileType;
use serde::Serialize;

use crate::cli::ListArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::missing;
use crate::output::{Column, Output, json_bytes};
use crate::path::{GivenPath, TreePath, When, escape};
use crate::pattern::{Pattern, Positions, is_pattern};
use crate::target::{FileTree, Stat};
use crate::time;
use crate::users::Names;

/// Rows of one table: so that a listing of a million names begins at once.
const BATCH: usize = 10_000;

/// Lists a directory, or what matches a pattern.
pub fn list(args: &ListArgs, context: &mut Context) -> Result {
    let access = context.pond.read(args.glob.when)?;
    let tree = access.tree();
    let shown = match args.glob.when {
        When::Now => escape(&args.glob.pattern),
        When::At(at) => format!("{}@{at}", escape(&args.glob.pattern)),
    };
    let what = || format!("cannot list {shown}");
    let given = GivenPath::new(&args.glob.pattern).map_err(|why| Failure::usage(what(), why))?;
    let mut listing =
        Listing { tree, names: Names::default(), rows: Vec::new(), found: 0, out: &mut context.out };

    // What exists is meant, even if its name has the looks of a pattern.
    match tree.resolve(&given, false).and_then(|path| Ok((tree.existing(&path)?, path))) {
        Ok((Some(stat), path)) if stat.is_directory() && args.recursive => {
            listing.search(path, None)?;
            return listing.finish();
        }
        Ok((Some(stat), path)) if stat.is_directory() => {
            for (name, stat) in tree.entries(&path).during(what)? {
                listing.show(&path.join(&name), &stat)?;
            }
            return listing.finish();
        }
        Ok((Some(stat), path)) => {
            listing.show(&path, &stat)?;
            return listing.finish();
        }
        Ok((None, _)) if !is_pattern(&args.glob.pattern) => {
            let missing = std::io::Error::from_raw_os_error(libc::ENOENT);
            let failure = Failure::because(what(), &missing).next("see what is there with `pond list`");
            return Err(missing::advise(failure, &given));
        }
        Err(error) if !is_pattern(&args.glob.pattern) => {
            return missing::during(Err(error), &given, what);
        }
        _ => {}
    }

    let pattern = Pattern::new(&given).map_err(|why| Failure::usage(what(), why))?;
    let start = tree.resolve(&pattern.start, true).during(what)?;
    listing.search(start, Some(&pattern))?;
    if listing.found == 0 {
        return Err(Failure::new(what(), "nothing matches"));
    }
    listing.finish()
}

struct Listing<'a> {
    tree: &'a dyn FileTree,
    names: Names,
    rows: Vec<Vec<String>>,
    found: u64,
    out: &'a mut Output,
}

impl Listing<'_> {
    /// Shows all below a directory that matches the pattern, or all there is; a directory before what is in it, each visited once.
    fn search(&mut self, directory: TreePath, pattern: Option<&Pattern>) -> Result {
        let mut path = directory;
        let entries = |path: &TreePath, tree: &dyn FileTree| {
            let entries = tree.entries(path).during(|| format!("cannot read the directory {path}"))?;
            Ok::<_, Failure>(entries.into_iter())
        };
        let begin = pattern.map(|pattern| pattern.begin());
        // Not by recursion: a tree may be deeper than a stack.
        let mut open = vec![(entries(&path, self.tree)?, begin)];
        while let Some((rest, positions)) = open.last_mut() {
            let Some((name, stat)) = rest.next() else {
                open.pop();
                path.pop();
                continue;
            };
            let (below, matches): (Option<Positions>, bool) = match (pattern, positions) {
                (Some(pattern), Some(positions)) => {
                    let (below, matches) = pattern.step(positions, &name);
                    (Some(below), matches)
                }
                _ => (None, true),
            };
            path.push(&name);
            if matches {
                self.show(&path, &stat)?;
            }
            if stat.is_directory() && below.as_ref().is_none_or(Positions::go_on) {
                open.push((entries(&path, self.tree)?, below));
            } else {
                path.pop();
            }
        }
        Ok(())
    }

    fn show(&mut self, path: &TreePath, stat: &Stat) -> Result {
        self.found += 1;
        let target = match stat.kind {
            FileType::Symlink => {
                Some(self.tree.read_link(path).during(|| format!("cannot read the symlink {path}"))?)
            }
            _ => None,
        };
        if self.out.is_json() {
            return self.out.json(&Entry::new(path, stat, target.as_deref(), &mut self.names));
        }
        let shown = match &target {
            Some(target) => format!("{path} -> {}", escape(target)),
            None => path.to_string(),
        };
        self.rows.push(vec![
            mode_text(stat.kind, stat.mode),
            self.names.user(stat.uid).to_owned(),
            self.names.group(stat.gid).to_owned(),
            size_text(stat),
            time::local_nanos(stat.mtime.0),
            shown,
        ]);
        if self.rows.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result {
        let columns = [
            Column::text("MODE"),
            Column::text("OWNER"),
            Column::text("GROUP"),
            Column::number("SIZE"),
            Column::text("MODIFIED"),
            Column::text("PATH"),
        ];
        self.out.table(&columns, std::mem::take(&mut self.rows))
    }

    fn finish(mut self) -> Result {
        self.flush()
    }
}

/// An entry for programs.
#[derive(Serialize)]
struct Entry {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    owner: String,
    group: String,
    size: u64,
    nlink: u64,
    inode: u64,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
}

impl Entry {
    fn new(path: &TreePath, stat: &Stat, target: Option<&[u8]>, names: &mut Names) -> Self {
        let (path, path_hex) = json_bytes(&path.to_bytes());
        let target = target.map(json_bytes);
        Entry {
            path,
            path_hex,
            kind: stat.kind.name(),
            mode: format!("{:04o}", stat.mode),
            uid: stat.uid,
            gid: stat.gid,
            owner: names.user(stat.uid).to_owned(),
            group: names.group(stat.gid).to_owned(),
            size: stat.size,
            nlink: stat.nlink,
            inode: stat.identity.inode,
            mtime: time::rfc3339_nanos(stat.mtime.0),
            target_hex: target.as_ref().and_then(|(_, hex)| hex.clone()),
            target: target.map(|(text, _)| text),
            device: is_device(stat.kind).then_some(stat.device),
        }
    }
}

fn is_device(kind: FileType) -> bool {
    matches!(kind, FileType::CharDevice | FileType::BlockDevice)
}

fn size_text(stat: &Stat) -> String {
    if is_device(stat.kind) { format!("{}, {}", stat.device.0, stat.device.1) } else { stat.size.to_string() }
}

/// `drwxr-xr-x`, as `ls -l` has it; a factory's node is `F`.
fn mode_text(kind: FileType, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        FileType::File => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Dynamic => 'F',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_ls_writes_them() {
        assert_eq!(mode_text(FileType::Directory, 0o755), "drwxr-xr-x");
        assert_eq!(mode_text(FileType::File, 0o4644), "-rwSr--r--");
        assert_eq!(mode_text(FileType::File, 0o6755), "-rwsr-sr-x");
        assert_eq!(mode_text(FileType::Directory, 0o1777), "drwxrwxrwt");
    }
}
