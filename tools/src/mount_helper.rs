//! Called by `mount(8)` and `umount(8)`: `mount -t fuse.pond /srv/pond /mnt/pond`, and lines in fstab.
//!
//! The program is installed under the names below as well (links will do) in `/sbin`. What they are called with
//! is in mount(8) and umount(8), "EXTERNAL HELPERS".

use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser};
use pond_mount::{MountError, MountOptions};

use crate::cli::{AtArgs, MountArgs};
use crate::commands;
use crate::context::Context;
use crate::error::{Failure, Result};

/// mount.fuse.pond: mounts a pond for mount(8)
#[derive(Parser, Debug)]
#[command(name = "mount.fuse.pond", version)]
pub struct MountHelper {
    /// The pond's directory
    source: PathBuf,
    /// Where to mount it
    target: PathBuf,
    /// Options
    #[arg(short, value_name = "OPTS", action = ArgAction::Append)]
    options: Vec<String>,
    /// Ignore options that are not known
    #[arg(short)]
    sloppy: bool,
    /// Do everything but the mount
    #[arg(short)]
    fake: bool,
    /// Say more
    #[arg(short)]
    verbose: bool,
    /// Nothing is written to mtab anyway
    #[arg(short)]
    no_mtab: bool,
    /// Kind of filesystem
    #[arg(short = 't', value_name = "TYPE")]
    fstype: Option<String>,
    /// Mount namespace
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<PathBuf>,
}

impl MountHelper {
    /// The pond's directory.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Whether to say more.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Mounts.
    pub fn run(self, context: &mut Context) -> Result {
        refuse_namespace(self.namespace.as_deref())?;
        let options = if self.sloppy { known(&self.options) } else { self.options };
        let args = MountArgs {
            mountpoint: self.target,
            foreground: false,
            read_only: false,
            follow: false,
            scratch: false,
            at: AtArgs::default(),
            private: false,
            // Where a disk is not mounted, an empty pond in its place would pass for what it holds.
            no_create: true,
            options,
        };
        match self.fake {
            true => commands::check_options(&args),
            false => commands::mount_quietly(&args, context),
        }
    }
}

/// Those of these options that are known.
fn known(options: &[String]) -> Vec<String> {
    options
        .iter()
        .flat_map(|text| text.split(','))
        .filter(|option| {
            let applied = MountOptions::default().apply(option);
            !matches!(applied, Err(MountError::UnknownOption(_)))
        })
        .map(str::to_owned)
        .collect()
}

/// umount.fuse.pond: unmounts a pond for umount(8)
#[derive(Parser, Debug)]
#[command(name = "umount.fuse.pond", version)]
pub struct UmountHelper {
    /// Where the pond is mounted
    target: PathBuf,
    /// Does not force: everything is committed first in any case
    #[arg(short)]
    force: bool,
    /// Detach it now, even while it is in use
    #[arg(short)]
    lazy: bool,
    /// Nothing is written to mtab anyway
    #[arg(short)]
    no_mtab: bool,
    /// Does not remount read-only
    #[arg(short)]
    read_only: bool,
    /// Say more
    #[arg(short)]
    verbose: bool,
    /// Kind of filesystem
    #[arg(short = 't', value_name = "TYPE")]
    fstype: Option<String>,
    /// Mount namespace
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<PathBuf>,
}

impl UmountHelper {
    /// Whether to say more.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Unmounts.
    pub fn run(self, context: &mut Context) -> Result {
        refuse_namespace(self.namespace.as_deref())?;
        match pond_mount::unmount(&self.target) {
            Ok(report) if report.was_dead || !report.kept_by.is_empty() => {
                commands::describe_unmount(&report, context)
            }
            Ok(_) => Ok(()),
            Err(MountError::Busy { .. }) if self.lazy => detach(&self.target),
            Err(error) => Err(Failure::because(format!("cannot unmount {}", self.target.display()), &error)),
        }
    }
}

/// Takes a mount out of the tree of files; its daemon ends, with everything committed, once nobody uses it.
fn detach(target: &Path) -> Result {
    let failed =
        |error: std::io::Error| Failure::because(format!("cannot detach {}", target.display()), &error);
    let path = std::ffi::CString::new(target.as_os_str().as_encoded_bytes())
        .map_err(|_| failed(std::io::ErrorKind::InvalidInput.into()))?;
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    match unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } {
        0 => Ok(()),
        _ => Err(failed(std::io::Error::last_os_error())),
    }
}

fn refuse_namespace(namespace: Option<&Path>) -> Result {
    match namespace {
        None => Ok(()),
        Some(namespace) => Err(Failure::usage(
            format!("cannot work in the mount namespace {}", namespace.display()),
            "-N is not supported",
        )
        .next("use nsenter --mount")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn what_mount_and_umount_pass_is_understood() {
        MountHelper::command().debug_assert();
        UmountHelper::command().debug_assert();
        let line = "mount.fuse.pond /srv/pond /mnt -sfnv -o rw,nosuid,x-y -t fuse.pond";
        let helper = MountHelper::try_parse_from(line.split(' ')).unwrap();
        assert!(helper.sloppy && helper.fake && helper.no_mtab && helper.verbose);
        assert_eq!(helper.source, Path::new("/srv/pond"));
        assert!(UmountHelper::try_parse_from("umount.fuse.pond /mnt -flnrv".split(' ')).is_ok());
        assert!(UmountHelper::try_parse_from(["umount.fuse.pond"]).is_err());
    }

    #[test]
    fn a_sloppy_mount_drops_options_that_are_not_known_but_not_bad_values() {
        let options = ["rw,frobnicate".to_owned(), "commit=x".to_owned()];
        assert_eq!(known(&options), ["rw", "commit=x"]);
    }
}
