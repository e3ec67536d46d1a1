//! Nothing that a puller had verified is fetched again after it was killed: the store's own log says what was asked of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use pond_tests::proxy::{Proxy, Seen};
use pond_tests::s3::S3Server;
use pond_tests::scale::scaled;
use pond_tests::{Random, TestPond, wait_until};
use serde_json::Value;

use crate::kills::random;
use crate::pair::{Commits, Pair};

/// What a replica had at the moment at which it was killed: names in `data/`, in its staging area and in its log.
struct Held(BTreeSet<String>);

impl Held {
    fn of(replica: &TestPond) -> Self {
        let data = replica.directory().join("data");
        let mut names = BTreeSet::new();
        for directory in [data.clone(), data.join("_inflight"), data.join("_delta_log")] {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            let applied = directory.ends_with("_delta_log");
            for name in entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
                let name = name.strip_prefix("in-").unwrap_or(&name).to_owned();
                names.insert(if applied { format!("applied {name}") } else { name });
            }
        }
        Held(names)
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    fn has_applied(&self, version: u64) -> bool {
        self.0.contains(&format!("applied {version:020}.json"))
    }

    /// Whether all of an object was verified: every file that is in it is here.
    fn has_all_of(&self, key: &str, source: &Path) -> bool {
        let parts: Vec<&str> = key.trim_start_matches("backups/").split('/').collect();
        let number = |text: &str| text.parse::<u64>().unwrap();
        match parts[..] {
            [timeline, "packs", name] => {
                let name = name.strip_suffix(".pack").unwrap();
                let [first, last, digest] = name.split('-').collect::<Vec<_>>()[..] else { panic!("{key}") };
                let (first, last) = (number(first), number(last));
                self.has(&format!("pack-{timeline}-{first}-{last}-{digest}"))
                    || (first..=last).all(|version| self.has_applied(version))
            }
            [_, folder, _] => {
                let (kind, version) = folder.split_once('-').unwrap();
                let version = number(version);
                // One bundle has all that a version brings: none is near 128 MiB here.
                self.has_applied(version)
                    || (self.has(&format!("{version:020}.json"))
                        && (kind == "version" || self.has(&format!("{version:020}.checkpoint.parquet")))
                        && added(source, version).iter().all(|name| self.has(name)))
            }
            _ => panic!("{key}"),
        }
    }
}

/// Data files that a version added.
fn added(source: &Path, version: u64) -> Vec<String> {
    let entry = fs::read_to_string(source.join(format!("data/_delta_log/{version:020}.json"))).unwrap();
    let actions = entry.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    actions.filter_map(|action| Some(action["add"]["path"].as_str()?.to_owned())).collect()
}

/// Whether a request is for bytes of the history, and not only for what says where they are.
fn is_data(seen: &Seen) -> bool {
    seen.method == "GET" && (seen.key.contains("/bundle-") || seen.key.ends_with(".pack"))
}

/// Follows what is asked of the store from kill to kill.
struct Watch<'a> {
    proxy: &'a Proxy,
    pair: &'a Pair,
    reader: String,
    /// What was held at the last kill.
    held: Held,
    /// Bytes that came since the beginning, and those of objects that had come before, in whole or in part.
    bytes: (u64, u64),
    known: BTreeSet<String>,
}

impl Watch<'_> {
    /// Looks at the requests since the last kill; what is here now is not to be asked for any more.
    #[track_caller]
    fn killed(&mut self) {
        let log = self.proxy.forget();
        for seen in log.iter().filter(|seen| seen.user == self.reader && is_data(seen)) {
            assert!(
                !self.held.has_all_of(&seen.key, self.pair.source.directory()),
                "{} was fetched again, although all of it was verified before the kill",
                seen.key
            );
            let bytes = seen.answered.map_or(0, |(_, bytes)| bytes);
            self.bytes.0 += bytes;
            if !self.known.insert(seen.key.clone()) {
                self.bytes.1 += bytes;
            }
        }
        self.held = Held::of(&self.pair.replica);
    }
}

#[test]
fn no_verified_byte_is_fetched_twice_after_a_kill() {
    let rounds: u64 = scaled("POND_KILL_ROUNDS", 5);
    let mut random = random();
    let server = S3Server::start();
    let proxy = server.proxied();
    let mut pair = Pair::with(&S3Server::yaml(&proxy.endpoint()));
    pair.source.set_environment(&server.writer.environment());
    pair.replica.set_environment(&server.reader.environment());
    // Packs of small versions, then versions by themselves, some of them large.
    pair.source.mount_with(&["-o", "commit=3600"]);
    let mut commits = Commits::of(&pair.source);
    let mut write = |number: u64, random: &mut Random| {
        let length = if number.is_multiple_of(5) { 1_000_000 } else { 20_000 };
        fs::write(pair.source.path(format!("file-{}", number % 20)), random.bytes(length)).unwrap();
        commits.commit();
    };
    (0..130).for_each(|number| write(number, &mut random));
    pair.add_remote();
    pair.source.sync();
    (0..20).for_each(|number| write(number, &mut random));
    pair.source.sync();

    proxy.forget();
    let held = Held::of(&pair.replica);
    let (reader, known) = (server.reader.key.clone(), BTreeSet::new());
    let mut watch = Watch { proxy: &proxy, pair: &pair, reader, held, bytes: (0, 0), known };
    let restore = ["init", "--from-backup", pair.yaml()];
    for _ in 0..rounds {
        let mut command = pair.replica.command();
        command.args(restore).stdout(Stdio::null()).stderr(Stdio::null());
        let mut restoring = command.spawn().unwrap();
        let some = 4 + random.below(20) as usize;
        wait_until("it has asked for some objects, or is done", Duration::from_secs(60), || {
            (proxy.log().len() >= some || restoring.try_wait().unwrap().is_some()).then_some(())
        });
        thread::sleep(Duration::from_millis(random.below(150)));
        // Fails only where it has ended by itself.
        restoring.kill().ok();
        restoring.wait().unwrap();
        watch.killed();
    }
    let whole = pair.replica.try_pond(restore);
    assert!(whole.status.success() || whole.stderr.contains("already"), "{whole}");
    watch.killed();
    for round in 0..rounds {
        (0..10).for_each(|number| write(10 * round + number, &mut random));
        pair.source.sync();
        pair.replica.mount();
        thread::sleep(Duration::from_millis(random.below(600)));
        pair.replica.kill();
        watch.killed();
    }
    pair.replica.mount();
    pair.wait();
    watch.killed();
    let (all, again) = watch.bytes;
    println!("{all} bytes came, {again} of them of objects that had begun to come before a kill");
    pair.assert_same_trees();
    pair.replica.umount();
    pair.finish();
}
