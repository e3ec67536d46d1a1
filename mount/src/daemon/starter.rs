//! Who asked for a mount, and waits until it is ready.

use std::thread;
use std::time::{Duration, Instant};

use pond_steward::LockHolder;

use crate::daemon::ready::{Progress, ReadyPipe};
use crate::error::MountError;

/// How long a mount waits for a daemon that is still committing after its unmount.
const WAIT_FOR_PREDECESSOR: Duration = Duration::from_secs(60);

/// How often a mount looks whether it still has to wait.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// After this time of waiting a mount says what it waits for.
const SAY_SO: Duration = Duration::from_millis(500);

/// Whoever asked for the mount, while it is not ready.
pub(crate) struct Starter<'a> {
    /// To the command that waits; `None` in the foreground.
    pub(crate) pipe: Option<ReadyPipe>,
    pub(crate) tell: &'a dyn Fn(&Progress),
}

impl Starter<'_> {
    pub(crate) fn tell(&self, progress: &Progress) {
        match &self.pipe {
            Some(pipe) => pipe.progress(progress),
            None => (self.tell)(progress),
        }
    }

    /// Fails if nobody waits for the mount any more.
    pub(crate) fn check(&self) -> Result<(), MountError> {
        match &self.pipe {
            Some(pipe) if pipe.starter_has_ended() => Err(MountError::Cancelled),
            _ => Ok(()),
        }
    }

    /// Waits while somebody is in the way, up to the time that a daemon may take to end; says so after a while. The one
    /// who still is then.
    pub(crate) fn wait_while(
        &self,
        mut in_the_way: impl FnMut() -> Result<Option<LockHolder>, MountError>,
    ) -> Result<Option<LockHolder>, MountError> {
        let began = Instant::now();
        let mut said = false;
        while let Some(holder) = in_the_way()? {
            self.check()?;
            if began.elapsed() >= WAIT_FOR_PREDECESSOR {
                return Ok(Some(holder));
            }
            if !said && began.elapsed() >= SAY_SO {
                tracing::info!(%holder, "waiting for whoever has the pond open");
                self.tell(&Progress::Waiting(holder.to_string()));
                said = true;
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(None)
    }
}
