//! Random damages, each of which is found at the level that claims to find it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pond_tests::{Random, TestPond};
use serde_json::Value;

use crate::scene::Scene;

/// How many; an environment variable says another number.
const DAMAGES: u64 = 30;

/// Which level is the first to find it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Level {
    Chain,
    Sizes,
    Data,
    /// It changes nothing that counts.
    Never,
}

struct Damage {
    what: String,
    level: Level,
    /// Versions of which one is to be named.
    versions: Option<(u64, u64)>,
}

/// Objects of a store by their keys.
fn objects(store: &Path) -> Vec<String> {
    let root = store.join("backups");
    let (mut found, mut left) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

/// Versions that an object is of.
fn versions(key: &str) -> Option<(u64, u64)> {
    let folder = key.split('/').nth(1)?;
    if folder == "packs" {
        let mut parts = key.rsplit('/').next()?.split('-');
        return Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?));
    }
    let number = folder.rsplit('-').next()?.parse().ok()?;
    Some((number, number))
}

/// What a JSON document says that anything depends on.
fn essence(bytes: &[u8]) -> Option<BTreeMap<String, Value>> {
    let mut fields: BTreeMap<String, Value> = serde_json::from_slice(bytes).ok()?;
    fields.retain(|name, value| !value.is_null() && name != "since_base" && name != "id");
    Some(fields)
}

fn damage(store: &Path, random: &mut Random) -> Damage {
    let keys = objects(store);
    let key = random.choose(&keys).clone();
    let path = |key: &str| -> PathBuf { store.join("backups").join(key) };
    let before = fs::read(path(&key)).unwrap();
    let is_document = key.ends_with(".json");
    let is_pack = key.ends_with(".pack");
    let stem = key.rsplit('/').next().unwrap().split('-').next().unwrap();
    let alike = |other: &&String| {
        **other != key && other.rsplit('/').next().unwrap().split('-').next().unwrap() == stem && !is_pack
    };
    let others: Vec<&String> = keys.iter().filter(alike).collect();
    let index = |bytes: &[u8]| {
        let length = bytes[bytes.len() - 48..bytes.len() - 40].try_into().unwrap();
        bytes.len() - 48 - u64::from_le_bytes(length) as usize
    };
    let flipped = |random: &mut Random| {
        let mut bytes = before.clone();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        (at, bytes)
    };
    let (what, level) = match random.below(5) {
        0 => {
            let (at, bytes) = flipped(random);
            fs::write(path(&key), &bytes).unwrap();
            let level = match (is_document, is_pack) {
                (true, _) if !key.ends_with("manifest.json") && essence(&bytes) == essence(&before) => {
                    Level::Never
                }
                (true, _) => Level::Chain,
                (false, true) if at >= index(&before) => Level::Sizes,
                (false, _) => Level::Data,
            };
            (format!("a bit of byte {at} of {} is flipped", before.len()), level)
        }
        1 => {
            let length = random.below(before.len() as u64) as usize;
            fs::write(path(&key), &before[..length]).unwrap();
            let level = if is_document { Level::Chain } else { Level::Sizes };
            (format!("cut from {} to {length} bytes", before.len()), level)
        }
        2 => {
            fs::remove_file(path(&key)).unwrap();
            let level = if is_document { Level::Chain } else { Level::Sizes };
            ("removed".to_owned(), level)
        }
        3 | 4 if !others.is_empty() => {
            // Swapped, or an older object in the place of a newer one.
            let other = (*random.choose(&others)).clone();
            let theirs = fs::read(path(&other)).unwrap();
            fs::write(path(&key), &theirs).unwrap();
            let swapped = random.one_in(2);
            if swapped {
                fs::write(path(&other), &before).unwrap();
            }
            let level = match is_document {
                true => Level::Chain,
                false if theirs.len() == before.len() => Level::Data,
                false => Level::Sizes,
            };
            (format!("{} {other}", if swapped { "swapped with" } else { "has the bytes of" }), level)
        }
        _ => {
            let (at, bytes) = flipped(random);
            fs::write(path(&key), &bytes[..at]).unwrap();
            let level = if is_document { Level::Chain } else { Level::Sizes };
            (format!("cut to {at} bytes"), level)
        }
    };
    let lies_elsewhere = what == "removed" && !is_document && {
        // What lies alone may be in a pack as well, and what is in a pack alone.
        let (first, last) = versions(&key).unwrap();
        let covers = |other: &String| {
            other.contains("/packs/")
                && versions(other).is_some_and(|(low, high)| low <= first && last <= high)
        };
        match is_pack {
            true => (first.max(1)..=last).all(|version| {
                keys.iter().any(|key| key.starts_with(&format!("1/version-{version:06}/bundle-")))
            }),
            false => !key.contains("/base-") && keys.iter().any(covers),
        }
    };
    let level = if lies_elsewhere { Level::Never } else { level };
    Damage { what: format!("{key}: {what}"), level, versions: versions(&key) }
}

/// What a verification of this level finds: damages, and the ranges of versions that are lost.
fn verify(pond: &TestPond, yaml: &str, level: &str) -> (Vec<Value>, Vec<(u64, u64)>) {
    let ended = pond_tests::run(
        pond.command().args(["--json", "backup", "verify", "--level", level, "--remote", yaml]),
    );
    let said = serde_json::Deserializer::from_str(&ended.stdout).into_iter();
    let said: Vec<Value> = said.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {ended}"));
    let summary = said.last().unwrap_or_else(|| panic!("{ended}"));
    let is_damage = |found: &&Value| found["event"] == "finding" && found["severity"] == "damage";
    let found: Vec<Value> = said.iter().filter(is_damage).cloned().collect();
    assert_eq!(ended.status.code(), Some(i32::from(!found.is_empty())), "{ended}");
    assert_eq!(summary["clean"], found.is_empty());
    let lost = summary["lost"].as_array().unwrap().iter();
    (found, lost.map(|lost| (lost[0].as_u64().unwrap(), lost[1].as_u64().unwrap())).collect())
}

#[test]
fn random_damages_are_found_at_the_level_that_claims_to() {
    let scene = Scene::new(2, 70, 8);
    let (source, newest) = (&scene.source, scene.source.version());
    for level in ["chain", "sizes", "data"] {
        assert_eq!(verify(source, &scene.yaml, level), (vec![], vec![]), "{level}");
    }
    let count = std::env::var("POND_TEST_DAMAGES").ok().and_then(|count| count.parse().ok());
    let first = std::env::var("POND_TEST_DAMAGE").ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    for number in first..first + count.unwrap_or(DAMAGES) {
        let mut random = Random::new(1000 + number);
        let (store, yaml) = scene.copy("damaged");
        let damage = damage(&store, &mut random);
        let about = format!("damage {number}: {} ({:?})", damage.what, damage.level);
        let level = match damage.level {
            Level::Chain => "chain",
            Level::Sizes => "sizes",
            Level::Data | Level::Never => "data",
        };
        let (found, lost) = verify(source, &yaml, level);
        match damage.level {
            Level::Never => assert!(found.is_empty(), "{about}: {found:?}"),
            _ => assert!(!found.is_empty(), "{about}: nothing is found"),
        }
        if let (false, Some((first, last))) = (found.is_empty(), damage.versions) {
            let named = found.iter().filter_map(|found| found["version"].as_u64());
            assert!(named.clone().any(|version| (first..=last).contains(&version)), "{about}: {found:?}");
        }
        // What is not said to be lost can be restored.
        let is_lost = |version: &u64| lost.iter().any(|(first, last)| (*first..=*last).contains(version));
        let kept = (0..=newest).rev().find(|version| !is_lost(version));
        if let (true, Some(kept)) = (number % 4 == 0 && level == "data", kept) {
            let replica = TestPond::new();
            replica.pond(["init", "--from-backup", &yaml, "--version", &kept.to_string()]);
            replica.pond(["fsck"]);
        }
        fs::remove_dir_all(&store).unwrap();
    }
}
