//! Which versions have a path, and a full drill.

use std::collections::BTreeMap;
use std::fs;

use crate::scene::Scene;

#[test]
fn find_tells_the_versions_that_have_a_path() {
    let scene = Scene::new(6, 14, 3);
    let source = &scene.source;
    let newest = source.version();
    let mut there: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for version in 0..=newest {
        let tree = pond_tests::tree::look_at(&source.path(format!(".pond/versions/{version}")));
        for path in tree.keys().filter(|path| path.starts_with(b"dir-1")) {
            there.entry(format!("/{}", String::from_utf8_lossy(path))).or_default().push(version);
        }
    }
    let found = source.json(["backup", "find", "/dir-1", "--remote", &scene.yaml]);
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for life in found {
        let last = life["last_version"].as_u64().unwrap_or(newest);
        let versions = told.entry(life["path"].as_str().unwrap().to_owned()).or_default();
        versions.extend(life["first_version"].as_u64().unwrap()..=last);
    }
    assert_eq!(told, there);
    let scratch = source.host_directory("scratch");
    let text = source.pond([
        "backup",
        "find",
        "**/file-*",
        "--scratch",
        scratch.to_str().unwrap(),
        "--remote",
        &scene.yaml,
    ]);
    assert!(text.contains("/dir-"), "{text}");
    source.try_pond(["backup", "find", "/never", "--remote", &scene.yaml]).failure(1);

    // A drill leaves nothing behind either, and says where it fails.
    let drill =
        ["backup", "verify", "--level", "restore", "--scratch", scratch.to_str().unwrap(), "--remote"];
    let said = source.pond(drill.iter().copied().chain([scene.yaml.as_str()]));
    assert!(said.contains("everything was restored"), "{said}");
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);

    // Shares together are everything, and what was found whole is not read again.
    let objects = |options: &[&str]| {
        let always = ["backup", "verify", "--level", "data", "--remote", &scene.yaml];
        let said = source.json(always.iter().chain(options));
        let summary = said.last().unwrap();
        (summary["objects"].as_u64().unwrap(), summary["skipped"].as_u64().unwrap())
    };
    let (all, none) = objects(&[]);
    assert_eq!(none, 0);
    let shares = (1..=3).map(|n| objects(&["--subset", &format!("{n}/3")]).0);
    assert_eq!(shares.sum::<u64>(), all);
    assert_eq!(objects(&["--subset", "0%"]), (0, all));
    let resume = source.host("verified");
    let file = resume.to_str().unwrap();
    assert_eq!(objects(&["--resume", file]), (all, 0));
    assert!(!resume.exists(), "all was looked at");
    let pond_id = source.json(["status"])[0]["pond_id"].as_str().unwrap().to_owned();
    let folder = scene.store.join("backups/1/version-000002");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let bundle = names.into_iter().find(|name| name.starts_with("bundle-")).expect("it lies alone");
    fs::write(&resume, format!("pond-backup-verified 1 {pond_id}\n1/version-000002/{bundle}\n")).unwrap();
    assert_eq!(objects(&["--resume", file]), (all - 1, 1));
}
