//! Promoting: a replica becomes a source, on a timeline of its own.
//!
//! The timeline is claimed in the backup store before, while the replica is open and so nothing else can come in.
//! Then role and timeline are set in one step. A source commits on the timeline of its settings from the moment it is
//! opened, what its journal holds included, and one that is below that timeline commits one version there. So a
//! process that ends in between, or a full disk, leaves nothing half-done.

use pond_oplog::{Layout, Position, Timeline};

use crate::common::Common;
use crate::control::keys::{ROLE_KEY, SUPERSEDED_KEY, TIMELINE_ID_KEY, TIMELINE_KEY};
use crate::control::table::Control;
use crate::init::holds_segments;
use crate::kind::Kind;
use crate::{OpenOptions, Role, Steward, StewardError};

impl Steward {
    /// Turns this replica into a source on `timeline`, which was claimed for its newest version under the random `id`:
    /// its next version, without changes and with the origin `promote`, is there when this returns. Following has
    /// ended then; the pond takes writes once it is closed and opened again.
    ///
    /// # Errors
    ///
    /// [`StewardError::NotAReplica`], [`StewardError::BadTimeline`]. [`StewardError::PromotedUnfinished`] where the version
    /// could not be committed: it is a source then, and the next open commits it. The log's, where only a newer program may
    /// write to the pond.
    pub fn promote(&self, timeline: Timeline, id: &str) -> Result<Position, StewardError> {
        let mut running = self.running.lock();
        let Some(running) = running.as_mut() else { return Err(self.not_writable()) };
        let Common { pond, control, oplog, post_commit, .. } = &*self.common;
        let not_a_replica = || StewardError::NotAReplica { path: pond.clone() };
        let Kind::Replica(following) = &self.kind else { return Err(not_a_replica()) };
        let follower = following.follower().ok_or_else(not_a_replica)?;
        running.threads.end_following()?;
        // What was applied and not shown is part of the history that goes on here.
        follower.replica.publish()?;
        let position = self.position();
        pond_oplog::may_write(pond, position.version)?;
        if timeline <= position.timeline {
            return Err(StewardError::BadTimeline {
                path: pond.clone(),
                current: position.timeline,
                timeline,
            });
        }
        if holds_segments(&Layout::new(pond).journal())? {
            let why = "its journal holds changes from when it was a source, which do not belong to this history: move \
                       journal/*.segment away, then promote it again";
            return Err(StewardError::ReadOnly { why: why.to_owned() });
        }
        let number = timeline.to_string();
        control.set_all(&[
            (TIMELINE_KEY, &number),
            (TIMELINE_ID_KEY, id),
            (ROLE_KEY, Role::Source.setting()),
            (SUPERSEDED_KEY, ""),
        ])?;
        following.set_promoted();
        tracing::info!(event = "promoted", %timeline, from = %position.version, "the replica is a source now");
        let promoted = self.begin_timeline(timeline).map_err(|reason| {
            let (path, reason) = (pond.clone(), Box::new(reason));
            StewardError::PromotedUnfinished { path, timeline, reason }
        })?;
        oplog.advance_without_rows(promoted.clone());
        post_commit.nodes.progress.advanced(&promoted);
        Ok(promoted)
    }

    /// Commits the first version on the timeline that was set, as the next open would.
    fn begin_timeline(&self, timeline: Timeline) -> Result<Position, StewardError> {
        let control = Control::open(self.pond(), true)?;
        let options = OpenOptions { cache_budget: Some(1 << 20), ..OpenOptions::default() };
        let source = Steward::open_source(self.pond(), options, control)?;
        let promoted = source.position();
        match promoted.timeline == timeline {
            true => Ok(promoted),
            false => Err(StewardError::ReadOnly { why: source.notes.join("; ") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Factory, FactoryContext, FactoryError, PostCommit, Registry, Replica, VersionSource};
    use pond_tinyfs::{Caller, Make, NodeId};
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    struct Remote;

    impl Factory for Remote {
        fn name(&self) -> &str {
            "remote"
        }

        fn description(&self) -> &str {
            "must not run"
        }

        fn validate(&self, _configuration: &[u8]) -> Result<(), FactoryError> {
            Ok(())
        }

        fn post_commit(&self) -> Option<&dyn PostCommit> {
            Some(self)
        }

        fn version_source(&self) -> Option<&dyn VersionSource> {
            Some(self)
        }
    }

    impl VersionSource for Remote {
        fn pull(&self, _context: &FactoryContext<'_>, _replica: &Replica) -> Result<String, FactoryError> {
            panic!("a source does not pull")
        }
    }

    impl PostCommit for Remote {
        fn run(&self, context: &FactoryContext<'_>) -> Result<String, FactoryError> {
            assert_ne!(context.commits.clone().map(|commits| commits.end().0), Some(2));
            Ok(String::new())
        }
    }

    #[test]
    fn nothing_is_pushed_from_the_old_timeline_once_the_new_one_is_set() {
        let pond = tempfile::tempdir().unwrap();
        Steward::init(pond.path()).unwrap();
        let mut registry = Registry::empty();
        registry.register(Arc::new(Remote));
        let hour = Duration::from_secs(3600);
        let options = OpenOptions { registry, commit_interval: hour, ..OpenOptions::default() };
        let steward = Steward::open(pond.path(), options.clone()).unwrap();
        steward.mknod("remote", "/etc/system.d/1", b"").unwrap();
        steward.sync().unwrap();
        // As where the process ends, or the disk is full, before the first version of the timeline.
        steward.common.control.set_all(&[(TIMELINE_KEY, "2")]).unwrap();
        steward.mknod("remote", "/elsewhere", b"").unwrap();
        let report = steward.sync().unwrap();
        assert_eq!((report.position.version.0, report.position.timeline), (2, Timeline(1)));
        assert_eq!((&report.factories[0].mode, report.factories[0].behind), (&None, 1));
        let refused = steward.run("/etc/system.d/1", &[]).unwrap_err();
        assert!(matches!(refused, StewardError::TimelinePending { timeline: Timeline(2), .. }), "{refused}");
        steward.close().unwrap();

        let steward = Steward::open(pond.path(), options).unwrap();
        assert_eq!((steward.position().version.0, steward.position().timeline), (3, Timeline(2)));
        let report = steward.sync().unwrap();
        assert_eq!((report.factories[0].mode.as_deref(), report.factories[0].behind), (Some("push"), 0));
        steward.close().unwrap();
    }

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            match entry.file_type().unwrap().is_dir() {
                true => copy(&from, &to),
                false => drop(std::fs::copy(from, to).unwrap()),
            }
        }
    }

    #[test]
    fn what_the_journal_holds_is_committed_on_the_new_timeline() {
        let place = tempfile::tempdir().unwrap();
        let (pond, left) = (place.path().join("pond"), place.path().join("left"));
        Steward::init(&pond).unwrap();
        let by_hand = || OpenOptions { commit_interval: Duration::from_secs(3600), ..OpenOptions::default() };
        let steward = Steward::open(&pond, by_hand()).unwrap();
        let fork = steward.position();
        // A promotion whose first version found no room, and a pond that was written to all the same.
        steward.common.control.set_all(&[(TIMELINE_KEY, "2")]).unwrap();
        let file = Make::File { mode: 0o600 };
        steward.fs().make(&Caller::root(), NodeId::ROOT, b"promised", file).unwrap();
        steward.fsync_wait().unwrap();
        assert_eq!(steward.position(), fork);
        // What a power failure leaves.
        copy(&pond, &left);
        steward.close().unwrap();
        assert!(holds_segments(&Layout::new(&left).journal()).unwrap());

        let steward = Steward::open(&left, by_hand()).unwrap();
        steward.fs().resolve(b"/promised").unwrap();
        steward.fs().make(&Caller::root(), NodeId::ROOT, b"more", file).unwrap();
        steward.close().unwrap();
        let history = steward.history(None).unwrap();
        let above: Vec<_> = history.iter().filter(|commit| commit.position.version > fork.version).collect();
        assert!(above.len() >= 2);
        assert!(above.iter().all(|commit| commit.position.timeline == Timeline(2)), "{above:?}");
    }
}
