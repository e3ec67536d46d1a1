//! A replica's mount follows a source under a mixed load.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pond_tests::measure::median;
use pond_tests::scale::scaled;
use pond_tests::tree;
use pond_tests::{Random, TestPond};

use crate::checker::{Sightings, Versions, digests};
use crate::pair::{Pair, SAME};

/// Files that are replaced by renaming, that are written in place, and that are appended to.
const REPLACED: u64 = 6;
const IN_PLACE: u64 = 2;
const APPENDED: u64 = 2;

/// The file whose bytes an open descriptor and a mapping keep.
const KEPT: &str = "kept";

/// How much longer than asked for the load goes on, at most, until enough of what it does was seen.
const LONGER: Duration = Duration::from_secs(120);

fn names() -> Vec<String> {
    let numbered = |kind: &'static str, count| (0..count).map(move |number| format!("{kind}-{number}"));
    numbered("replaced", REPLACED)
        .chain(numbered("in-place", IN_PLACE))
        .chain(numbered("log", APPENDED))
        .collect()
}

#[test]
fn a_mount_follows_and_each_file_in_it_is_one_version_that_the_source_had() {
    let seconds: u64 = scaled("POND_FOLLOW_SECONDS", 6);
    // Ten minutes at the default interval; in CI as many versions in less time.
    let interval = if seconds >= 60 { "commit=1" } else { "commit=0.2" };
    let pair = pair(Duration::from_secs(900 + 10 * seconds));
    let Pair { source, replica, .. } = &pair;
    source.mount_with(&["-o", interval]);
    pair.add_remote();
    let mut random = Random::new(11);
    fs::write(source.path(KEPT), random.bytes(3_000_000)).unwrap();
    for number in 0..IN_PLACE {
        fs::write(source.path(format!("in-place-{number}")), random.bytes(2_000_000)).unwrap();
    }
    source.sync();
    pair.restore();
    replica.mount();
    let kept = Kept::open(&replica.path(KEPT));

    let (stop, different) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (sightings, arrivals) = thread::scope(|scope| {
        scope.spawn(|| load(source, 1, &stop));
        scope.spawn(|| load(source, 2, &stop));
        let watching = scope.spawn(|| watch_arrivals(replica, &stop));
        let looking = scope.spawn(|| {
            let (mut sightings, names, mut random) = (Sightings::default(), names(), Random::new(4));
            while !stop.load(Ordering::SeqCst) {
                let name: &String = random.choose(&names);
                sightings.look(replica.mountpoint(), name).unwrap();
                different.store(sightings.different(), Ordering::SeqCst);
            }
            sightings
        });
        thread::sleep(Duration::from_secs(seconds) / 2);
        File::options()
            .write(true)
            .truncate(true)
            .open(source.path(KEPT))
            .unwrap()
            .write_all(b"cut")
            .unwrap();
        thread::sleep(Duration::from_secs(seconds) / 4);
        fs::write(source.path("new"), "another file").unwrap();
        fs::rename(source.path("new"), source.path(KEPT)).unwrap();
        thread::sleep(Duration::from_secs(seconds) / 4);
        let started = Instant::now();
        while different.load(Ordering::SeqCst) <= names().len() && started.elapsed() < LONGER {
            thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::SeqCst);
        (looking.join().unwrap(), watching.join().unwrap())
    });
    source.sync();
    let newest = source.version();
    pair.wait();
    pair.assert_same_trees();
    kept.assert_same();
    assert_eq!(fs::read_to_string(replica.path(KEPT)).unwrap(), "another file");
    drop(kept);

    let lags = lags(source, &arrivals);
    println!(
        "{newest} versions, {} sightings of {} contents; lag behind the commit: median {:?}, of {} versions seen",
        sightings.count(),
        sightings.different(),
        median(lags.clone()),
        lags.len()
    );
    sightings.check(&versions(source, newest));
    assert!(sightings.different() > names().len(), "the load changed something while we looked");
    for sample in 1..=4 {
        let version = (newest * sample / 4).to_string();
        let mounts = [source, replica].map(|pond| pond.mount_beside("then", &["--version", &version]));
        let [left, right] = mounts.each_ref().map(|mount| tree::look_at(mount));
        tree::assert_same(&format!("version {version} of source and replica"), &left, &right, SAME);
        source.umount_at(&mounts[0]);
        replica.umount_at(&mounts[1]);
    }
    replica.umount();
    pair.finish();
}

fn pair(patience: Duration) -> Pair {
    let mut pair = Pair::local_with_patience(patience);
    pair.replica = TestPond::with_patience(patience);
    pair
}

/// All that programs do to files, until told to stop.
fn load(pond: &TestPond, seed: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    let own = pond.path(format!("tree-{seed}"));
    fs::create_dir(&own).unwrap();
    while !stop.load(Ordering::SeqCst) {
        match random.below(6) {
            0 | 1 => {
                let temporary = pond.path(format!("temporary-{seed}"));
                let length = *random.choose(&[100, 5_000, 400_000]);
                fs::write(&temporary, random.bytes(length)).unwrap();
                fs::rename(&temporary, pond.path(format!("replaced-{}", random.below(REPLACED)))).unwrap();
            }
            2 => {
                let path = pond.path(format!("in-place-{}", random.below(IN_PLACE)));
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(&random.bytes(70_000), random.below(2_000_000)).unwrap();
                if random.one_in(10) {
                    file.set_len(1_000_000 + random.below(1_000_000)).unwrap();
                }
            }
            3 => {
                let path = pond.path(format!("log-{}", random.below(APPENDED)));
                let mut log = File::options().create(true).append(true).open(path).unwrap();
                log.write_all(&random.bytes(500)).unwrap();
            }
            4 => {
                let (from, to) =
                    (own.join(format!("d-{}", random.below(5))), own.join(format!("e-{}", random.below(5))));
                // What is there is not known: whichever of these works.
                fs::create_dir(&from).ok();
                fs::write(from.join("file"), random.bytes(50)).ok();
                fs::rename(&from, &to).ok();
            }
            _ => drop(fs::remove_dir_all(own.join(format!("e-{}", random.below(5))))),
        }
        thread::sleep(Duration::from_millis(random.below(8)));
    }
}

/// When each version was first seen, microseconds since 1970; versions never go back.
fn watch_arrivals(replica: &TestPond, stop: &AtomicBool) -> BTreeMap<u64, i64> {
    let mut arrivals = BTreeMap::new();
    let mut last = replica.version();
    while !stop.load(Ordering::SeqCst) {
        let version = replica.version();
        assert!(version >= last, "the replica went back from version {last} to {version}");
        if version > last {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            arrivals.insert(version, now.as_micros() as i64);
            last = version;
        }
        thread::sleep(Duration::from_millis(3));
    }
    arrivals
}

/// From each version's commit to its arrival.
fn lags(source: &TestPond, arrivals: &BTreeMap<u64, i64>) -> Vec<Duration> {
    let committed =
        |entry: &serde_json::Value| Some((entry["version"].as_u64()?, entry["timestamp"].as_i64()?));
    let commits: BTreeMap<u64, i64> = source.json(["log"]).iter().filter_map(committed).collect();
    let lag = |(version, seen): (&u64, &i64)| {
        let micros =
            seen - commits.get(version).unwrap_or_else(|| panic!("the log has no version {version}"));
        Duration::from_micros(micros.max(0) as u64)
    };
    arrivals.iter().map(lag).collect()
}

/// What each version of the source holds of the files that are watched.
fn versions(source: &TestPond, newest: u64) -> Versions {
    let names = names();
    (0..=newest)
        .map(|version| {
            let mount = source.mount_beside("one", &["--version", &version.to_string()]);
            let files = digests(&mount, &names);
            source.umount_at(&mount);
            (version, files)
        })
        .collect()
}

/// A file that stays open, and mapped.
struct Kept {
    file: File,
    map: *const u8,
    content: Vec<u8>,
}

impl Kept {
    fn open(path: &Path) -> Self {
        let content = fs::read(path).unwrap();
        let file = File::open(path).unwrap();
        // SAFETY: a new private mapping of a file that is open, as long as the file is.
        let map = unsafe {
            let (length, descriptor) = (content.len(), file.as_raw_fd());
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, descriptor, 0)
        };
        assert_ne!(map, libc::MAP_FAILED);
        Kept { file, map: map.cast(), content }
    }

    #[track_caller]
    fn assert_same(&self) {
        // What the kernel has of it is dropped: the bytes come from the daemon.
        // SAFETY: both calls only concern what is cached of our own file and mapping.
        unsafe {
            libc::madvise(self.map.cast_mut().cast(), self.content.len(), libc::MADV_DONTNEED);
            libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
        }
        // SAFETY: the mapping has this length and lives as long as self.
        let mapped = unsafe { std::slice::from_raw_parts(self.map, self.content.len()) };
        assert!(mapped == self.content, "the mapping has changed");
        let mut read = vec![0; self.content.len()];
        self.file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == self.content, "the open file has changed");
        let end = (&self.file).seek(SeekFrom::End(0)).unwrap();
        assert_eq!(end, self.content.len() as u64);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: our own mapping, not used any more.
        unsafe { libc::munmap(self.map.cast_mut().cast(), self.content.len()) };
    }
}

#[test]
fn a_replica_that_follows_tells_how_much_history_it_has_now() {
    let pair = Pair::local();
    pair.begin();
    pair.restore();
    pair.replica.mount();
    for name in ["a", "b", "c", "d"] {
        pair.commit(name);
    }
    pair.source.pond(["control", "set", "retention", "2 versions"]);
    pair.source.pond(["maintain"]);
    pair.source.sync();
    pair.wait();
    let history = |pond: &TestPond| pond.status()["history"].clone();
    assert!(history(&pair.source)["floor"].as_u64().unwrap() > 0);
    assert_eq!(history(&pair.replica), history(&pair.source));
    pair.replica.umount();
    assert_eq!(history(&pair.replica), history(&pair.source));
    pair.source.umount();
}
