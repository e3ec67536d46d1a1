//! A full disk: writers get ENOSPC, what was accepted and what was committed is unharmed, and work goes on once there is room.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use pond_tests::disk::{Disk, available};
use pond_tests::{Random, TestPond, wait_until};

mod fillers;
mod scene;

/// A pond on a disk of so many MiB.
fn pond_on(disk: &Disk) -> TestPond {
    TestPond::in_directory(disk.path().join("pond"))
}

/// Writes files until it fails; those that were written and synced whole, with their content, and the error.
fn write_until_full(
    pond: &TestPond,
    prefix: &str,
    random: &mut Random,
    limit: usize,
) -> (Vec<(PathBuf, Vec<u8>)>, io::Error) {
    let mut written = Vec::new();
    for number in 0..limit {
        let path = pond.path(format!("{prefix}-{number}"));
        let content = random.bytes(1 << 20);
        let result = File::create(&path).and_then(|mut file| {
            file.write_all(&content)?;
            file.sync_all()
        });
        match result {
            Ok(()) => written.push((path, content)),
            Err(error) => return (written, error),
        }
    }
    panic!("{limit} MiB were written to a disk that should be full by now");
}

fn assert_unharmed(files: &[(PathBuf, Vec<u8>)]) {
    for (path, content) in files {
        assert!(fs::read(path).unwrap() == *content, "{} is damaged", path.display());
    }
}

#[test]
fn a_pond_that_fills_its_disk_says_so_and_goes_on_once_there_is_room() {
    let disk = Disk::new(96);
    disk.fill(48 << 20);
    let pond = pond_on(&disk);
    pond.mount();
    let mut random = Random::new(11);
    let (files, error) = write_until_full(&pond, "before", &mut random, 96);
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    assert!(files.len() > 10, "only {} MiB fitted in", files.len());
    assert_unharmed(&files);
    // Room can be made by removing, even now.
    let (gone, _) = files.last().unwrap();
    fs::remove_file(gone).unwrap();
    disk.make_room();
    let kept = &files[..files.len() - 1];
    wait_until("writes are accepted again", Duration::from_secs(30), || {
        fs::write(pond.path("after"), "there is room").ok()
    });
    pond.sync();
    pond.remount();
    assert_unharmed(kept);
    assert!(!gone.exists());
    assert_eq!(fs::read_to_string(pond.path("after")).unwrap(), "there is room");
    pond.umount();
}

/// A pond that keeps one version, on a disk that was filled with one file, which was removed then.
fn filled_and_emptied(disk: &Disk) -> TestPond {
    let pond = pond_on(disk);
    pond.mount();
    fs::write(pond.path("kept"), "this stays").unwrap();
    pond.sync();
    let mut random = Random::new(22);
    let mut file = File::create(pond.path("large")).unwrap();
    let error = (0..200).find_map(|_| file.write_all(&random.bytes(1 << 20)).err());
    let error = error.or_else(|| file.sync_all().err()).expect("the disk is full");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    drop(file);
    fs::remove_file(pond.path("large")).unwrap();
    // Nothing but log entries fits on what is left.
    let _ = pond.try_pond(["sync"]);
    assert!(disk.free() < 4 << 20, "{} bytes are free", disk.free());
    pond.pond(["control", "set", "keep_replaced", "0s"]);
    pond.pond(["control", "set", "retention", "1 versions"]);
    pond
}

fn assert_there_is_room(disk: &Disk, pond: &TestPond) {
    assert!(disk.free() > 80 << 20, "{} bytes are free", disk.free());
    let content = Random::new(23).bytes(20 << 20);
    fs::write(pond.path("after"), &content).unwrap();
    pond.sync();
    assert!(fs::read(pond.path("after")).unwrap() == content);
    assert_eq!(fs::read_to_string(pond.path("kept")).unwrap(), "this stays");
    pond.umount();
    pond.pond(["fsck"]);
}

#[test]
fn maintaining_empties_a_pond_that_filled_its_disk() {
    let disk = Disk::new(136);
    let pond = filled_and_emptied(&disk);
    pond.umount();
    let report = pond.json(["maintain"]).remove(0);
    assert!(report["cleaned"]["bytes"].as_u64().unwrap() > 80 << 20, "{report}");
    pond.mount();
    assert_there_is_room(&disk, &pond);
}

#[test]
fn a_mounted_pond_that_filled_its_disk_empties_itself() {
    let disk = Disk::new(136);
    let pond = filled_and_emptied(&disk);
    wait_until("old versions are let go of in the background", Duration::from_secs(90), || {
        (disk.free() > 80 << 20).then_some(())
    });
    assert_there_is_room(&disk, &pond);
}

#[test]
fn a_version_mounted_on_a_full_or_read_only_disk_keeps_its_files() {
    let disk = Disk::new(96);
    let pond = pond_on(&disk);
    pond.mount_with(&["-o", "commit=3600"]);
    pond.pond(["control", "set", "keep_replaced", "0s"]);
    let mut contents = Vec::new();
    for number in 0..6 {
        let content = Random::new(number).bytes(100_000);
        fs::write(pond.path("file"), &content).unwrap();
        pond.sync();
        contents.push((pond.version(), content));
    }
    disk.fill(0);
    let (version, content) = &contents[2];
    let reader = pond.mount_beside("reader", &["--version", &version.to_string()]);
    disk.make_room();
    let report = pond.json(["maintain"]).remove(0);
    assert!(
        report["cleaned"]["waiting_files"].as_u64().unwrap() > 0,
        "its files were cleaned away: {report}"
    );
    assert!(fs::read(reader.join("file")).unwrap() == *content);
    pond.umount_at(&reader);
    pond.umount();

    let remount = |how: &str| {
        let mut command = std::process::Command::new("mount");
        pond_tests::command::succeed(command.args(["-o", how]).arg(disk.path()));
    };
    // Its bytes are no text.
    let read = || assert!(pond.json(["list", &format!("/@{version}")]).len() == 1);
    remount("remount,ro");
    read();
    remount("remount,rw");
    fs::remove_file(pond.directory().join("pins/locks")).unwrap();
    remount("remount,ro");
    read();
    remount("remount,rw");
    read();
    assert!(pond.directory().join("pins/locks").exists(), "a reader who can makes it");
}

#[test]
fn a_disk_that_fills_up_during_a_commit_harms_nothing() {
    let disk = Disk::new(96);
    let pond = pond_on(&disk);
    pond.mount_with(&["-o", "commit=3600"]);
    let mut random = Random::new(12);
    let content = random.bytes(4 << 20);
    let committed = vec![(pond.path("committed"), content.clone())];
    fs::write(pond.path("committed"), content).unwrap();
    pond.sync();
    let version = pond.version();
    // Accepted, not yet committed; then somebody else takes the room that it would need.
    let accepted = vec![(pond.path("accepted"), random.bytes(12 << 20))];
    fs::write(&accepted[0].0, &accepted[0].1).unwrap();
    disk.fill(0);
    let told = pond.try_pond(["sync"]).failure(1);
    assert!(told.contains("space"), "{told}");
    assert_eq!(pond.version(), version, "a commit that failed shows a version");
    assert_unharmed(&committed);
    assert_unharmed(&accepted);
    let error = fs::write(pond.path("refused"), random.bytes(8 << 20)).expect_err("there is no room");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    disk.make_room();
    pond.sync();
    assert!(pond.version() > version);
    fs::write(pond.path("after"), "there is room").unwrap();
    pond.remount();
    assert_unharmed(&committed);
    assert_unharmed(&accepted);
    assert_eq!(fs::read_to_string(pond.path("after")).unwrap(), "there is room");
    pond.umount();
}

#[test]
fn a_kill_on_a_full_disk_loses_nothing_that_was_promised() {
    let disk = Disk::new(96);
    disk.fill(40 << 20);
    let pond = pond_on(&disk);
    pond.mount();
    let (files, error) = write_until_full(&pond, "file", &mut Random::new(13), 96);
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    pond.kill();
    disk.make_room();
    pond.mount();
    assert_unharmed(&files);
    fs::write(pond.path("after"), "there is room").unwrap();
    pond.umount();
}

#[test]
fn a_pond_is_mounted_again_while_its_disk_is_full() {
    let disk = Disk::new(64);
    let pond = pond_on(&disk);
    pond.mount();
    let mut filled = fillers::synced_appends(&pond);
    let (doomed, _) = filled.accepted.pop().unwrap();
    // Nobody else leaves anything either, not even what the pond held back for itself.
    disk.fill(0);
    let mut synced = false;
    for _ in 0..3 {
        pond.kill();
        pond.mount();
        fillers::assert_unharmed(&filled);
        // A delete that could not be made durable may be undone by the kill, one that could may not.
        match fs::remove_file(&doomed) {
            Ok(()) => assert!(!synced, "a delete that was synced is undone"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "rm on a full disk"),
        }
        synced = match File::open(pond.mountpoint()).and_then(|root| root.sync_all()) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => synced,
            Err(error) => panic!("fsync of a directory on a full disk: {error}"),
        };
    }
    disk.make_room();
    pond.sync();
    pond.remount();
    fillers::assert_unharmed(&filled);
    assert_eq!(fs::read_dir(pond.mountpoint()).unwrap().count(), filled.accepted.len());
    pond.umount();
}

#[test]
fn statfs_tells_how_much_room_there_is() {
    let disk = Disk::new(96);
    let pond = pond_on(&disk);
    pond.mount();
    let (before, host) = (available(pond.mountpoint()), disk.free());
    assert!(before <= host, "the pond promises {before} bytes of {host}");
    assert!(before > host / 2, "the pond offers only {before} bytes of {host}");
    fs::write(pond.path("file"), Random::new(1).bytes(20 << 20)).unwrap();
    pond.sync();
    let after = available(pond.mountpoint());
    assert!(after < before - (16 << 20), "20 MiB took {} bytes", before - after);
    pond.umount();
}

#[test]
fn dd_fills_the_disk() {
    scene::play("dd", fillers::dd);
}

#[test]
fn many_small_files_fill_the_disk() {
    scene::play("small files", |pond, _| fillers::small_files(pond));
}

#[test]
fn synced_appends_fill_the_disk() {
    scene::play("synced appends", |pond, _| fillers::synced_appends(pond));
}
