//! Mounts by way of the daemon, as the commands make them. Needs root and `/dev/fuse`.
//!
//! The program that [`mount_daemon`] runs again is this one, hence a main function instead of the test harness.

mod copies;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use pond_mount::{
    MountError, MountOptions, Ready, Request, client, mount_daemon, mount_foreground, mounts_of, unmount,
};
use pond_oplog::{At, Version};

/// A directory with a pond and a mountpoint, and nothing mounted once this value is gone.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { directory: tempfile::Builder::new().prefix("pond-daemon-test-").tempdir().unwrap() }
    }

    fn pond(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join("pond")
    }

    fn mountpoint(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join("mnt")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.mountpoint().join(name)
    }

    fn mount(&self, options: &str) -> Result<Ready, MountError> {
        mount_daemon(&serve(&self.pond(), &self.mountpoint(), options), |_| {})
    }

    fn unmount(&self) {
        unmount(&self.mountpoint()).unwrap();
        assert!(mounts_of(&self.pond()).unwrap().is_empty());
    }

    fn call(&self, request: &Request) -> Result<serde_json::Value, MountError> {
        client::connect(&self.pond()).unwrap().expect("a daemon").call(request)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for mount in mounts_of(&self.pond()).unwrap_or_default() {
            // Also after a failed assertion, with files open and the daemon in any state.
            let detached = Command::new("umount").arg("-l").arg(&mount.mountpoint).status();
            assert!(detached.is_ok_and(|status| status.success()) || std::thread::panicking());
        }
    }
}

/// The arguments that make this program serve a mount.
fn serve(pond: &Path, mountpoint: &Path, options: &str) -> Vec<OsString> {
    vec!["serve".into(), pond.into(), mountpoint.into(), options.into()]
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a system call without pointers.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0, "{}", io::Error::last_os_error());
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    // A host that discards what other tests removed keeps syncs waiting.
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn what_was_written_is_there_after_a_remount() {
    let place = Place::new();
    let ready = place.mount("").unwrap();
    assert!(ready.made && !ready.read_only && ready.version == 0);
    fs::write(place.file("file"), "content").unwrap();
    let report = unmount(&place.mountpoint()).unwrap();
    assert!(report.version >= Some(1) && !report.was_dead);
    assert!(!is_running(ready.pid));
    assert!(!place.file("file").exists());
    let again = place.mount("").unwrap();
    assert!(!again.made && Some(again.version) == report.version);
    assert_eq!(fs::read_to_string(place.file("file")).unwrap(), "content");
    let position = fs::read_to_string(place.file(".pond/position")).unwrap();
    assert!(position.starts_with(&format!("{}/", again.version)) && position.len() > 64);
    assert_eq!(fs::read_to_string(place.file(".pond/lag")).unwrap(), "0\n");
    place.unmount();
}

fn a_plain_umount_commits_everything_and_the_next_mount_waits_for_it() {
    let place = Place::new();
    place.mount("commit=3600").unwrap();
    for n in 0..20 {
        fs::write(place.file("file"), format!("{n}")).unwrap();
        assert!(Command::new("umount").arg(place.mountpoint()).status().unwrap().success());
        place.mount("commit=3600").unwrap();
        assert_eq!(fs::read_to_string(place.file("file")).unwrap(), format!("{n}"));
    }
    place.unmount();
}

fn errors_of_the_daemon_reach_whoever_started_it() {
    let place = Place::new();
    fs::write(place.pond(), "no pond").unwrap();
    assert!(
        matches!(place.mount(""), Err(MountError::Daemon { message, .. }) if message.contains("is not a pond"))
    );
    assert!(!place.mountpoint().exists());
    fs::remove_file(place.pond()).unwrap();
    assert!(
        matches!(place.mount("ro"), Err(MountError::Daemon { message, .. }) if message.contains("no pond at"))
    );
    let dies = mount_daemon(&["die".into()], |_| {});
    assert!(matches!(dies, Err(MountError::DaemonDied { output, .. }) if output.contains("last words")));
    place.mount("").unwrap();
    assert!(
        matches!(place.mount(""), Err(MountError::Daemon { message, .. }) if message.contains("already"))
    );
    let other = place.directory.path().join("other");
    let second = mount_daemon(&serve(&place.pond(), &other, ""), |_| {});
    assert!(matches!(second, Err(MountError::Daemon { message, .. }) if message.contains("in use by pid")));
    assert!(!other.exists());
    place.unmount();
}

fn a_busy_unmount_names_who_is_busy() {
    let place = Place::new();
    place.mount("").unwrap();
    let mut sleeper: Child =
        Command::new("sleep").arg("60").current_dir(place.mountpoint()).stdin(Stdio::null()).spawn().unwrap();
    let refused = unmount(&place.mountpoint());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let Err(MountError::Busy { users, .. }) = refused else { panic!("{refused:?}") };
    assert!(users.iter().any(|user| user.pid == sleeper.id() && user.command == "sleep"), "{users:?}");
    fs::write(place.file("still"), "there").unwrap();
    place.unmount();
}

fn a_dead_mount_is_detached_and_what_was_synced_is_there() {
    let place = Place::new();
    let ready = place.mount("commit=3600").unwrap();
    fs::write(place.file("file"), "content").unwrap();
    File::open(place.file("file")).unwrap().sync_all().unwrap();
    signal(ready.pid, libc::SIGKILL);
    wait_until("the mount is dead", || {
        place.mountpoint().metadata().is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
    });
    let again = place.mount("").unwrap();
    assert_eq!(fs::read_to_string(place.file("file")).unwrap(), "content");
    signal(again.pid, libc::SIGKILL);
    wait_until("the daemon is dead", || !is_running(again.pid));
    assert!(unmount(&place.mountpoint()).unwrap().was_dead);
    assert!(matches!(unmount(&place.mountpoint()), Err(MountError::NotMounted(_))));
}

fn a_signal_ends_the_mount_with_everything_committed() {
    let place = Place::new();
    for number in [libc::SIGTERM, libc::SIGINT] {
        let ready = place.mount("commit=3600").unwrap();
        fs::write(place.file("file"), format!("{number}")).unwrap();
        signal(ready.pid, number);
        wait_until("the daemon ends", || !is_running(ready.pid));
        assert!(mounts_of(&place.pond()).unwrap().is_empty());
    }
    let ready = place.mount("commit=3600").unwrap();
    assert_eq!(fs::read_to_string(place.file("file")).unwrap(), format!("{}", libc::SIGINT));
    // Also while somebody has a file open.
    let open = File::create_new(place.file("open")).unwrap();
    signal(ready.pid, libc::SIGTERM);
    wait_until("the daemon ends", || !is_running(ready.pid));
    assert!(mounts_of(&place.pond()).unwrap().is_empty());
    assert!(open.sync_all().is_err());
    place.mount("").unwrap();
    assert!(place.file("open").exists());
    place.unmount();
}

fn commands_reach_the_daemon_and_the_mount_shows_what_they_did() {
    let place = Place::new();
    let ready = place.mount("").unwrap();
    assert!(place.pond().join("socket").symlink_metadata().unwrap().file_type().is_socket());
    assert_eq!(place.pond().join("socket").symlink_metadata().unwrap().mode() & 0o777, 0o600);
    let status = place.call(&Request::Status).unwrap();
    assert_eq!(status["mountpoint"], place.mountpoint().to_str().unwrap());
    assert_eq!(status["pid"], ready.pid);
    assert_eq!(status["log_path"], ready.log.unwrap().to_str().unwrap());

    // The kernel has both the listing and the absence in its caches.
    assert_eq!(fs::read_dir(place.mountpoint()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(place.mountpoint()).unwrap().count(), 0);
    assert!(!place.file("etc/system.d/10-log").exists());
    let told = place.directory.path().join("told");
    let mknod = Request::Mknod {
        factory: "exec-log".into(),
        path: "/etc/system.d/10-log".into(),
        configuration: format!("path: {}\n", told.display()).into_bytes(),
    };
    place.call(&mknod).unwrap();
    assert_eq!(fs::read_dir(place.mountpoint()).unwrap().count(), 1);
    assert!(fs::read_to_string(place.file("etc/system.d/10-log")).unwrap().starts_with("path: "));
    assert!(matches!(place.call(&mknod), Err(MountError::Request(_))));

    fs::write(place.file("file"), "x").unwrap();
    place.call(&Request::Sync).unwrap();
    assert!(fs::read_to_string(&told).unwrap().lines().count() >= 2);
    let factories = place.call(&Request::Factories).unwrap();
    assert_eq!(factories[0]["name"], "exec-log");
    place.call(&Request::ControlGet { key: None }).unwrap();
    place.unmount();
    assert!(client::connect(&place.pond()).unwrap().is_none());
}

fn an_old_version_is_shown_beside_the_writing_mount() {
    let place = Place::new();
    place.mount("").unwrap();
    fs::write(place.file("file"), "old").unwrap();
    let version = place.call(&Request::Commit).unwrap()["version"].as_u64().unwrap();
    fs::write(place.file("file"), "new").unwrap();
    place.call(&Request::Commit).unwrap();
    let old = place.directory.path().canonicalize().unwrap().join("old");
    let ready = mount_daemon(&serve(&place.pond(), &old, &format!("version={version}")), |_| {}).unwrap();
    assert!(ready.read_only && ready.version == version);
    assert_eq!(fs::read_to_string(old.join("file")).unwrap(), "old");
    assert_eq!(fs::read_to_string(place.file("file")).unwrap(), "new");
    assert_eq!(fs::write(old.join("file"), "x").unwrap_err().raw_os_error(), Some(libc::EROFS));
    unmount(&old).unwrap();
    assert!(!is_running(ready.pid));
    assert_eq!(fs::read_to_string(place.file("file")).unwrap(), "new");
    place.unmount();
}

fn a_replica_follows_its_source_by_itself() {
    let place = Place::new();
    place.mount("").unwrap();
    fs::write(place.file("file"), "first").unwrap();
    place.call(&Request::Commit).unwrap();
    let replica = Place::new();
    copies::replicate(&place.pond(), &replica.pond());
    for options in ["", "follow", "ro"] {
        let ready = replica.mount(options).unwrap();
        assert!(ready.read_only && !ready.made);
        let position = || fs::read_to_string(replica.file(".pond/position")).unwrap();
        let before = position();
        let open = File::open(replica.file("file")).unwrap();
        let old = fs::read_to_string(replica.file("file")).unwrap();
        assert!(!replica.file(&format!("new {options}")).exists());

        fs::write(place.file("file"), format!("changed by {options:?}")).unwrap();
        fs::write(place.file(&format!("new {options}")), "x").unwrap();
        let version = place.call(&Request::Commit).unwrap()["version"].as_u64().unwrap();
        if options == "ro" {
            // One version for good: no lock, no socket, nothing is followed.
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(position(), before);
            assert!(client::connect(&replica.pond()).unwrap().is_none());
        } else {
            wait_until("the replica follows", || position().starts_with(&format!("{version}/")));
            // Whoever has read the position sees at least that version.
            assert_eq!(fs::read_to_string(replica.file("file")).unwrap(), format!("changed by {options:?}"));
            assert!(replica.file(&format!("new {options}")).exists());
            assert_eq!(fs::read_to_string(replica.file(".pond/lag")).unwrap(), "0\n");
            assert_eq!(replica.call(&Request::Status).unwrap()["follows"], true);
            // There is one follower at a time.
            let elsewhere = replica.directory.path().join("elsewhere");
            assert!(mount_daemon(&serve(&replica.pond(), &elsewhere, ""), |_| {}).is_err());
        }
        assert_eq!(std::os::unix::fs::FileExt::read_at(&open, &mut [0; 100], 0).unwrap(), old.len());
        assert_eq!(fs::write(replica.file("file"), "x").unwrap_err().raw_os_error(), Some(libc::EROFS));
        drop(open);
        replica.unmount();
        assert!(!is_running(ready.pid));
    }
    place.unmount();
}

fn only_a_replica_can_follow() {
    let place = Place::new();
    let refused = |message: &str| message.contains("there is nothing to follow");
    assert!(matches!(place.mount("follow"), Err(MountError::Daemon { message, .. }) if refused(&message)));
    assert!(!place.pond().exists());
    place.mount("").unwrap();
    place.unmount();
    assert!(matches!(place.mount("follow"), Err(MountError::Daemon { message, .. }) if refused(&message)));
    // The lock was given up.
    place.mount("").unwrap();
    place.unmount();
}

fn run_as_daemon(arguments: &[String]) -> ExitCode {
    let mut options = MountOptions::default();
    match arguments[3].strip_prefix("version=") {
        Some(version) => options.at = Some(At::Version(Version(version.parse().unwrap()))),
        None if arguments[3] == "follow" => options.follow = true,
        None => options.apply(&arguments[3]).unwrap(),
    }
    let (pond, mountpoint) = (Path::new(&arguments[1]), Path::new(&arguments[2]));
    match mount_foreground(pond, mountpoint, &options, copies::registry(), |_| {}, |_| {}) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => return run_as_daemon(&arguments),
        Some("die") => {
            eprintln!("last words");
            return ExitCode::FAILURE;
        }
        _ => {}
    }
    // Also where the tests were started with it ignored, as by `nohup`: a test sends it.
    // SAFETY: the default action needs no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    // SAFETY: geteuid cannot fail.
    if unsafe { libc::geteuid() } != 0 || File::open("/dev/fuse").is_err() {
        eprintln!("mounting is tested as root and with /dev/fuse");
        return ExitCode::FAILURE;
    }
    let tests: [(&str, fn()); 10] = [
        ("what_was_written_is_there_after_a_remount", what_was_written_is_there_after_a_remount),
        (
            "a_plain_umount_commits_everything_and_the_next_mount_waits_for_it",
            a_plain_umount_commits_everything_and_the_next_mount_waits_for_it,
        ),
        ("errors_of_the_daemon_reach_whoever_started_it", errors_of_the_daemon_reach_whoever_started_it),
        ("a_busy_unmount_names_who_is_busy", a_busy_unmount_names_who_is_busy),
        (
            "a_dead_mount_is_detached_and_what_was_synced_is_there",
            a_dead_mount_is_detached_and_what_was_synced_is_there,
        ),
        (
            "a_signal_ends_the_mount_with_everything_committed",
            a_signal_ends_the_mount_with_everything_committed,
        ),
        (
            "commands_reach_the_daemon_and_the_mount_shows_what_they_did",
            commands_reach_the_daemon_and_the_mount_shows_what_they_did,
        ),
        (
            "an_old_version_is_shown_beside_the_writing_mount",
            an_old_version_is_shown_beside_the_writing_mount,
        ),
        ("a_replica_follows_its_source_by_itself", a_replica_follows_its_source_by_itself),
        ("only_a_replica_can_follow", only_a_replica_can_follow),
    ];
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let mut failed = 0;
    for (name, test) in tests {
        if wanted.is_none_or(|wanted| name.contains(wanted.as_str())) {
            let passed = std::panic::catch_unwind(test).is_ok();
            println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
            failed += u32::from(!passed);
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
