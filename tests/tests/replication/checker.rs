//! Whether what was seen on a replica is what the source had: each sighting of a file is, whole, its content in some
//! version, and never in an earlier one than the sighting before.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Digest of a file's content.
pub type Digest = blake3::Hash;

/// Digests of the files that are watched, by version of the source; a file that a version does not have is not in it.
pub type Versions = BTreeMap<u64, BTreeMap<String, Digest>>;

/// What was seen on the replica.
#[derive(Default)]
pub struct Sightings {
    /// In order, by file.
    seen: BTreeMap<String, Vec<Digest>>,
    different: usize,
}

impl Sightings {
    /// Opens a file and reads it to its end in small pieces, so that versions come in meanwhile; one that is not
    /// there is not seen.
    pub fn look(&mut self, root: &Path, name: &str) -> io::Result<()> {
        let mut file = match File::open(root.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            match file.read(&mut piece)? {
                0 => break,
                length => hasher.update(&piece[..length]),
            };
        }
        let (seen, digest) = (self.seen.entry(name.to_owned()).or_default(), hasher.finalize());
        self.different += usize::from(seen.last() != Some(&digest));
        seen.push(digest);
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.seen.values().map(Vec::len).sum()
    }

    /// How many contents were seen that were not those of the sighting before.
    pub fn different(&self) -> usize {
        self.different
    }

    /// Asserts that each sighting is of some version, not older than that of the one before.
    #[track_caller]
    pub fn check(&self, versions: &Versions) {
        for (name, seen) in &self.seen {
            let mut remaining = versions.iter().peekable();
            for (number, digest) in seen.iter().enumerate() {
                // The earliest version that it can be leaves most room for the later ones.
                loop {
                    match remaining.peek() {
                        Some((_, files)) if files.get(name) == Some(digest) => break,
                        Some(_) => drop(remaining.next()),
                        None => {
                            let of: Vec<_> = versions
                                .iter()
                                .filter(|(_, files)| files.get(name) == Some(digest))
                                .map(|(version, _)| version)
                                .collect();
                            panic!(
                                "sighting {number} of {name} is of no version from the last one's on; it is that \
                                 of versions {of:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Digests of these files below a directory, those that are there.
pub fn digests(root: &Path, names: &[String]) -> BTreeMap<String, Digest> {
    let digest = |name: &String| match fs::read(root.join(name)) {
        Ok(bytes) => Some((name.clone(), blake3::hash(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{name}: {error}"),
    };
    names.iter().filter_map(digest).collect()
}
