//! Files out of a store, as the source has them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use pond_tests::tree::{self, Also, Tree};
use pond_tests::{Random, TestPond};

use crate::scene::Scene;

/// What plain files have in common with those of the pond.
const SAME: Also = Also { mtime: true, ctime: false, inode: false };

/// The source's tree of a version, or only what lies below this path of it.
fn source(scene: &Scene, version: u64, below: Option<&str>) -> Tree {
    let mut tree = tree::look_at(&scene.source.path(format!(".pond/versions/{version}")));
    without_numbers(&mut tree);
    if let Some(below) = below {
        tree.retain(|path, _| path == below.as_bytes() || path.starts_with(format!("{below}/").as_bytes()));
        rename_links(&mut tree);
    }
    tree
}

fn restored(at: &Path, below: Option<&str>) -> Tree {
    let mut tree = tree::look_at(at);
    without_numbers(&mut tree);
    if let Some(below) = below {
        tree.retain(|path, _| path == below.as_bytes() || path.starts_with(format!("{below}/").as_bytes()));
        rename_links(&mut tree);
    }
    tree
}

/// Filesystems count the links of directories in their own ways.
fn without_numbers(tree: &mut Tree) {
    for node in tree.values_mut().filter(|node| node.mode & libc::S_IFMT == libc::S_IFDIR) {
        node.nlink = 0;
    }
}

/// Links that lead out of what is looked at do not count.
fn rename_links(tree: &mut Tree) {
    tree::name_links(tree);
    let mut names = std::collections::HashMap::new();
    tree.values().for_each(|node| *names.entry(node.inode).or_insert(0) += 1);
    for node in tree.values_mut().filter(|node| node.nlink > 0) {
        node.nlink = names[&node.inode];
    }
}

#[test]
fn random_versions_and_paths_come_back_as_the_source_has_them() {
    let scene = Scene::new(3, 70, 8);
    let newest = scene.source.version();
    let nobody = TestPond::new();
    let mut random = Random::new(30);
    for n in 0..6 {
        let version = if n == 0 { newest } else { random.below(newest + 1) };
        let to = nobody.host(format!("whole-{n}"));
        let (number, directory) = (version.to_string(), to.to_str().unwrap());
        let said = nobody.pond([
            "backup",
            "restore",
            "--to",
            directory,
            "--version",
            &number,
            "--remote",
            &scene.yaml,
        ]);
        assert!(said.contains(&format!("version {version} ")), "{said}");
        tree::assert_same(&number, &source(&scene, version, None), &restored(&to, None), SAME);
        assert!(!to.join(".pond-restore").exists());
    }
    // Parts: a directory by its name, and by a pattern; its files with it, and the directories above.
    for n in 0..3 {
        let version = random.below(30) + newest - 30;
        let to = nobody.host(format!("part-{n}"));
        let (number, directory) = (version.to_string(), to.to_str().unwrap());
        let below = format!("dir-{n}");
        let path = if n == 0 { format!("/{below}") } else { format!("/[d]ir-{n}") };
        let had = source(&scene, version, Some(&below));
        let ended = nobody.try_pond([
            "backup",
            "restore",
            "--to",
            directory,
            "--version",
            &number,
            "--path",
            &path,
            "--remote",
            &scene.yaml,
        ]);
        if had.is_empty() {
            ended.failure(1);
            continue;
        }
        ended.success();
        tree::assert_same(&path, &had, &restored(&to, Some(&below)), SAME);
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1, "nothing else came");
    }
    let missing = nobody.try_pond([
        "backup",
        "restore",
        "--to",
        nobody.host("none").to_str().unwrap(),
        "--path",
        "/no/such",
        "--remote",
        &scene.yaml,
    ]);
    assert!(missing.failure(1).contains("/no/such"));
}

#[test]
fn nothing_that_is_there_is_overwritten_unless_asked_for() {
    let scene = Scene::new(4, 10, 3);
    let (source_pond, version) = (&scene.source, scene.source.version());
    fs::write(source_pond.path("dir-0/here"), "the pond's").unwrap();
    source_pond.sync();
    scene.wait_for_store();
    let newest = source_pond.version();
    let to = source_pond.host_directory("to");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o711)).unwrap();
    fs::create_dir(to.join("dir-0")).unwrap();
    fs::set_permissions(to.join("dir-0"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(to.join("dir-0/here"), "mine").unwrap();
    fs::write(to.join("more"), "also mine").unwrap();
    let directory = to.to_str().unwrap();
    let restore = |options: &[&str]| {
        let always = ["backup", "restore", "--to", directory, "--remote", &scene.yaml];
        source_pond.try_pond(always.iter().chain(options))
    };
    let refused = restore(&[]).failure(1);
    assert!(refused.contains("/dir-0/here") && refused.contains("--overwrite"), "{refused}");
    assert_eq!(fs::read(to.join("dir-0/here")).unwrap(), b"mine");
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode(&to), mode(&to.join("dir-0"))), (0o711, 0o700), "directories are as they were");
    let others = restored(&to, None);
    assert!(source(&scene, newest, None).keys().all(|path| others.contains_key(path)), "the others came");
    // Again it finds the same.
    restore(&[]).failure(1);

    let before = restored(&to, None);
    let plan = restore(&["--overwrite", "--delete", "--dry-run"]).success();
    assert!(plan.contains("/more") && plan.contains("remove"), "{plan}");
    tree::assert_same(
        "a dry run",
        &before,
        &restored(&to, None),
        Also { mtime: true, ctime: true, inode: true },
    );
    restore(&["--delete"]).failure(2);
    restore(&["--overwrite"]).success();
    assert_eq!(fs::read(to.join("more")).unwrap(), b"also mine");
    assert_eq!(fs::read(to.join("dir-0/here")).unwrap(), b"the pond's");
    restore(&["--overwrite", "--delete"]).success();
    tree::assert_same("all of it", &source(&scene, newest, None), &restored(&to, None), SAME);

    // An older copy of a store is told from what is expected.
    let next = (newest + 1).to_string();
    assert!(restore(&["--expect", &next]).failure(1).contains(&next));
    restore(&["--expect", &newest.to_string()]).success();

    // Owners.
    let user = |name: &str, options: &[&str]| {
        let to = source_pond.host(name);
        let always =
            ["backup", "restore", "--to", to.to_str().unwrap(), "--remote", &scene.yaml, "--path", "/dir-0"];
        source_pond.try_pond(always.iter().chain(options)).success();
        let metadata = to.join("dir-0/here").metadata().unwrap();
        (metadata.uid(), metadata.gid())
    };
    let map = source_pond.host("owners");
    fs::write(&map, "user 0 1234 # root\ngroup 0 4321\n").unwrap();
    assert_eq!(user("mapped", &["--owner-map", map.to_str().unwrap()]), (1234, 4321));
    assert_eq!(user("mine", &["--no-owner"]), (0, 0));

    // A pond.
    let replica = TestPond::new();
    let directory = replica.directory().to_str().unwrap();
    let number = version.to_string();
    replica.pond([
        "backup",
        "restore",
        "--to",
        directory,
        "--as-pond",
        "--version",
        &number,
        "--remote",
        &scene.yaml,
    ]);
    assert_eq!(replica.status()["mode"], "replica");
    assert_eq!(replica.json(["log", "-n", "1"])[0]["version"].as_u64(), Some(version));
}

#[test]
fn what_was_cut_off_goes_on_without_fetching_again() {
    let scene = Scene::new(5, 70, 4);
    let newest = scene.source.version();
    let (store, yaml) = scene.copy("incomplete");
    let last = store.join(format!("backups/1/version-{newest:06}"));
    let aside = scene.source.host("aside");
    fs::rename(&last, &aside).unwrap();
    fs::create_dir(&last).unwrap();
    fs::copy(aside.join("manifest.json"), last.join("manifest.json")).unwrap();
    let to = scene.source.host("to");
    let (directory, number) = (to.to_str().unwrap(), newest.to_string());
    let restore = || {
        scene.source.try_pond([
            "backup",
            "restore",
            "--to",
            directory,
            "--version",
            &number,
            "--remote",
            &yaml,
        ])
    };
    let told = restore().failure(1);
    assert!(told.contains(&number), "{told}");
    assert!(to.join(".pond-restore").exists(), "what was fetched is kept");
    // What it has is not asked for again: it is not there any more.
    fs::remove_dir_all(&last).unwrap();
    fs::rename(&aside, &last).unwrap();
    fs::remove_dir_all(store.join("backups/1/packs")).unwrap();
    // Some of the files came before it was cut off, in directories that were not finished.
    fs::create_dir(to.join("dir-1")).unwrap();
    fs::set_permissions(to.join("dir-1"), fs::Permissions::from_mode(0o700)).unwrap();
    restore().success();
    tree::assert_same("all of it", &source(&scene, newest, None), &restored(&to, None), SAME);
}

#[test]
fn neither_the_store_nor_a_pond_is_restored_over() {
    let scene = Scene::new(5, 3, 2);
    let (store, pond) = (scene.store.display().to_string(), scene.source.directory().display().to_string());
    let around = scene.source.host("").display().to_string();
    let (in_store, in_pond) = (format!("{store}/x"), format!("{pond}/x"));
    let restore = |to: &str, options: &[&str]| {
        let always = ["backup", "restore", "--remote", &scene.yaml, "--to", to];
        scene.source.try_pond(always.iter().chain(options))
    };
    for (to, options, name) in [
        (&store, vec!["--overwrite", "--delete"], "the backup store lies at"),
        (&store, vec!["--as-pond"], "the backup store lies at"),
        (&in_store, vec![], "the backup store lies at"),
        (&pond, vec!["--overwrite", "--delete"], "a pond lies at"),
        (&pond, vec![], "a pond lies at"),
        (&in_pond, vec!["--dry-run"], "a pond lies at"),
        (&around, vec!["--overwrite", "--delete"], "lies at"),
    ] {
        let said = restore(to, &options).failure(1);
        assert!(said.contains(name) && said.contains("name a directory of its own"), "{to}: {said}");
    }
    scene.source.pond(["backup", "verify", "--remote", &scene.yaml, "--level", "data"]);
    scene.source.pond(["fsck"]);
}

#[test]
fn a_restore_of_the_newest_version_tells_of_those_that_are_missing() {
    let scene = Scene::new(6, 3, 4);
    let newest = scene.source.version();
    let (copy, yaml) = scene.copy("lacking");
    let missing = format!("backups/1/version-{newest:06}");
    fs::remove_dir_all(copy.join(missing)).unwrap();
    let to = scene.source.host_directory("newest");
    let always = ["backup", "restore", "--remote", &yaml, "--to", to.to_str().unwrap()];
    let mut command = scene.source.command();
    let restored = pond_tests::run(command.args(always));
    let warned = restored.stderr.clone();
    restored.success();
    assert!(warned.contains(&format!("version {newest} is missing")), "{warned}");
}
