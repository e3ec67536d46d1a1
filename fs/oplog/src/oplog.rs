//! A pond's history: opened, extended by commits, read from.
//!
//! The Steward is its only writer. It holds the writer's lock; this holds the numbers: version,
//! transaction, cut and time only ever grow, and each commit is one log entry put where none is.

pub(crate) mod added;
pub(crate) mod commit;
pub(crate) mod create;
pub(crate) mod drain;
pub(crate) mod evolve;
pub(crate) mod fork;
pub(crate) mod kept;
pub(crate) mod maintenance;
pub(crate) mod open;
pub(crate) mod turn;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use pond_tinyfs::{Location, PersistenceLayer, Space, StorageError};

use crate::disk::space::SpaceGauge;
use crate::disk::spill::Spills;
use crate::files::content::{CacheUse, DataFiles};
use crate::files::data_file::Effort;
use crate::log::delta::Log;
use crate::log::followed::Followed;
use crate::log::live::Live;
use crate::log::replaced::Replaced;
use crate::log::{checkpoint, snapshot};
use crate::oplog::turn::{Turn, Turns};
use crate::parallel::threads;
use crate::{Clock, DamageMet, Identity, Journal, Layout, OpLogError, Position, Timeline, Version};

/// One pond's Delta table, its journal and its content.
pub struct OpLog {
    layout: Layout,
    log: Log,
    identity: Identity,
    files: DataFiles,
    journal: Journal,
    spills: Spills,
    space: SpaceGauge,
    position: RwLock<Position>,
    /// Timeline of the commits to come, if it is a later one than the last commit's; else 0.
    timeline: AtomicU64,
    /// The data files of the newest version.
    live: Live,
    replaced: Replaced,
    /// Numbers of files that were read ahead of the position.
    ahead: Mutex<BTreeMap<String, u32>>,
    followed: Followed,
    turns: Turns,
    pause: OnceLock<Pause>,
    clock: Arc<Clock>,
    opened: Opening,
}

/// When and at which version a log was opened.
#[derive(Clone, Copy, Debug)]
struct Opening {
    version: Version,
    /// By the clock that nobody sets.
    boot: i64,
}

/// Is called between pieces of work of some milliseconds by each thread that makes a commit's or a drain's files; may sleep.
pub type Pause = Box<dyn Fn() + Send + Sync>;

impl OpLog {
    /// Sets what commits and drains call in between; the first one stays.
    pub fn set_pause(&self, pause: Pause) {
        self.pause.get_or_init(|| pause);
    }

    /// Memory that is taken by what is kept for readers.
    pub fn cache_use(&self) -> CacheUse {
        self.files.cache_use()
    }

    pub(crate) fn effort(&self) -> Effort<'_> {
        let pause: &(dyn Fn() + Sync) = match self.pause.get() {
            Some(pause) => pause,
            None => &|| {},
        };
        Effort { threads: threads(), pause }
    }

    /// What tells the time.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// The newest version that may be older than `age`: what was made since this was opened is not, unless that is so long ago.
    pub fn newest_of_age(&self, age: Duration) -> Version {
        match self.clock.since(self.opened.boot) >= age {
            true => self.position().version,
            false => self.opened.version,
        }
    }

    /// Who the pond is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where history stands.
    pub fn position(&self) -> Position {
        self.position.read().clone()
    }

    /// Where the pond's parts lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The journal; of a log that was opened for reading it takes nothing.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Sets how many bytes [`PersistenceLayer::space`] keeps back from writers.
    pub fn set_reserve(&self, bytes: u64) {
        self.space.set_reserve(bytes);
    }

    /// Writes a checkpoint of the current version. Commits may go on meanwhile. Call it from a thread that runs no
    /// async tasks.
    pub fn checkpoint(&self) -> Result<Version, OpLogError> {
        let version = self.position().version;
        self.checkpoint_at(version)?;
        Ok(version)
    }

    /// As [`checkpoint`](Self::checkpoint), unless there is a whole one of the current version already; the version of which one was
    /// written.
    pub fn checkpoint_unless_there(&self) -> Result<Option<Version>, OpLogError> {
        let version = self.position().version;
        match self.log.list()?.checkpoints.last() {
            Some(&last) if last == version.0 && snapshot::is_whole(&self.log, version)? => Ok(None),
            _ => self.checkpoint().map(Some),
        }
    }

    pub(crate) fn checkpoint_at(&self, version: Version) -> Result<(), OpLogError> {
        checkpoint::write(&self.log, version)
    }

    pub(crate) fn files(&self) -> &DataFiles {
        &self.files
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    pub(crate) fn replaced(&self) -> &Replaced {
        &self.replaced
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Has the space that is left measured anew: some was just taken.
    pub(crate) fn refresh_space(&self) {
        self.space.refresh();
    }

    /// History has come to this version.
    pub(crate) fn set_position(&self, position: Position) {
        *self.position.write() = position;
    }

    /// As [`set_position`](Self::set_position), after a commit of this process.
    pub(crate) fn committed(&self, position: &Position) {
        debug_assert!(
            self.position().goes_on_in(position).iter().all(|(_, goes_on)| *goes_on),
            "{position:?} does not go on from {:?}",
            self.position()
        );
        self.set_position(position.clone());
    }

    /// What came by following, for figures.
    pub(crate) fn followed(&self) -> &Followed {
        &self.followed
    }

    /// Damaged content that readers met since the log was opened.
    pub fn damage_met(&self) -> DamageMet {
        self.files.damage_met()
    }

    /// Numbers of files that were read ahead of the position, by name.
    pub(crate) fn ahead(&self) -> &Mutex<BTreeMap<String, u32>> {
        &self.ahead
    }

    /// Commits from the next one on belong to this timeline. Timelines only grow: a lower one than the last commit's
    /// changes nothing.
    pub fn set_timeline(&self, timeline: Timeline) {
        self.timeline.store(timeline.0, Ordering::Release);
    }

    pub(crate) fn timeline(&self) -> Timeline {
        Timeline(self.timeline.load(Ordering::Acquire))
    }

    /// Waits until no commit is under way; an error if there can be no more.
    pub(crate) fn turn(&self) -> Result<Turn<'_>, OpLogError> {
        self.turns.take(&self.log)
    }
}

impl PersistenceLayer for OpLog {
    fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        if Spills::holds(location) {
            return self.spills.read(location, skip, length);
        }
        self.files.read(location, skip, length)
    }

    fn read_cached(&self, location: Location, skip: u32, length: u32) -> Option<Bytes> {
        self.files.cached(location, skip, length)
    }

    fn prefetch(&self, location: Location) {
        if !Spills::holds(location) {
            self.files.prefetch(location);
        }
    }

    fn prefetch_budget(&self) -> u64 {
        self.files.prefetch_budget()
    }

    fn space(&self) -> Space {
        self.space.get()
    }

    fn space_now(&self) -> Space {
        self.space.refresh();
        self.space.get()
    }

    fn open_spill(&self) -> Result<u32, StorageError> {
        Ok(self.spills.create())
    }

    fn write_spill(&self, spill: u32, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        self.spills.write(spill, offset, data)
    }

    fn close_spill(&self, spill: u32) {
        self.spills.close(spill);
    }
}

#[cfg(test)]
mod tests;
