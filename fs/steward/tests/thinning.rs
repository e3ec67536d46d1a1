//! Old versions are thinned out by the setting `retention`: what it keeps, and what has a tag, stays as it was, and the rest goes.
//!
//! `POND_THINNING_CASES` (default 4) random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use pond_oplog::{At, Clock, Kept, OpLogError, Options, Origin, Reading, Version, Views};
use pond_steward::{MaintainOptions, OpenOptions, Steward, TagChange};
use pond_tinyfs::{Caller, Make, NodeId, TinyFs, WriteFlags};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A machine on which time passes when a test says so, and whose clock is right.
struct Machine(AtomicI64);

impl Machine {
    fn new() -> Arc<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        // Version 0 is made by the machine's own clock, and would be younger than all others.
        Arc::new(Machine(AtomicI64::new(now.as_micros() as i64 + HOUR)))
    }

    fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn pass(&self, time: i64) {
        self.0.fetch_add(time, Ordering::SeqCst);
    }

    fn open(self: &Arc<Self>, pond: &Path) -> Arc<Steward> {
        let machine = self.clone();
        let clock =
            Clock::new(move || Reading { wall: machine.now(), boot: machine.now(), synchronized: true });
        let options = OpenOptions {
            commit_interval: Duration::from_secs(3600),
            maintenance: false,
            clock,
            ..OpenOptions::default()
        };
        let steward = Steward::open(pond, options).unwrap();
        // The kernel's word counts after a minute.
        self.pass(2 * MINUTE);
        steward
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Everything about the root directory's files, as text.
fn look_at(fs: &TinyFs) -> BTreeMap<Vec<u8>, String> {
    let mut entries = Vec::new();
    fs.readdir(NodeId::ROOT, 0, &mut |entry| {
        if entry.name != b"." && entry.name != b".." {
            entries.push((entry.name.to_vec(), entry.id));
        }
        true
    })
    .unwrap();
    let describe = |id| {
        let attributes = fs.getattr(id).unwrap();
        let content = fs.read(id, 0, attributes.size as usize).unwrap().fill(&**fs.persistence()).unwrap();
        format!("{attributes:?} {}", blake3::hash(&content))
    };
    let mut seen: BTreeMap<Vec<u8>, String> =
        entries.into_iter().map(|(name, id)| (name, describe(id))).collect();
    seen.insert(b".".to_vec(), format!("{:?}", fs.getattr(NodeId::ROOT).unwrap()));
    seen
}

fn change(steward: &Steward, random: &mut Random) {
    let (fs, caller) = (steward.fs(), Caller::root());
    for _ in 0..random.below(4) + 1 {
        let name = format!("f{}", random.below(6));
        let found = fs.lookup(NodeId::ROOT, name.as_bytes());
        match (random.below(6), found) {
            (0, Ok(file)) => {
                fs.unlink(&caller, NodeId::ROOT, name.as_bytes()).unwrap();
                fs.forget(file.id, 1);
            }
            (1, Ok(file)) => {
                let size = Some(random.below(40_000));
                let attributes = pond_tinyfs::SetAttributes { size, ..Default::default() };
                fs.setattr(&caller, file.id, &attributes).unwrap();
                fs.forget(file.id, 1);
            }
            (_, found) => {
                let file = found
                    .or_else(|_| fs.make(&caller, NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 }));
                let file = file.unwrap().id;
                let data: Vec<u8> = (0..random.below(9000) + 1).map(|_| random.below(256) as u8).collect();
                fs.write(&caller, file, random.below(30_000), &data, WriteFlags::default()).unwrap();
                fs.forget(file, 1);
            }
        }
    }
}

/// The versions that a policy of `all RECENT, hourly HOURS, daily` keeps of these, and those with tags, by its words.
fn expected(
    versions: &BTreeMap<Version, i64>,
    recent: i64,
    hours: i64,
    now: i64,
    tags: &BTreeSet<Version>,
) -> BTreeSet<Version> {
    let floor = versions.iter().rev().find(|(_, time)| **time <= now - recent).map(|(version, _)| *version);
    let Some(floor) = floor else { return versions.keys().copied().collect() };
    let older: Vec<(Version, i64)> =
        versions.range(..floor).map(|(version, time)| (*version, *time)).collect();
    let is_last = |index: usize, period: i64| {
        older.get(index + 1).is_none_or(|(_, next)| next / period != older[index].1 / period)
    };
    (0..older.len())
        .filter(|&index| {
            let (version, time) = older[index];
            tags.contains(&version)
                || is_last(index, DAY)
                || (is_last(index, HOUR) && now - time <= hours * HOUR)
        })
        .map(|index| older[index].0)
        .chain(versions.range(floor..).map(|(version, _)| *version))
        .collect()
}

#[test]
fn what_a_policy_keeps_stays_as_it_was_and_nothing_else() {
    let cases = std::env::var("POND_THINNING_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4);
    for seed in 1..=cases {
        let mut random = Random(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let directory = tempfile::tempdir().unwrap();
        let pond = directory.path().join("pond");
        let machine = Machine::new();
        Steward::init(&pond).unwrap();
        let mut steward = machine.open(&pond);
        let (recent, hours) = (1 + random.below(3) as i64, 2 + random.below(40) as i64);
        steward.control_set("retention", &format!("all {recent}h, hourly {hours}h, daily")).unwrap();
        steward.control_set("keep_replaced", "0s").unwrap();
        let mut trees = BTreeMap::new();
        let mut tags = BTreeSet::new();
        let describe = |steward: &Steward, from: u64| -> BTreeMap<Version, i64> {
            let end = steward.position().version.next();
            let described = steward.oplog().describe(Version(from)..end).unwrap();
            described.iter().map(|kept: &Kept| (kept.version(), kept.position().timestamp)).collect()
        };
        let mut kept: BTreeMap<Version, i64> = describe(&steward, 0);
        for round in 0..4 {
            for _ in 0..random.below(10) + 3 {
                machine.pass([3 * SECOND, 10 * MINUTE, HOUR, 7 * HOUR][random.below(4) as usize]);
                change(&steward, &mut random);
                let version = steward.sync().unwrap().position.version;
                trees.insert(version, look_at(steward.fs()));
                if random.below(12) == 0 {
                    let name = format!("tag-{version}").parse().unwrap();
                    let tagged = steward
                        .tag(name, TagChange::Make(Some(version)), &Origin::command("pond tag"))
                        .unwrap();
                    assert_eq!(tagged, version);
                    tags.insert(version);
                }
            }
            let last = *kept.keys().last().unwrap();
            kept.extend(describe(&steward, last.0 + 1));
            let wanted = expected(&kept, recent * HOUR, hours, machine.now(), &tags);
            steward.maintain(&MaintainOptions { alone: true, ..Default::default() }, &|_| {}).unwrap();
            if random.below(2) == 0 {
                steward.close().unwrap();
                drop(steward);
                steward = machine.open(&pond);
            }
            let views = Views::new(&pond, &Options::default());
            let mut count = 0;
            for (version, tree) in &trees {
                match views.open(At::Version(*version)) {
                    Ok(view) => {
                        assert!(
                            wanted.contains(version),
                            "seed {seed}, round {round}: {version} is still there"
                        );
                        assert_eq!(
                            look_at(view.fs()),
                            *tree,
                            "seed {seed}, round {round}: version {version}"
                        );
                        count += 1;
                    }
                    Err(OpLogError::Thinned { .. } | OpLogError::NoLongerKept { .. }) => {
                        assert!(!wanted.contains(version), "seed {seed}, round {round}: {version} is gone");
                    }
                    Err(error) => panic!("seed {seed}, round {round}, version {version}: {error}"),
                }
            }
            assert!(count > 0);
            kept.retain(|version, _| wanted.contains(version));
            let listed: BTreeSet<Version> = pond_oplog::history(&pond, None)
                .unwrap()
                .iter()
                .map(|commit| commit.position.version)
                .filter(|version| trees.contains_key(version))
                .collect();
            let of_ours: BTreeSet<Version> =
                wanted.iter().copied().filter(|version| trees.contains_key(version)).collect();
            assert_eq!(listed, of_ours, "seed {seed}, round {round}");
            assert_eq!(look_at(steward.fs()), *trees.values().last().unwrap());
        }
        steward.close().unwrap();
    }
}

#[test]
fn a_tag_keeps_its_version_is_made_once_and_is_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let pond = directory.path().join("pond");
    let machine = Machine::new();
    Steward::init(&pond).unwrap();
    let steward = machine.open(&pond);
    steward.control_set("keep_replaced", "0s").unwrap();
    let mut random = Random(7);
    let origin = Origin::command("pond tag");
    let maintain =
        || steward.maintain(&MaintainOptions { alone: true, ..Default::default() }, &|_| {}).unwrap();
    change(&steward, &mut random);
    // What is not yet committed is, before the newest version gets the name.
    let tagged = steward.tag("first".parse().unwrap(), TagChange::Make(None), &origin).unwrap();
    let tree = look_at(steward.fs());
    let taken = steward.tag("first".parse().unwrap(), TagChange::Make(None), &origin).unwrap_err();
    assert!(taken.to_string().contains("names version 1 already"), "{taken}");
    let absent = steward.tag("second".parse().unwrap(), TagChange::Delete, &origin).unwrap_err();
    assert!(absent.to_string().contains("no version has the tag second"), "{absent}");
    let future = TagChange::Make(Some(Version(99)));
    assert!(steward.tag("second".parse().unwrap(), future, &origin).is_err());
    for _ in 0..10 {
        change(&steward, &mut random);
        steward.sync().unwrap();
    }
    steward.control_set("retention", "2 versions").unwrap();
    maintain();
    let views = Views::new(&pond, &Options::default());
    let view = views.open(At::Tag("first".parse().unwrap())).unwrap();
    assert_eq!((view.position().version, look_at(view.fs())), (tagged, tree.clone()));
    drop((view, views));
    let views = Views::new(&pond, &Options::default());
    let thinned = views.open(At::Version(Version(5))).err().unwrap();
    assert!(matches!(thinned, OpLogError::Thinned { before, .. } if before == tagged), "{thinned}");
    let gone = TagChange::Make(Some(Version(5)));
    assert!(steward.tag("second".parse().unwrap(), gone, &origin).is_err(), "it is thinned out");
    assert_eq!(pond_oplog::tagged(&pond).unwrap()[0].1.position.version, tagged);
    steward.tag("first".parse().unwrap(), TagChange::Delete, &origin).unwrap();
    maintain();
    assert!(matches!(views.open(At::Version(tagged)), Err(OpLogError::NoLongerKept { .. })));
    assert!(pond_oplog::tagged(&pond).unwrap().is_empty());
    steward.close().unwrap();
}
