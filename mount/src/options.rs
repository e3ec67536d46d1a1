//! How to mount, and the `-o` strings in which fstab and `mount(8)` say it.

use std::time::Duration;

use pond_oplog::At;

use crate::MountError;

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
    /// Follow the source (on a replica).
    pub follow: bool,
    /// Fail where there is no pond, rather than make one.
    pub no_create: bool,
}

impl MountOptions {
    /// Takes up a comma-separated `-o` string. Options that concern `mount(8)` alone are accepted and ignored.
    pub fn apply(&mut self, text: &str) -> Result<(), MountError> {
        text.split(',').filter(|option| !option.is_empty()).try_for_each(|option| self.apply_one(option))
    }

    fn apply_one(&mut self, option: &str) -> Result<(), MountError> {
        match option {
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
            | "async"
            | "atime"
            | "noatime"
            | "relatime"
            | "norelatime"
            | "strictatime"
            | "lazytime"
            | "nolazytime"
            | "diratime"
            | "nodiratime"
            | "default_permissions" => {}
            _ => match option.split_once('=') {
                Some(("commit", seconds)) => self.commit_interval = Some(parse_commit(seconds)?),
                Some(("user", _)) => {
                    (self.no_suid, self.no_dev, self.no_exec) = (true, true, true);
                }
                Some(("comment" | "uhelper" | "helper", _)) => {}
                _ if option.starts_with("x-") || option.starts_with("X-") => {}
                _ => return Err(MountError::UnknownOption(option.to_owned())),
            },
        }
        Ok(())
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
    fn an_unknown_option_is_named() {
        assert!(parsed("ro,frobnicate").unwrap_err().to_string().contains("\"frobnicate\""));
        assert!(parsed("commit").is_err());
    }
}
