//! Values of options and arguments, from what was typed.

use std::ffi::OsString;
use std::path::PathBuf;

use pond_oplog::{At, AtError, TIMES};

use crate::path;

/// A path inside the pond, as text.
pub(super) fn path_inside(text: &str) -> Result<String, String> {
    path::parse_inside(text.into()).map(|_| text.to_owned())
}

pub(super) fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "a number is wanted, 0 or more".to_owned())
}

pub(super) fn version(text: &str) -> Result<At, String> {
    At::parse(text).map_err(|error| error.to_string())
}

/// A version that is named by a time.
pub(super) fn time_of_version(text: &str) -> Result<At, String> {
    match At::parse(text) {
        Ok(at @ At::Timestamp(_)) => Ok(at),
        Err(error @ AtError::NotOneTime { .. }) => Err(error.to_string()),
        Ok(_) | Err(AtError::NoForm(_) | AtError::BadTag(_)) => {
            Err(format!("\"{text}\" is not a time: give {TIMES}"))
        }
    }
}

pub(super) fn version_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a version is a number; `pond log` lists them".to_owned())
}

pub(super) fn directory(text: OsString) -> Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("the pond's directory cannot be empty; unset $POND for the default, or name one".into()),
        false => Ok(PathBuf::from(text)),
    }
}
