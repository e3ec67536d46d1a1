//! Which versions replaced which data files, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::files::file_name;
use crate::log::commits;
use crate::log::delta::{Entry, Listing, Log};
use crate::{OpLogError, TxnSeq, Version};

/// Entries read at a time, looking for what they replaced.
const READ_AT_ONCE: usize = 1024;

/// When a data file was replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replacement {
    pub(crate) version: Version,
    /// Milliseconds since 1970 UTC.
    timestamp: i64,
    /// It was no later than this.
    known: Instant,
}

impl Replacement {
    /// Whether it was so long ago: by what this process has seen since, or by the time, if that is certain.
    pub(crate) fn is_past(&self, age: Duration, now: Option<i64>) -> bool {
        self.known.elapsed() >= age
            || now.is_some_and(|now| is_past(self.timestamp.saturating_mul(1000), age, now))
    }
}

/// Whether a time was so long before another, microseconds since 1970 UTC.
pub(crate) fn is_past(time: i64, age: Duration, now: i64) -> bool {
    u128::try_from(now.saturating_sub(time)).is_ok_and(|is| is >= age.as_micros())
}

/// Which versions replaced which data files: what this process did, and what the log says as far as anybody asked.
#[derive(Debug)]
pub(crate) struct Replaced {
    known: Mutex<Known>,
    /// When it began, and the newest version then.
    began: (Instant, Version),
}

#[derive(Debug, Default)]
struct Known {
    replaced: BTreeMap<String, Replacement>,
    /// Entries from here on were read.
    read_from: Option<u64>,
}

impl Replaced {
    /// Begins, with this as the newest version.
    pub(crate) fn since(newest: Version) -> Self {
        Replaced { known: Mutex::default(), began: (Instant::now(), newest) }
    }

    /// A version has replaced these.
    pub(crate) fn note(&self, names: &[String], version: Version, timestamp: i64) {
        let mut known = self.known.lock();
        for name in names {
            known.replaced.insert(name.clone(), Replacement { version, timestamp, known: Instant::now() });
        }
    }

    /// Of the files that transactions up to `last` made only these are there; of the others nobody asks again.
    pub(crate) fn retain(&self, there: &BTreeSet<String>, last: TxnSeq) {
        let is_later = |name: &str| file_name::txn_seq(name).is_some_and(|txn_seq| txn_seq > last);
        self.known.lock().replaced.retain(|name, _| there.contains(name) || is_later(name));
    }

    /// When these were replaced. What is not known yet is looked for in the log, backwards, down to the transaction that
    /// made the oldest of them; nothing is read twice.
    pub(crate) fn explain(
        &self,
        log: &Log,
        listing: &Listing,
        names: &BTreeSet<String>,
        stop: &dyn Fn() -> bool,
    ) -> Result<BTreeMap<String, Replacement>, OpLogError> {
        while !stop() {
            let (oldest, read_from) = {
                let known = self.known.lock();
                let unknown = names.iter().filter(|name| !known.replaced.contains_key(*name));
                (unknown.filter_map(|name| file_name::txn_seq(name)).min(), known.read_from)
            };
            let Some(oldest) = oldest else { break };
            let end = read_from.map_or(listing.entries.len(), |from| {
                listing.entries.partition_point(|&version| version < from)
            });
            let versions = &listing.entries[end.saturating_sub(READ_AT_ONCE)..end];
            let Some(&first) = versions.first() else { break };
            // What came before these entries replaced no file that is younger.
            if end < listing.entries.len()
                && txn_seq(&log.read(Version(versions[versions.len() - 1]))?).is_some_and(|txn| txn < oldest)
            {
                break;
            }
            // Without the lock: merges note what they replace while they keep commits waiting.
            let entries = commits::read_entries(log, versions)?;
            let mut found = self.known.lock();
            for (&version, entry) in versions.iter().zip(entries) {
                for remove in entry.actions.into_iter().filter_map(|action| action.remove) {
                    let timestamp = remove.deletion_timestamp.unwrap_or_default();
                    let version = Version(version);
                    let (began, newest) = self.began;
                    let known = if version <= newest { began } else { Instant::now() };
                    let replacement = Replacement { version, timestamp, known };
                    // Also those that are not asked for yet: they are not read again.
                    found.replaced.entry(remove.path).or_insert(replacement);
                }
            }
            found.read_from = Some(first);
        }
        let known = self.known.lock();
        let asked = known.replaced.iter().filter(|(name, _)| names.contains(*name));
        Ok(asked.map(|(name, replacement)| (name.clone(), *replacement)).collect())
    }
}

/// The transaction of an entry.
fn txn_seq(entry: &Entry) -> Option<TxnSeq> {
    entry.commit_info().and_then(|info| info.txn_seq).map(TxnSeq)
}
