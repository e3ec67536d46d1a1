//! Plain files: which a directory has, and how long they are.

use std::path::Path;
use std::{fs, io};

use crate::OpLogError;

/// Length of a plain file; `None` if there is none.
pub(crate) fn length(path: &Path) -> Result<Option<u64>, OpLogError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
        Ok(_) => Err(OpLogError::CorruptFile { path: path.to_path_buf(), why: "it is no plain file".into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpLogError::io("stat", path)(error)),
    }
}

/// Names of the plain files in a directory, as far as they are text.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, OpLogError> {
    let listing = |error| OpLogError::io("list", directory)(error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(listing)? {
        let entry = entry.map_err(listing)?;
        if entry.file_type().map_err(listing)?.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push(name);
        }
    }
    Ok(found)
}
