//! `pond fsck`: finds and names every flipped bit, leaves a mounted pond alone, and repairs from the backup.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pond_tests::scale::scaled;
use pond_tests::tree::{self, Also};
use pond_tests::{Random, TestPond, run, wait_until};
use serde_json::Value;

/// What `pond fsck --json` with these arguments printed: its objects, and whether it exited with 0.
fn fsck(pond: &TestPond, arguments: &[&str]) -> (Vec<Value>, bool) {
    let ended = run(pond.command().args(["--json", "fsck"]).args(arguments));
    let success = ended.status.success();
    assert!(success || ended.status.code() == Some(1), "{ended}");
    let values = serde_json::Deserializer::from_str(&ended.stdout).into_iter();
    let values: Vec<Value> =
        values.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {ended}"));
    (values, success)
}

fn findings(values: &[Value]) -> Vec<&Value> {
    values.iter().filter(|value| value["event"] == "finding").collect()
}

/// Small and large files, in versions, with checkpoints; the last changes only in the journal.
fn busy_pond() -> (TestPond, BTreeMap<String, Vec<u8>>) {
    // Each version holds whole files.
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    let mut random = Random::new(8);
    let mut files = BTreeMap::new();
    for number in 0..70u8 {
        let name = format!("file-{number:02}");
        let content = match number {
            30 => random.bytes(9 << 20),
            n if n % 2 == 0 => random.bytes(3000 * usize::from(n)),
            n => vec![n; 3000 * usize::from(n)],
        };
        fs::write(pond.path(&name), &content).unwrap();
        files.insert(name, content);
        pond.sync();
    }
    wait_for_checkpoint(&pond);
    // What an fsync promised and no version holds: the daemon is killed before it commits.
    for number in 70..75u8 {
        let (name, content) = (format!("file-{number:02}"), random.bytes(5000));
        let mut file = fs::File::create(pond.path(&name)).unwrap();
        std::io::Write::write_all(&mut file, &content).unwrap();
        file.sync_all().unwrap();
        files.insert(name, content);
    }
    pond.kill();
    (pond, files)
}

/// Waits until there is a checkpoint, which is made beside the commits. Its digest is the last that is written of it.
fn wait_for_checkpoint(pond: &TestPond) {
    wait_until("a checkpoint and its digest are written", Duration::from_secs(60), || {
        let mut names = names_of(&pond.directory().join("data/_delta_log")).into_iter();
        names.find(|name| name.starts_with("_pond_checkpoint.") && name.ends_with(".blake3"))
    });
}

fn names_of(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Everything whose bytes matter.
fn kept_files(pond: &Path) -> Vec<PathBuf> {
    let mut kept = Vec::new();
    for directory in ["data", "data/_delta_log", "journal", "control", "control/_delta_log"] {
        for entry in fs::read_dir(pond.join(directory)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() && entry.metadata().unwrap().len() > 0 {
                kept.push(Path::new(directory).join(entry.file_name()));
            }
        }
    }
    kept.sort();
    kept
}

#[test]
fn flipped_bits_are_named_and_never_read_as_if_they_were_right() {
    let (pond, files) = busy_pond();
    let kept = kept_files(pond.directory());
    assert!(kept.iter().any(|path| path.to_string_lossy().contains(".checkpoint.parquet")));
    let (values, clean) = fsck(&pond, &[]);
    assert!(clean, "{values:#?}");
    let mut random = Random::new(u64::from(std::process::id()));
    for round in 0..scaled("POND_FSCK_FLIPS", 24usize) {
        let number = |random: &mut Random| u64::from_le_bytes(random.bytes(8).try_into().unwrap()) as usize;
        let name = &kept[number(&mut random) % kept.len()];
        let path = pond.directory().join(name);
        let good = fs::read(&path).unwrap();
        // A segment of the journal may have grown ahead of its frames, by zeros that say nothing.
        let used = good.iter().rposition(|&byte| byte != 0).map_or(1, |last| last + 1);
        let bit = number(&mut random) % (8 * used);
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bad).unwrap();
        let what = format!("round {round}: bit {bit} of {}", name.display());
        let (values, _) = fsck(&pond, &[]);
        let base = name.file_name().unwrap().to_str().unwrap();
        assert!(
            findings(&values).iter().any(|finding| finding.to_string().contains(base)),
            "{what} is not named: {values:#?}"
        );
        // A reader gets the right bytes or an error.
        for name in [format!("file-{:02}", number(&mut random) % 70), "file-30".to_owned()] {
            let target = pond.host("read");
            let _ = fs::remove_file(&target);
            let from = format!("/{name}@70");
            let ended = run(pond.command().args(["copy", &from]).arg(format!("host:{}", target.display())));
            if ended.status.success() {
                assert!(fs::read(&target).unwrap() == files[&name], "{what}: wrong bytes of {name}");
            }
        }
        fs::write(&path, good).unwrap();
    }
    let (values, clean) = fsck(&pond, &[]);
    // The daemon was killed, perhaps while it was merging.
    let is_left_over = |finding: &&Value| finding["part"] == "leftover";
    assert!(clean && findings(&values).iter().all(is_left_over), "{values:#?}");
    pond.mount();
    for (name, content) in &files {
        assert!(fs::read(pond.path(name)).unwrap() == *content, "{name}");
    }
}

#[test]
fn a_mounted_pond_is_checked_without_disturbing_it() {
    let pond = TestPond::mounted();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut random = Random::new(3);
            for number in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return number;
                }
                let path = pond.path(format!("file-{}", number % 50));
                fs::write(&path, random.bytes(20_000)).unwrap();
                fs::File::open(&path).unwrap().sync_all().unwrap();
                if number % 7 == 0 {
                    fs::rename(&path, pond.path("renamed")).unwrap();
                }
            }
            unreachable!()
        });
        let checks: Vec<_> = (0..8)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(200));
                fsck(&pond, &[])
            })
            .collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(writer.join().unwrap() > 10);
        for (values, clean) in checks {
            assert!(clean && findings(&values).is_empty(), "{values:#?}");
        }
    });
    let told = pond.try_pond(["fsck", "--repair"]).failure(1);
    assert!(told.contains("in use"), "{told}");
    pond.umount();
    assert!(fsck(&pond, &[]).1);
}

/// Flips a bit in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

#[test]
fn repair_takes_lost_files_from_the_backup() {
    let pond = TestPond::mounted();
    let store = pond.host_directory("store");
    let yaml = pond.host("remote.yaml");
    fs::write(&yaml, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    let yaml = yaml.to_str().unwrap();
    pond.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", yaml]);
    let mut random = Random::new(9);
    for number in 0..70 {
        fs::write(pond.path(format!("file-{number}")), random.bytes(10_000 + number * 100)).unwrap();
        pond.sync();
    }
    wait_for_checkpoint(&pond);
    pond.pond(["control", "set", "factory_mode:exec-log", "pull"]);
    let before = tree::look_at(pond.mountpoint());
    pond.umount();
    assert!(fsck(&pond, &[]).1);

    // Data files of the first version and of the newest; two entries, one in a pack; a checkpoint; a setting's file.
    let directory = pond.directory();
    let data = |version: u64| {
        let text = fs::read_to_string(directory.join(format!("data/_delta_log/{version:020}.json"))).unwrap();
        let add = text.lines().find_map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["add"]["path"].as_str().map(str::to_owned)
        });
        directory.join("data").join(add.unwrap())
    };
    let newest: u64 = pond.json(["log", "-n", "1"])[0]["version"].as_u64().unwrap();
    let (first, last) = (data(0), data(newest));
    let entries = [20, newest].map(|version| directory.join(format!("data/_delta_log/{version:020}.json")));
    let log = directory.join("data/_delta_log");
    let mut checkpoints = names_of(&log).into_iter().filter(|name| name.ends_with(".checkpoint.parquet"));
    let checkpoint = log.join(checkpoints.next_back().unwrap());
    damage(&first);
    damage(&last);
    entries.iter().for_each(|entry| damage(entry));
    damage(&checkpoint);
    let mut settings: Vec<PathBuf> = fs::read_dir(directory.join("control"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    settings.sort();
    damage(settings.last().unwrap());

    let (values, clean) = fsck(&pond, &[]);
    assert!(!clean);
    let named = findings(&values).iter().map(|finding| finding["file"].to_string()).collect::<String>();
    for path in [&first, &last, &entries[0], &entries[1], &checkpoint, settings.last().unwrap()] {
        assert!(named.contains(path.file_name().unwrap().to_str().unwrap()), "{}: {named}", path.display());
    }
    // The damage hides the remote's node from nobody: its file is whole.
    let (values, clean) = fsck(&pond, &["--repair"]);
    assert!(clean, "{values:#?}");
    let repaired = values.iter().filter(|value| value["event"] == "repaired").count();
    assert!(repaired >= 5, "{values:#?}");
    assert!(!directory.join("repair").exists());
    pond.mount();
    tree::assert_same("the tree before and after", &before, &tree::look_at(pond.mountpoint()), Also::ALL);
    pond.umount();
    assert!(fsck(&pond, &[]).1);

    // Where the remote's own node is lost, and all else, the user names the store.
    for entry in fs::read_dir(directory.join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            fs::remove_file(path).unwrap();
        }
    }
    let (values, clean) = fsck(&pond, &["--repair"]);
    assert!(!clean, "{values:#?}");
    let (values, clean) = fsck(&pond, &["--repair", "--from-backup", yaml]);
    assert!(clean, "{values:#?}");
    pond.mount();
    tree::assert_same("the tree before and after", &before, &tree::look_at(pond.mountpoint()), Also::ALL);
}

/// A reader of the mount meets bytes that do not match their digest: he gets EIO, and the status tells everybody else.
#[test]
fn damage_that_a_reader_met_is_in_the_status() {
    let pond = TestPond::mounted();
    let mut random = Random::new(7);
    let content = random.bytes(3 << 20);
    fs::write(pond.path("file"), &content).unwrap();
    pond.sync();
    pond.umount();
    pond.mount();
    assert_eq!(pond.status()["damage"]["reads"], 0);
    pond.pond(["status", "--check"]);
    let largest = fs::read_dir(pond.directory().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap();
    let mut bytes = fs::read(largest.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(largest.path(), bytes).unwrap();
    assert_eq!(fs::read(pond.path("file")).unwrap_err().raw_os_error(), Some(libc::EIO));
    let status = pond.status();
    assert!(status["damage"]["reads"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(status["damage"]["places"][0]["file"], largest.file_name().to_str().unwrap(), "{status}");
    let told = pond.try_pond(["status", "--check"]).failure(1);
    assert!(told.contains("readers met damaged content"), "{told}");
    pond.umount();
}
