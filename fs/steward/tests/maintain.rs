//! A pond that is committed to without a pause stays small, and no version that it keeps ever changes.
//!
//! `POND_MAINTAIN_COMMITS=100000 cargo test -p pond-steward --release --test maintain -- --nocapture` is the long run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pond_oplog::{At, CleanOptions, Version};
use pond_steward::{MaintainOptions, OpenOptions, Reader, Steward};
use pond_tinyfs::{Caller, FileType, Make, NodeId, TinyFs, WriteFlags};

fn options() -> OpenOptions {
    OpenOptions { commit_interval: Duration::from_millis(10), ..OpenOptions::default() }
}

/// Everything that a reader can see of a tree, but for the numbers of blocks.
fn digest(fs: &TinyFs) -> String {
    let mut hasher = fnv::Hasher::default();
    let mut directories = vec![NodeId::ROOT];
    while let Some(directory) = directories.pop() {
        hasher.add(format!("{:?}", fs.getattr(directory).unwrap()).as_bytes());
        let mut children = Vec::new();
        fs.readdir(directory, 0, &mut |entry| {
            hasher.add(entry.name);
            if entry.name != b"." && entry.name != b".." {
                children.push((entry.id, entry.kind));
            }
            true
        })
        .unwrap();
        for (id, kind) in children {
            let attributes = fs.getattr(id).unwrap();
            hasher.add(format!("{attributes:?}").as_bytes());
            match kind {
                FileType::Directory => directories.push(id),
                _ => {
                    let plan = fs.read(id, 0, attributes.size as usize).unwrap();
                    hasher.add(&plan.fill(&**fs.persistence()).unwrap());
                }
            }
        }
    }
    hasher.finish()
}

/// A digest without a crate of its own: FNV-1a of 128 bits is enough to tell trees apart that nobody forges.
mod fnv {
    pub struct Hasher(u128);

    impl Default for Hasher {
        fn default() -> Self {
            Hasher(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
        }
    }

    impl Hasher {
        pub fn add(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_013b);
            }
        }

        pub fn finish(&self) -> String {
            format!("{:032x}", self.0)
        }
    }
}

fn scaled(default: u64) -> u64 {
    std::env::var("POND_MAINTAIN_COMMITS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn newest_checkpoint(pond: &Path) -> u64 {
    let names = fs::read_dir(pond.join("data/_delta_log")).unwrap().map(|entry| entry.unwrap());
    let checkpoints = names.filter(|entry| entry.file_name().to_string_lossy().contains(".checkpoint."));
    checkpoints.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).max().unwrap_or(0)
}

fn digest_at(pond: &Path, version: Version) -> String {
    let steward = Reader::open(pond, At::Version(version), options()).unwrap();
    digest(steward.fs())
}

/// What tells files of unfinished transactions from those that were replaced is needed for nothing else.
#[test]
fn a_damaged_entry_of_long_ago_keeps_nobody_from_opening_the_pond() {
    let directory = tempfile::tempdir().unwrap();
    let pond = directory.path().join("pond");
    Steward::init(&pond).unwrap();
    let slow = || OpenOptions { commit_interval: Duration::from_secs(3600), ..OpenOptions::default() };
    let steward = Steward::open(&pond, slow()).unwrap();
    for n in 0..70 {
        let name = format!("file {n}");
        steward
            .fs()
            .make(&Caller::root(), NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 })
            .unwrap();
        steward.sync().unwrap();
    }
    steward.maintain(&MaintainOptions::default(), &|_| {}).unwrap();
    steward.close().unwrap();
    let before = digest(steward.fs());
    drop(steward);
    let entry = pond.join(format!("data/_delta_log/{:020}.json", 30));
    fs::write(&entry, "no longer what it was").unwrap();

    let steward = Steward::open(&pond, slow()).unwrap();
    assert_eq!(digest(steward.fs()), before);
    let notes = steward.status().notes;
    assert!(
        notes.iter().any(|note| note.contains(entry.file_name().unwrap().to_str().unwrap())),
        "{notes:?}"
    );
    steward.close().unwrap();
}

#[test]
fn a_pond_that_is_committed_to_without_a_pause_stays_small() {
    let commits = scaled(700);
    let keep = (commits / 10).max(150);
    let base = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let pond = base.path().join("pond");
    Steward::init(&pond).unwrap();
    let steward = Steward::open(&pond, options()).unwrap();
    steward.control_set("retention", &format!("{keep} versions")).unwrap();
    steward.control_set("keep_replaced", "0s").unwrap();
    let fs = steward.fs().clone();
    let caller = Caller::root();
    let names: Vec<String> = (0..200).map(|n| format!("file-{n}")).collect();
    let mut sampled: Vec<(Version, String)> = Vec::new();
    let (mut most, mut largest, mut slowest) = (0, 0, Duration::ZERO);
    let mut took: Vec<Duration> = Vec::new();
    for n in 0..commits {
        let name = names[(n * 7 % 200) as usize].as_bytes();
        let file = match fs.lookup(NodeId::ROOT, name) {
            Ok(attributes) if n % 11 == 0 => {
                fs.unlink(&caller, NodeId::ROOT, name).unwrap();
                fs.forget(attributes.id, 1);
                None
            }
            Ok(attributes) => Some(attributes.id),
            Err(_) => Some(fs.make(&caller, NodeId::ROOT, name, Make::File { mode: 0o644 }).unwrap().id),
        };
        if let Some(file) = file {
            let data = format!("{n} ").repeat(200);
            fs.write(&caller, file, n % 5 * 1000, data.as_bytes(), WriteFlags::default()).unwrap();
            fs.forget(file, 1);
        }
        let started = Instant::now();
        let position = steward.commit_now().unwrap();
        took.push(started.elapsed());
        slowest = slowest.max(started.elapsed());
        most = most.max(steward.status().history.live_files);
        if n % 64 == 0 {
            largest = largest.max(newest_checkpoint(&pond));
        }
        if n % (commits / 40).max(1) == 0 {
            sampled.push((position.version, digest(&fs)));
        }
    }
    took.sort();
    let position = steward.position();
    let tree = digest(&fs);
    sampled.push((position.version, tree.clone()));
    steward.close().unwrap();
    let report = {
        let steward = Steward::open(&pond, options()).unwrap();
        let options = MaintainOptions { alone: true, ..MaintainOptions::default() };
        let report = steward.maintain(&options, &|_| {}).unwrap();
        assert_eq!(digest(steward.fs()), tree);
        steward.close().unwrap();
        report
    };
    let floor = report.floor.expect("the floor has risen");
    assert!(floor.0 + 2 * keep >= position.version.0, "floor {floor} of {}", position.version);
    assert!(most < 300, "{most} live files");
    assert!(largest < 2 << 20, "a checkpoint of {largest} bytes");
    let kept: Vec<_> = sampled.iter().filter(|(version, _)| *version >= floor).collect();
    assert!(kept.len() >= 3);
    for (version, expected) in &kept {
        assert_eq!(digest_at(&pond, *version), *expected, "version {version}, with the floor at {floor}");
    }
    let gone = Reader::open(&pond, At::Version(Version(floor.0 - 1)), options());
    let gone = gone.err().unwrap().to_string();
    assert!(gone.contains("no longer kept"), "{gone}");

    // How long opening takes, and what a new pond with the same tree takes.
    let started = Instant::now();
    let steward = Steward::open(&pond, options()).unwrap();
    let opening = started.elapsed();
    let newest = steward.position().version;
    let fresh = base.path().join("fresh");
    copy_tree(steward.fs(), &fresh);
    steward.close().unwrap();
    let started = Instant::now();
    Steward::open(&fresh, options()).unwrap().close().unwrap();
    let opening_fresh = started.elapsed();
    println!(
        "{commits} commits: at most {most} live files, checkpoints up to {largest} bytes, floor {floor} of {}, \
         {} sampled versions compared; commit p50 {:?}, p99 {:?}, slowest {slowest:?}; opens in {opening:?}, a fresh pond \
         in {opening_fresh:?}; {} files in data/",
        position.version,
        kept.len(),
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        fs::read_dir(pond.join("data")).unwrap().count(),
    );
    let checked = pond_steward::fsck::check(&pond, &()).unwrap();
    assert_eq!(checked.report.findings, [], "fsck of a pond of which little is kept");
    // Of older versions the files are gone that another reader would ask for.
    others_agree(&pond, newest);
}

/// What keeping small costs where every version is kept; prints it. `POND_MAINTAIN_COMMITS` is the number of versions.
#[test]
#[ignore = "measures: run it alone, in a release build, with -- --ignored --nocapture"]
fn what_many_versions_cost() {
    let commits = scaled(20_000);
    let base = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let pond = base.path().join("pond");
    Steward::init(&pond).unwrap();
    let open = || {
        let started = Instant::now();
        let steward = Steward::open(&pond, options()).unwrap();
        (steward, started.elapsed())
    };
    let steward = open().0;
    let caller = Caller::root();
    let file = steward.fs().make(&caller, NodeId::ROOT, b"file", Make::File { mode: 0o644 }).unwrap().id;
    for n in 1..=commits {
        steward.fs().write(&caller, file, 0, n.to_string().as_bytes(), WriteFlags::default()).unwrap();
        steward.commit_now().unwrap();
        if n.is_power_of_two() && n > 1000 || n == commits {
            let took = |work: &dyn Fn()| {
                let started = Instant::now();
                work();
                started.elapsed()
            };
            let checkpoint = took(&|| {
                steward.oplog().checkpoint().unwrap();
            });
            let clean = |dry_run| {
                let options = CleanOptions {
                    keep_replaced: Duration::from_secs(24 * 3600),
                    reads: Duration::ZERO,
                    watermark: None,
                    in_use: &|_| Default::default(),
                    entries: true,
                    dry_run,
                    stop: &|| false,
                };
                steward.oplog().clean(&options).unwrap()
            };
            let cleaned = took(&|| {
                clean(false);
            });
            let report = clean(true);
            println!(
                "{n} commits: checkpoint {checkpoint:?}, cleaning {cleaned:?} ({} replaced files stay)",
                report.waiting_files
            );
        }
    }
    steward.close().unwrap();
    let (steward, first) = open();
    let options = MaintainOptions { dry_run: true, ..MaintainOptions::default() };
    let started = Instant::now();
    steward.maintain(&options, &|_| {}).unwrap();
    println!("opens in {first:?}; the first cleaning after that {:?}", started.elapsed());
    steward.close().unwrap();
    println!("opens again in {:?}", open().1);
}

fn copy_tree(from: &Arc<TinyFs>, to: &Path) {
    Steward::init(to).unwrap();
    let steward = Steward::open(to, options()).unwrap();
    let caller = Caller::root();
    let mut files = Vec::new();
    from.readdir(NodeId::ROOT, 0, &mut |entry| {
        if entry.kind == FileType::File {
            files.push((entry.name.to_vec(), entry.id));
        }
        true
    })
    .unwrap();
    for (name, id) in files {
        let size = from.getattr(id).unwrap().size as usize;
        let data = from.read(id, 0, size).unwrap().fill(&**from.persistence()).unwrap();
        let new = steward.fs().make(&caller, NodeId::ROOT, &name, Make::File { mode: 0o644 }).unwrap().id;
        steward.fs().write(&caller, new, 0, &data, WriteFlags::default()).unwrap();
        steward.fs().forget(new, 1);
    }
    steward.close().unwrap();
}

/// Python's deltalake folds the newest version to the same names and sizes, where it is installed.
fn others_agree(pond: &Path, version: Version) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tests/scripts/fold.py");
    let found = Command::new("python3").args(["-c", "import deltalake, pyarrow, blake3"]).output();
    if !found.is_ok_and(|found| found.status.success()) {
        println!("Python's deltalake is not here; its fold is not compared");
        return;
    }
    let output =
        Command::new("python3").arg(script).arg(pond.join("data")).arg(version.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut theirs: Vec<(Vec<u8>, u64)> = Vec::new();
    for line in text.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let hex = row["path"].as_str().unwrap();
        let bytes = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
        theirs.push(((0..hex.len() / 2).map(bytes).collect(), row["size"].as_u64().unwrap()));
    }
    theirs.retain(|(path, _)| !path.is_empty());
    theirs.sort();
    let steward = Reader::open(pond, At::Version(version), options()).unwrap();
    let mut ours = Vec::new();
    steward
        .fs()
        .readdir_plus(NodeId::ROOT, 0, &mut |entry, attributes| {
            if entry.kind == FileType::File {
                ours.push((entry.name.to_vec(), attributes.size));
            }
            true
        })
        .unwrap();
    ours.sort();
    assert_eq!(theirs, ours);
}
