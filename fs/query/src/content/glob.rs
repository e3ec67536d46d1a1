//! Which files of a version a path or pattern means.

use pond_oplog::View;
use pond_tinyfs::{Attributes, Error, FileType, NodeId};

use crate::content::pattern::{Pattern, Positions, is_pattern};
use crate::content::walk::{Entry, entries};
use crate::error::{QueryError, Result};

/// A file that was found.
#[derive(Clone, Debug)]
pub(crate) struct Matched {
    /// From the root.
    pub(crate) path: Vec<u8>,
    pub(crate) attributes: Attributes,
}

/// As many symlinks as Linux follows in one path.
const MAX_SYMLINKS: u32 = 40;

/// The files that a path or a pattern means, by name. A plain path follows symlinks, which lead within the pond; what a pattern finds does not.
///
/// # Errors
///
/// Where there is none.
pub(crate) fn find(view: &View, text: &str) -> Result<Vec<Matched>> {
    let failed = |why: String| QueryError::new(format!("cannot read {text}: {why}"));
    let none = || failed(format!("version {} has no such file", view.position().version));
    let path = format!("/{}", text.trim_start_matches('/')).into_bytes();
    // What exists is meant, even if its name has the looks of a pattern.
    match follow(view, path.clone()) {
        Ok((path, attributes)) => return one(path, attributes).map_err(failed).map(|file| vec![file]),
        Err(_) if is_pattern(&path) => {}
        Err(error) if error.errno() == libc::ENOENT => {
            return Err(none().next("`pond list` shows what there is"));
        }
        Err(error) => return Err(failed(error.to_string())),
    }
    let names: Vec<Vec<u8>> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .map(<[u8]>::to_vec)
        .collect();
    if names.iter().any(|name| name == b"..") {
        return Err(failed("a pattern has no ..".to_owned()));
    }
    let pattern = Pattern::new(&names).map_err(failed)?;
    let start = [b"/".to_vec(), names[..pattern.plain].join(&b'/')].concat();
    let found = match follow(view, start) {
        Ok((start, attributes)) => below(view, &pattern, start, attributes.id)?,
        Err(error) if error.errno() == libc::ENOENT => Vec::new(),
        Err(error) => return Err(failed(error.to_string())),
    };
    match found.is_empty() {
        true => Err(failed(format!("no file of version {} matches", view.position().version))
            .next("`pond list` with the same pattern shows what matches")),
        false => Ok(found),
    }
}

fn one(path: Vec<u8>, attributes: Attributes) -> Result<Matched, String> {
    match attributes.kind {
        FileType::File => Ok(Matched { path, attributes }),
        FileType::Directory => Err("it is a directory; name the files in it, as DIRECTORY/*.parquet".into()),
        kind => Err(format!("it is no file, but a {}", kind.name())),
    }
}

/// Where a path leads when a symlink at its end is followed too.
fn follow(view: &View, mut path: Vec<u8>) -> Result<(Vec<u8>, Attributes), Error> {
    for _ in 0..MAX_SYMLINKS {
        let attributes = view.fs().resolve(&path)?;
        if attributes.kind != FileType::Symlink {
            return Ok((path, attributes));
        }
        let target = view.fs().readlink(attributes.id)?;
        let names = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        path.truncate(if target.starts_with(b"/") { 0 } else { names });
        path.push(b'/');
        path.extend_from_slice(&target);
    }
    Err(pond_tinyfs::Errno::LOOP.into())
}

/// What a directory holds under a name.
pub(crate) enum Below<D, F> {
    Directory(D),
    File(F),
    /// Anything else, which no pattern finds.
    Other,
}

/// Searches a tree, whatever it is made of: each directory once, and not by recursion, since a tree may be deeper than a stack.
/// `entries` tells what a directory holds, by name.
pub(crate) fn search<D, F, E>(
    pattern: &Pattern,
    start: (Vec<u8>, D),
    mut entries: impl FnMut(&[u8], D) -> Result<Vec<(Vec<u8>, Below<D, F>)>, E>,
) -> Result<Vec<(Vec<u8>, F)>, E> {
    let mut found = Vec::new();
    let (mut path, directory) = start;
    path.truncate(if path == b"/" { 0 } else { path.len() });
    let first = entries(&path, directory)?.into_iter();
    let mut open: Vec<(_, Positions, usize)> = vec![(first, pattern.begin(), path.len())];
    while let Some((rest, positions, length)) = open.last_mut() {
        path.truncate(*length);
        let Some((name, node)) = rest.next() else {
            open.pop();
            continue;
        };
        let (below, matches) = pattern.step(positions, &name);
        path.push(b'/');
        path.extend_from_slice(&name);
        match node {
            Below::File(file) if matches => found.push((path.clone(), file)),
            Below::Directory(directory) if below.go_on() => {
                open.push((entries(&path, directory)?.into_iter(), below, path.len()));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn below(view: &View, pattern: &Pattern, start: Vec<u8>, directory: NodeId) -> Result<Vec<Matched>> {
    let list = |_: &[u8], directory| -> Result<_, Error> {
        let listed = entries(view, directory)?.into_iter().map(|Entry { name, attributes }| {
            let node = match attributes.kind {
                FileType::File => Below::File(attributes),
                FileType::Directory => Below::Directory(attributes.id),
                _ => Below::Other,
            };
            (name, node)
        });
        Ok(listed.collect())
    };
    let found = search(pattern, (start, directory), list)?;
    Ok(found.into_iter().map(|(path, attributes)| Matched { path, attributes }).collect())
}
