//! What to do next where a path inside the pond leads to nothing: it may be written as other programs take paths, or versions.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Failure, Result};
use crate::path::GivenPath;

/// How a version is written.
const ADVICE_ON_VERSIONS: &str = "in PATH@V the version is a number or a time, as in notes@42, notes@2026-11-20T18:30, notes@-10m \
                                  or notes@start; `pond log` lists them";

/// Adds advice to what looking for a path said.
pub fn during<T>(found: io::Result<T>, path: &GivenPath, what: impl FnOnce() -> String) -> Result<T> {
    found.map_err(|error| {
        let failure = Failure::because(what(), &error);
        match error.kind() {
            io::ErrorKind::NotFound => advise(failure, path),
            _ => failure,
        }
    })
}

/// Adds advice to a failure for want of what this path names.
pub fn advise(failure: Failure, path: &GivenPath) -> Failure {
    let mounts = pond_mount::mounts().unwrap_or_default();
    let mountpoints = mounts.iter().filter(|mount| mount.is_pond()).map(|mount| mount.mountpoint.as_path());
    match advice(path, mountpoints) {
        Some(advice) => failure.next(advice),
        None => failure,
    }
}

fn advice<'a>(path: &GivenPath, mut mountpoints: impl Iterator<Item = &'a Path>) -> Option<String> {
    let text = path.to_string();
    let inside = |mountpoint: &Path| {
        let rest = text.as_bytes().strip_prefix(mountpoint.as_os_str().as_bytes())?;
        let rest = std::str::from_utf8(rest).ok()?;
        rest.starts_with('/').then(|| rest.to_owned())
    };
    if let Some(rest) = mountpoints.find_map(inside) {
        return Some(format!(
            "a path inside the pond starts at the pond's root, not at that of the machine: {rest}"
        ));
    }
    path.name()?.contains(&b'@').then(|| ADVICE_ON_VERSIONS.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice_for(path: &str) -> Option<String> {
        advice(&GivenPath::new(path.as_bytes()).unwrap(), [Path::new("/mnt/pond")].into_iter())
    }

    #[test]
    fn advice_is_given_where_a_path_is_written_as_elsewhere() {
        assert!(advice_for("/mnt/pond/a/b").unwrap().ends_with(" /a/b"));
        assert!(advice_for("notes@HEAD").unwrap().contains("is a number"));
        assert_eq!(advice_for("/mnt/ponds/a"), None);
        assert_eq!(advice_for("notes"), None);
    }
}
