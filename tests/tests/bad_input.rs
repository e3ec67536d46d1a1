//! What cannot work is refused: with exit code 1, an error that names the thing, and nothing lost or left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pond_tests::tree::{self, Also};
use pond_tests::{Finished, TestPond, run, succeed};

/// Panics unless the command failed with an error in the promised form that mentions all of these; the error.
#[track_caller]
fn refused(finished: Finished, mentions: &[&str]) -> String {
    let told = finished.failure(1);
    println!("{told}");
    assert!(told.starts_with("pond: "), "{told}");
    for mention in mentions {
        assert!(told.contains(mention), "{mention:?} is not in: {told}");
    }
    assert!(!told.contains("panicked"), "{told}");
    told
}

/// Panics if anything is mounted there.
#[track_caller]
fn not_mounted(mountpoint: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let wanted = mountpoint.to_str().unwrap();
    assert!(
        !mounts.lines().any(|line| line.split(' ').nth(1) == Some(wanted)),
        "{wanted} is mounted:\n{mounts}"
    );
}

/// A pond with some history, unmounted: its versions each changed the same file.
fn pond_with_history() -> TestPond {
    // Each sync makes one version, and nothing else makes any.
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    for round in 0..4 {
        fs::write(pond.path("file"), format!("content {round}")).unwrap();
        fs::write(pond.path(format!("file-{round}")), vec![round; 100_000]).unwrap();
        pond.sync();
    }
    pond.umount();
    pond
}

/// A log entry that was changed, with the digest that it must carry then.
fn resealed(entry: &str) -> String {
    const MEMBER: &str = "\"digest\":\"";
    let at = entry.find(MEMBER).unwrap() + MEMBER.len();
    let with = |digest: &str| [&entry[..at], digest, &entry[at + 64..]].concat();
    with(blake3::hash(with(&"0".repeat(64)).as_bytes()).to_hex().as_str())
}

/// Log entries of the table, ascending.
fn log_entries(pond: &TestPond) -> Vec<PathBuf> {
    let names = fs::read_dir(pond.directory().join("data/_delta_log")).unwrap();
    let mut paths: Vec<PathBuf> = names.map(|name| name.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths
}

/// A damaged pond must be refused by whatever would use it, and mended by putting the bytes back.
fn damaged(pond: &TestPond, path: &Path, damage: impl Fn(&mut Vec<u8>), mentions: &[&str]) {
    let whole = fs::read(path).unwrap();
    let mut bytes = whole.clone();
    damage(&mut bytes);
    assert_ne!(bytes, whole, "the damage is none");
    fs::write(path, bytes).unwrap();
    let before = tree::look_at(&pond.directory().join("data"));
    refused(pond.try_mount_at(pond.mountpoint(), &[]), mentions);
    not_mounted(pond.mountpoint());
    refused(pond.try_pond(["list"]), mentions);
    let after = tree::look_at(&pond.directory().join("data"));
    tree::assert_same("the table before and after the refusal", &before, &after, Also::ALL);
    fs::write(path, whole).unwrap();
    pond.mount();
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "content 3");
    pond.umount();
}

#[test]
fn a_directory_that_is_no_pond_is_left_as_it_is() {
    let pond = TestPond::new();
    fs::create_dir(pond.directory()).unwrap();
    fs::write(pond.directory().join("precious"), "data").unwrap();
    let name = pond.directory().to_str().unwrap();
    let before = tree::look_at(pond.directory());
    refused(pond.try_mount_at(pond.mountpoint(), &[]), &[name, "not"]);
    refused(pond.try_pond(["init"]), &[name]);
    for command in ["status", "log", "sync", "list"] {
        refused(pond.try_pond([command]), &[name, "not a pond"]);
    }
    tree::assert_same("the directory", &before, &tree::look_at(pond.directory()), Also::ALL);
    not_mounted(pond.mountpoint());
}

#[test]
fn a_pond_that_does_not_exist_is_said_not_to() {
    let pond = TestPond::new();
    for command in ["status", "log", "sync", "list"] {
        refused(pond.try_pond([command]), &[pond.directory().to_str().unwrap()]);
    }
    assert!(!pond.directory().exists(), "looking made it");
}

#[test]
fn a_file_in_the_place_of_a_pond_is_refused() {
    let pond = TestPond::new();
    fs::write(pond.directory(), "a file").unwrap();
    refused(pond.try_mount_at(pond.mountpoint(), &[]), &[pond.directory().to_str().unwrap()]);
    assert_eq!(fs::read_to_string(pond.directory()).unwrap(), "a file");
}

#[test]
fn a_pond_of_a_newer_format_is_not_touched() {
    let pond = pond_with_history();
    let entry = &log_entries(&pond)[0];
    let raised = |name: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let old = text.split(&format!("\"{name}\":\"")).nth(1).expect(name).split('"').next().unwrap();
            let changed = text.replace(&format!("\"{name}\":\"{old}\""), &format!("\"{name}\":\"999\""));
            *bytes = resealed(&changed).into_bytes();
        }
    };
    damaged(&pond, entry, raised("pond.minReader"), &["999", "newer"]);
    // What may be read but not written must say so to those who write, and serve those who read.
    let whole = fs::read(entry).unwrap();
    let mut bytes = whole.clone();
    raised("pond.minWriter")(&mut bytes);
    fs::write(entry, bytes).unwrap();
    refused(pond.try_mount_at(pond.mountpoint(), &[]), &["999", "newer"]);
    not_mounted(pond.mountpoint());
    let old = pond.mount_beside("old", &["--version", "2"]);
    assert_eq!(fs::read_to_string(old.join("file")).unwrap(), "content 1");
    pond.umount_at(&old);
    fs::write(entry, whole).unwrap();
}

#[test]
fn a_corrupt_log_entry_is_named() {
    let pond = pond_with_history();
    let entries = log_entries(&pond);
    let entry = &entries[2];
    let name = entry.file_name().unwrap().to_str().unwrap();
    damaged(&pond, entry, |bytes| bytes.truncate(bytes.len() / 2), &[name, "corrupt"]);
    damaged(&pond, entry, Vec::clear, &[name]);
    damaged(&pond, entry, |bytes| bytes[3] = b'\xff', &[name]);
    let newest = entries.last().unwrap();
    let name = newest.file_name().unwrap().to_str().unwrap();
    damaged(&pond, newest, |bytes| bytes.truncate(bytes.len() - 20), &[name]);
}

#[test]
fn a_corrupt_or_missing_data_file_is_named() {
    let pond = pond_with_history();
    let data = pond.directory().join("data");
    let files = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    files.sort();
    let file = files.last().unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    damaged(&pond, file, |bytes| bytes.truncate(bytes.len() / 2), &[name]);
    let footer = |bytes: &mut Vec<u8>| {
        let end = bytes.len();
        bytes[end - 200..].fill(0);
    };
    damaged(&pond, file, footer, &[name]);
    let aside = pond.host("aside");
    fs::rename(file, &aside).unwrap();
    refused(pond.try_mount_at(pond.mountpoint(), &[]), &[name, "missing"]);
    fs::rename(&aside, file).unwrap();
}

#[test]
fn damaged_content_is_an_error_to_its_reader_and_to_nobody_else() {
    let pond = TestPond::mounted();
    // Much, so that it goes to content files, which no load reads.
    let content: Vec<u8> = pond_tests::Random::new(5).bytes(20 << 20);
    fs::write(pond.path("big"), &content).unwrap();
    fs::write(pond.path("small"), "unharmed").unwrap();
    pond.umount();
    let files = fs::read_dir(pond.directory().join("data")).unwrap().map(|entry| entry.unwrap().path());
    let largest = files.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    // Content for sure: between two row groups, and those of 20 MiB meet in the middle, lie columns that a load reads.
    let within = bytes.len() / 4;
    bytes[within..within + 1000].fill(0xaa);
    fs::write(&largest, bytes).unwrap();
    pond.mount();
    let read = fs::read(pond.path("big"));
    assert_eq!(read.expect_err("damaged bytes were handed out").raw_os_error(), Some(libc::EIO));
    assert_eq!(fs::read_to_string(pond.path("small")).unwrap(), "unharmed");
    fs::write(pond.path("new"), "goes on").unwrap();
    let name = largest.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(pond.log().contains(&name), "the log does not name {name}:\n{}", pond.log());
    // An error hidden by a pipe: cat must fail.
    refused(pond.try_pond(["cat", "/big"]), &["big"]);
    pond.umount();
}

#[test]
fn a_missing_fuse_device_is_told_before_anything_is_made() {
    let pond = TestPond::new();
    // A /dev of our own, seen by this command alone.
    let script = r#"
        mount -t tmpfs tmpfs /dev
        for node in "null 1 3" "zero 1 5" "random 1 8" "urandom 1 9"; do set -- $node; mknod -m 666 /dev/$1 c $2 $3; done
        exec "$POND_PROGRAM" mount "$MOUNTPOINT""#;
    let mut command = pond.in_namespace(script);
    command.env("POND", pond.directory());
    command.env("POND_PROGRAM", pond_tests::pond_binary()).env("MOUNTPOINT", pond.mountpoint());
    refused(run(&mut command), &["/dev/fuse", "modprobe fuse"]);
    assert!(!pond.directory().exists(), "a pond was made");
}

#[test]
fn a_mountpoint_that_is_no_directory_is_refused() {
    let pond = TestPond::new();
    fs::write(pond.mountpoint(), "a file").unwrap();
    let name = pond.mountpoint().to_str().unwrap();
    refused(pond.try_mount_at(pond.mountpoint(), &[]), &[name, "not a directory"]);
    assert_eq!(fs::read_to_string(pond.mountpoint()).unwrap(), "a file");
    let far = pond.host("no/such/place");
    refused(pond.try_mount_at(&far, &[]), &["no/such"]);
    assert!(!pond.host("no").exists(), "only the last component may be made");
}

#[test]
fn a_pond_inside_its_own_mount_is_refused() {
    let pond = TestPond::new();
    let inside = TestPond::in_directory(pond.host("mnt/pond"));
    fs::create_dir(pond.mountpoint()).unwrap();
    inside.pond(["init"]);
    let name = pond.mountpoint().to_str().unwrap();
    refused(inside.try_mount_at(pond.mountpoint(), &[]), &[name, "within"]);
    refused(inside.try_mount_at(&inside.directory().join("data"), &[]), &["within"]);
    refused(inside.try_mount_at(inside.directory(), &[]), &["within"]);
    not_mounted(pond.mountpoint());
    // Nor may a pond be made in the mount of itself once it is mounted elsewhere.
    let other = TestPond::mounted();
    let nested = TestPond::in_directory(other.path("nested"));
    nested.mount();
    fs::write(nested.path("file"), "a pond in another pond's mount is fine").unwrap();
    nested.umount();
    other.umount();
}

#[test]
fn a_second_writing_mount_is_refused_by_the_name_of_the_first() {
    let pond = TestPond::mounted();
    let daemon = pond.daemon().to_string();
    fs::write(pond.path("file"), "x").unwrap();
    let second = pond.host("second");
    refused(pond.try_mount_at(&second, &[]), &[pond.directory().to_str().unwrap(), &daemon]);
    not_mounted(&second);
    refused(pond.try_mount_at(pond.mountpoint(), &[]), &["already"]);
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "x", "the first goes on");
    let version = pond.version().to_string();
    let old = pond.mount_beside("old", &["--version", &version]);
    assert!(old.join(".pond/position").exists());
    pond.umount_at(&old);
    pond.umount();
}

#[test]
fn a_version_that_does_not_exist_is_refused_with_those_that_do() {
    let pond = pond_with_history();
    let at = pond.host("old");
    let newest = log_entries(&pond).len() - 1;
    refused(pond.try_mount_at(&at, &["--version", "99"]), &["99", &newest.to_string()]);
    refused(pond.try_mount_at(&at, &["--timestamp", "@1000"]), &[]);
    not_mounted(&at);
    refused(pond.try_pond(["cat", "/file@99"]), &["99"]);
}

#[test]
fn wrong_usage_exits_with_2_and_an_unknown_mount_option_is_named() {
    let pond = TestPond::new();
    pond.try_pond(["mount"]).failure(2);
    pond.try_pond(["no-such-command"]).failure(2);
    let mountpoint = pond.mountpoint().to_str().unwrap();
    let finished = pond.try_pond(["mount", mountpoint, "-o", "ro,frobnicate"]);
    assert!(!finished.status.success() && finished.stderr.contains("frobnicate"), "{finished}");
    assert!(!pond.directory().exists(), "a pond was made");
}

#[test]
fn a_pond_without_its_control_table_refuses_to_write_until_told_its_role() {
    let pond = pond_with_history();
    fs::remove_dir_all(pond.directory().join("control")).unwrap();
    refused(pond.try_mount_at(pond.mountpoint(), &[]), &["control", "factory_mode:remote"]);
    not_mounted(pond.mountpoint());
    pond.pond(["control", "set", "factory_mode:remote", "push"]);
    pond.mount();
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "content 3");
    pond.umount();
}

#[test]
fn a_torn_frame_at_the_end_of_the_journal_is_set_aside_and_any_other_damage_opens_read_only() {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    let append = |text: &str| {
        use std::io::Write;
        let mut file = fs::File::options().create(true).append(true).open(pond.path("file")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.sync_all().unwrap();
    };
    append("first ");
    append("second ");
    append("third ");
    pond.kill();
    let journal = pond.directory().join("journal");
    let segments = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> = segments.collect();
    segments.sort();
    let segment = segments.last().expect("the journal holds what was promised").clone();
    // It has grown ahead of its frames, by zeros.
    let mut whole = fs::read(&segment).unwrap();
    let frames_end = whole.iter().rposition(|&byte| byte != 0).expect("there are frames") + 1;
    whole.truncate(frames_end);
    succeed(Command::new("cp").arg("-a").arg(pond.directory()).arg(pond.host("copy")));

    // Cut off within the last frame, as by a loss of power.
    fs::write(&segment, &whole[..whole.len() - 7]).unwrap();
    pond.mount();
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "first second ");
    assert!(!pond.status()["notes"].as_array().unwrap().is_empty(), "nothing is said of the torn frame");
    let kept = fs::read_dir(&journal)
        .unwrap()
        .any(|e| e.unwrap().file_name().to_str().unwrap().starts_with("torn-"));
    assert!(kept, "the torn frame is gone");
    pond.umount();

    // Damaged in the middle: something that was promised cannot be read.
    let copy = TestPond::in_directory(pond.host("copy"));
    let segment = copy.directory().join("journal").join(segment.file_name().unwrap());
    let mut bytes = whole;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&segment, &bytes).unwrap();
    copy.mount();
    let error = fs::write(copy.path("new"), "x").expect_err("a pond with a damaged journal takes writes");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    let why = copy.status()["read_only_because"].as_str().map(str::to_owned);
    assert!(why.is_some_and(|why| why.contains("journal")), "{}", copy.status());
    assert!(fs::read(&segment).unwrap() == bytes, "the damaged segment was changed");
    copy.umount();
}

#[test]
fn a_flipped_bit_in_a_data_file_is_refused_or_does_no_harm_and_is_never_shown() {
    let pond = pond_with_history();
    let old = pond.mount_beside("whole", &["--version", "4"]);
    let whole_tree = tree::look_at(&old);
    pond.umount_at(&old);
    let files = fs::read_dir(pond.directory().join("data")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    files.sort();
    let mut random = pond_tests::Random::new(18);
    let (mut refused, mut harmless) = (0, 0);
    for number in 0..60 {
        let file = random.choose(&files).clone();
        let whole = fs::read(&file).unwrap();
        let mut bytes = whole.clone();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        fs::write(&file, bytes).unwrap();
        let mountpoint = pond.host(format!("flipped-{number}"));
        let mounted = pond.try_mount_at(&mountpoint, &["--version", "4"]);
        let what = format!("bit flip at byte {at} of {} of {}", whole.len(), file.display());
        if mounted.status.success() {
            // What cannot be read may say so when it is.
            match tree::try_look_at(&mountpoint) {
                Err(_) => refused += 1,
                Ok(tree) => {
                    tree::assert_same(&what, &whole_tree, &tree, Also::ALL);
                    harmless += 1;
                }
            }
            pond.umount_at(&mountpoint);
        } else {
            assert!(
                mounted.stderr.contains(file.file_name().unwrap().to_str().unwrap()),
                "{what}: {mounted}"
            );
            refused += 1;
        }
        fs::write(&file, whole).unwrap();
    }
    println!("{refused} refused, {harmless} harmless");
}
