//! The session of the README, with real trees, with a store in a directory and with one that speaks S3.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pond_tests::command::run_within;
use pond_tests::s3::S3Server;
use pond_tests::tools::{python, tool};
use pond_tests::{TestPond, succeed};

use crate::pair::{Commits, Pair, assert_identical, objects};

#[test]
fn a_replica_from_a_directory_is_the_same_tree_and_the_same_history() {
    session(&Pair::local());
}

#[test]
fn a_replica_from_s3_needs_only_to_read() {
    let server = S3Server::start();
    let mut pair = Pair::with(&S3Server::yaml(server.endpoint()));
    pair.source.set_environment(&server.writer.environment());
    pair.replica.set_environment(&server.reader.environment());
    session(&pair);
}

fn session(pair: &Pair) {
    let Pair { source, replica, .. } = pair;
    source.mount();
    pair.add_remote();
    copy_real_trees(source);
    let report = source.json(["sync"]).pop().unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("{report}"));
    assert!(number(&report["factories"][0]["watermark"]) >= number(&report["version"]), "{report}");

    pair.restore();
    replica.mount();
    // What was there is there, what comes follows, and neither needs a word.
    fs::write(source.path("later"), "after the replica was made").unwrap();
    fs::rename(source.path("sources/fs"), source.path("moved")).unwrap();
    source.sync();
    pair.wait();
    assert_eq!(fs::read_to_string(replica.path("later")).unwrap(), "after the replica was made");
    pair.assert_same_trees();
    let told = succeed(Command::new("diff").arg("-r").arg(source.mountpoint()).arg(replica.mountpoint()));
    assert_eq!(told, "");
    // What is compared now would change with each version that a mounted source makes to keep the table small.
    pair.finish();
    assert_eq!(history(source), history(replica));

    let status = replica.status();
    assert_eq!(status["mode"], "replica");
    assert_eq!(status["replica"]["state"], "synchronized", "{status}");
    assert_eq!(status["replica"]["lag_ms"], 0);
    assert_eq!(fs::read_to_string(replica.path(".pond/lag")).unwrap(), "0\n");
    let refused = fs::write(replica.path("mine"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));

    // Not mounted, it pulls when told to.
    replica.umount();
    source.mount();
    pair.commit("while it was away");
    source.umount();
    let told = replica.pond(["sync"]);
    assert!(told.contains(&source.status()["version"].to_string()), "{told}");
    pair.assert_identical();
    source.mount();
    replica.mount_with(&["--follow"]);
    pair.assert_same_trees();
    replica.umount();
    pair.finish();
}

#[test]
fn a_remote_that_is_added_late_gets_all_that_was_and_holds_up_no_other() {
    const VERSIONS: u64 = 150;
    let pair = Pair::local();
    pair.begin();
    let mut commits = Commits::of(&pair.source);
    while pair.source.version() < VERSIONS {
        fs::write(pair.source.path(format!("file-{}", pair.source.version() % 20)), "x").unwrap();
        commits.commit();
    }
    let second = pair.source.host_directory("second");
    let yaml = pair.source.host("second.yaml");
    let third = pair.source.host("gone");
    for (name, path) in [("20-second", &second), ("30-gone", &third)] {
        fs::create_dir_all(path).unwrap();
        fs::write(&yaml, format!("storage_type: local\npath: {}\n", path.display())).unwrap();
        let node = format!("/etc/system.d/{name}");
        pair.source.pond(["mknod", "remote", &node, "--config-path", yaml.to_str().unwrap()]);
    }
    fs::remove_dir_all(&third).unwrap();
    fs::write(&third, "no directory").unwrap();
    fs::write(pair.source.path("last"), "x").unwrap();
    commits.commit();
    let version = pair.source.version();
    let told = pair.source.try_pond(["sync"]).failure(1);
    assert!(told.contains("30-gone"), "{told}");
    let status = pair.source.status();
    let remote = |name: &str| {
        let remotes = status["factories"].as_array().unwrap();
        remotes.iter().find(|remote| remote["path"].as_str().unwrap().ends_with(name)).unwrap()
    };
    for name in ["10-remote", "20-second"] {
        assert!(remote(name)["watermark"].as_u64() >= Some(version), "{status}");
    }
    assert_eq!(remote("30-gone")["failed"], true, "{status}");

    pair.source.umount();
    fs::write(&yaml, format!("storage_type: local\npath: {}\n", second.display())).unwrap();
    for configuration in [pair.yaml(), yaml.to_str().unwrap()] {
        let replica = TestPond::new();
        replica.pond(["init", "--from-backup", configuration]);
        assert_identical(&pair.source, &replica);
    }
    // Manifests lie by themselves, each put where none is; what they name need not.
    let is_bundle = |key: &&PathBuf| key.to_string_lossy().contains("bundle-");
    let bundles = objects(&second).iter().filter(is_bundle).count() as u64;
    assert!(bundles < VERSIONS / 2, "{bundles} bundles by themselves: the past was not packed");
}

/// A repository that git clones, and a tree that cp copies, both into the mount.
fn copy_real_trees(pond: &TestPond) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let trees = match env::var_os("POND_TREE") {
        Some(tree) => vec![PathBuf::from(tree)],
        None => ["fs", "mount", "tests", "tools"].map(|name| workspace.join(name)).into(),
    };
    fs::create_dir(pond.path("sources")).unwrap();
    let mut copy = Command::new("cp");
    let hour = std::time::Duration::from_secs(3600);
    run_within(copy.arg("-a").args(&trees).arg(pond.path("sources")), hour).success();
    let origin = pond.host_directory("origin");
    let git = |directory: &Path, arguments: &[&str]| {
        let mut git = Command::new(tool("git"));
        git.args(["-c", "user.name=Pond", "-c", "user.email=pond@example.org", "-C"]);
        succeed(git.arg(directory).args(arguments));
    };
    git(&origin, &["init", "--quiet"]);
    succeed(Command::new("cp").arg("-a").arg(workspace.join("fs")).arg(&origin));
    git(&origin, &["add", "--all"]);
    git(&origin, &["commit", "--quiet", "--message", "Sources"]);
    git(pond.mountpoint(), &["clone", "--quiet", "--no-local", origin.to_str().unwrap(), "clone"]);
}

/// The table's history as Python's deltalake tells it.
fn history(pond: &TestPond) -> String {
    let program = "import deltalake, json, sys; \
                   print(json.dumps(deltalake.DeltaTable(sys.argv[1]).history(), sort_keys=True))";
    let told = succeed(python(&["deltalake"]).args(["-c", program]).arg(pond.directory().join("data")));
    assert!(told.len() > 100, "{told}");
    told
}
