//! Cleaning up: files and log entries that nobody needs any more. A replica does no other maintenance.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pond_oplog::{CleanOptions, CleanReport, Doubt, OpLog, Version};
use pond_tinyfs::{PersistenceLayer, TinyFs};

use crate::control::settings::KEEP_REPLACED_KEY;
use crate::control::table::Control;
use crate::factories::runner::Runner;
use crate::pacing::backpressure;
use crate::pacing::scheduler::{CleanAction, Cleaning, READS};
use crate::upkeep::report::{MaintainEvent, MaintainOptions, MaintainReport, MaintainStep};
use crate::upkeep::retention::is_by_age;
use crate::{FactoryStatus, Role, StewardError};

/// So often background work that keeps its pace looks whether it is to end.
pub(crate) const NAP: Duration = Duration::from_millis(20);

/// So often the threads look whether there is something to do, without being woken.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

/// What failed is tried again after this.
pub(crate) const REST: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 30_000 });

/// Cleans an open pond. Any thread may ask it; one works at a time.
pub(crate) struct Cleaner {
    pub(crate) oplog: Arc<OpLog>,
    pub(crate) fs: Arc<TinyFs>,
    pub(crate) control: Arc<Control>,
    pub(crate) post_commit: Arc<Runner>,
    /// Held by who prunes, cleans, or does everything.
    pub(crate) turn: Mutex<Turn>,
    stopping: AtomicBool,
    stopped: Condvar,
}

/// What only who works has.
#[derive(Default)]
pub(crate) struct Turn {
    cleaned: Option<Instant>,
    /// Until then nobody looks again for what pruning would free.
    pub(crate) looks_again: Option<Instant>,
}

impl Cleaner {
    pub(crate) fn new(
        oplog: Arc<OpLog>,
        fs: Arc<TinyFs>,
        control: Arc<Control>,
        post_commit: Arc<Runner>,
    ) -> Self {
        let (turn, stopping, stopped) = (Mutex::default(), AtomicBool::new(false), Condvar::new());
        Cleaner { oplog, fs, control, post_commit, turn, stopping, stopped }
    }

    /// The thread of a replica. Until it is promoted.
    pub(crate) fn run(&self) {
        let is_followed = || self.control.role() == Role::Replica;
        let clean = |turn: &mut Turn| match self.due(turn, false) {
            CleanAction::WaitUntil(_) => Ok(()),
            CleanAction::Prune | CleanAction::Clean => self.clean_in_background(),
        };
        self.each_period(&is_followed, &clean);
    }

    /// Does `work` now and then while it may be done, until it is to end.
    pub(crate) fn each_period(
        &self,
        may_work: &dyn Fn() -> bool,
        work: &dyn Fn(&mut Turn) -> Result<(), StewardError>,
    ) {
        while !self.is_stopping() {
            // A jump of the clock counts from when it was seen.
            self.oplog.clock().now();
            let turn = self.turn.try_lock().filter(|_| !self.is_stopping() && may_work());
            let done = turn.map_or(Ok(()), |mut turn| work(&mut turn));
            match done {
                Err(error) if !self.is_stopping() => {
                    tracing::warn!(%error, "maintenance failed; it is tried again");
                    self.rest(REST);
                }
                _ => self.rest(PERIOD),
            }
        }
    }

    /// Waits, unless it is to end.
    fn rest(&self, pause: Duration) {
        let mut turn = self.turn.lock();
        if !self.is_stopping() {
            self.stopped.wait_for(&mut turn, pause);
        }
    }

    /// What is due in the background. Unless that is to wait, it counts as done from now on.
    pub(crate) fn due(&self, turn: &mut Turn, is_source: bool) -> CleanAction {
        let cleaning = Cleaning {
            cleaned: turn.cleaned,
            looks_again: turn.looks_again,
            is_source,
            is_full: self.is_full(),
            keep_replaced: self.keep_replaced(),
        };
        let action = cleaning.next(Instant::now());
        if !matches!(action, CleanAction::WaitUntil(_)) {
            turn.cleaned = Some(Instant::now());
        }
        action
    }

    /// Whether next to nothing is free on the disk.
    pub(crate) fn is_full(&self) -> bool {
        backpressure::is_full(self.oplog.space())
    }

    /// Cleans while others read.
    pub(crate) fn clean_in_background(&self) -> Result<(), StewardError> {
        let started = Instant::now();
        let cleaned = self.clean(READS, false)?;
        tracing::debug!(?cleaned, took = ?started.elapsed(), "cleaned");
        Ok(())
    }

    /// Removes what nobody needs, where a read lasts no longer than `reads`.
    pub(crate) fn clean(&self, reads: Duration, dry_run: bool) -> Result<CleanReport, StewardError> {
        let in_use = |files: &HashSet<u32>| self.fs.files_in_use(files);
        let options = CleanOptions {
            keep_replaced: self.keep_replaced(),
            reads,
            watermark: self.watermark()?,
            in_use: &in_use,
            // A replica's log is a copy of its source's.
            entries: self.control.role() == Role::Source,
            dry_run,
            stop: &|| self.is_stopping(),
        };
        Ok(self.oplog.clean(&options)?)
    }

    /// Does all that there is to do on a pond that makes no versions.
    pub(crate) fn maintain(
        &self,
        options: &MaintainOptions,
        tell: &dyn Fn(MaintainEvent),
    ) -> Result<MaintainReport, StewardError> {
        let _turn = self.turn.lock();
        let mut report = MaintainReport { dry_run: options.dry_run, ..MaintainReport::default() };
        tell(MaintainEvent::Step(MaintainStep::Clean));
        report.add_cleaned(self.clean(reads(options), options.dry_run)?);
        self.say_what_is_left(&mut report);
        Ok(report)
    }

    /// How much history there is, now that all is done.
    pub(crate) fn say_what_is_left(&self, report: &mut MaintainReport) {
        report.floor = self.oplog.floor().map(|floor| floor.version);
        (report.live_files, report.live_bytes) = self.oplog.live_size();
        report.kept_below = self.oplog.kept().len() as u64;
        report.doubt = self.doubt(None);
    }

    /// Waits until reads are over of what was just replaced, if only they keep it.
    pub(crate) fn wait_for_reads(&self, reads: Duration) {
        let until = Instant::now() + reads;
        while self.keep_replaced() <= reads && Instant::now() < until && !self.is_stopping() {
            std::thread::sleep(NAP);
        }
    }

    /// Why nothing is deleted by its age, where the clock was set, or where the setting `retention`, or `instead` of it, goes by age.
    pub(crate) fn doubt(&self, instead: Option<&str>) -> Option<String> {
        let why = match self.oplog.clock().now().doubt? {
            // Somebody has set it back to what it was.
            Doubt::Jumped(apart) if apart.abs() < 1_000_000 => "the clock was set, and set back".to_owned(),
            Doubt::Jumped(apart) => {
                let by = apart.unsigned_abs() / 1_000_000;
                let by = if by < 172_800 { format!("{by} s") } else { format!("{} days", by / 86_400) };
                format!("the clock was set {by} {}", if apart > 0 { "ahead" } else { "back" })
            }
            Doubt::Opened if is_by_age(&self.control, instead) => {
                "nobody has said yet that the clock is right".to_owned()
            }
            Doubt::Opened => return None,
        };
        Some(format!(
            "{why}: nothing is deleted for being old until it is synchronized, or nobody has set it for an hour while this pond was open"
        ))
    }

    fn keep_replaced(&self) -> Duration {
        self.control.duration(KEEP_REPLACED_KEY)
    }

    /// The version up to which every remote has everything; `None` without remotes, and on a replica, which sends nothing.
    pub(crate) fn watermark(&self) -> Result<Option<Version>, StewardError> {
        if self.control.role() == Role::Replica {
            return Ok(None);
        }
        let nodes = &self.post_commit.nodes;
        // What is not known may be one.
        let may_be =
            |factory: &str| nodes.registry.is_remote(factory) || nodes.registry.get(factory).is_err();
        // One that has nothing yet may need anything, if it is to run here; one that was at work goes on some time.
        let counts = |node: &FactoryStatus| node.mode.is_some() || node.watermark.is_some() || !nodes.is_fork;
        let remotes = nodes.status()?.into_iter().filter(|node| may_be(&node.factory)).filter(counts);
        Ok(remotes.map(|node| node.watermark.unwrap_or(Version(0))).min())
    }

    /// Lets nothing begin any more, and what is under way break off.
    pub(crate) fn begin_to_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The same; nothing is under way when this returns.
    pub(crate) fn stop(&self) {
        self.begin_to_stop();
        drop(self.turn.lock());
        self.stopped.notify_all();
    }

    /// Whether it is to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// How long a read may last that is under way.
pub(crate) fn reads(options: &MaintainOptions) -> Duration {
    if options.alone { Duration::ZERO } else { READS }
}
