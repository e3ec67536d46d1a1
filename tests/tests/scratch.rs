//! Scratches: versions that can be written to, which nobody else sees, and of which nothing is left.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pond_tests::command::run_within;
use pond_tests::disk::Disk;
use pond_tests::measure::resident;
use pond_tests::tree::{Also, assert_same, look_at};
use pond_tests::{Random, TestPond, processes, succeed, wait_until};

/// Makes a repository and commits to it.
const GIT: &str =
    "git init -q r; cd r; echo a > a; git add a; git -c user.name=n -c user.email=e commit -qm m; git fsck";

/// A mounted pond, synced, with a file of 5 MB, another name of it, a sparse file, a link, an attribute and a directory of 50 files.
fn pond() -> TestPond {
    let pond = TestPond::mounted();
    let random = Random::new(3).bytes(5_000_000);
    fs::write(pond.path("large"), &random).unwrap();
    fs::hard_link(pond.path("large"), pond.path("also")).unwrap();
    File::create(pond.path("sparse")).unwrap().write_all_at(b"far", 10_000_000).unwrap();
    symlink("large", pond.path("link")).unwrap();
    succeed(Command::new("setfattr").args(["-n", "user.a", "-v", "before"]).arg(pond.path("large")));
    fs::create_dir(pond.path("many")).unwrap();
    for n in 0..50 {
        fs::write(pond.path(format!("many/{n}")), format!("{n}\n")).unwrap();
    }
    pond.sync();
    pond
}

/// Bytes of everything below a directory, as it stands on the disk.
fn bytes_below(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() { bytes_below(&entry.path()) } else { metadata.blocks() * 512 }
        })
        .sum()
}

/// Bytes that a process holds in files without a name in the pond's directory.
fn nameless(pond: &TestPond, pid: i32) -> u64 {
    let inside = pond.directory().to_str().unwrap();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let nameless = open.filter(|entry| {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        target.starts_with(inside) && target.ends_with("(deleted)")
    });
    nameless.map(|entry| fs::metadata(entry.path()).map_or(0, |metadata| metadata.blocks() * 512)).sum()
}

fn daemon_of(mount: &Path) -> i32 {
    let text = fs::read_to_string(mount.join(".pond/status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    status["pid"].as_i64().unwrap() as i32
}

#[test]
fn all_that_programs_do_works_in_a_scratch_and_is_gone_with_it() {
    let pond = pond();
    let before = look_at(pond.mountpoint());
    let version = pond.version();
    let scratch = pond.mount_beside("scratch", &["--scratch"]);
    assert_same("the scratch and the pond", &before, &look_at(&scratch), Also::ALL);
    let position = fs::read_to_string(scratch.join(".pond/position")).unwrap();
    assert!(position.starts_with(&format!("{version}/")) && position.ends_with(" scratch\n"), "{position}");
    let said = succeed(pond.command().arg("status").current_dir(&scratch));
    assert!(said.contains("a scratch") && said.contains(scratch.to_str().unwrap()), "{said}");
    let said = succeed(pond.command().arg("status").current_dir(pond.mountpoint()));
    assert!(!said.contains("a scratch"), "{said}");

    let at = |name: &str| scratch.join(name);
    // Written over, appended to, cut off, beside what was there; and through another name.
    let mut large = fs::read(pond.path("large")).unwrap();
    let file = File::options().read(true).write(true).open(at("large")).unwrap();
    for (offset, length) in [(0usize, 10), (4_999_990, 100), (123_456, 300_000), (16_384, 16_384)] {
        let bytes = Random::new(offset as u64).bytes(length);
        file.write_all_at(&bytes, offset as u64).unwrap();
        large.resize(large.len().max(offset + length), 0);
        large[offset..offset + length].copy_from_slice(&bytes);
    }
    file.sync_all().unwrap();
    assert!(fs::read(at("also")).unwrap() == large);
    file.set_len(200_000).unwrap();
    large.truncate(200_000);
    assert!(fs::read(at("large")).unwrap() == large);
    // A mapping.
    // SAFETY: the mapping lies within the file and is given back before the file is closed.
    unsafe {
        let all = libc::PROT_READ | libc::PROT_WRITE;
        let map = libc::mmap(std::ptr::null_mut(), 200_000, all, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        std::ptr::copy_nonoverlapping(b"mapped".as_ptr(), map.cast::<u8>().add(70_000), 6);
        assert_eq!(libc::msync(map, 200_000, libc::MS_SYNC), 0);
        assert_eq!(libc::munmap(map, 200_000), 0);
    }
    large[70_000..70_006].copy_from_slice(b"mapped");
    assert!(fs::read(at("also")).unwrap() == large);
    // Open without a name.
    fs::remove_file(at("large")).unwrap();
    fs::remove_file(at("also")).unwrap();
    (&file).seek(SeekFrom::End(0)).unwrap();
    (&file).write_all(b"and on").unwrap();
    let mut read_back = Vec::new();
    (&file).rewind().unwrap();
    (&file).read_to_end(&mut read_back).unwrap();
    large.extend(b"and on");
    assert!(read_back == large && file.metadata().unwrap().nlink() == 0);
    drop(file);
    // Names, links, attributes, directories.
    fs::rename(at("many"), at("moved")).unwrap();
    fs::create_dir_all(at("new/deep")).unwrap();
    fs::rename(at("moved/7"), at("new/deep/seven")).unwrap();
    fs::hard_link(at("new/deep/seven"), at("seven")).unwrap();
    assert_eq!(fs::metadata(at("seven")).unwrap().nlink(), 2);
    fs::remove_dir_all(at("moved")).unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("elsewhere", at("link")).unwrap();
    succeed(Command::new("setfattr").args(["-n", "user.b", "-v", "after"]).arg(at("seven")));
    fs::set_permissions(at("seven"), fs::Permissions::from_mode(0o4711)).unwrap();
    succeed(Command::new("chown").arg("5:6").arg(at("new")));
    assert_eq!(fs::metadata(at("new")).unwrap().uid(), 5);
    // Sparse.
    let sparse = File::options().read(true).write(true).open(at("sparse")).unwrap();
    sparse.write_all_at(b"middle", 5_000_000).unwrap();
    assert!(sparse.metadata().unwrap().blocks() * 512 < 100_000);
    // SAFETY: a descriptor that is open, and numbers.
    assert_eq!(unsafe { libc::lseek(sparse.as_raw_fd(), 0, libc::SEEK_DATA) }, 4_997_120);
    drop(sparse);
    succeed(Command::new("sh").arg("-ec").arg(GIT).current_dir(&scratch));

    // What a new look shows, once the kernel has forgotten.
    let now = look_at(&scratch);
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    let again = look_at(&scratch);
    assert_same("what was made and what is there", &now, &again, Also::ALL);

    assert_same("the pond before and after", &before, &look_at(pond.mountpoint()), Also::ALL);
    let said = pond.pond(["umount", scratch.to_str().unwrap()]);
    assert!(said.contains("what was changed there is gone"), "{said}");
    assert_same("the pond before and after", &before, &look_at(pond.mountpoint()), Also::ALL);
    assert_eq!(pond.version(), version);
    pond.umount();
    assert!(pond.pond(["fsck"]).starts_with("clean"));
}

#[test]
fn two_scratches_of_one_version_and_the_pond_itself_do_not_see_each_other() {
    let pond = pond();
    let version = pond.version().to_string();
    fs::write(pond.path("later"), "later").unwrap();
    // The newest version is made first, so that it holds what is in the mount now.
    let one = pond.mount_beside("newest", &["--scratch"]);
    assert_eq!(fs::read_to_string(one.join("later")).unwrap(), "later");
    pond.umount_at(&one);
    let [one, other] =
        ["one", "other"].map(|name| pond.mount_beside(name, &["--scratch", "--version", &version]));
    for (place, text) in [(one.as_path(), "one"), (&other, "other"), (pond.mountpoint(), "pond")] {
        assert_eq!(place.join("later").exists(), text == "pond");
        fs::write(place.join("many/1"), text).unwrap();
        fs::write(place.join(text), text).unwrap();
        fs::remove_file(place.join("many/2")).unwrap();
    }
    for (place, text) in [(one.as_path(), "one"), (&other, "other"), (pond.mountpoint(), "pond")] {
        assert_eq!(fs::read_to_string(place.join("many/1")).unwrap(), text);
        let there = ["one", "other", "pond"].map(|name| place.join(name).exists());
        assert_eq!(there.iter().filter(|there| **there).count(), 1);
        assert!(place.join(text).exists() && !place.join("many/2").exists());
    }
    // The pond's mount goes and comes beside them.
    pond.remount();
    assert_eq!(fs::read_to_string(one.join("many/1")).unwrap(), "one");
    assert_eq!(pond.status()["mountpoint"], pond.mountpoint().to_str().unwrap());
    pond.umount();
    assert_eq!(pond.status()["mounted"], false);
    pond.umount_at(&one);
    pond.umount_at(&other);
}

#[test]
fn a_gibibyte_that_was_written_is_gone_at_umount_and_after_a_kill() {
    let pond = pond();
    pond.umount();
    let before = bytes_below(pond.directory());
    for (killed, mebibytes) in [(false, 200), (true, 1024)] {
        let scratch = pond.mount_beside("scratch", &["--scratch"]);
        let pid = daemon_of(&scratch);
        let mut write = Command::new("sh");
        let bytes = mebibytes << 20;
        write.arg("-ec").arg(format!("head -c {bytes} /dev/zero | tr '\\0' x > big; sync; tail -c 3 big"));
        let wrote = run_within(write.current_dir(&scratch), Duration::from_secs(300)).success();
        assert_eq!(wrote, "xxx");
        let held = nameless(&pond, pid);
        assert!(held >= (mebibytes - 40) << 20, "{held} bytes have left memory");
        let resident = resident(pid);
        assert!(resident < 300 << 20, "{resident} bytes are in memory");
        // What a moment's name of a killed process would leave.
        let leftover = pond.directory().join("mirror/.tmpAbCdEf");
        fs::write(&leftover, "left").unwrap();
        match killed {
            false => pond.umount_at(&scratch),
            true => processes::kill_and_wait(pid),
        }
        // The next one takes a dead mount away, and cleans up.
        let scratch = pond.mount_beside("scratch", &["--scratch"]);
        assert!(!scratch.join("big").exists() && !leftover.exists());
        assert_eq!(nameless(&pond, daemon_of(&scratch)), 0);
        pond.umount_at(&scratch);
        let after = bytes_below(pond.directory());
        assert!(after <= before + (64 << 10), "{before} bytes before, and {after} after");
    }
    pond.mount();
    assert_eq!(fs::read_dir(pond.path("many")).unwrap().count(), 50);
}

#[test]
fn a_replica_has_scratches_while_it_follows() {
    let source = pond();
    let store = source.host_directory("store");
    let remote = source.host("remote.yaml");
    fs::write(&remote, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    let remote = remote.to_str().unwrap();
    source.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", remote]);
    source.sync();
    let replica = TestPond::new();
    replica.pond(["init", "--from-backup", remote]);
    let unmounted = replica.mount_beside("unmounted", &["--scratch"]);
    replica.mount();
    let mounted = replica.mount_beside("mounted", &["--scratch"]);
    for scratch in [&unmounted, &mounted] {
        fs::write(scratch.join("many/1"), "scratch").unwrap();
        fs::write(scratch.join("own"), Random::new(1).bytes(100_000)).unwrap();
        fs::rename(scratch.join("large"), scratch.join("renamed")).unwrap();
    }
    fs::write(source.path("many/1"), "from the source").unwrap();
    source.sync();
    let version = source.version().to_string();
    replica.pond(["status", "--wait-version", &version, "--timeout", "60"]);
    assert_eq!(fs::read_to_string(replica.path("many/1")).unwrap(), "from the source");
    assert!(!replica.path("own").exists() && replica.path("large").exists());
    for scratch in [&unmounted, &mounted] {
        assert_eq!(fs::read_to_string(scratch.join("many/1")).unwrap(), "scratch");
        assert!(fs::read(scratch.join("own")).unwrap() == Random::new(1).bytes(100_000));
        assert!(fs::read(scratch.join("renamed")).unwrap() == fs::read(source.path("large")).unwrap());
        replica.umount_at(scratch);
    }
    replica.umount();
    assert!(replica.pond(["fsck"]).starts_with("clean"));
}

#[test]
fn a_scratch_on_a_full_disk_says_so_and_goes_on_once_there_is_room() {
    let disk = Disk::new(200);
    let pond = TestPond::in_directory(disk.path().join("pond"));
    pond.mount();
    fs::write(pond.path("old"), "old").unwrap();
    pond.umount();
    let scratch = pond.mount_beside("scratch", &["--scratch"]);
    let mut refused = None;
    let mut written = 0;
    while refused.is_none() && written < 400 {
        match fs::write(scratch.join(written.to_string()), Random::new(written).bytes(1 << 20)) {
            Ok(()) => written += 1,
            Err(error) => refused = Some(error),
        }
    }
    assert_eq!(refused.and_then(|error| error.raw_os_error()), Some(libc::ENOSPC), "after {written} MiB");
    assert!(written > 100, "{written} MiB");
    for n in 0..written {
        assert!(fs::read(scratch.join(n.to_string())).unwrap() == Random::new(n).bytes(1 << 20), "{n}");
    }
    for n in 0..written {
        fs::remove_file(scratch.join(n.to_string())).unwrap();
    }
    // The last one may not even have got its name.
    fs::remove_file(scratch.join(written.to_string())).ok();
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    wait_until("there is room again", Duration::from_secs(30), || {
        fs::write(scratch.join("again"), Random::new(1).bytes(50 << 20)).ok()
    });
    assert!(fs::read(scratch.join("again")).unwrap() == Random::new(1).bytes(50 << 20));
    pond.umount_at(&scratch);
}
