//! A pond of a test's own, with its mountpoint: made in a directory of its own and cleaned away with it.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::binary::pond_binary;
use crate::command::{Finished, heed_interrupts, run, unmount, wait_for};
use crate::processes::{self, MARK};
use crate::tools::need_root;
use crate::tree::c_path;
use crate::wait::wait_until;

/// How long a test may use its pond before its daemons are killed, which ends whatever hangs in the mount.
const PATIENCE: Duration = Duration::from_secs(900);

/// A pond, and a place to mount it.
pub struct TestPond {
    base: tempfile::TempDir,
    directory: PathBuf,
    mountpoint: PathBuf,
    environment: Vec<(String, String)>,
    watchdog: Option<Sender<()>>,
}

impl TestPond {
    /// Names for a pond and a mountpoint, neither of which exists yet.
    pub fn new() -> Self {
        Self::with_patience(PATIENCE)
    }

    /// For what takes long.
    pub fn with_patience(patience: Duration) -> Self {
        need_root();
        let base = tempfile::Builder::new().prefix("pond-test-").tempdir().expect("a temporary directory");
        // Other users, such as postgres, must get to the mountpoint.
        fs::set_permissions(base.path(), Permissions::from_mode(0o755)).expect("chmod of our own directory");
        let (directory, mountpoint) = (base.path().join("pond"), base.path().join("mnt"));
        let watchdog = Some(watch(base.path().to_owned(), patience));
        TestPond { base, directory, mountpoint, environment: Vec::new(), watchdog }
    }

    /// A pond that is mounted.
    pub fn mounted() -> Self {
        let pond = Self::new();
        pond.mount();
        pond
    }

    /// A pond that is mounted with these options.
    pub fn mounted_with(arguments: &[&str]) -> Self {
        let pond = Self::new();
        pond.mount_with(arguments);
        pond
    }

    /// Puts the pond's directory elsewhere (on a small disk); the mountpoint stays.
    pub fn in_directory(directory: PathBuf) -> Self {
        let mut pond = Self::new();
        pond.put_in(directory);
        pond
    }

    /// The same for a pond that nobody has made yet.
    pub fn put_in(&mut self, directory: PathBuf) {
        self.directory = directory;
    }

    /// Sets a variable in the environment of all its programs from now on, its daemon among them.
    pub fn set_environment(&mut self, variables: &[(&str, &str)]) {
        self.environment.extend(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// `$POND`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// A path in the mount.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mountpoint.join(name)
    }

    /// A path outside the pond that is cleaned away with it.
    pub fn host(&self, name: impl AsRef<Path>) -> PathBuf {
        self.base.path().join(name)
    }

    /// A directory outside the pond, made now.
    pub fn host_directory(&self, name: &str) -> PathBuf {
        let path = self.host(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// `pond --pond DIRECTORY`, to be given arguments.
    pub fn command(&self) -> Command {
        let mut command = self.marked(pond_binary());
        command.arg("--pond").arg(&self.directory);
        command
    }

    /// Any program, marked as this test's.
    pub fn marked(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        heed_interrupts(&mut command);
        command.env(MARK, self.base.path()).env_remove("POND").env("RUST_BACKTRACE", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A shell script in a mount namespace of its own, where no pond is mounted but this one: a copy of another test's mount would
    /// keep that test's daemon alive.
    pub fn in_namespace(&self, script: &str) -> Command {
        let others = r#"mounts=$(cat /proc/self/mounts)
            echo "$mounts" | while read -r _ at type _; do
                case "$type" in fuse.pond | fuse.pond-scratch) test "$at" = "$KEPT" || umount -l "$at" ;; esac
            done
            "#;
        let mut command = self.marked("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-e", "-u", "-c"]);
        command.arg(format!("{others}{script}")).env("KEPT", self.mountpoint());
        command
    }

    /// Runs `pond` with these arguments, however it ends.
    #[track_caller]
    pub fn try_pond<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Finished {
        run(self.command().args(arguments))
    }

    /// Runs `pond` with these arguments, which must succeed; its standard output.
    #[track_caller]
    pub fn pond<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        self.try_pond(arguments).success()
    }

    /// Runs `pond --json` with these arguments, which must succeed; the objects it printed.
    #[track_caller]
    pub fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Vec<Value> {
        let text = run(self.command().arg("--json").args(arguments)).success();
        let values = serde_json::Deserializer::from_str(&text).into_iter();
        values.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("not JSON ({error}):\n{text}"))
    }

    /// Mounts.
    #[track_caller]
    pub fn mount(&self) {
        self.mount_with(&[]);
    }

    /// Mounts with further arguments.
    #[track_caller]
    pub fn mount_with(&self, arguments: &[&str]) {
        self.try_mount_at(&self.mountpoint, arguments).success();
    }

    /// Tries to mount somewhere.
    #[track_caller]
    pub fn try_mount_at(&self, mountpoint: &Path, arguments: &[&str]) -> Finished {
        run(self.command().arg("mount").arg(mountpoint).args(arguments))
    }

    /// Mounts another view (of a version, say) on a directory of this name beside the mountpoint.
    #[track_caller]
    pub fn mount_beside(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let mountpoint = self.host(name);
        self.try_mount_at(&mountpoint, arguments).success();
        mountpoint
    }

    /// Unmounts; everything is committed.
    #[track_caller]
    pub fn umount(&self) {
        self.umount_at(&self.mountpoint);
    }

    /// Unmounts what is mounted somewhere.
    #[track_caller]
    pub fn umount_at(&self, mountpoint: &Path) {
        unmount(self.command().arg("umount").arg(mountpoint));
    }

    /// Unmounts and mounts at once.
    #[track_caller]
    pub fn remount(&self) {
        self.umount();
        self.mount();
    }

    /// The daemon's process id.
    #[track_caller]
    pub fn daemon(&self) -> i32 {
        let path = self.path(".pond/status.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let status: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let pid = status["pid"].as_i64().unwrap_or_else(|| panic!("no pid in {text}"));
        i32::try_from(pid).expect("a process id")
    }

    /// SIGKILL to the daemon; the dead mount stays.
    #[track_caller]
    pub fn kill(&self) {
        processes::kill_and_wait(self.daemon());
    }

    /// Mounts in the foreground and waits until it can be used.
    #[track_caller]
    pub fn mount_in_foreground(&self, arguments: &[&str]) -> Foreground {
        let mut command = self.command();
        command.arg("mount").arg(&self.mountpoint).arg("--foreground").args(arguments);
        let messages = self.host("foreground");
        let stderr = fs::File::create(&messages).expect("a file for its messages");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        let mut mounted = Foreground { child: child.expect("pond can be run"), messages };
        wait_until("the mount in the foreground is ready", Duration::from_secs(60), || {
            if let Some(status) = mounted.child.try_wait().expect("our child") {
                panic!("pond mount --foreground ended with {status}: {}", mounted.messages());
            }
            self.position().map(drop)
        });
        mounted
    }

    /// Version and digest in `.pond/position`; `None` while nothing is mounted.
    pub fn position(&self) -> Option<(u64, String)> {
        let text = fs::read_to_string(self.path(".pond/position")).ok()?;
        let (version, digest) = text.strip_suffix('\n').unwrap_or(&text).split_once('/')?;
        Some((version.parse().ok()?, digest.to_owned()))
    }

    /// The version that the mount shows.
    #[track_caller]
    pub fn version(&self) -> u64 {
        self.position().expect("the pond is mounted and tells its position").0
    }

    /// `pond sync`.
    #[track_caller]
    pub fn sync(&self) {
        self.pond(["sync"]);
    }

    /// `pond status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.json(["status"]).pop().expect("status prints an object")
    }

    /// Every process that carries this test's mark.
    pub fn processes(&self) -> Vec<i32> {
        processes::marked(self.base.path())
    }

    /// The end of the daemon's log.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Mountpoints below this test's directory, the innermost first.
    fn mounts(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(self.base.path())).collect();
        points.sort();
        points.reverse();
        points
    }
}

impl Default for TestPond {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestPond {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}/log\n{}", self.directory.display(), self.log());
        }
        let wanted = thread::panicking() && std::env::var_os("POND_TEST_KEEP").is_some();
        self.watchdog = None;
        for pid in processes::marked(self.base.path()) {
            processes::signal(pid, libc::SIGKILL);
        }
        for mountpoint in self.mounts() {
            // SAFETY: the path is NUL-terminated.
            if unsafe { libc::umount2(c_path(&mountpoint).as_ptr(), libc::MNT_DETACH) } != 0 {
                eprintln!("cannot detach {}: {}", mountpoint.display(), std::io::Error::last_os_error());
            }
        }
        if wanted || !self.mounts().is_empty() {
            self.base.disable_cleanup(true);
            eprintln!("kept {}", self.base.path().display());
        }
    }
}

/// Kills a test's daemons when it has taken too long: a system call that hangs in their mount then fails.
fn watch(base: PathBuf, patience: Duration) -> Sender<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        if receiver.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!(
                "a test with the pond in {} is not done after {patience:?}: its daemons are killed",
                base.display()
            );
            processes::marked(&base).into_iter().for_each(|pid| processes::signal(pid, libc::SIGKILL));
        }
    });
    sender
}

/// A mount in the foreground.
pub struct Foreground {
    child: Child,
    messages: PathBuf,
}

impl Foreground {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a signal and waits for the end, which must be a success.
    #[track_caller]
    pub fn end_by(mut self, signal: i32) {
        processes::signal(self.pid(), signal);
        let status = wait_for(&mut self.child, Duration::from_secs(60));
        let status =
            status.unwrap_or_else(|| panic!("pond mount --foreground did not end by signal {signal}"));
        assert!(status.success(), "ended with {status}: {}", self.messages());
    }

    /// What it wrote to standard error.
    pub fn messages(&self) -> String {
        fs::read_to_string(&self.messages).unwrap_or_default()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
