//! Other owners than those that the nodes of a pond have: for a machine on which people have other numbers.

use std::collections::HashMap;

use crate::target::file_tree::Stat;

/// What a line of a map looks like.
const FORM: &str = "a line is `user OLD NEW` or `group OLD NEW`, with numbers";

/// Whose nodes are shown as whose; each as it is by default.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    /// All belong to this user and group.
    all: Option<(u32, u32)>,
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
}

impl Owners {
    /// All belong to whoever runs this process.
    pub fn mine() -> Self {
        // SAFETY: these two only read the process's credentials and cannot fail.
        let me = unsafe { (libc::geteuid(), libc::getegid()) };
        Owners { all: Some(me), ..Owners::default() }
    }

    /// Reads a map: lines `user OLD NEW` and `group OLD NEW`; what follows # is left out.
    ///
    /// # Errors
    ///
    /// Which line is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut owners = Owners::default();
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            let id = |text: &str| text.parse::<u32>().ok();
            let map = match words.first() {
                None => continue,
                Some(&"user") => &mut owners.users,
                Some(&"group") => &mut owners.groups,
                Some(_) => return Err(format!("line {}: {FORM}", number + 1)),
            };
            match (words.len(), words.get(1).and_then(|old| id(old)), words.get(2).and_then(|new| id(new))) {
                (3, Some(old), Some(new)) => drop(map.insert(old, new)),
                _ => return Err(format!("line {}: {FORM}", number + 1)),
            }
        }
        Ok(owners)
    }

    /// The same node with its owner here.
    pub fn shown(&self, stat: Stat) -> Stat {
        match self.all {
            // What runs as its owner must not run as somebody else.
            Some((uid, gid)) => {
                let privileges = if (stat.uid, stat.gid) == (uid, gid) { 0 } else { 0o6000 };
                let mode = if stat.is_directory() { stat.mode } else { stat.mode & !privileges };
                Stat { uid, gid, mode, ..stat }
            }
            None => {
                let uid = self.users.get(&stat.uid).copied().unwrap_or(stat.uid);
                let gid = self.groups.get(&stat.gid).copied().unwrap_or(stat.gid);
                Stat { uid, gid, ..stat }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::file_tree::Identity;
    use pond_tinyfs::{FileType, Timestamp};

    fn shown(owners: &Owners, uid: u32, gid: u32, mode: u32) -> (u32, u32, u32) {
        let stat = Stat {
            identity: Identity { realm: 0, device: 0, inode: 1 },
            kind: FileType::File,
            mode,
            nlink: 1,
            uid,
            gid,
            size: 0,
            allocated: 0,
            device: (0, 0),
            atime: Timestamp(0),
            mtime: Timestamp(0),
        };
        let stat = owners.shown(stat);
        (stat.uid, stat.gid, stat.mode)
    }

    #[test]
    fn a_map_gives_those_that_it_names_other_owners() {
        let owners = Owners::parse("# moved\nuser 1000 2000\ngroup 100 200 # staff\n\n").unwrap();
        assert_eq!(shown(&owners, 1000, 100, 0o4755), (2000, 200, 0o4755));
        assert_eq!(shown(&owners, 100, 1000, 0o644), (100, 1000, 0o644));
        for wrong in ["user 1", "user a b", "1000 2000", "user 1 2 3", "group -1 2"] {
            assert!(Owners::parse(wrong).unwrap_err().starts_with("line 1"), "{wrong}");
        }
    }

    #[test]
    fn what_becomes_mine_does_not_run_as_me() {
        let me = Owners { all: Some((5, 6)), ..Owners::default() };
        assert_eq!(shown(&me, 0, 0, 0o4755), (5, 6, 0o755));
        assert_eq!(shown(&me, 5, 6, 0o4755), (5, 6, 0o4755));
    }
}
