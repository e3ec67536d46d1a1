//! Paths of the host that factories write to: not in the pond's own directory, and not in its own mount, where each version
//! would make the next one, for ever.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::FactoryError;

/// As many symbolic links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Refuses a path that leads into the pond at `pond` or its mount, by whatever links and bind mounts; it need not exist yet.
pub(crate) fn refuse_own(pond: &Path, path: &Path) -> Result<(), FactoryError> {
    let failed =
        |error: io::Error| FactoryError::new(format!("path: cannot look at {}: {error}", path.display()));
    let refused = |why: &str| Err(FactoryError::new(format!("path: {} is {why}", path.display())));
    let place = nearest(path).map_err(failed)?;
    let metadata = fs::metadata(&place).map_err(failed)?;
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    let own = fs::metadata(pond).map_err(failed)?;
    for ancestor in place.ancestors() {
        if fs::metadata(ancestor).is_ok_and(|metadata| identity(&metadata) == identity(&own)) {
            return refused("inside the pond's own directory, which is for pond alone");
        }
    }
    // Without symbolic links, as mounts name it.
    let pond = pond.canonicalize().map_err(failed)?;
    if mounted_devices(&pond).map_err(failed)?.contains(&metadata.dev()) {
        return refused(
            "inside the pond's own mount: each version would make the next one; choose a place outside",
        );
    }
    Ok(())
}

/// The nearest directory above a path, or the path, that exists, without symbolic links; one that leads nowhere yet leads to
/// where its target will be.
fn nearest(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match path.canonicalize() {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let above = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        path = match fs::read_link(&path) {
            Ok(target) => above.join(target),
            Err(_) => above,
        };
    }
    // A path may be as deep as that and have no links.
    path.ancestors().find_map(|above| above.canonicalize().ok()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Devices of the mounts of a pond, as `stat` shows them.
fn mounted_devices(pond: &Path) -> io::Result<Vec<u64>> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    let lines = mounts.split(|&byte| byte == b'\n');
    Ok(lines.filter_map(|line| device_of(line, pond)).collect())
}

/// The device of a line of mountinfo, if it is a mount of this pond: id parent MAJOR:MINOR … - fstype source options
fn device_of(line: &[u8], pond: &Path) -> Option<u64> {
    let line: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let end = line.iter().position(|&field| field == b"-")?;
    let (fstype, source) = (line.get(end + 1)?, line.get(end + 2)?);
    if *fstype != b"fuse.pond"
        || OsString::from_vec(unescape(source)).as_bytes() != pond.as_os_str().as_bytes()
    {
        return None;
    }
    let (major, minor) = std::str::from_utf8(line.get(2)?).ok()?.split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel writes spaces and the like as three octal digits.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        let octal = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\') {
            Some(escaped) => {
                plain.push(escaped);
                text = &rest[3..];
            }
            None => {
                plain.push(byte);
                text = rest;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ponds_own_directory_is_refused_however_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let pond = directory.path().join("pond");
        fs::create_dir_all(pond.join("data")).unwrap();
        let alias = directory.path().join("alias");
        std::os::unix::fs::symlink(&pond, &alias).unwrap();
        let dangling = directory.path().join("dangling");
        std::os::unix::fs::symlink("alias/not/yet", &dangling).unwrap();
        for path in
            [pond.clone(), pond.join("data"), pond.join("new/store"), alias.join("new"), dangling.join("x")]
        {
            let why = refuse_own(&pond, &path).unwrap_err().to_string();
            assert!(why.contains("own directory"), "{}: {why}", path.display());
        }
        for path in [directory.path().join("store"), directory.path().join("far/away"), PathBuf::from("/")] {
            refuse_own(&pond, &path).unwrap();
        }
    }

    #[test]
    fn mounts_are_told_by_their_source() {
        let line = b"36 25 0:52 / /mnt/p rw shared:1 - fuse.pond /srv/my\\040pond rw,user_id=0";
        assert_eq!(device_of(line, Path::new("/srv/my pond")), Some(libc::makedev(0, 52)));
        assert_eq!(device_of(line, Path::new("/srv/other")), None);
        assert_eq!(
            device_of(b"36 25 8:1 / / rw - ext4 /srv/my\\040pond rw", Path::new("/srv/my pond")),
            None
        );
    }
}
