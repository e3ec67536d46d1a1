//! Which paths of a tree are meant by paths and patterns.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::error::{During, Failure, Result};
use crate::path::{GivenPath, TreePath};
use crate::pattern::{Pattern, Positions, is_pattern};
use crate::target::FileTree;

/// Reads what was typed.
pub fn patterns(typed: &[OsString]) -> Result<Vec<GivenPath>, String> {
    let check = |text: &OsString| {
        let given = GivenPath::new(text.as_bytes())?;
        Pattern::new(&given).map_err(|why| format!("--path {}: {why}", text.display()))?;
        Ok(given)
    };
    typed.iter().map(check).collect()
}

/// All that these mean; of what lies below another only that.
pub fn find(tree: &dyn FileTree, patterns: &[GivenPath], suffix: &str, what: &str) -> Result<Vec<TreePath>> {
    let mut found: BTreeSet<Vec<u8>> = BTreeSet::new();
    for given in patterns {
        let shown = || format!("{what}: {given}{suffix}");
        let before = found.len();
        // What exists is meant, even if its name has the looks of a pattern.
        if let Ok(path) = tree.resolve(given, false)
            && tree.existing(&path).during(shown)?.is_some()
        {
            found.insert(path.to_bytes());
            continue;
        }
        let pattern = Pattern::new(given).map_err(|why| Failure::usage(shown(), why))?;
        if given.components().iter().any(|name| is_pattern(name)) {
            let start = tree.resolve(&pattern.start, true).during(shown)?;
            search(tree, start, &pattern, &mut found).during(shown)?;
        }
        if found.len() == before {
            let failure = Failure::new(shown(), "that version has nothing of this name");
            return Err(failure.next("`pond backup find GLOB` says which versions have it"));
        }
    }
    let all: Vec<TreePath> = found.iter().map(|path| TreePath::from_bytes(path)).collect();
    let is_below = |path: &TreePath| all.iter().any(|other| other != path && path.starts_with(other));
    Ok(all.iter().filter(|path| !is_below(path)).cloned().collect())
}

/// Adds what matches below a directory; not what is below a match, which comes with it.
fn search(
    tree: &dyn FileTree,
    start: TreePath,
    pattern: &Pattern,
    found: &mut BTreeSet<Vec<u8>>,
) -> std::io::Result<()> {
    let mut left = vec![(start, pattern.begin())];
    while let Some((directory, positions)) = left.pop() {
        if !tree.stat(&directory)?.is_directory() {
            continue;
        }
        for (name, stat) in tree.entries(&directory)? {
            let (below, matches) = pattern.step(&positions, &name);
            let path = directory.join(&name);
            if matches {
                found.insert(path.to_bytes());
            } else if stat.is_directory() && Positions::go_on(&below) {
                left.push((path, below));
            }
        }
    }
    Ok(())
}
