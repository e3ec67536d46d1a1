//! Merging, letting go of old versions and cleaning, as users and replicas see them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use pond_tests::command::run_within;
use pond_tests::tools::{python, script};
use pond_tests::tree::{self, Also, Tree};
use pond_tests::{Random, TestPond, wait_until};
use serde_json::Value;

/// What a replica has in common with its source.
const SAME: Also = Also { mtime: true, ctime: true, inode: false };

/// A source that pushes to a directory with each sync, and a configuration for replicas of it.
fn source_with_remote() -> (TestPond, String) {
    let source = TestPond::new();
    let store = source.host_directory("store");
    let yaml = source.host("remote.yaml");
    let text = format!("storage_type: local\npath: {}\nsync_interval: 0.1\n", store.display());
    fs::write(&yaml, text).unwrap();
    let yaml = yaml.to_str().unwrap().to_owned();
    source.mount_with(&["-o", "commit=3600"]);
    source.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", &yaml]);
    source.sync();
    (source, yaml)
}

/// Versions that differ from each other, of new, changed and removed files.
fn make_versions(pond: &TestPond, random: &mut Random, count: u64) {
    for round in 0..count {
        let directory = pond.path(format!("directory-{}", random.below(3)));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("file-{}", random.below(4))), random.bytes(3_000)).unwrap();
        let sparse =
            fs::File::options().create(true).truncate(false).write(true).open(pond.path("sparse")).unwrap();
        sparse.write_all_at(&random.bytes(20_000), random.below(300_000)).unwrap();
        if round % 3 == 2 {
            sparse.set_len(random.below(200_000)).unwrap();
            fs::rename(&directory, pond.path("moved")).ok();
            fs::remove_dir_all(pond.path("moved")).ok();
        }
        pond.sync();
    }
}

fn maintain(pond: &TestPond, arguments: &[&str]) -> Value {
    pond.json([&["maintain"], arguments].concat()).remove(0)
}

/// Name and digest of each log entry and data file.
fn table(pond: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for directory in [pond.join("data"), pond.join("data/_delta_log")] {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_file() && !name.contains("checkpoint") {
                files.insert(name, tree::digest(&path).unwrap());
            }
        }
    }
    files
}

fn look_at_version(pond: &TestPond, version: u64) -> Tree {
    let mount = pond.mount_beside("then", &["--version", &version.to_string()]);
    let tree = tree::look_at(&mount);
    pond.umount_at(&mount);
    tree
}

/// A tree as the script sees it, by path.
type Folded = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// Size and content of each path, as Python's deltalake folds these versions.
fn fold(pond: &TestPond, versions: &[u64]) -> BTreeMap<u64, Folded> {
    let mut command = python(&["pyarrow", "deltalake", "blake3"]);
    command.arg(script("fold.py")).arg(pond.directory().join("data"));
    command.args(versions.iter().map(u64::to_string));
    let bytes = |hex: &Value| -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let mut trees: BTreeMap<u64, BTreeMap<_, _>> = BTreeMap::new();
    for line in run_within(&mut command, Duration::from_secs(300)).success().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let node = (line["size"].as_u64().unwrap(), bytes(&line["content"]));
        trees.entry(line["version"].as_u64().unwrap()).or_default().insert(bytes(&line["path"]), node);
    }
    trees
}

fn brief(tree: &Tree) -> BTreeMap<Vec<u8>, (u64, Vec<u8>)> {
    tree.iter().map(|(path, node)| (path.clone(), (node.size, node.content.clone()))).collect()
}

#[test]
fn a_replica_gets_merged_files_byte_for_byte_and_every_version_stays_what_it_was() {
    let (source, yaml) = source_with_remote();
    let mut random = Random::new(5);
    make_versions(&source, &mut random, 6);
    let replica = TestPond::new();
    replica.pond(["init", "--from-backup", &yaml]);
    replica.mount();
    let mut trees = BTreeMap::new();
    for _ in 0..2 {
        make_versions(&source, &mut random, 4);
        trees.insert(source.version(), tree::look_at(source.mountpoint()));
        let report = maintain(&source, &[]);
        assert!(report["merged_files"].as_u64().unwrap() >= 4, "{report}");
        assert_eq!(report["cleaned"]["files"], 0, "replaced files are kept for a day: {report}");
        source.sync();
        trees.insert(source.version(), tree::look_at(source.mountpoint()));
    }
    assert!(source.status()["history"]["live_files"].as_u64().unwrap() <= 3);
    let wanted = source.position().unwrap();
    wait_until("the replica shows the source's version", Duration::from_secs(60), || {
        (replica.position().as_ref() == Some(&wanted)).then_some(())
    });
    let (left, right) = (tree::look_at(source.mountpoint()), tree::look_at(replica.mountpoint()));
    tree::assert_same("source and replica", &left, &right, SAME);
    assert_eq!(table(source.directory()), table(replica.directory()), "byte for byte");
    let shown = source.json(["show", &source.version().to_string()]).remove(0);
    assert_eq!(shown["changes"].as_array().unwrap().len(), 0, "a merge changes nothing: {shown}");

    let versions: Vec<u64> = (1..=source.version()).collect();
    let folded = fold(&replica, &versions);
    for version in versions.into_iter().step_by(3).chain(trees.keys().copied()) {
        let ours = brief(&look_at_version(&source, version));
        assert_eq!(folded[&version], ours, "version {version}");
        if let Some(tree) = trees.get(&version) {
            assert_eq!(ours, brief(tree), "version {version} is what it was when it was made");
        }
    }
    replica.umount();
    source.umount();
}

#[test]
fn old_versions_are_let_go_of_when_told_to_and_refused_afterwards() {
    let pond = TestPond::new();
    pond.mount_with(&["-o", "commit=3600"]);
    let mut random = Random::new(9);
    make_versions(&pond, &mut random, 12);
    let newest = pond.version();
    let kept = newest - 3;
    let before = look_at_version(&pond, kept);
    let now = tree::look_at(pond.mountpoint());

    // What a setting would free is told without setting it.
    let would = maintain(&pond, &["--dry-run", "--retention", "4 versions"]);
    assert!(would["pruned"]["rows"].as_u64().unwrap() > 10, "{would}");
    assert_eq!(pond.version(), newest, "nothing was done");
    pond.pond(["control", "set", "keep_replaced", "0s"]);
    let report = maintain(&pond, &[]);
    assert_eq!(report["pruned"]["rows"], 0, "all versions are kept unless told otherwise: {report}");
    assert!(pond.status()["history"]["floor"].is_null());
    let all = report["live_bytes"].as_u64().unwrap();

    // A reader of a version keeps the floor below it.
    let reader = pond.mount_beside("reader", &["--version", "3"]);
    let as_of_3 = tree::look_at(&reader);
    pond.pond(["control", "set", "retention", "4 versions"]);
    let report = maintain(&pond, &[]);
    assert!(report["floor"].as_u64().is_none_or(|floor| floor <= 3), "{report}");
    tree::assert_same("version 3", &as_of_3, &tree::look_at(&reader), Also::ALL);
    pond.umount_at(&reader);
    let report = maintain(&pond, &[]);
    assert_eq!(report["floor"].as_u64(), Some(kept), "{report}");
    assert!(report["live_bytes"].as_u64().unwrap() < all, "{all} bytes before: {report}");
    assert_eq!(report["cleaned"]["waiting_files"], 0, "what it replaced goes in the same run: {report}");
    tree::assert_same("the mounted tree", &now, &tree::look_at(pond.mountpoint()), Also::ALL);

    pond.umount();
    let report = maintain(&pond, &[]);
    assert_eq!(report["cleaned"]["waiting_files"], 0, "nobody reads: {report}");
    pond.mount();
    tree::assert_same("the tree", &now, &tree::look_at(pond.mountpoint()), Also::ALL);
    tree::assert_same("the floor", &before, &look_at_version(&pond, kept), Also::ALL);
    let below = (kept - 1).to_string();
    for command in [
        vec!["list".to_owned(), format!("/@{below}")],
        vec!["mount".into(), "--version".into(), below.clone(), pond.host("never").display().to_string()],
        vec!["show".into(), below.clone()],
    ] {
        let refused = pond.try_pond(&command).failure(1);
        assert!(refused.contains("no longer kept"), "{command:?}: {refused}");
    }
    assert_eq!(pond.status()["history"]["floor"].as_u64(), Some(kept));
    let oldest = pond.json(["log"]).last().unwrap()["version"].as_u64();
    assert_eq!(oldest, Some(kept));
    pond.umount();
}

#[test]
fn a_retention_of_versions_counts_what_users_made_and_maintaining_again_changes_nothing() {
    let pond = TestPond::new();
    pond.mount_with(&["-o", "commit=3600"]);
    let mut random = Random::new(21);
    for n in 0..12 {
        fs::write(pond.path("state"), n.to_string()).unwrap();
        fs::write(pond.path("beside"), random.bytes(30_000)).unwrap();
        pond.sync();
    }
    let oldest = pond.version() - 9;
    pond.pond(["control", "set", "retention", "10 versions"]);
    pond.pond(["control", "set", "keep_replaced", "0s"]);
    for mounted in [true, false] {
        let report = maintain(&pond, &[]);
        assert_eq!(report["floor"].as_u64(), Some(oldest), "{report}");
        let before = table(pond.directory());
        for _ in 0..4 {
            let report = maintain(&pond, &[]);
            assert_eq!(report["floor"].as_u64(), Some(oldest), "{report}");
            assert_eq!(
                (&report["merged_files"], &report["pruned"]["files"]),
                (&0.into(), &0.into()),
                "{report}"
            );
            assert!(report["checkpoint"].is_null(), "{report}");
        }
        assert!(table(pond.directory()) == before, "the second time changes nothing");
        let made =
            pond.json(["log"]).into_iter().filter(|version| version["origin"]["kind"] != "maintenance");
        assert_eq!(made.count(), 10);
        if mounted {
            pond.umount();
        }
    }
    for version in oldest..oldest + 10 {
        let state = pond.pond(["cat", &format!("/state@{version}")]);
        assert_eq!(state, (version - oldest + 2).to_string(), "version {version}");
    }
}

#[test]
fn files_that_a_remote_has_yet_to_get_stay() {
    let (source, yaml) = source_with_remote();
    source.pond(["control", "set", "keep_replaced", "0s"]);
    source.pond(["control", "set", "retention", "2 versions"]);
    let mut random = Random::new(3);
    make_versions(&source, &mut random, 4);
    let pushed = source.version();
    let store = source.host("store");
    let away = source.host("away");
    fs::rename(&store, &away).unwrap();
    fs::write(&store, b"").unwrap();
    for n in 0..4 {
        fs::write(source.path(format!("late-{n}")), random.bytes(5_000)).unwrap();
        source.try_pond(["sync"]).failure(1);
    }
    source.umount();
    let report = maintain(&source, &[]);
    assert!(report["floor"].as_u64().is_none_or(|floor| floor <= pushed), "{report}");
    assert!(report["cleaned"]["waiting_files"].as_u64().unwrap() >= 4, "{report}");
    fs::remove_file(&store).unwrap();
    fs::rename(&away, &store).unwrap();
    source.mount_with(&["-o", "commit=3600"]);
    source.sync();
    let now = tree::look_at(source.mountpoint());
    source.umount();
    let report = maintain(&source, &[]);
    assert!(report["floor"].as_u64().unwrap() > pushed, "{report}");
    // A new replica begins at the base and applies what followed, pruned and merged as it is.
    source.mount_with(&["-o", "commit=3600"]);
    source.sync();
    let replica = TestPond::new();
    replica.pond(["init", "--from-backup", &yaml]);
    replica.mount();
    tree::assert_same("source and replica", &now, &tree::look_at(replica.mountpoint()), SAME);
    replica.umount();
    source.umount();
}
