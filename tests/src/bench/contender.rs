//! A filesystem that is measured: pond, and what it is compared with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::TestPond;
use crate::bench::{HOURS, drop_caches};
use crate::command::{run, run_within, succeed};
use crate::measure;
use crate::passthrough::Passthrough;

/// A mounted filesystem with a name, empty at first; unmounted and removed when dropped.
pub struct Contender {
    name: String,
    place: Place,
}

enum Place {
    Pond { pond: Box<TestPond>, options: Vec<String> },
    // In this order: what is mounted ends before its directory is removed.
    Passthrough { passthrough: Passthrough, _scratch: tempfile::TempDir },
    Juice { juice: Juice, _scratch: tempfile::TempDir },
    Host { scratch: tempfile::TempDir },
}

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("pond-bench-").tempdir().expect("a temporary directory")
}

impl Contender {
    /// A pond, mounted with these options.
    pub fn pond(name: &str, options: &[&str]) -> Self {
        let pond = Box::new(TestPond::with_patience(HOURS));
        pond.mount_with(options);
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Contender { name: name.into(), place: Place::Pond { pond, options } }
    }

    /// libfuse's `passthrough_ll` on the host's filesystem.
    pub fn passthrough() -> Self {
        let scratch = scratch();
        let passthrough = Passthrough::mount(scratch.path());
        Contender {
            name: "passthrough_ll".into(),
            place: Place::Passthrough { passthrough, _scratch: scratch },
        }
    }

    /// The host's own filesystem, by its type, such as `ext4`.
    pub fn host() -> Self {
        let scratch = scratch();
        let found =
            succeed(Command::new("findmnt").args(["-n", "-o", "FSTYPE", "--target"]).arg(scratch.path()));
        Contender { name: found.trim().into(), place: Place::Host { scratch } }
    }

    /// JuiceFS with metadata in SQLite and objects in a directory, if the machine has the program.
    pub fn juicefs() -> Option<Self> {
        let program = crate::tools::find("juicefs")?;
        let scratch = scratch();
        let juice = Juice::mount(&program, scratch.path());
        Some(Contender { name: "JuiceFS".into(), place: Place::Juice { juice, _scratch: scratch } })
    }

    /// Its name in tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted.
    pub fn directory(&self) -> &Path {
        match &self.place {
            Place::Pond { pond, .. } => pond.mountpoint(),
            Place::Passthrough { passthrough, .. } => passthrough.mountpoint(),
            Place::Juice { juice, .. } => &juice.mountpoint,
            Place::Host { scratch } => scratch.path(),
        }
    }

    /// Everything written so far is on the disk, so that what comes next does not pay for it.
    pub fn settle(&self) {
        if let Place::Pond { pond, .. } = &self.place {
            pond.sync();
        }
        run_within(Command::new("sync").arg("-f").arg(self.directory()), HOURS).success();
    }

    /// Processor time that a pond's daemon has needed so far.
    pub fn processor_time(&self) -> Option<Duration> {
        match &self.place {
            Place::Pond { pond, .. } => Some(measure::processor_time(pond.daemon())),
            Place::Passthrough { .. } | Place::Juice { .. } | Place::Host { .. } => None,
        }
    }

    /// Nothing is cached any more: not by the kernel, and not by a daemon.
    pub fn cool(&self) {
        self.settle();
        match &self.place {
            Place::Pond { pond, options } => {
                pond.umount();
                pond.mount_with(&options.iter().map(String::as_str).collect::<Vec<_>>());
            }
            Place::Juice { juice, .. } => juice.remount(),
            Place::Passthrough { .. } | Place::Host { .. } => {}
        }
        drop_caches();
    }
}

/// JuiceFS as its documentation sets it up on one machine. Its cache on the disk is off: the objects lie there anyway.
struct Juice {
    program: PathBuf,
    metadata: String,
    mountpoint: PathBuf,
}

impl Juice {
    fn mount(program: &Path, scratch: &Path) -> Self {
        let metadata = format!("sqlite3://{}", scratch.join("metadata.db").display());
        let (objects, mountpoint) = (scratch.join("objects"), scratch.join("juicefs"));
        let juice = Juice { program: program.to_owned(), metadata, mountpoint };
        for directory in [&objects, &juice.mountpoint] {
            fs::create_dir(directory).expect("scratch is new");
        }
        let mut format = Command::new(&juice.program);
        format.args(["format", "--storage", "file", "--trash-days", "0", "--bucket"]);
        succeed(format.arg(format!("{}/", objects.display())).args([&juice.metadata, "bench"]));
        juice.start();
        juice
    }

    fn start(&self) {
        let mut mount = Command::new(&self.program);
        mount.args(["mount", "--background", "--no-usage-report", "--cache-size", "0", &self.metadata]);
        succeed(mount.arg(&self.mountpoint));
    }

    fn remount(&self) {
        succeed(Command::new(&self.program).arg("umount").arg(&self.mountpoint));
        self.start();
    }
}

impl Drop for Juice {
    fn drop(&mut self) {
        let ended = run(Command::new(&self.program).arg("umount").arg(&self.mountpoint));
        if !ended.status.success() {
            eprintln!("{ended}");
        }
    }
}
