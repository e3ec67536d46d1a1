//! Opening a pond: the lock, and recovery, as a source or as a replica.

use std::path::Path;
use std::sync::Arc;

use pond_oplog::{At, Incoming, Layout, OpLog};
use pond_tinyfs::{PersistenceLayer, Row, TinyFs};

use crate::assembly::Assembly;
use crate::commit::committer::Committer;
use crate::control::table::Control;
use crate::host::lock::WriterLock;
use crate::host::reserve::Reserve;
use crate::init::{self, holds_segments};
use crate::replica::timeline::take_up_timeline;
use crate::steward::Running;
use crate::threads::{self, Threads};
use crate::upkeep::fsck;
use crate::{OpenOptions, Role, Steward, StewardError, count};

impl Steward {
    /// Opens a pond for writing: takes the writer lock, recovers what the journal holds and commits it, and starts
    /// committing. A pond whose journal is damaged, or that another pond has superseded, opens too but takes no writes.
    ///
    /// A replica shows its newest version and follows its backup store, unless [`OpenOptions::follow`] is off.
    pub fn open(pond: &Path, options: OpenOptions) -> Result<Arc<Steward>, StewardError> {
        init::refuse_unless_pond(pond)?;
        let lock = WriterLock::acquire(pond, options.wait_for_lock)?;
        // Whether it is whole is certain only now.
        init::refuse_unless_pond(pond)?;
        Self::open_with(pond, options, lock)
    }

    /// Opens a pond whose lock is held.
    pub(crate) fn open_with(
        pond: &Path,
        options: OpenOptions,
        lock: WriterLock,
    ) -> Result<Arc<Steward>, StewardError> {
        let control = Control::open(pond, true)?;
        let follow = options.follow;
        let mut steward = match control.role() {
            Role::Source => Self::open_source(pond, options, control)?,
            Role::Replica => Self::open_replica(pond, options, control)?,
        };
        let (common, kind) = (steward.common.clone(), steward.kind.clone());
        let threads = Threads::start(common, kind, follow, &mut threads::spawn)?;
        *steward.running.get_mut() = Some(Running { lock, threads });
        Ok(Arc::new(steward))
    }

    pub(crate) fn open_source(
        pond: &Path,
        options: OpenOptions,
        control: Control,
    ) -> Result<Self, StewardError> {
        let mut opened = OpLog::open(pond, &options.log_options(&control))?;
        let recovered = std::mem::take(&mut opened.recovered);
        let tip = opened.oplog.position().version;
        let lost = fsck::lost_versions(&control, Some(tip)).map(|lost| {
            format!(
                "the log ends at version {tip}, and versions up to {} were committed: its newest entries are missing; \
                 `pond fsck --repair` takes them from the backup store, and nothing is removed before they are back",
                lost.end()
            )
        });
        let damage = opened.read_only_because.take().or(lost);
        let reserve = match damage {
            Some(_) => Reserve::none(pond),
            None => Reserve::new(pond, opened.oplog.space()),
        };
        let (mut steward, source) =
            Assembly::new(pond, options, opened, control, TinyFs::new).source(reserve);
        let committer = &source.committer;
        match damage {
            Some(why) => committer.refuse_writes(&why, false),
            None => {
                let (control, oplog) = (&steward.common.control, &steward.common.oplog);
                // Before recovery, whose commit must not land on the timeline that the pond was promoted away from.
                let timeline = control.timeline();
                timeline.iter().for_each(|timeline| oplog.set_timeline(*timeline));
                recover(committer, oplog, recovered, &mut steward.notes)?;
                let failure = timeline.and_then(|timeline| take_up_timeline(pond, committer, timeline));
                steward.notes.extend(failure);
                // What was promised before it was superseded is committed all the same.
                if let Some(why) = control.superseded() {
                    committer.refuse_writes(&why, true);
                }
            }
        }
        Ok(steward)
    }

    pub(crate) fn open_replica(
        pond: &Path,
        options: OpenOptions,
        control: Control,
    ) -> Result<Self, StewardError> {
        // First, since it takes what lies above a gap out of the log.
        let (incoming, _) = Incoming::open(pond)?;
        // Not a view, which is one version: this tree and its files go on with each version that comes in.
        let opened = OpLog::open_read_only(pond, At::Tip, &options.log_options(&control))?;
        let mut steward =
            Assembly::new(pond, options, opened, control, TinyFs::following).replica(incoming)?;
        if holds_segments(&Layout::new(pond).journal())? {
            steward.notes.push(
                "the journal holds changes from when it was a source, which a replica cannot commit".into(),
            );
        }
        Ok(steward)
    }
}

/// Commits what the journal held, then removes what never committed.
fn recover(
    committer: &Committer,
    oplog: &OpLog,
    recovered: Vec<Row>,
    notes: &mut Vec<String>,
) -> Result<(), StewardError> {
    let rows = recovered.len();
    let changes = || count(rows as u64, "change");
    match committer.commit_recovered(recovered, committer.fs().last_lsn()) {
        Ok(()) if rows > 0 => {
            let version = oplog.position().version;
            notes.push(format!("recovered {} from the journal as version {version}", changes()));
        }
        Ok(()) => {}
        // They are in the journal and in memory. A pond on a full disk must open, so that files can be deleted;
        // the sweep waits for the next time.
        Err(error) => {
            notes.push(format!("not yet committed is what the journal holds, {}: {error}", changes()));
            return Ok(());
        }
    }
    match oplog.sweep() {
        Ok(swept) if swept.files > 0 => {
            let (files, bytes) = (swept.files, swept.bytes);
            notes.push(format!(
                "removed {} of transactions that never committed, {bytes} bytes",
                count(files, "file")
            ));
        }
        Ok(_) => {}
        // It needs log entries that nothing else here does; what is left takes space and does no harm.
        Err(error) => notes.push(format!(
            "files of transactions that never committed were not looked for: {error}; `pond fsck` tells more"
        )),
    }
    for note in notes {
        tracing::info!(note, "recovery");
    }
    Ok(())
}
