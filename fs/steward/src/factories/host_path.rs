//! Paths of the host that factories write to: not in the pond's own directory, and not in its own mount, where each version
//! would make the next one, for ever.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::FactoryError;
use crate::host::mount_table;

/// As many symbolic links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Refuses a path that leads into the pond at `pond` or its mount.
pub(crate) fn refuse_own(pond: &Path, path: &Path) -> Result<(), FactoryError> {
    match own_place(pond, path) {
        Ok(None) => Ok(()),
        Ok(Some(why)) => {
            Err(FactoryError::new(format!("path: {} is {why}", path.display()))
                .advise("choose a place outside"))
        }
        Err(error) => {
            let why = format!("path: cannot look at {}: {error}", path.display());
            Err(FactoryError::new(why).caused_by(error))
        }
    }
}

/// What a path leads into, if that is the pond at `pond` or its mount, by whatever links and bind mounts; it need not exist yet.
pub(crate) fn own_place(pond: &Path, path: &Path) -> io::Result<Option<&'static str>> {
    let place = nearest(path)?;
    let metadata = fs::metadata(&place)?;
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    let own = fs::metadata(pond)?;
    for ancestor in place.ancestors() {
        if fs::metadata(ancestor).is_ok_and(|metadata| identity(&metadata) == identity(&own)) {
            return Ok(Some("inside the pond's own directory, which is for pond alone"));
        }
    }
    // Without symbolic links, as mounts name it.
    let pond = pond.canonicalize()?;
    Ok(mounted_devices(&pond)?
        .contains(&metadata.dev())
        .then_some("inside the pond's own mount, where each version would make the next one"))
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
    let ours = mount_table::mounts()?.into_iter().filter(|mount| mount.is_pond() && mount.source == pond);
    Ok(ours.filter_map(|mount| mount.device_number()).collect())
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
}
