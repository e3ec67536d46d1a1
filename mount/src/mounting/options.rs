//! How to mount, and the `-o` strings in which fstab and `mount(8)` say it.

use std::time::Duration;

use pond_oplog::At;

use crate::error::MountError;

/// How to mount a pond.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MountOptions {
    /// No changes through this mount; the writer lock is not taken.
    pub read_only: bool,
    /// Ignore setuid and setgid bits. Always so when an ordinary user mounts.
    pub no_suid: bool,
    /// Ignore device nodes. Always so when an ordinary user mounts.
    pub no_dev: bool,
    /// Run no programs from it.
    pub no_exec: bool,
    /// Only the user who mounts may use it, also when that is root.
    pub private: bool,
    /// Other users may use it also where an ordinary user mounts (`/etc/fuse.conf` must allow it).
    pub allow_other: bool,
    /// Longest time from an operation to the commit that holds it; default 1 s.
    pub commit_interval: Option<Duration>,
    /// The version to show; a version other than the tip is read-only.
    pub at: Option<At>,
    /// Writable, seen by nobody else, and thrown away at its end: a scratch of the version.
    pub scratch: bool,
    /// Follow the source (on a replica).
    pub follow: bool,
    /// Inode numbers of 32 bits and positions in directories of 31, for 32-bit programs that know no larger ones.
    pub inode32: bool,
    /// To whom `.pond/versions` shows what.
    pub versions: VersionsOption,
    /// Fail where there is no pond, rather than make one.
    pub no_create: bool,
    /// What is in the mountpoint already is hidden on purpose, and not to be warned of.
    pub non_empty: bool,
    /// What is mounted there already gets these options.
    pub remount: bool,
    /// What the kernel alone minds: mount(2)'s flags for access times, synchronous writes and silence.
    pub kernel_flags: libc::c_ulong,
}

/// What `.pond/versions` shows to others than who mounts and root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionsOption {
    /// What they were allowed to see then, and still are now.
    #[default]
    Allowed,
    /// What they were allowed to see then.
    All,
    /// There are no old versions, for anybody.
    Off,
}

impl MountOptions {
    /// Takes up a comma-separated `-o` string. Options that concern `mount(8)` alone are accepted and ignored.
    pub fn apply(&mut self, text: &str) -> Result<(), MountError> {
        text.split(',').filter(|option| !option.is_empty()).try_for_each(|option| self.apply_one(option))
    }

    fn apply_one(&mut self, option: &str) -> Result<(), MountError> {
        if let Some((_, flag, set)) = KERNEL_FLAGS.iter().find(|(name, ..)| *name == option) {
            self.kernel_flags = if *set { self.kernel_flags | flag } else { self.kernel_flags & !flag };
            return Ok(());
        }
        match option {
            "remount" => self.remount = true,
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "suid" => self.no_suid = false,
            "nosuid" => self.no_suid = true,
            "dev" => self.no_dev = false,
            "nodev" => self.no_dev = true,
            "exec" => self.no_exec = false,
            "noexec" => self.no_exec = true,
            "private" => self.private = true,
            "allow_other" => self.allow_other = true,
            "nonempty" => self.non_empty = true,
            "inode32" => self.inode32 = true,
            "create" => self.no_create = false,
            // What `mount(8)` documents for `user`, `users`, `owner` and `group`: they imply these three, and
            // later options may take them back.
            "user" | "users" => (self.no_suid, self.no_dev, self.no_exec) = (true, true, true),
            "owner" | "group" => (self.no_suid, self.no_dev) = (true, true),
            // For mount(8), fstab and systemd, or what holds for every pond anyway.
            "defaults"
            | "auto"
            | "noauto"
            | "nofail"
            | "_netdev"
            | "nouser"
            | "iversion"
            | "noiversion"
            | "mand"
            | "nomand"
            | "discard"
            | "nodiscard"
            | "default_permissions" => {}
            _ => match option.split_once('=') {
                Some(("versions", which)) => self.versions = parse_versions(which)?,
                Some(("commit", seconds)) => self.commit_interval = Some(parse_commit(seconds)?),
                Some(("user", _)) => {
                    (self.no_suid, self.no_dev, self.no_exec) = (true, true, true);
                }
                Some(("comment" | "uhelper" | "helper", _)) => {}
                // What /proc/self/mounts shows of a mount, mount(8) hands on when it mounts it again.
                Some(("user_id" | "group_id" | "max_read" | "rootmode" | "fsname" | "subtype", _)) => {}
                _ if option.starts_with("x-") || option.starts_with("X-") => {}
                _ => return Err(MountError::UnknownOption(option.to_owned())),
            },
        }
        Ok(())
    }
}

/// Options of mount(8) that are the kernel's flags: name, flag, whether it sets or clears it.
const KERNEL_FLAGS: [(&str, libc::c_ulong, bool); 15] = [
    ("sync", libc::MS_SYNCHRONOUS, true),
    ("async", libc::MS_SYNCHRONOUS, false),
    ("dirsync", libc::MS_DIRSYNC, true),
    ("noatime", libc::MS_NOATIME, true),
    ("atime", libc::MS_NOATIME, false),
    ("nodiratime", libc::MS_NODIRATIME, true),
    ("diratime", libc::MS_NODIRATIME, false),
    ("relatime", libc::MS_RELATIME, true),
    ("norelatime", libc::MS_RELATIME, false),
    ("strictatime", libc::MS_STRICTATIME, true),
    ("nostrictatime", libc::MS_STRICTATIME, false),
    ("lazytime", libc::MS_LAZYTIME, true),
    ("nolazytime", libc::MS_LAZYTIME, false),
    ("silent", libc::MS_SILENT, true),
    ("loud", libc::MS_SILENT, false),
];

fn parse_versions(which: &str) -> Result<VersionsOption, MountError> {
    match which {
        "allowed" => Ok(VersionsOption::Allowed),
        "all" => Ok(VersionsOption::All),
        "off" => Ok(VersionsOption::Off),
        _ => Err(MountError::BadOption {
            option: "versions",
            expected: "allowed, all or off",
            value: which.to_owned(),
        }),
    }
}

fn parse_commit(seconds: &str) -> Result<Duration, MountError> {
    let bad = || MountError::BadOption {
        option: "commit",
        expected: "seconds from 0.01 to 3600",
        value: seconds.to_owned(),
    };
    let value: f64 = seconds.parse().map_err(|_| bad())?;
    if (0.01..=3600.0).contains(&value) { Ok(Duration::from_secs_f64(value)) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<MountOptions, MountError> {
        let mut options = MountOptions::default();
        options.apply(text).map(|()| options)
    }

    #[test]
    fn what_mount_passes_on_for_fstab_is_understood() {
        let options = parsed("rw,dev,suid,noexec,_netdev,nofail,x-systemd.automount,comment=a b").unwrap();
        assert_eq!(options, MountOptions { no_exec: true, ..MountOptions::default() });
        assert_eq!(parsed("").unwrap(), MountOptions::default());
    }

    #[test]
    fn what_other_filesystems_take_is_taken() {
        let options = parsed(
            "noatime,nodiratime,lazytime,dirsync,discard,iversion,mand,silent,nofail,auto,users,suid,dev,exec",
        );
        let flags =
            libc::MS_NOATIME | libc::MS_NODIRATIME | libc::MS_LAZYTIME | libc::MS_DIRSYNC | libc::MS_SILENT;
        assert_eq!(options.unwrap(), MountOptions { kernel_flags: flags, ..MountOptions::default() });
        let shown = "rw,relatime,remount,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576,sync,async";
        let options = parsed(shown).unwrap();
        assert!(options.remount && options.kernel_flags == libc::MS_RELATIME);
    }

    #[test]
    fn later_options_win() {
        let options = parsed("ro,nosuid,user,exec,rw").unwrap();
        assert!(!options.read_only && options.no_suid && options.no_dev && !options.no_exec);
    }

    #[test]
    fn the_commit_interval_is_in_seconds() {
        assert_eq!(parsed("commit=2.5").unwrap().commit_interval, Some(Duration::from_millis(2500)));
        for bad in ["commit=0", "commit=-1", "commit=x", "commit=", "commit=inf", "commit=NaN"] {
            assert!(matches!(parsed(bad), Err(MountError::BadOption { .. })), "{bad}");
        }
    }

    #[test]
    fn who_may_see_old_versions_is_said() {
        assert_eq!(parsed("").unwrap().versions, VersionsOption::Allowed);
        assert_eq!(parsed("versions=all").unwrap().versions, VersionsOption::All);
        assert_eq!(parsed("versions=all,versions=off").unwrap().versions, VersionsOption::Off);
        assert!(parsed("versions=some").unwrap_err().to_string().contains("allowed, all or off"));
    }

    #[test]
    fn an_unknown_option_is_named() {
        assert!(parsed("ro,frobnicate").unwrap_err().to_string().contains("\"frobnicate\""));
        assert!(parsed("commit").is_err());
    }
}
