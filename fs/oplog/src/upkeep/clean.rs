//! Cleaning: data files that others stand for, old checkpoints, and log entries below the floor.
//!
//! A data file goes once it is no part of the newest version, the time to keep it is over, every remote has passed the
//! version that replaced it, no pin is older than that version, and no open file is read from it. Versions whose own
//! files are gone are read from those of the newest one.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::disk::{durable, listing, pin};
use crate::files::file_name;
use crate::log::delta::{Log, checkpoint_of_digest};
use crate::log::replaced::{Replacement, is_past};
use crate::log::snapshot;
use crate::{At, Floor, OpLog, OpLogError, Version};

/// Checkpoints that stay: the newest ones.
const NEWEST_CHECKPOINTS: usize = 3;
/// And of older ones one in so many versions, so that any version is opened with not many more entries.
const SPARSE_CHECKPOINTS: u64 = 4096;

/// So long files are removed at a time, while nobody can begin to read a version.
const BATCH: Duration = Duration::from_millis(5);
#[cfg(not(test))]
fn batch() -> Duration {
    BATCH
}

#[cfg(test)]
thread_local! {
    static A_BATCH: std::cell::Cell<Duration> = const { std::cell::Cell::new(BATCH) };
}

#[cfg(test)]
fn batch() -> Duration {
    A_BATCH.get()
}

/// Cleans as on a disk where removing a file takes long.
#[cfg(test)]
pub(crate) fn one_file_a_batch<T>(clean: impl FnOnce() -> T) -> T {
    A_BATCH.set(Duration::ZERO);
    let cleaned = clean();
    A_BATCH.set(BATCH);
    cleaned
}

/// So long those who wait to begin have before the next are removed.
const BETWEEN_BATCHES: Duration = Duration::from_millis(1);

/// What may go.
pub struct CleanOptions<'a> {
    /// How long files stay that were replaced, and entries below the floor.
    pub keep_replaced: Duration,
    /// How long a read may take that began before its file was replaced.
    pub reads: Duration,
    /// The version up to which every remote has everything; `None` if there is no remote.
    pub watermark: Option<Version>,
    /// Which of these data files open files are read from.
    pub in_use: &'a dyn Fn(&HashSet<u32>) -> HashSet<u32>,
    /// Whether log entries below the floor go too.
    pub entries: bool,
    /// Only say what would go.
    pub dry_run: bool,
    /// Whether to stop: what has not gone by then stays for the next time.
    pub stop: &'a dyn Fn() -> bool,
}

/// What went, or would go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanReport {
    /// Replaced data files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Log entries below the floor.
    pub entries: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Replaced data files that stay for now.
    pub waiting_files: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
}

impl OpLog {
    /// Removes what nobody needs any more. Commits, merges and prunes may go on meanwhile.
    pub fn clean(&self, options: &CleanOptions<'_>) -> Result<CleanReport, OpLogError> {
        let mut report = CleanReport::default();
        let oldest = self.clean_data(options, &mut report)?;
        if (options.stop)() {
            return Ok(report);
        }
        let floor = snapshot::load(self.log(), At::Tip)?.floor();
        self.clean_log(options, floor, oldest, &mut report)?;
        Ok(report)
    }

    /// Removes data files; the oldest version that replaced one which stays.
    fn clean_data(
        &self,
        options: &CleanOptions<'_>,
        report: &mut CleanReport,
    ) -> Result<Option<Version>, OpLogError> {
        let data = self.layout().data();
        let before = self.position().txn_seq;
        // Before the position: files that a commit is putting there now have a later transaction.
        let mut names: BTreeSet<String> = listing::names(&data)?.into_iter().collect();
        let (last, shown) = {
            let position = self.position();
            (position.txn_seq, position.version)
        };
        let live: BTreeSet<String> =
            self.live().select(|_| true).into_iter().map(|file| file.add.path).collect();
        self.replaced().retain(&names, before);
        names.retain(|name| {
            !live.contains(name) && file_name::txn_seq(name).is_some_and(|txn_seq| txn_seq <= last)
        });
        if names.is_empty() {
            return Ok(None);
        }
        let replaced = self.replaced().explain(self.log(), &self.log().list()?, &names, options.stop)?;
        let keep = options.keep_replaced.max(options.reads);
        let now = self.clock().now().certain();
        let is_over = |replacement: &Replacement| {
            replacement.is_past(keep, now)
                // What a replica has yet to show is read before that.
                && replacement.version <= shown
                && options.watermark.is_none_or(|watermark| watermark >= replacement.version)
        };
        let mut over: BTreeSet<&String> =
            replaced.iter().filter(|(_, replacement)| is_over(replacement)).map(|(name, _)| name).collect();
        let numbers = self.files().numbers(&over);
        let used = (options.in_use)(&numbers.values().copied().collect());
        over.retain(|name| numbers.get(name.as_str()).is_none_or(|number| !used.contains(number)));
        let mut oldest: Option<Version> = None;
        let mut stays = |report: &mut CleanReport, replacement: &Replacement, bytes: u64| {
            report.waiting_files += 1;
            report.waiting_bytes += bytes;
            oldest = Some(oldest.map_or(replacement.version, |oldest| oldest.min(replacement.version)));
        };
        let length = |name: &String| {
            let path = data.join(name);
            fs::metadata(&path).map(|metadata| metadata.len()).map_err(OpLogError::io("stat", &path))
        };
        for (name, replacement) in replaced.iter().filter(|(name, _)| !over.contains(name)) {
            stays(report, replacement, length(name)?);
        }
        let mut going = over.into_iter().filter_map(|name| Some((name, replaced.get(name)?))).peekable();
        let mut removed = false;
        while going.peek().is_some() && !(options.stop)() {
            if removed {
                // The gate was open for a moment only, in which those who wait for it may not have come to run.
                std::thread::sleep(BETWEEN_BATCHES);
            }
            // No pin is made until what may go of a batch is gone: whoever comes then finds what is left.
            let pins = pin::Pins::hold(self.layout().root())?;
            let began = Instant::now();
            for (name, replacement) in going.by_ref() {
                let bytes = length(name)?;
                if pins.versions.iter().any(|&pin| pin < replacement.version) {
                    stays(report, replacement, bytes);
                } else {
                    if !options.dry_run {
                        let path = data.join(name);
                        durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
                        removed = true;
                        if let Some(&number) = numbers.get(name) {
                            self.files().forget(number);
                        }
                    }
                    report.files += 1;
                    report.bytes += bytes;
                }
                if began.elapsed() >= batch() {
                    break;
                }
            }
        }
        for (name, replacement) in going {
            stays(report, replacement, length(name)?);
        }
        if removed {
            // Before the entries go that say by what they were replaced: else those that power loss brought back would stay.
            durable::sync_directory(&data).map_err(OpLogError::io("fsync", &data))?;
        }
        Ok(oldest)
    }

    /// Removes checkpoints, and entries below the floor and below `oldest`.
    fn clean_log(
        &self,
        options: &CleanOptions<'_>,
        floor: Option<Floor>,
        oldest: Option<Version>,
        report: &mut CleanReport,
    ) -> Result<(), OpLogError> {
        let log = self.log();
        let mut listing = log.list()?;
        let first = listing.entries.first().copied().unwrap_or_default();
        if let Some(floor) = floor.filter(|floor| options.entries && floor.version.0 > first) {
            let version = floor.version;
            // One without a digest, or a damaged one, is made anew: what stands for the entries must be whole.
            if !options.dry_run && !snapshot::is_whole(log, version)? {
                self.checkpoint_at(version)?;
                listing = log.list()?;
            }
        }
        // Where history begins once what lies below the floor is gone.
        let base = floor.and_then(|floor| {
            listing.checkpoints.iter().rev().copied().find(|&checkpoint| checkpoint <= floor.version.0)
        });
        // Of a history that begins later than with version 0 it is the first.
        let base = base.or_else(|| {
            listing.checkpoints.iter().copied().find(|&checkpoint| first > 0 && checkpoint >= first)
        });
        let below = |base: &u64| floor.is_some_and(|floor| *base <= floor.version.0);
        let begin = base.filter(|base| options.entries && below(base));
        let mut gone = Vec::new();
        if let Some(base) = begin {
            // Entries tell when the files were replaced that are still there.
            let end = oldest.map_or(base, |oldest| base.min(oldest.0));
            // And recovery looks at those on which the journal's segments build.
            let end = match first < end {
                true => end.min(self.journal().oldest_base()?),
                false => end,
            };
            for &version in listing.entries.iter().take_while(|&&version| version < end) {
                let path = log.entry_path(Version(version));
                if !is_older(&path, options.keep_replaced, self.clock().now().certain())? {
                    break;
                }
                gone.push(path);
            }
        }
        let newest = listing.checkpoints.len().saturating_sub(NEWEST_CHECKPOINTS);
        let mut sparse = None;
        let mut is_kept = |version: u64| match base {
            // What entries are there below it can still be read without it.
            Some(base) if version < base => begin.is_none(),
            Some(base) if version == base => true,
            // Of each so many versions the first one.
            _ => sparse.replace(version / SPARSE_CHECKPOINTS) != Some(version / SPARSE_CHECKPOINTS),
        };
        let checkpoints: Vec<u64> =
            listing.checkpoints[..newest].iter().copied().filter(|&version| !is_kept(version)).collect();
        report.entries = gone.len() as u64;
        report.checkpoints = checkpoints.len() as u64;
        if options.dry_run {
            return Ok(());
        }
        if let Some(base) = begin
            && (!gone.is_empty() || checkpoints.iter().any(|&version| version < base))
        {
            prove(log, Version(base))?;
        }
        // Other readers trust the hint, and a checkpoint without its digest is taken for a damaged one: each step is durable before
        // the next.
        forget_hint(log, &checkpoints)?;
        for path in gone {
            durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
        }
        if checkpoints.is_empty() {
            return Ok(());
        }
        remove_checkpoints(log, &checkpoints, options.entries)
    }
}

/// Reads a checkpoint back, and compares it with what the entries below it say, which are to go.
fn prove(log: &Log, version: Version) -> Result<(), OpLogError> {
    snapshot::read_checkpoint(log, version)?;
    let with = snapshot::load_from(log, version, version)?;
    let without = match snapshot::load_from(log, version, Version(version.0.saturating_sub(1))) {
        // An earlier process began to remove them, and so had proved it.
        Err(OpLogError::MissingEntry { .. }) => return Ok(()),
        without => without?,
    };
    let same = with.files == without.files
        && with.txns == without.txns
        && with.protocol == without.protocol
        && with.metadata == without.metadata;
    match same {
        true => Ok(()),
        false => Err(OpLogError::CorruptCheckpoint {
            version,
            path: log.checkpoint_path(version),
            why: "it does not say what the log entries say".into(),
        }),
    }
}

fn is_older(path: &Path, age: Duration, now: Option<i64>) -> Result<bool, OpLogError> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let modified = modified.map_err(OpLogError::io("stat", path))?;
    let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let modified = i64::try_from(modified.as_micros()).unwrap_or(i64::MAX);
    Ok(age.is_zero() || now.is_some_and(|now| is_past(modified, age, now)))
}

/// Removes the hint at a checkpoint that is gone: other readers trust it.
fn forget_hint(log: &Log, gone: &[u64]) -> Result<(), OpLogError> {
    #[derive(Deserialize)]
    struct Hint {
        version: u64,
    }
    let path = log.directory().join("_last_checkpoint");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OpLogError::io("read", &path)(error)),
    };
    match serde_json::from_slice::<Hint>(&bytes) {
        Ok(Hint { version }) if !gone.contains(&version) => Ok(()),
        _ => {
            durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
            durable::sync_directory(&log.directory()).map_err(OpLogError::io("fsync", &log.directory()))
        }
    }
}

/// Removes checkpoints, and then their digests; with `others` also digests of older ones that are gone, because a process ended
/// in between. On a replica a digest may be there before its checkpoint.
fn remove_checkpoints(log: &Log, versions: &[u64], others: bool) -> Result<(), OpLogError> {
    let directory = log.directory();
    for &version in versions {
        let path = log.checkpoint_path(Version(version));
        durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
    }
    durable::sync_directory(&directory).map_err(OpLogError::io("fsync", &directory))?;
    let there = log.list()?.checkpoints;
    let newest = versions.last().copied().unwrap_or_default();
    for name in listing::names(&directory)? {
        let Some(version) = checkpoint_of_digest(&name) else { continue };
        let is_meant = versions.contains(&version) || (others && version < newest);
        if is_meant && there.binary_search(&version).is_err() {
            let path = directory.join(name);
            durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
        }
    }
    Ok(())
}
