//! Names of users and groups, where the host knows them.

use std::collections::HashMap;
use std::ffi::CStr;

/// Remembers the names that it has looked up.
#[derive(Default)]
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// A user's name, or the number.
    pub fn user(&mut self, uid: u32) -> &str {
        self.users.entry(uid).or_insert_with(|| user_name(uid).unwrap_or_else(|| uid.to_string()))
    }

    /// A group's name, or the number.
    pub fn group(&mut self, gid: u32) -> &str {
        self.groups.entry(gid).or_insert_with(|| group_name(gid).unwrap_or_else(|| gid.to_string()))
    }
}

/// Enough for any sane entry of passwd; a group with very many members may not fit, and is shown by its number.
const BUFFER: usize = 64 << 10;

fn user_name(uid: u32) -> Option<String> {
    let mut buffer = vec![0; BUFFER];
    let mut found = std::ptr::null_mut();
    // SAFETY: `entry` is written before it is read, and `buffer`, to which its strings point, outlives it.
    unsafe {
        let mut entry: libc::passwd = std::mem::zeroed();
        let code = libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found);
        (code == 0 && !found.is_null()).then(|| text(CStr::from_ptr(entry.pw_name)))
    }
}

fn group_name(gid: u32) -> Option<String> {
    let mut buffer = vec![0; BUFFER];
    let mut found = std::ptr::null_mut();
    // SAFETY: as above.
    unsafe {
        let mut entry: libc::group = std::mem::zeroed();
        let code = libc::getgrgid_r(gid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found);
        (code == 0 && !found.is_null()).then(|| text(CStr::from_ptr(entry.gr_name)))
    }
}

fn text(name: &CStr) -> String {
    crate::path::escape(name.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_and_a_stranger_a_number() {
        let mut names = Names::default();
        assert_eq!(names.user(0), "root");
        assert_eq!(names.group(0), "root");
        assert_eq!(names.user(4_000_000_000), "4000000000");
    }
}
