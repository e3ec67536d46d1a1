//! The factory `remote` on a whole Steward, with directories as stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pond_oplog::{Timeline, Version};
use pond_replicate::config::RemoteConfig;
use pond_replicate::format::{self, Head};
use pond_replicate::store::Store;
use pond_replicate::{InitOptions, NoProgress, Remote, init_from_backup};
use pond_steward::{FactoryStatus, MaintainOptions, OpenOptions, Registry, Steward};
use pond_tinyfs::{Caller, Make, NodeId, WriteFlags};

struct Place {
    dir: tempfile::TempDir,
    pond: PathBuf,
}

impl Place {
    fn with_pond() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pond = dir.path().join("pond");
        Steward::init(&pond).unwrap();
        Place { dir, pond }
    }

    fn store(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn yaml(&self, name: &str) -> String {
        format!("storage_type: local\npath: {}\ncompression_level: 1\n", self.store(name).display())
    }
}

fn open(pond: &Path) -> Arc<Steward> {
    let mut registry = Registry::default();
    registry.register(Arc::new(Remote::default()));
    let commit_interval = Duration::from_secs(3600);
    Steward::open(
        pond,
        OpenOptions { registry, commit_interval, maintenance: false, ..OpenOptions::default() },
    )
    .unwrap()
}

fn write(steward: &Steward, name: &str) {
    let (fs, caller) = (steward.fs(), Caller::root());
    let file = fs.make(&caller, NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 }).unwrap().id;
    fs.write(&caller, file, 0, name.as_bytes(), WriteFlags::default()).unwrap();
    fs.forget(file, 1);
    steward.commit_now().unwrap();
}

fn sync(steward: &Steward) -> (Version, Vec<FactoryStatus>) {
    let report = steward.sync().unwrap();
    (report.position.version, report.factories)
}

fn head(store: &Path) -> Option<Head> {
    let bytes = std::fs::read(store.join("backups/HEAD.json")).ok()?;
    Some(format::decode("HEAD.json", &bytes).unwrap())
}

fn manifests(store: &Path) -> usize {
    let versions = std::fs::read_dir(store.join("backups/1")).unwrap().flatten();
    versions.filter(|entry| entry.path().join("manifest.json").exists()).count()
}

#[test]
fn each_remote_has_its_own_watermark_and_one_that_fails_harms_no_other() {
    let place = Place::with_pond();
    let steward = open(&place.pond);
    for name in ["a", "b"] {
        steward.mknod("remote", &format!("/etc/system.d/{name}"), place.yaml(name).as_bytes()).unwrap();
    }
    write(&steward, "one");
    let (tip, factories) = sync(&steward);
    assert!(factories.iter().all(|factory| !factory.failed), "{factories:?}");
    assert_eq!(head(&place.store("a")).unwrap().version, tip.0);
    assert_eq!(head(&place.store("b")).unwrap().version, tip.0);

    // As when a disk is unmounted: nothing is written into the directory that is left.
    let away = place.store("away");
    std::fs::rename(place.store("b"), &away).unwrap();
    for left in [false, true] {
        if left {
            std::fs::create_dir(place.store("b")).unwrap();
        }
        write(&steward, &format!("two {left}"));
        let (tip, factories) = sync(&steward);
        assert_eq!((factories[0].failed, factories[1].failed), (false, true), "{factories:?}");
        let told = factories[1].last_message.as_ref().unwrap();
        assert!(told.contains("mounted"), "{told}");
        assert_eq!(head(&place.store("a")).unwrap().version, tip.0);
        assert!(!place.store("b").join("backups").exists());
    }
    std::fs::remove_dir(place.store("b")).unwrap();
    std::fs::rename(&away, place.store("b")).unwrap();
    let (tip, factories) = sync(&steward);
    assert!(factories.iter().all(|factory| !factory.failed), "{factories:?}");
    assert_eq!(head(&place.store("b")), head(&place.store("a")));
    assert_eq!(manifests(&place.store("b")), tip.0 as usize + 1, "the base and each version");
    steward.close().unwrap();
}

#[test]
fn it_goes_on_after_a_restart_and_ships_its_own_node() {
    let place = Place::with_pond();
    let steward = open(&place.pond);
    steward.mknod("remote", "/etc/system.d/10-remote", place.yaml("a").as_bytes()).unwrap();
    for name in ["one", "two", "three"] {
        write(&steward, name);
    }
    let tip = steward.close().unwrap().version;
    assert_eq!(head(&place.store("a")).unwrap().version, tip.0, "closing ships what is owed");
    let steward = open(&place.pond);
    write(&steward, "four");
    let (tip, factories) = sync(&steward);
    assert!(!factories[0].failed, "{factories:?}");
    assert_eq!(head(&place.store("a")).unwrap().version, tip.0);
    let ran = steward.run("/etc/system.d/10-remote", &[]).unwrap();
    assert!(ran.message.contains(&format!("version {tip}")), "{}", ran.message);
    steward.close().unwrap();
}

#[test]
fn a_copy_of_a_pond_that_pushes_to_the_same_place_is_stopped_and_keeps_its_rows() {
    let place = Place::with_pond();
    let steward = open(&place.pond);
    steward.mknod("remote", "/etc/system.d/10-remote", place.yaml("a").as_bytes()).unwrap();
    steward.close().unwrap();
    let copy = place.dir.path().join("copy");
    let status = std::process::Command::new("cp").arg("-a").args([&place.pond, &copy]).status().unwrap();
    assert!(status.success());
    let (one, two) = (open(&place.pond), open(&copy));
    write(&one, "ours");
    let (_, factories) = sync(&one);
    assert!(!factories[0].failed, "{factories:?}");
    let before = head(&place.store("a"));
    write(&two, "theirs");
    for _ in 0..2 {
        let (tip, factories) = sync(&two);
        assert!(factories[0].failed);
        let told = factories[0].last_message.as_ref().unwrap();
        assert!(told.contains("second writer") && told.contains("version"), "{told}");
        assert_eq!(two.position().version, tip);
        assert_eq!(head(&place.store("a")), before);
    }
    assert!(two.fs().resolve(b"/theirs").is_ok());
    two.close().unwrap();
    one.close().unwrap();
}

#[test]
fn a_source_that_was_superseded_takes_no_more_writes_also_after_a_restart() {
    let place = Place::with_pond();
    let steward = open(&place.pond);
    steward.mknod("remote", "/etc/system.d/10-remote", place.yaml("a").as_bytes()).unwrap();
    let (tip, _) = sync(&steward);
    let at = head(&place.store("a")).unwrap();
    let timeline = format::TimelineDocument {
        format: format::FORMAT,
        pond_id: at.pond_id,
        timeline: Timeline(2),
        id: uuid::Uuid::new_v4(),
        parent: Some(Timeline(1)),
        fork_version: Some(at.version),
        fork_manifest: Some(at.manifest.clone()),
    };
    let config = RemoteConfig::parse(place.yaml("a").as_bytes()).unwrap();
    let store = Store::open(&config).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let document = format::encode(&timeline).unwrap();
    runtime.block_on(store.put(&format::timeline_key(Timeline(2)), document)).unwrap();
    write(&steward, "late");
    let report = steward.sync();
    let told = match &report {
        Ok(report) => report.factories[0].last_message.clone().unwrap(),
        Err(error) => error.to_string(),
    };
    assert!(told.contains("timeline 2") && told.contains(&format!("version {tip}")), "{told}");
    assert_eq!(head(&place.store("a")).unwrap(), at);
    let refused = |steward: &Steward| {
        let error = steward.mknod("remote", "/etc/system.d/20", place.yaml("b").as_bytes()).unwrap_err();
        assert!(error.to_string().contains("timeline 2"), "{error}");
    };
    refused(&steward);
    steward.close().unwrap();
    let steward = open(&place.pond);
    refused(&steward);
    assert!(steward.fs().resolve(b"/late").is_ok(), "what was written before stays");
    steward.close().unwrap();
}

#[test]
fn a_configuration_that_makes_no_sense_makes_no_node() {
    let place = Place::with_pond();
    let steward = open(&place.pond);
    let inside = format!("storage_type: local\npath: {}/backups\n", place.pond.display());
    steward.mknod("remote", "/x", b"storage_type: local\npath: relative\n").unwrap_err();
    let error = steward.mknod("remote", "/x", place.yaml("no/such").as_bytes()).unwrap_err().to_string();
    assert!(error.contains("no/such"), "{error}");
    let error = steward.mknod("remote", "/x", inside.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("inside the pond"), "{error}");
    assert!(!place.pond.join("backups").exists());
    steward.close().unwrap();
}

#[test]
fn a_remote_that_is_made_once_old_versions_are_let_go_of_begins_with_what_is_kept() {
    let place = Place::with_pond();
    let steward = open(&place.pond);
    for name in ["one", "two", "three", "four"] {
        write(&steward, name);
    }
    steward.control_set("retention", "2 versions").unwrap();
    steward.maintain(&MaintainOptions { alone: true, ..MaintainOptions::default() }, &|_| {}).unwrap();
    let floor = steward.oplog().floor().expect("old versions are let go of").version;
    assert!(floor > Version(0));
    steward.mknod("remote", "/etc/system.d/10-remote", place.yaml("a").as_bytes()).unwrap();
    write(&steward, "five");
    let (tip, factories) = sync(&steward);
    assert!(!factories[0].failed, "{factories:?}");
    let head = head(&place.store("a")).unwrap();
    assert_eq!(head.version, tip.0);
    assert!(head.root >= floor.0, "{head:?}");
    let replica = place.dir.path().join("replica");
    let options = InitOptions::default();
    init_from_backup(&replica, place.yaml("a").as_bytes(), &options, &NoProgress).unwrap();
    let same = pond_oplog::version_files(&replica, tip).unwrap().position;
    assert_eq!(same.digest, steward.position().digest);
    steward.close().unwrap();
}

#[test]
fn a_run_with_nothing_new_notices_that_the_store_was_emptied() {
    let place = Place::with_pond();
    let steward = open(&place.pond);
    steward.mknod("remote", "/etc/system.d/10-remote", place.yaml("a").as_bytes()).unwrap();
    write(&steward, "one");
    sync(&steward);
    let run = || steward.run("/etc/system.d/10-remote", &[]);
    run().unwrap();
    std::fs::remove_dir_all(place.store("a").join("backups")).unwrap();
    let error = run().unwrap_err().to_string();
    assert!(error.contains("holds no backup, although"), "{error}");
    steward.close().unwrap();
}

#[test]
fn a_sync_with_nothing_new_tells_that_the_store_is_gone() {
    let place = Place::with_pond();
    let steward = open(&place.pond);
    steward.mknod("remote", "/etc/system.d/10-remote", place.yaml("a").as_bytes()).unwrap();
    write(&steward, "x");
    let (tip, factories) = sync(&steward);
    assert!(!factories[0].failed && factories[0].watermark == Some(tip), "{factories:?}");
    std::fs::rename(place.store("a"), place.store("elsewhere")).unwrap();
    let (_, factories) = sync(&steward);
    assert!(factories[0].failed, "{factories:?}");
    std::fs::rename(place.store("elsewhere"), place.store("a")).unwrap();
    let (_, factories) = sync(&steward);
    assert!(!factories[0].failed && factories[0].watermark == Some(tip), "{factories:?}");
    steward.close().unwrap();
}

#[test]
fn a_configuration_that_is_none_is_not_set_as_that_of_the_remote() {
    let place = Place::with_pond();
    let steward = open(&place.pond);
    let refused = steward.control_set("remote_config", "anything").unwrap_err().to_string();
    assert!(refused.contains("the configuration for remote is not valid"), "{refused}");
    steward.control_set("remote_config", &place.yaml("a")).unwrap();
    steward.control_set("remote_config", "").unwrap();
    steward.close().unwrap();
}
