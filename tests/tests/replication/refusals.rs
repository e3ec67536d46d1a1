//! What cannot work is refused in words that help, and what was there stays as it was.

use std::fs;
use std::process::Command;
use std::time::Duration;

use pond_tests::proxy::Fault;
use pond_tests::s3::{BUCKET, KEY, S3Server, SECRET};
use pond_tests::{TestPond, succeed, wait_until};
use serde_json::Value;

use crate::pair::{NODE, Pair, assert_identical, objects, table};

/// The words of a `pond mknod remote` that must fail.
#[track_caller]
fn refused(pond: &TestPond, yaml: &str) -> String {
    let path = pond.host("refused.yaml");
    fs::write(&path, yaml).unwrap();
    let told = pond.try_pond(["mknod", "remote", NODE, "--config-path", path.to_str().unwrap()]).failure(1);
    assert!(!pond.pond(["list", "/"]).contains("etc"), "a node was made: {told}");
    told
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_by_the_name_of_what_is_wrong() {
    let pond = TestPond::new();
    pond.pond(["init"]);
    let store = pond.host_directory("store");
    let local = format!("storage_type: local\npath: {}\n", store.display());
    for (yaml, word) in [
        (format!("{local}sync_intervall: 3\n"), "sync_intervall"),
        (format!("{local}compression_level: 99\n"), "compression_level"),
        (format!("{local}sync_interval: -1\n"), "sync_interval"),
        ("storage_type: floppy\n".to_owned(), "floppy"),
        ("storage_type: local\n".to_owned(), "path"),
        ("storage_type: local\npath: relative\n".to_owned(), "absolute"),
        ("storage_type: s3\nregion: x\n".to_owned(), "bucket"),
        ("storage_type: [".to_owned(), "line 2"),
    ] {
        let told = refused(&pond, &yaml);
        assert!(told.contains(word), "{yaml}: {told}");
    }
    // A variable that is not set is named, and no secret is ever shown.
    let told = refused(&pond, &S3Server::yaml("http://127.0.0.1:1"));
    assert!(told.contains(KEY) || told.contains(SECRET), "{told}");
}

#[test]
fn a_store_that_will_not_do_is_refused_before_the_node_is_made() {
    let server = S3Server::start();
    let mut pond = TestPond::new();
    pond.pond(["init"]);
    pond.set_environment(&server.writer.environment());
    let yaml = S3Server::yaml(server.endpoint());
    let told = refused(&pond, &yaml.replace(BUCKET, "no-such-bucket"));
    assert!(told.contains("no-such-bucket"), "{told}");
    // One that may only read.
    pond.set_environment(&server.reader.environment());
    let told = refused(&pond, &yaml);
    assert!(told.contains("s3://") || told.contains(BUCKET), "{told}");
    // A wrong secret, which must not be shown.
    pond.set_environment(&[(SECRET, "not-the-secret")]);
    let told = refused(&pond, &yaml);
    assert!(!told.contains("not-the-secret"), "{told}");
    pond.set_environment(&[(KEY, "AKIAAAAAAAAAAAAAAAAA")]);
    refused(&pond, &yaml);
    // Nobody there, or not what it says.
    refused(&pond, &S3Server::yaml("http://127.0.0.1:1"));
    let file = pond.host("a-file");
    fs::write(&file, "x").unwrap();
    refused(&pond, &format!("storage_type: local\npath: {}\n", file.display()));
}

#[test]
fn a_store_that_writes_over_what_exists_is_refused() {
    let server = S3Server::without_authentication();
    let proxy = server.proxied();
    proxy.spoil(|_| Some(Fault::ForgetCondition));
    let mut pond = TestPond::new();
    pond.pond(["init"]);
    pond.set_environment(&server.writer.environment());
    let told = refused(&pond, &S3Server::yaml(&proxy.endpoint()));
    assert!(told.contains("If-None-Match") || told.contains("conditional"), "{told}");
    proxy.heal();
    let yaml = pond.host("good.yaml");
    fs::write(&yaml, S3Server::yaml(&proxy.endpoint())).unwrap();
    pond.pond(["mknod", "remote", NODE, "--config-path", yaml.to_str().unwrap()]);
}

#[test]
fn a_replica_is_made_only_of_what_is_a_backup_and_only_where_there_is_room_for_it() {
    let pair = Pair::local();
    let told = pair.replica.try_pond(["init", "--from-backup", pair.yaml()]).failure(1);
    assert!(told.contains("no backup"), "{told}");
    let told = pair.replica.try_pond(["init", "--from-backup", "/no/such/file"]).failure(1);
    assert!(told.contains("/no/such/file"), "{told}");
    pair.begin();
    let told = pair.source.try_pond(["init", "--from-backup", pair.yaml()]).failure(1);
    assert!(told.contains("pond: cannot make the replica"), "{told}");
    let told = pair.replica.try_pond(["init", "--from-backup", pair.yaml(), "--version", "99999"]).failure(1);
    assert!(told.contains("99999"), "{told}");
    pair.restore();
    let told = pair.replica.try_pond(["init"]).failure(1);
    assert!(told.contains("already"), "{told}");
    // A replica takes no writes, also not mounted, and does not become a source by a setting.
    for arguments in [&["mkdir", "/mine"][..], &["control", "set", "factory_mode:remote", "push"]] {
        pair.replica.try_pond(arguments).failure(1);
    }
    let told = pair.source.try_mount_at(&pair.source.host("other"), &["--follow"]).failure(1);
    assert!(told.contains("pond: "), "{told}");
    pair.source.umount();
}

#[test]
fn another_pond_in_the_place_is_told_apart() {
    let pair = Pair::local();
    pair.begin();
    pair.commit("file");
    pair.restore();
    pair.source.umount();
    let foreign = TestPond::new();
    foreign.pond(["init"]);
    // Whether at the first look or at the first push, it must not get through.
    let made = foreign.try_pond(["mknod", "remote", NODE, "--config-path", pair.yaml()]);
    let told = match made.status.success() {
        true => foreign.try_pond(["sync"]).failure(1),
        false => made.failure(1),
    };
    assert!(told.contains("another pond"), "{told}");
    // And a replica is not led astray when another pond takes the place over.
    fs::rename(pair.store(), pair.source.host("elsewhere")).unwrap();
    fs::create_dir(pair.store()).unwrap();
    let other = TestPond::new();
    other.pond(["init"]);
    other.pond(["mknod", "remote", NODE, "--config-path", pair.yaml()]);
    other.pond(["sync"]);
    let before = table(pair.replica.directory());
    let told = pair.replica.try_pond(["sync"]).failure(1);
    assert!(told.contains("another pond"), "{told}");
    assert_eq!(table(pair.replica.directory()), before);
    assert_eq!(pair.replica.status()["replica"]["state"], "failed");
    assert_eq!(pair.replica.pond(["cat", "/file"]), "file");
}

#[test]
fn a_damaged_object_is_named_and_nothing_of_it_applied_and_the_replica_goes_on_serving() {
    let pair = Pair::local();
    pair.begin();
    pair.commit("first");
    pair.restore();
    let version = pair.replica.status()["version"].as_u64().unwrap();
    let before = objects(&pair.store());
    pair.commit("second");
    let mut fresh = objects(&pair.store());
    fresh.retain(|path| !before.contains(path));
    assert!(fresh.len() >= 2, "a version is a manifest and a bundle: {fresh:?}");
    for path in &fresh {
        for damage in [flip_a_bit, cut_in_half, empty] {
            let good = fs::read(path).unwrap();
            fs::write(path, damage(good.clone())).unwrap();
            let name = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
            refuses_what_is_damaged(&pair, name, version);
            let anew = TestPond::new();
            let told = anew.try_pond(["init", "--from-backup", pair.yaml()]).failure(1);
            assert!(told.contains(name), "{told} does not name {name}");
            fs::write(path, good).unwrap();
            // What it had fetched it goes on with.
            anew.pond(["init", "--from-backup", pair.yaml()]);
            assert_identical(&pair.source, &anew);
        }
    }
    pair.finish();
}

/// A replica that follows says what is wrong and goes on showing what it had. It is a copy of the pair's: one that has fetched
/// what is right once does not fetch it again.
#[track_caller]
fn refuses_what_is_damaged(pair: &Pair, name: &str, version: u64) {
    let replica = TestPond::new();
    succeed(Command::new("cp").arg("-a").arg(pair.replica.directory()).arg(replica.directory()));
    replica.mount();
    let status = wait_until("the pull fails", Duration::from_secs(60), || {
        let status = replica.status();
        status["replica"]["error"].is_string().then_some(status)
    });
    let error = status["replica"]["error"].as_str().unwrap();
    assert!(error.contains(name), "{error} does not name {name}");
    assert_eq!(status["replica"]["state"], "failed");
    assert_eq!(replica.version(), version);
    assert_eq!(fs::read_to_string(replica.path("first")).unwrap(), "first");
    assert!(!replica.path("second").exists());
    replica.umount();
}

fn flip_a_bit(mut bytes: Vec<u8>) -> Vec<u8> {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    bytes
}

fn cut_in_half(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() / 2);
    bytes
}

fn empty(_bytes: Vec<u8>) -> Vec<u8> {
    Vec::new()
}

#[test]
fn a_version_that_is_missing_in_the_middle_is_never_taken_for_the_end() {
    let pair = Pair::local();
    pair.begin();
    pair.commit("first");
    pair.restore();
    let missing = pair.commit("second");
    pair.commit("third");
    let manifest = objects(&pair.store())
        .into_iter()
        .find(|path| path.to_str().unwrap().contains(&format!("version-{missing:06}/manifest.json")))
        .expect("each version has its manifest");
    let elsewhere = pair.source.host("manifest");
    fs::rename(&manifest, &elsewhere).unwrap();
    let told = pair.replica.try_pond(["sync"]).failure(1);
    assert!(told.contains(&missing.to_string()) && told.contains("missing"), "{told}");
    let status: Value = pair.replica.status();
    assert_eq!(status["replica"]["state"], "failed", "{status}");
    assert_eq!(pair.replica.pond(["cat", "/first"]), "first");
    fs::rename(&elsewhere, &manifest).unwrap();
    pair.finish();
}

#[test]
fn who_waits_for_a_version_that_cannot_come_is_told_so() {
    let pair = Pair::local();
    pair.begin();
    pair.restore();
    let told = pair.replica.try_pond(["status", "--wait-version", "1000"]).failure(1);
    assert!(told.contains("1000") && told.contains("pond sync"), "{told}");
    let told = pair.source.try_pond(["status", "--wait-version", "1000", "--timeout", "1"]).failure(1);
    assert!(told.contains("1000"), "{told}");
    pair.replica.mount();
    let version = pair.commit("file");
    pair.replica.pond(["status", "--wait-version", &version.to_string(), "--timeout", "60"]);
    assert_eq!(
        fs::read_to_string(pair.replica.path("file")).unwrap(),
        "file",
        "it is here once it is visible"
    );
    pair.replica.umount();
    pair.source.umount();
}
