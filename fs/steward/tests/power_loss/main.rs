//! Power loss, at every step to the disk: everything that a pond does to it is recorded while the pond is worked with, and
//! for boundaries between two steps the states are built in which a power loss may leave the disk
//! (`disk.rs`). Whatever it is, the pond opens without help; what was promised is there; the tree is one that was, at an
//! operation that is not before the last promised one; no row is there twice; work goes on; and Python's deltalake opens the table.
//!
//! `POND_POWER_BOUNDARIES` (default 60) boundaries, `POND_POWER_OUTCOMES` (default 3) states at each, and now and
//! then a second power loss while the pond recovers from the first. `POND_POWER_SEED` (default: the time, printed) repeats
//! the choices, but not how the pond's threads take turns: a failure keeps the directory.
#![cfg(debug_assertions)]

mod boundary;
mod disk;
mod python;
mod random;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use disk::{Bytes, Cache, Disk, Names, Outcome};
use pond_oplog::{Recording, Step};
use pond_steward::{Found, OpenOptions, State, Steward, fsck};
use pond_tinyfs::{Caller, Lsn, Make, NodeId, WriteFlags};
use python::Python;
use random::Random;
use workload::{Books, Promise, SETTING, Workload, differences, look};

fn scaled(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

fn options(interval: Duration) -> OpenOptions {
    // The workload maintains when it is its turn; otherwise versions are those that are asked for.
    OpenOptions {
        commit_interval: interval,
        cache_budget: Some(16 << 20),
        // So small that what is written in one go is drained.
        dirty_budget: Some(8 << 20),
        maintenance: false,
        ..OpenOptions::default()
    }
}

fn by_hand() -> OpenOptions {
    options(Duration::from_secs(3600))
}

/// A file system in memory, as thousands of ponds are written, and a small one, as each makes itself a reserve.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1g", "tmpfs"]).arg(place.path());
        assert!(mount.status().unwrap().success(), "mounting needs root");
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn recording(root: &Path) -> Arc<Recording> {
    // Tests of one process take turns.
    for _ in 0..60_000 {
        if let Some(recording) = Recording::start(root) {
            return Arc::new(recording);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("another test records for ever");
}

/// The steps so far, once nobody else holds the recording.
fn finish(recording: Arc<Recording>) -> Vec<Step> {
    Arc::into_inner(recording).expect("every fsync is answered once the pond is closed").finish()
}

/// A disk, the steps that it was put through, and what must come of it.
struct Record {
    before: Disk,
    steps: Vec<Step>,
    books: Books,
}

/// A pond is worked with: it is opened, used, maintained, closed, and opened again.
fn record(pond: &Path, seed: u64) -> Record {
    Steward::init(pond).unwrap();
    let before = Disk::read(pond, pond);
    let recording = recording(pond);
    let steward = Steward::open(pond, options(Duration::from_millis(25))).unwrap();
    let mut workload = Workload::new(&steward, &recording, seed);
    drop(steward);
    workload.run(150);
    // The housekeeper's checkpoint comes by itself at version 64.
    while workload.commit().0 < 66 {
        workload.run(4);
    }
    workload.maintain();
    workload.run(60);
    workload.fill_control_table();
    workload.run(40);
    workload.close();
    let steward = Steward::open(pond, options(Duration::from_millis(25))).unwrap();
    workload.reopened(&steward);
    drop(steward);
    workload.run(60);
    workload.close();
    let books = workload.books();
    drop(workload);
    Record { before, steps: finish(recording), books }
}

impl Record {
    /// What the pond is about at each step.
    fn kinds(&self) -> BTreeMap<usize, String> {
        let mut kinds = BTreeMap::new();
        let mut during = "";
        for (at, step) in self.steps.iter().enumerate() {
            match step {
                Step::Mark { number } => match self.books.promises[*number as usize] {
                    Promise::Maintenance(true) => during = "maintenance, ",
                    Promise::Maintenance(false) => during = "",
                    _ => {}
                },
                _ => drop(kinds.insert(at, format!("{during}{}", boundary::kind(&self.steps, at)))),
            }
        }
        kinds
    }
}

/// What must hold after a power loss.
#[derive(Clone, Copy, Default)]
struct Promised {
    operations: Lsn,
    setting: u64,
}

impl Promised {
    fn add(&mut self, promise: Promise) {
        match promise {
            Promise::Operations(lsn) => self.operations = self.operations.max(lsn),
            Promise::Setting(value) => self.setting = self.setting.max(value),
            Promise::Maintenance(_) => {}
        }
    }
}

/// Checks one directory after another.
struct Checker {
    place: Place,
    python: Python,
    seen: BTreeSet<[u8; 32]>,
    cache: Cache,
    boundaries: BTreeMap<String, u64>,
    images: u64,
    of_recovery: u64,
    recovered: u64,
    torn: u64,
}

impl Checker {
    fn new() -> Self {
        let place = Place::new();
        let cache = Cache::new(place.path().join("cache"));
        Checker {
            place,
            python: Python::start(),
            seen: BTreeSet::new(),
            cache,
            boundaries: BTreeMap::new(),
            images: 0,
            of_recovery: 0,
            recovered: 0,
            torn: 0,
        }
    }

    /// Builds the image and checks it. Failing, says how to find it again.
    fn check(&mut self, image: &disk::Image, promised: Promised, books: &Books, told: &dyn Fn() -> String) {
        let mut print = blake3::Hasher::new();
        print.update(image.print().as_bytes()).update(&promised.operations.0.to_le_bytes());
        if !self.seen.insert(*print.update(&promised.setting.to_le_bytes()).finalize().as_bytes()) {
            return;
        }
        self.images += 1;
        let pond = self.place.path().join("pond");
        image.write(&pond, &mut self.cache);
        if let Err(why) = self.holds(&pond, promised, books) {
            // As it was before it was opened.
            let kept = tempfile::Builder::new().prefix("pond-power-loss-").tempdir().unwrap().keep();
            image.write(&kept.join("pond"), &mut Cache::new(kept.join("cache")));
            fs::rename(&pond, self.place.path().join("opened")).unwrap();
            panic!("{}: {why}\nkept {}/pond", told(), kept.display());
        }
        fs::remove_dir_all(&pond).unwrap();
    }

    fn holds(&mut self, pond: &Path, promised: Promised, books: &Books) -> Result<(), String> {
        let table = pond.join("data");
        // Other readers need no recovery.
        self.python.ask(&table, false);
        let version_before = self.python.answer()?;
        let steward = open(pond)?;
        let position = steward.position();
        let notes = steward.status().notes;
        self.recovered += u64::from(notes.iter().any(|note| note.contains("recovered")));
        self.torn += u64::from(notes.iter().any(|note| note.contains("cut off")));
        let seen = look(&steward)?;
        // The last operations promised may be some that leave no rows.
        if position.cut_lsn < promised.operations && seen != *books.at(promised.operations).1 {
            return Err(format!(
                "operation {} was promised and the table ends with {}; notes: {notes:?}",
                promised.operations, position.cut_lsn
            ));
        }
        let (lsn, expected) = books.at(position.cut_lsn);
        if seen != **expected {
            let difference = differences(expected, &seen);
            return Err(format!(
                "the tree is not that after operation {lsn} (cut at {}):\n{difference}",
                position.cut_lsn
            ));
        }
        let setting = steward
            .control_get(Some(SETTING))
            .pop()
            .map_or(0, |(_, value)| value.trim_start_matches('/').parse().unwrap());
        if setting < promised.setting {
            return Err(format!("setting {} was promised and {setting} is there", promised.setting));
        }
        // Work goes on, and what it does is there when the pond is opened once more.
        let failed = |error: &dyn std::fmt::Display| format!("no work after it: {error}");
        let caller = Caller::root();
        let file = steward.fs().make(&caller, NodeId::ROOT, b"afterwards", Make::File { mode: 0o600 });
        let file = file.map_err(|error| failed(&error))?.id;
        let written = steward.fs().write(&caller, file, 0, b"it goes on", WriteFlags::default());
        written.map_err(|error| failed(&error))?;
        steward.fsync_wait().map_err(|error| failed(&error))?;
        let committed = steward.commit_now().map_err(|error| failed(&error))?;
        let after = look(&steward)?;
        steward.close().map_err(|error| failed(&error))?;
        drop(steward);
        if committed.version.0 <= position.version.0 || position.version.0 < version_before {
            return Err(format!(
                "versions go back: {version_before}, {}, {}",
                position.version, committed.version
            ));
        }
        self.python.ask(&table, true);
        let again = open(pond)?;
        if look(&again)? != after || after.len() != seen.len() + 1 {
            return Err(format!("opened again it differs:\n{}", differences(&after, &look(&again)?)));
        }
        again.close().map_err(|error| failed(&error))?;
        drop(again);
        let checked = fsck::check(pond, &()).map_err(|error| format!("it cannot be checked: {error}"))?;
        if !checked.report.is_clean() {
            return Err(format!("fsck finds damage: {:?}", checked.report.findings));
        }
        match self.python.answer()? {
            version if version == committed.version.0 => Ok(()),
            version => Err(format!(
                "Python's deltalake sees version {version}, and {} was committed",
                committed.version
            )),
        }
    }

    /// Loses the power once more while the pond recovers from `image`.
    fn check_recovery(
        &mut self,
        image: &disk::Image,
        promised: Promised,
        books: &Books,
        random: &mut Random,
        told: &dyn Fn() -> String,
    ) {
        let pond = self.place.path().join("recovering");
        image.write(&pond, &mut self.cache);
        let mut disk = Disk::read(&pond, &pond);
        let recording = recording(&pond);
        let steward = open(&pond).unwrap();
        steward.close().unwrap();
        drop(steward);
        let steps = finish(recording);
        fs::remove_dir_all(&pond).unwrap();
        let chosen: BTreeSet<usize> =
            (0..3).map(|_| random.below(steps.len().max(1) as u64) as usize).collect();
        for (at, step) in steps.iter().enumerate() {
            if chosen.contains(&at) {
                let outcome = Outcome::number(random.below(20) as usize, random.number());
                self.of_recovery += 1;
                let told = || format!("{}, recovering: before step {at} ({step:?}) as {outcome:?}", told());
                self.check(&disk.lose_power(outcome), promised, books, &told);
            }
            disk.take(step);
        }
    }
}

fn open(pond: &Path) -> Result<Arc<Steward>, String> {
    let steward = Steward::open(pond, by_hand()).map_err(|error| format!("it does not open: {error}"))?;
    let status = steward.status();
    match status.state {
        State::ReadOnly => Err(format!("it opens read-only: {:?}", status.read_only_because)),
        _ if status.uncommitted.rows > 0 => {
            Err(format!("recovery left rows uncommitted: {:?}", status.notes))
        }
        _ => Ok(steward),
    }
}

/// Some boundaries of each kind, all kinds alike as far as there are enough.
fn choose(kinds: &BTreeMap<usize, String>, count: usize, random: &mut Random) -> BTreeSet<usize> {
    let mut by_kind: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    kinds.iter().for_each(|(at, kind)| by_kind.entry(kind).or_default().push(*at));
    let mut chosen = BTreeSet::new();
    while chosen.len() < count && !by_kind.is_empty() {
        by_kind.retain(|_, left| {
            if chosen.len() < count {
                chosen.insert(left.swap_remove(random.below(left.len() as u64) as usize));
            }
            !left.is_empty()
        });
    }
    chosen
}

#[test]
fn whatever_the_power_leaves_of_unsynced_work_the_pond_opens_with_all_it_promised() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = scaled("POND_POWER_SEED", now.as_nanos() as u64);
    let wanted = scaled("POND_POWER_BOUNDARIES", 60);
    let outcomes = scaled("POND_POWER_OUTCOMES", 3) as usize;
    println!("POND_POWER_SEED={seed}");
    let mut checker = Checker::new();
    let mut done = 0;
    for run in 0.. {
        let mut random = Random::new(seed.wrapping_add(run));
        let source = Place::new();
        let record = record(&source.path().join("pond"), random.number());
        let steps = &record.steps;
        checker.cache.clear();
        let kinds = record.kinds();
        let chosen = choose(&kinds, (wanted - done) as usize, &mut random);
        let mut disk = record.before.clone();
        let mut promised = Promised::default();
        for (at, step) in steps.iter().enumerate() {
            if chosen.contains(&at) {
                let kind = &kinds[&at];
                *checker.boundaries.entry(kind.clone()).or_default() += 1;
                let first = random.below(20) as usize;
                for n in 0..outcomes {
                    // What loses most first.
                    let number = if n == 0 { 1 } else { first + n };
                    let outcome = Outcome::number(number, random.number());
                    let image = disk.lose_power(outcome);
                    let told = || {
                        format!(
                            "POND_POWER_SEED={seed}, run {run}, before step {at} of {} ({}, {kind}) as {outcome:?}",
                            steps.len(),
                            short(step)
                        )
                    };
                    checker.check(&image, promised, &record.books, &told);
                    if random.below(20) == 0 {
                        checker.check_recovery(&image, promised, &record.books, &mut random, &told);
                    }
                    if image.is_certain {
                        break;
                    }
                }
                done += 1;
                if done % 250 == 0 {
                    println!("{done} boundaries, {} images", checker.images);
                }
            }
            disk.take(step);
            if let Step::Mark { number } = step {
                promised.add(record.books.promises[*number as usize]);
            }
        }
        if done >= wanted {
            break;
        }
    }
    let Checker { images, of_recovery, recovered, torn, boundaries, .. } = &checker;
    println!(
        "{done} boundaries: {images} images opened, {of_recovery} of them cut off while recovering; {recovered} had rows in the journal, {torn} a torn tail"
    );
    boundaries.iter().for_each(|(kind, count)| println!("{count:6} {kind}"));
}

/// What a disk does that answers a sync and does nothing.
#[test]
fn a_sync_that_does_nothing_is_noticed() {
    let source = Place::new();
    let record = record(&source.path().join("pond"), 7);
    let steps = &record.steps;
    let is_sync = |step: &Step| matches!(step, Step::SyncFile { .. } | Step::SyncDirectory { .. });
    for left_out in ["journal: frame", "journal: rotation", "commit: data file", "commit: log entry"] {
        let mut checker = Checker::new();
        let mut disk = record.before.clone();
        let mut promised = Promised::default();
        let noticed = steps.iter().enumerate().any(|(at, step)| {
            match step {
                Step::Mark { number } => {
                    let before = promised.operations;
                    promised.add(record.books.promises[*number as usize]);
                    // Only what is promised can be missed; one in a few moments will do.
                    if promised.operations > before && at % 3 == 0 {
                        let image = disk.lose_power(Outcome {
                            names: Names::Dropped,
                            bytes: Bytes::Dropped,
                            seed: 1,
                        });
                        image.write(&checker.place.path().join("pond"), &mut checker.cache);
                        let missed = checker
                            .holds(&checker.place.path().join("pond"), promised, &record.books)
                            .is_err();
                        fs::remove_dir_all(checker.place.path().join("pond")).unwrap();
                        return missed;
                    }
                }
                step if is_sync(step) && boundary::kind(steps, at) == left_out => {}
                step => disk.take(step),
            }
            false
        });
        assert!(noticed, "{left_out}: its syncs may be left out, and nothing is lost");
    }
}

fn short(step: &Step) -> String {
    match step {
        Step::Write { path, offset, bytes } => {
            format!("write {} bytes at {offset} of {}", bytes.len(), path.display())
        }
        step => format!("{step:?}"),
    }
}

#[test]
fn a_pond_whose_making_was_cut_off_is_made_anew() {
    let source = Place::new();
    let pond = source.path().join("pond");
    fs::create_dir(&pond).unwrap();
    let mut disk = Disk::read(&pond, &pond);
    let recording = recording(&pond);
    Steward::init(&pond).unwrap();
    let steps = finish(recording);
    let checks = Place::new();
    let mut cache = Cache::new(checks.path().join("cache"));
    let mut random = Random::new(1);
    let target: PathBuf = checks.path().join("pond");
    for step in &steps {
        for n in 0..4 {
            let outcome = Outcome::number(n, random.number());
            disk.lose_power(outcome).write(&target, &mut cache);
            let made = Steward::probe(&target).and_then(|found| match found {
                Found::Pond => Ok(()),
                _ => Steward::init(&target),
            });
            let opened = made.and_then(|()| Steward::open(&target, by_hand())?.close());
            opened.unwrap_or_else(|error| panic!("before {step:?} as {outcome:?}: {error}"));
            fs::remove_dir_all(&target).unwrap();
        }
        disk.take(step);
    }
    println!("{} boundaries of making a pond", steps.len());
}
