//! Versions with tags, and thinned out history, as users and replicas see them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use pond_tests::tree::{self, Also, Tree};
use pond_tests::{Random, TestPond, wait_until};

/// What a replica has in common with its source.
const SAME: Also = Also { mtime: true, ctime: true, inode: false };

fn make_version(pond: &TestPond, random: &mut Random) {
    for _ in 0..random.below(3) + 1 {
        let path = pond.path(format!("file-{}", random.below(5)));
        match random.one_in(6) {
            true => drop(fs::remove_file(path)),
            false => fs::write(path, random.bytes(20_000)).unwrap(),
        }
    }
    pond.sync();
}

fn at(pond: &TestPond, version: &str) -> Tree {
    let mount = pond.mount_beside("then", &["--version", version]);
    let tree = tree::look_at(&mount);
    pond.umount_at(&mount);
    tree
}

#[test]
fn versions_with_tags_stay_here_and_on_replicas_and_those_between_are_thinned_out() {
    let source = TestPond::new();
    let store = source.host_directory("store");
    let yaml = source.host("remote.yaml");
    fs::write(&yaml, format!("storage_type: local\npath: {}\nsync_interval: 0.1\n", store.display()))
        .unwrap();
    let yaml = yaml.to_str().unwrap();
    source.mount_with(&["-o", "commit=3600"]);
    source.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", yaml]);
    source.pond(["control", "set", "keep_replaced", "0s"]);
    let mut random = Random::new(11);
    let mut trees = BTreeMap::new();
    for n in 0..14 {
        make_version(&source, &mut random);
        let version = source.version();
        trees.insert(version, tree::look_at(source.mountpoint()));
        match n {
            3 => drop(source.pond(["tag", "early"])),
            8 => drop(source.pond(["tag", "late", &version.to_string()])),
            _ => {}
        }
    }
    let tagged = source.json(["tag", "--list"]);
    let version = |name: &str| {
        let tag = tagged.iter().find(|tag| tag["tag"] == name).expect("it is listed");
        tag["version"].as_u64().unwrap()
    };
    let (early, late) = (version("early"), version("late"));
    let replica = TestPond::new();
    replica.pond(["init", "--from-backup", yaml]);
    replica.mount();
    source.pond(["control", "set", "retention", "3 versions"]);
    source.pond(["maintain"]);
    source.sync();
    let wanted = source.position().unwrap();
    wait_until("the replica shows the source's version", Duration::from_secs(60), || {
        (replica.position().as_ref() == Some(&wanted)).then_some(())
    });
    let anew = TestPond::new();
    anew.pond(["init", "--from-backup", yaml, "--tip"]);
    let is_whole = |pond: &TestPond| {
        for (name, version) in [("early", early), ("late", late)] {
            tree::assert_same(name, &trees[&version], &at(pond, &format!("tag:{name}")), SAME);
            tree::assert_same(name, &trees[&version], &at(pond, &version.to_string()), SAME);
        }
        for between in (early + 1..late).filter(|version| trees.contains_key(version)) {
            let refused = pond.try_pond(["list", &format!("/@{between}")]).failure(1);
            assert!(refused.contains(&format!("{early} and {late}")), "{refused}");
        }
        let refused = pond.try_pond(["list", &format!("/@{}", early - 1)]).failure(1);
        assert!(refused.contains("no longer kept"), "{refused}");
        let listed: Vec<u64> =
            pond.json(["log"]).iter().map(|commit| commit["version"].as_u64().unwrap()).collect();
        assert_eq!(&listed[listed.len() - 2..], [late, early]);
        pond.pond(["fsck"]);
    };
    [&source, &replica, &anew].into_iter().for_each(is_whole);
    let refused = replica.try_pond(["tag", "here"]).failure(1);
    assert!(refused.contains("replica"), "{refused}");

    // A store that is begun now has what is kept, also by itself.
    let second = source.host_directory("second store");
    let yaml = source.host("second.yaml");
    fs::write(&yaml, format!("storage_type: local\npath: {}\n", second.display())).unwrap();
    let yaml = yaml.to_str().unwrap();
    source.pond(["mknod", "remote", "/etc/system.d/20-second", "--config-path", yaml]);
    source.sync();
    let late_comer = TestPond::new();
    late_comer.pond(["init", "--from-backup", yaml]);
    is_whole(&late_comer);

    // And after all of it was opened anew, merged and cleaned.
    source.umount();
    source.pond(["maintain"]);
    source.mount_with(&["-o", "commit=3600"]);
    is_whole(&source);
    source.pond(["tag", "--delete", "late"]);
    source.pond(["maintain"]);
    let refused = source.try_pond(["list", "/@tag:late"]).failure(1);
    assert!(refused.contains("no version has the tag late"), "{refused}");
    tree::assert_same("early", &trees[&early], &at(&source, "tag:early"), SAME);
    replica.umount();
    source.umount();
}
