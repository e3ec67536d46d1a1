//! Other programs read the table: Python's deltalake opens every version, the rows at each, folded by a short script that
//! shares nothing with pond, give the tree that a mount of that version shows, and nobody else can write.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;

use pond_tests::command::run_within;
use pond_tests::tools::{python, script};
use pond_tests::tree::{self, Also, Node, Tree};
use pond_tests::{Random, TestPond, succeed};
use serde_json::Value;

/// Versions that are mounted and compared; of the others only that they fold.
const MOUNTED: u64 = 12;

/// The trees of these versions, as the script folds them.
fn fold(pond: &TestPond, versions: impl Iterator<Item = u64>) -> BTreeMap<u64, Tree> {
    let mut command = python(&["pyarrow", "deltalake", "blake3"]);
    command.arg(script("fold.py")).arg(pond.directory().join("data"));
    command.args(versions.map(|version| version.to_string()));
    let mut trees: BTreeMap<u64, Tree> = BTreeMap::new();
    for line in run_within(&mut command, Duration::from_secs(600)).success().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let tree = trees.entry(line["version"].as_u64().unwrap()).or_default();
        tree.insert(bytes(&line["path"]), node(&line));
    }
    trees.values_mut().for_each(tree::name_links);
    trees
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn node(line: &Value) -> Node {
    let number = |name: &str| line[name].as_i64().unwrap_or_else(|| panic!("{name} in {line}"));
    let xattrs = line["xattrs"].as_object().unwrap().iter();
    let name = |name: &String| bytes(&Value::String(name.clone()));
    Node {
        mode: number("mode") as u32,
        uid: number("uid") as u32,
        gid: number("gid") as u32,
        nlink: number("nlink") as u64,
        size: number("size") as u64,
        rdev: number("rdev") as u64,
        mtime: number("mtime").into(),
        ctime: number("ctime").into(),
        inode: number("inode") as u64,
        same_as: Vec::new(),
        content: bytes(&line["content"]),
        xattrs: xattrs.map(|(key, value)| (name(key), bytes(value))).collect(),
    }
}

/// Some of everything, changed again and again, so that the versions differ.
fn make_history(pond: &TestPond) {
    let mut random = Random::new(7);
    for round in 0..40 {
        let directory = pond.path(format!("directory-{}", round % 7));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join(format!("file-{}", random.below(5)));
        fs::write(&file, random.bytes(1 + round * 500)).unwrap();
        let sparse =
            File::options().create(true).truncate(false).write(true).open(pond.path("sparse")).unwrap();
        sparse.write_all_at(&random.bytes(3_000), random.below(1 << 20)).unwrap();
        if round % 5 == 0 {
            sparse.set_len(random.below(1 << 20)).unwrap();
            fs::write(pond.path("big"), random.bytes(6 << 20)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o4711)).unwrap();
        }
        if round % 3 == 0 {
            fs::rename(&file, pond.path(format!("moved-{}", round % 2))).unwrap();
            symlink(format!("target-{round}"), directory.join(format!("link-{round}"))).unwrap();
            fs::hard_link(pond.path("moved-0"), directory.join(format!("hard-{round}"))).unwrap();
        }
        if round % 11 == 0 {
            let special = directory.join(format!("special-{round}"));
            succeed(Command::new("mknod").arg(&special).args(["c", "10", "300"]));
            succeed(
                Command::new("setfattr").args(["-n", "user.round", "-v", &round.to_string()]).arg(&directory),
            );
            succeed(Command::new("chown").arg(format!("{round}:{}", round + 1)).arg(&special));
        }
        if round % 13 == 12 {
            fs::remove_dir_all(&directory).unwrap();
        }
        pond.sync();
    }
}

#[test]
fn deltalake_reads_every_version_and_its_rows_make_the_tree_of_that_version() {
    // Commits only when asked for: each version is then known to be what a round left.
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    make_history(&pond);
    let newest = pond.version();
    assert!(newest >= 40, "only {newest} versions");
    let trees = fold(&pond, 0..=newest);
    assert_eq!(trees.len() as u64, newest + 1);
    let also = Also::ALL;
    tree::assert_same("fold and mount", &trees[&newest], &tree::look_at(pond.mountpoint()), also);
    for number in 0..MOUNTED {
        let version = newest * number / (MOUNTED - 1);
        let name = format!("version-{version}");
        let mountpoint = pond.mount_beside(&name, &["--version", &version.to_string()]);
        let what = format!("fold (left) and mount (right) of version {version}");
        tree::assert_same(&what, &trees[&version], &tree::look_at(&mountpoint), also);
        pond.umount_at(&mountpoint);
    }
    pond.umount();
    let again = fold(&pond, newest..=newest);
    tree::assert_same("before and after the unmount", &trees[&newest], &again[&newest], also);
}

#[test]
fn polars_reads_the_rows_too() {
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "some bytes").unwrap();
    pond.sync();
    let mut command = python(&["polars", "deltalake"]);
    let program = "import polars, sys; t = polars.read_delta(sys.argv[1]); \
                   print(t.filter(polars.col('record') == 'extent')['length'].sum())";
    let told = succeed(command.args(["-c", program]).arg(pond.directory().join("data")));
    assert_eq!(told.trim(), "10");
    pond.umount();
}

#[test]
fn nobody_else_can_write_to_the_table() {
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "kept").unwrap();
    pond.umount();
    // Vacuum would remove it, and is refused only where it has something to remove.
    fs::write(pond.directory().join("data/unreferenced.parquet"), "not one of the table's").unwrap();
    let before = tree::look_at(&pond.directory().join("data"));
    let mut command = python(&["pyarrow", "deltalake"]);
    command.arg(script("refused.py")).arg(pond.directory().join("data"));
    let told = succeed(&mut command);
    println!("{told}");
    assert_eq!(told.lines().count(), 7, "{told}");
    let done: Vec<&str> = told.lines().filter(|line| line.ends_with("DONE")).collect();
    assert!(done.is_empty(), "{done:?}");
    tree::assert_same(
        "the table before and after",
        &before,
        &tree::look_at(&pond.directory().join("data")),
        Also::ALL,
    );
    pond.mount();
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "kept");
    pond.umount();
}
