//! Where a version is fetched before its files are put in their places: within the directory that they go to, so that what an interrupted
//! restore has fetched is found again, and lies where there is to be room for it anyway.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pond_replicate::Found;

use crate::error::{During, Failure, Result};

/// Its name.
const NAME: &str = ".pond-restore";
/// A file in it that says that nothing else was there when the restore began.
const BEGUN: &str = "begun";
/// Characters of a version's digest in the name of what is fetched of it.
const DIGEST: usize = 16;

/// A place for what is fetched.
pub struct Staging {
    directory: PathBuf,
    pond: PathBuf,
    /// A directory elsewhere that goes away by itself.
    temporary: Option<tempfile::TempDir>,
    begun: bool,
    /// Whether the directory that it is in was made for it.
    made: bool,
}

impl Staging {
    /// In the directory `to`, which is made if only it is missing; or, if nothing is to be changed there, elsewhere.
    pub fn open(to: &Path, found: &Found, elsewhere: bool) -> Result<Self> {
        let name = format!("{}-{}", found.version, found.digest.chars().take(DIGEST).collect::<String>());
        if elsewhere {
            let temporary = tempfile::Builder::new().prefix("pond-restore-").tempdir();
            let temporary = temporary.during(|| "cannot make a temporary directory".to_owned())?;
            let directory = temporary.path().to_owned();
            let (pond, temporary) = (directory.join(name), Some(temporary));
            return Ok(Staging { directory, pond, temporary, begun: false, made: false });
        }
        let what = || format!("cannot restore to {}", to.display());
        let made = fs::create_dir(to);
        match &made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::because(what(), error).next(format!(
                    "make the directory above it with `mkdir -p {}`",
                    to.parent().unwrap_or(to).display()
                )));
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Failure::because(what(), error));
            }
            _ => {}
        }
        let directory = to.join(NAME);
        let mut others = fs::read_dir(to).during(what)?.map(|entry| entry.map(|entry| entry.file_name()));
        let is_empty = others.next().transpose().during(what)?.is_none();
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Failure::because(what(), &error));
            }
            Ok(()) if is_empty => fs::write(directory.join(BEGUN), "").during(what)?,
            _ => {}
        }
        let pond = directory.join(name);
        for entry in fs::read_dir(&directory).during(what)? {
            let path = entry.during(what)?.path();
            // What was fetched of another version.
            if path != pond && path.is_dir() {
                fs::remove_dir_all(&path).during(what)?;
            }
        }
        let begun = directory.join(BEGUN).exists();
        Ok(Staging { directory, pond, temporary: None, begun, made: made.is_ok() })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The replica.
    pub fn pond(&self) -> &Path {
        &self.pond
    }

    /// Whether all that is beside it was put there by this restore.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Its path, if it is in `to`.
    pub fn within(&self, to: &Path) -> Option<PathBuf> {
        self.temporary.is_none().then(|| to.join(NAME))
    }

    /// Gives up what was fetched.
    pub fn begin_anew(&mut self) -> Result {
        fs::remove_dir_all(&self.pond).during(|| format!("cannot remove {}", self.pond.display()))
    }

    /// Removes it, and `to` if that was made for it.
    pub fn undo(self, to: &Path) -> Result {
        let made = self.made;
        self.remove()?;
        match made {
            true => fs::remove_dir(to).during(|| format!("cannot remove {}", to.display())),
            false => Ok(()),
        }
    }

    /// Removes it.
    pub fn remove(self) -> Result {
        let what = format!("cannot remove {}", self.directory.display());
        match self.temporary {
            Some(temporary) => temporary.close().during(|| what),
            None => fs::remove_dir_all(&self.directory).during(|| what),
        }
    }
}
