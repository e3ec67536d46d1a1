//! Versions as a store tells them, beside what the source's history says.

use serde_json::Value;

use crate::scene::Scene;

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[test]
fn a_store_tells_the_same_versions_as_the_log_of_its_source() {
    let scene = Scene::new(1, 70, 8);
    let (source, remote) = (&scene.source, ["--remote", &scene.yaml]);
    let log = source.json(["log"]);
    let listed = source.json(["backup", "list"].into_iter().chain(remote));
    let (bases, versions): (Vec<&Value>, Vec<&Value>) = listed.iter().partition(|row| row["kind"] == "base");
    assert_eq!(bases.len(), 1);
    let root = number(bases[0], "version");
    let logged: Vec<&Value> = log.iter().filter(|commit| number(commit, "version") > root).collect();
    assert_eq!(versions.len(), logged.len());
    for (stored, commit) in versions.iter().zip(logged) {
        for name in ["version", "timestamp", "time", "digest", "txn_seq", "files"] {
            assert_eq!(stored[name], commit[name], "{name} of {stored} and {commit}");
        }
    }
    // Each builds on the one before it.
    for (later, earlier) in listed.iter().zip(&listed[1..]) {
        assert_eq!(later["parent"], earlier["manifest"], "{later}");
    }
    let places: Vec<&str> = versions.iter().map(|row| row["place"].as_str().unwrap()).collect();
    assert!(places.contains(&"pack") && places.contains(&"alone"), "{places:?}");

    // A part of it, by the node in the pond, by the pond alone, and without a pond.
    let newest = source.json(["backup", "list", "-n", "9", "--remote", "/etc/system.d/10-remote"]);
    assert_eq!(newest, listed[..9]);
    assert_eq!(source.json(["backup", "list", "-n", "9"]), listed[..9]);
    let nowhere = pond_tests::TestPond::new();
    assert_eq!(nowhere.json(["backup", "list", "--remote", &scene.yaml]), listed);
    let text = nowhere.pond(["backup", "list", "-n", "3", "--remote", &scene.yaml]);
    assert_eq!(text.lines().count(), 4, "{text}");

    // One version, by number and by time.
    for commit in [&log[0], &log[5], &log[log.len() / 2]] {
        let version = commit["version"].to_string();
        let time = commit["time"].as_str().unwrap();
        for at in [version.as_str(), time] {
            let described = nowhere.json(["backup", "describe", at, "--remote", &scene.yaml]);
            let [described] = &described[..] else { panic!("one object is expected") };
            assert_eq!(described["version"], commit["version"], "{at}");
            assert_eq!(described["digest"], commit["digest"]);
            assert_eq!(described["base"].as_u64(), Some(root));
            assert_eq!(described["contents"].as_array().unwrap().len() as u64, number(commit, "files") + 1);
            assert_eq!(described["missing"].as_array().unwrap().len(), 0);
        }
        nowhere.pond(["backup", "describe", &version, "--remote", &scene.yaml]);
    }
    assert!(!nowhere.directory().exists(), "no pond was made");
}
