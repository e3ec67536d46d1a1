//! Files outside the pond, which a query names with `host:`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use object_store::ObjectMeta;
use object_store::path::Path as ObjectPath;

use crate::content::glob::{Below, search};
use crate::content::pattern::{Pattern, is_pattern};
use crate::error::{QueryError, Result};

/// The files of the host that a path or a pattern means, by name; relative ones from the current directory. Symlinks are followed, but those
/// to directories that a pattern comes to.
///
/// # Errors
///
/// Where there is none.
pub(crate) fn find(text: &str) -> Result<Vec<(Vec<u8>, ObjectMeta)>> {
    let failed = |why: String| QueryError::new(format!("cannot read host:{text}: {why}"));
    let path = std::path::absolute(text).map_err(|error| failed(words(&error)))?;
    let meta = match path.metadata() {
        Ok(meta) if meta.is_dir() => {
            return Err(failed("it is a directory; name the files in it, as DIRECTORY/*.parquet".into()));
        }
        Ok(meta) => vec![(path.as_os_str().as_bytes().to_vec(), meta)],
        Err(_) if is_pattern(text.as_bytes()) => matching(&path).map_err(failed)?,
        Err(error) => return Err(failed(words(&error))),
    };
    if meta.is_empty() {
        return Err(failed("no file matches".to_owned()));
    }
    meta.into_iter()
        .map(|(path, meta)| {
            let location = ObjectPath::from_absolute_path(OsStr::from_bytes(&path))
                .map_err(|error| failed(error.to_string()))?;
            let last_modified = meta.modified().map_err(|error| failed(words(&error)))?.into();
            let object = ObjectMeta { location, last_modified, size: meta.len(), e_tag: None, version: None };
            Ok((path, object))
        })
        .collect()
}

fn matching(path: &Path) -> Result<Vec<(Vec<u8>, std::fs::Metadata)>, String> {
    let bytes = path.as_os_str().as_bytes();
    let names: Vec<Vec<u8>> =
        bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    let pattern = Pattern::new(&names)?;
    let start = [b"/".to_vec(), names[..pattern.plain].join(&b'/')].concat();
    let list = |path: &[u8], ()| -> io::Result<_> {
        let directory = if path.is_empty() { Path::new("/") } else { Path::new(OsStr::from_bytes(path)) };
        let mut listed = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let node = match entry.file_type()?.is_dir() {
                true => Below::Directory(()),
                false => match entry.path().metadata() {
                    Ok(meta) if meta.is_file() => Below::File(meta),
                    _ => Below::Other,
                },
            };
            listed.push((entry.file_name().into_vec(), node));
        }
        listed.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(listed)
    };
    match search(&pattern, (start, ()), list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found.map_err(|error| words(&error)),
    }
}

/// The system's words without the number that Rust adds to them.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
