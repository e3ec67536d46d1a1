//! Which program this is: by its name, as mount(8) and umount(8) call it.

use std::path::Path;

/// The part that a program's name asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// `pond`, and any other name.
    Pond,
    /// `mount.pond`, `mount.fuse.pond`
    Mount,
    /// `umount.pond`, `umount.fuse.pond`
    Umount,
}

impl Part {
    /// By `argv[0]`.
    pub fn of(program: &Path) -> Part {
        match program.file_name().and_then(|name| name.to_str()) {
            Some("mount.pond" | "mount.fuse.pond") => Part::Mount,
            Some("umount.pond" | "umount.fuse.pond") => Part::Umount,
            _ => Part::Pond,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_chooses_the_part() {
        assert_eq!(Part::of("/sbin/mount.fuse.pond".as_ref()), Part::Mount);
        assert_eq!(Part::of("mount.pond".as_ref()), Part::Mount);
        assert_eq!(Part::of("/sbin/umount.fuse.pond".as_ref()), Part::Umount);
        assert_eq!(Part::of("/usr/bin/pond".as_ref()), Part::Pond);
        assert_eq!(Part::of("pond-1.0".as_ref()), Part::Pond);
    }
}
