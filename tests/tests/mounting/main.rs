//! Mounting and unmounting, in all the ways that people and machines do it.

mod ends;
mod options;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pond_tests::tree::{self, Also};
use pond_tests::{TestPond, pond_binary, run, succeed, unmount, wait_until};
use serde_json::Value;

/// The line of a mount in /proc/self/mounts: type and options.
fn mounted_as(mountpoint: &Path) -> Option<(String, Vec<String>)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.rfind(|line| line[1] == mountpoint.to_str().unwrap())?;
    Some((line[2].to_owned(), line[3].split(',').map(str::to_owned).collect()))
}

#[test]
fn what_was_written_is_there_after_the_next_mount() {
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "content").unwrap();
    let before = tree::look_at(pond.mountpoint());
    pond.umount();
    assert!(mounted_as(pond.mountpoint()).is_none());
    assert!(pond.mountpoint().exists(), "the mountpoint that was made stays");
    pond.mount();
    tree::assert_same("after the remount", &before, &tree::look_at(pond.mountpoint()), Also::ALL);
    assert_eq!(fs::metadata(pond.directory()).unwrap().mode() & 0o777, 0o700);
    pond.umount();
}

#[test]
fn mount_returns_and_lets_go_of_its_output() {
    let pond = TestPond::new();
    let mut command = pond.command();
    let mount = command.arg("mount").arg(pond.mountpoint()).stdin(Stdio::null());
    let mut child = mount.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The end of both pipes comes only once nobody, the daemon included, holds them.
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    wait_until("`pond mount` closes its output", Duration::from_secs(60), || {
        reader.is_finished().then_some(())
    });
    assert!(child.wait().unwrap().success(), "{}", reader.join().unwrap());
    assert_eq!(fs::read_dir(pond.mountpoint()).unwrap().count(), 0);
    // It runs in a session of its own, with its working directory out of anybody's way.
    let daemon = pond.daemon();
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap(), Path::new("/"));
    pond.umount();
}

#[test]
fn a_read_only_mount_changes_nothing_in_the_pond() {
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "content").unwrap();
    pond.umount();
    let before = tree::look_at(&pond.directory().join("data"));
    pond.mount_with(&["--read-only"]);
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "content");
    pond.umount();
    tree::assert_same("the table", &before, &tree::look_at(&pond.directory().join("data")), Also::ALL);
}

#[test]
fn a_pond_is_never_mounted_over_itself_also_where_neither_exists_yet() {
    let pond = TestPond::new();
    let real = pond.host_directory("real");
    std::os::unix::fs::symlink(&real, pond.host("link")).unwrap();
    std::os::unix::fs::symlink(pond.host("nowhere"), pond.host("dangling")).unwrap();
    for (directory, mountpoint) in [
        ("x", "x"),
        ("x/deep/pond", "x"),
        ("link/x", "real/x"),
        ("real/x/pond", "link/x"),
        ("absent/../x", "x"),
        ("real/absent/../../x/y", "x"),
        ("link/x/../x/y", "real/x"),
        ("x/", "./x"),
        ("dangling", "nowhere"),
        ("dangling/pond", "nowhere"),
    ] {
        let mut command = pond.marked(pond_binary());
        command.current_dir(real.parent().unwrap());
        let told = run(command.args(["--pond", directory, "mount", mountpoint])).failure(1);
        assert!(told.contains("within each other") || told.contains("leads nowhere"), "{told}");
        assert!(!pond.host("x").exists() && !pond.host("nowhere").exists() && !pond.host("absent").exists());
        assert_eq!(fs::read_dir(&real).unwrap().count(), 0, "{directory} {mountpoint}");
    }
    // Beside each other they may be made both at once.
    let mut command = pond.marked(pond_binary());
    command.current_dir(real.parent().unwrap());
    succeed(command.args(["--pond", "real/absent/../pond", "mount", "link/mnt"]));
    assert!(real.join("pond/data").exists() && !real.join("absent").exists());
    pond.umount_at(&real.join("mnt"));
}

#[test]
fn a_command_in_a_mount_works_on_the_pond_mounted_there_unless_another_is_named() {
    let (here, default) = (TestPond::new(), TestPond::new());
    here.mount();
    let home = default.host_directory("home");
    let default_pond = home.join("pond");
    succeed(default.marked(pond_binary()).arg("--pond").arg(&default_pond).arg("init"));
    let asked = |place: &Path, name: Option<&Path>, variable: Option<&Path>| {
        let mut command = here.marked(pond_binary());
        command.current_dir(place).env("XDG_DATA_HOME", &home);
        command.envs(variable.map(|pond| ("POND", pond)));
        command.args(name.iter().flat_map(|pond| ["--pond".as_ref(), pond.as_os_str()]));
        let told = succeed(command.args(["--json", "status"]));
        let status: Value = serde_json::from_str(&told).unwrap();
        status["path"].as_str().unwrap().to_owned()
    };
    let path = |pond: &Path| pond.to_str().unwrap().to_owned();
    let below = here.path("a/b");
    fs::create_dir_all(&below).unwrap();
    let bound = here.host_directory("bound");
    succeed(here.marked("mount").arg("--bind").arg(here.path("a")).arg(&bound));
    for place in [here.mountpoint(), &below, &bound.join("b")] {
        assert_eq!(asked(place, None, None), path(here.directory()));
        assert_eq!(asked(place, None, Some(&default_pond)), path(&default_pond));
        assert_eq!(asked(place, Some(&default_pond), Some(here.directory())), path(&default_pond));
    }
    assert_eq!(asked(&home, None, None), path(&default_pond));
    unmount(here.marked("umount").arg(&bound));
    here.umount();
    assert_eq!(
        asked(here.mountpoint(), None, None),
        path(&default_pond),
        "nothing is mounted there any more"
    );
}

#[test]
fn what_a_mount_hides_is_warned_of() {
    let pond = TestPond::new();
    fs::create_dir_all(pond.mountpoint().join("notes")).unwrap();
    let mountpoint = pond.mountpoint().to_str().unwrap();
    let said = run(pond.command().args(["--json", "mount", mountpoint]));
    assert!(said.stderr.contains("is not empty: what is in it (notes) is hidden until"), "{said}");
    let facts: Value = serde_json::from_str(&said.success()).unwrap();
    assert!(facts["notes"][0].as_str().unwrap().contains("is not empty"), "{facts}");
    pond.umount();
    let said = pond.try_pond(["mount", "-o", "nonempty", mountpoint]);
    assert_eq!(said.stderr, "");
    said.success();
    pond.umount();
    fs::remove_dir(pond.mountpoint().join("notes")).unwrap();
    assert_eq!(pond.try_pond(["mount", mountpoint]).stderr, "");
    pond.umount();
}

/// What a shell has open when it mounts another pond, and where it stands, is not the daemons'.
#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    let pond = TestPond::new();
    // A place of the user's own, a program that the user may run, and a /dev/fuse that the user may open, the
    // last in a mount namespace of this script's.
    let home = pond.host_directory("home");
    pond.pond(["init"]);
    let program = pond.host("pond-program");
    fs::copy(pond_binary(), &program).unwrap();
    succeed(Command::new("chown").arg("nobody").arg(&home));
    let script = r#"
        mknod -m 666 "$HOME_OF_USER.fuse" c 10 229
        mount --bind "$HOME_OF_USER.fuse" /dev/fuse
        echo user_allow_other > "$HOME_OF_USER.conf"
        touch /etc/fuse.conf
        mount --bind "$HOME_OF_USER.conf" /etc/fuse.conf
        exec setpriv --reuid nobody --regid nogroup --clear-groups sh -e -u -x -c '
            refused() { if "$@"; then echo "not refused: $*"; exit 9; fi; }
            cd "$HOME_OF_USER"
            export POND=$HOME_OF_USER/pond
            "$PROGRAM" mount mnt
            grep -q "$HOME_OF_USER/mnt fuse.pond.*nosuid,nodev" /proc/self/mounts
            echo content > mnt/file
            test "$(stat -c %U mnt/file)" = nobody
            refused chown root mnt/file
            "$PROGRAM" sync
            "$PROGRAM" umount mnt
            refused grep -q "$HOME_OF_USER" /proc/self/mounts
            refused "$PROGRAM" --pond "$PONDS_OF_ROOT" status 2> said
            grep -q "is another user" said
            "$PROGRAM" mount mnt -o allow_other
            test "$(cat mnt/file)" = content
            pid=$(sed -n "s/.*\"pid\": *\([0-9]*\).*/\1/p" mnt/.pond/status.json)
            kill -9 $pid
            while grep -qs "State:.[RSD]" /proc/$pid/status; do sleep 0.05; done
            sleep 0.2
            "$PROGRAM" mount mnt
            test "$(cat mnt/file)" = content
            "$PROGRAM" umount mnt
        '"#;
    let mut command = pond.in_namespace(script);
    command.env("HOME_OF_USER", &home).env("PROGRAM", &program).env("PONDS_OF_ROOT", pond.directory());
    let finished = run(&mut command);
    println!("{finished}");
    finished.success();
}

#[test]
fn the_virtual_files_tell_position_lag_and_status() {
    let pond = TestPond::mounted_with(&["-o", "commit=0.1"]);
    let names = |path: &Path| fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert!(names(pond.mountpoint()).is_empty(), ".pond is listed");
    let virtual_directory = pond.path(".pond");
    for own in ["status.json", "log"] {
        assert_eq!(
            fs::metadata(virtual_directory.join(own)).unwrap().mode() & 0o077,
            0,
            "others may read {own}"
        );
    }
    for name in ["position", "lag", "status.json", "log"] {
        assert!(names(&virtual_directory).iter().any(|found| found == name), "{name}");
    }
    assert_eq!(fs::read_to_string(pond.path(".pond/lag")).unwrap(), "0\n");
    let (first, _) = pond.position().unwrap();
    for number in 1..=5 {
        fs::write(pond.path("file"), number.to_string()).unwrap();
        let what = format!("version {} is shown", first + number);
        wait_until(&what, Duration::from_secs(20), || (pond.version() >= first + number).then_some(()));
    }
    pond.sync();
    let (version, digest) = pond.position().unwrap();
    let entry = pond.directory().join(format!("data/_delta_log/{version:020}.json"));
    assert_eq!(tree::digest(&entry).unwrap(), digest, "the digest is that of the log entry");
    assert!(!pond.directory().join(format!("data/_delta_log/{:020}.json", version + 1)).exists());
    let status: Value = serde_json::from_slice(&fs::read(pond.path(".pond/status.json")).unwrap()).unwrap();
    assert_eq!(status["version"].as_u64(), Some(version));
    assert_eq!(status["digest"].as_str(), Some(&*digest));
    assert_eq!(pond.status()["pond_id"], status["pond_id"]);
    // The name belongs to pond.
    let errno = |result: std::io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    assert!(errno(fs::remove_dir(&virtual_directory)).is_some());
    assert!(errno(fs::write(pond.path(".pond/position"), "1/x")).is_some());
    assert!(errno(fs::rename(pond.path("file"), pond.path(".pond"))).is_some());
    assert!(errno(fs::write(pond.path(".pond/new"), "")).is_some());
    pond.umount();
}

#[test]
fn a_mount_of_a_version_or_of_a_time_shows_the_tree_as_it_was_and_takes_no_writes() {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    let mut states = Vec::new();
    for round in 0..4 {
        fs::write(pond.path("file"), format!("round {round}")).unwrap();
        fs::write(pond.path(format!("only-{round}")), "").unwrap();
        if round > 0 {
            fs::remove_file(pond.path(format!("only-{}", round - 1))).unwrap();
        }
        pond.sync();
        std::thread::sleep(Duration::from_millis(20));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = format!("@{}.{:06}", now.as_secs(), now.subsec_micros());
        states.push((pond.version(), now, tree::look_at(pond.mountpoint())));
        std::thread::sleep(Duration::from_millis(20));
    }
    let compare = |(version, time, expected): &(u64, String, tree::Tree)| {
        for (number, arguments) in
            [["--version", &version.to_string()], ["--timestamp", time]].iter().enumerate()
        {
            let mountpoint = pond.mount_beside(&format!("{version}-{number}"), arguments);
            tree::assert_same(&arguments.join(" "), expected, &tree::look_at(&mountpoint), Also::ALL);
            let position = fs::read_to_string(mountpoint.join(".pond/position")).unwrap();
            assert!(position.starts_with(&format!("{version}/")), "{position}");
            let error = fs::write(mountpoint.join("new"), "").expect_err("the past takes writes");
            assert_eq!(error.raw_os_error(), Some(libc::EROFS));
            pond.umount_at(&mountpoint);
        }
    };
    // While the pond is mounted for writing, and when it is not.
    compare(&states[1]);
    pond.umount();
    states.iter().for_each(compare);
}

#[test]
fn commits_come_about_once_a_second_and_none_when_nothing_changes() {
    let pond = TestPond::mounted();
    let first = pond.version();
    let started = std::time::Instant::now();
    let mut number = 0;
    while started.elapsed() < Duration::from_secs(6) {
        number += 1;
        fs::write(pond.path("file"), number.to_string()).unwrap();
    }
    pond.sync();
    let (made, took) = (pond.version() - first, started.elapsed());
    // On a busy machine a commit that nobody waits for gives way for up to three intervals more.
    assert!((2..=took.as_secs() + 3).contains(&made), "{made} versions in {took:?} of writing");
    let quiet = pond.version();
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(pond.version(), quiet, "versions are made of nothing");
    fs::read(pond.path("file")).unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(pond.version(), quiet, "reading makes versions");
    pond.umount();
}
