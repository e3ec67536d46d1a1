//! Tags: names of versions, which stay as long as they have one.
//!
//! Each is a `txn` action of the log, so that replicas get it and checkpoints hold it; a tag that was deleted names no version.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::log::action::{Action, Txn};
use crate::{PondId, Version};

/// What a deleted tag says instead of a version.
const DELETED: i64 = -1;

/// The longest name of a tag, bytes.
const LONGEST: usize = 64;

/// The name of a tag: 1 to 64 bytes of UTF-8, without `/`, `@`, spaces and control characters, and not beginning with a dot or a
/// hyphen, so that it can stand in paths and on command lines. It is copied as easily as a number is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagName {
    /// What is not used of it is zero.
    bytes: [u8; LONGEST],
}

impl TagName {
    /// As text.
    pub fn as_str(&self) -> &str {
        let length = self.bytes.iter().position(|&byte| byte == 0).unwrap_or(LONGEST);
        // It was made from text.
        std::str::from_utf8(&self.bytes[..length]).unwrap_or_default()
    }
}

/// Why a text names no tag.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name:?} cannot be a tag's name: {why}")]
pub struct BadTagName {
    name: String,
    why: &'static str,
}

impl FromStr for TagName {
    type Err = BadTagName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let is_bad = |c: char| c == '/' || c == '@' || c.is_control() || c.is_whitespace();
        let why = match name {
            "" => "it is empty",
            _ if name.len() > LONGEST => "it is longer than 64 bytes",
            _ if name.starts_with(['.', '-']) => "it begins with a dot or a hyphen",
            _ if name.contains(is_bad) => "it has a slash, an @, a space or a control character in it",
            _ => {
                let mut bytes = [0; LONGEST];
                bytes[..name.len()].copy_from_slice(name.as_bytes());
                return Ok(TagName { bytes });
            }
        };
        Err(BadTagName { name: name.to_owned(), why })
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The action that gives a version a name, or takes the name back.
pub(crate) fn action(pond_id: PondId, name: TagName, version: Option<Version>, now: i64) -> Action {
    let number = version.and_then(|version| i64::try_from(version.0).ok()).unwrap_or(DELETED);
    Action::from(Txn {
        app_id: format!("{}{name}", prefix(pond_id)),
        version: number,
        last_updated: Some(now),
    })
}

/// The tags that a table's `txn` actions say there are. What is no name, though a newer program may have taken it for one, is passed
/// over.
pub(crate) fn of(txns: &BTreeMap<String, i64>, pond_id: PondId) -> BTreeMap<TagName, Version> {
    let prefix = prefix(pond_id);
    let tags = txns.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
    tags.filter_map(|(name, &version)| {
        Some((name[prefix.len()..].parse().ok()?, Version(version.try_into().ok()?)))
    })
    .collect()
}

fn prefix(pond_id: PondId) -> String {
    format!("{pond_id}/tag/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_stand_in_a_path_is_a_name() {
        for good in ["a", "v1.2", "before-the-upgrade", "größe", "1", "tag:x", &"x".repeat(64)] {
            assert_eq!(good.parse::<TagName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".x", "-m", "a/b", "a@b", "a b", "a\n", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<TagName>().is_err(), "{bad:?}");
        }
    }
}
