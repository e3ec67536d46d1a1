//! Rings among a crate's files: each set of files that need one another is told by a shortest way round.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

use crate::modules::Files;

/// One line for each ring, its files in order, and below it the paths by which each uses the next.
///
/// Of files that need one another in several ways, one ring is told; once it is gone, the next.
pub fn rings(files: &Files) -> Vec<String> {
    let mut told = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files.keys() {
        let needed = reached_from(files, file);
        if seen.contains(file) || !needed.contains_key(file.as_str()) {
            continue;
        }
        let together = needed.keys().filter(|other| reached_from(files, other).contains_key(file.as_str()));
        let together: BTreeSet<&str> = together.copied().collect();
        let shortest = together.iter().map(|file| way_round(files, file)).min_by_key(Vec::len);
        told.push(tell(files, &shortest.expect("the file itself is one of them"), together.len()));
        seen.extend(together.into_iter().map(str::to_owned));
    }
    told
}

/// The files that a file needs, directly or by way of others, each with the one that uses it on a shortest way there.
fn reached_from<'a>(files: &'a Files, file: &'a str) -> BTreeMap<&'a str, &'a str> {
    let mut reached = BTreeMap::new();
    let mut next = VecDeque::from([file]);
    while let Some(at) = next.pop_front() {
        for used in files[at].uses.keys() {
            if !reached.contains_key(used.as_str()) {
                reached.insert(used.as_str(), at);
                next.push_back(used);
            }
        }
    }
    reached
}

/// A shortest way from a file back to itself, which is first in it and not last.
fn way_round<'a>(files: &'a Files, file: &'a str) -> Vec<&'a str> {
    let reached = reached_from(files, file);
    let mut way = vec![reached[file]];
    while *way.last().expect("it has one") != file {
        way.push(reached[way.last().expect("it has one")]);
    }
    way.reverse();
    way
}

fn tell(files: &Files, way: &[&str], together: usize) -> String {
    let mut told = format!("{} → {}", way.join(" → "), way[0]);
    if together > way.len() {
        write!(told, " (one of the rings among {together} files)").expect("a string takes it");
    }
    told.push('\n');
    for (at, file) in way.iter().enumerate() {
        let next = way[(at + 1) % way.len()];
        let paths: Vec<_> = files[*file].uses[next].iter().map(String::as_str).collect();
        writeln!(told, "  {file}: {}", paths.join(", ")).expect("a string takes it");
    }
    told
}
