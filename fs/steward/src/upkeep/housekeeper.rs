//! Work that must not hold up commits: checkpoints, and writing outcomes; and how much disk space there is in use.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pond_oplog::OpLog;

use crate::Sizes;
use crate::control::table::Control;
use crate::upkeep::disk_use::DiskUse;

/// Outcomes are written so often.
const PERIOD: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Default)]
struct Wants {
    checkpoint: bool,
    flush: bool,
    stop: bool,
}

/// One thread [`run`](Self::run)s it; any may ask it.
#[derive(Default)]
pub(crate) struct Housekeeper {
    wants: Mutex<Wants>,
    wanted: Condvar,
    disk: DiskUse,
    /// Work that failed when it was last tried, and why.
    troubles: Mutex<BTreeMap<&'static str, String>>,
}

impl Housekeeper {
    /// Asks for a checkpoint.
    pub(crate) fn checkpoint_soon(&self) {
        self.wants.lock().checkpoint = true;
        self.wanted.notify_one();
    }

    /// Asks for the outcomes to be written without waiting for the period.
    pub(crate) fn flush_soon(&self) {
        self.wants.lock().flush = true;
        self.wanted.notify_one();
    }

    /// Ends the thread, when what was asked for is done.
    pub(crate) fn stop(&self) {
        self.wants.lock().stop = true;
        self.wanted.notify_one();
    }

    /// Disk space as it is now, or was some moments ago.
    pub(crate) fn sizes(&self, pond: &Path) -> Sizes {
        self.disk.of(pond)
    }

    /// Work that failed when it was last tried, a sentence each, for the status: a failing disk may show here first.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.troubles.lock().iter().map(|(work, why)| format!("{work}: {why}")).collect()
    }

    fn went(&self, work: &'static str, failure: Option<String>) {
        let mut troubles = self.troubles.lock();
        match failure {
            Some(why) => drop(troubles.insert(work, why)),
            None => drop(troubles.remove(work)),
        }
    }

    /// The thread. `each_period` is called as often as outcomes are written.
    pub(crate) fn run(&self, oplog: &OpLog, control: &Control, each_period: &dyn Fn()) {
        let mut due = Instant::now() + PERIOD;
        loop {
            let (wants, periodic) = {
                let mut wants = self.wants.lock();
                while !(wants.checkpoint || wants.flush || wants.stop || due <= Instant::now()) {
                    self.wanted.wait_until(&mut wants, due);
                }
                (std::mem::take(&mut *wants), due <= Instant::now())
            };
            if wants.checkpoint {
                // Opening takes longer without it; the next one makes up for it. It holds no state that a panic of the
                // libraries below could leave half-changed.
                let failure = match catch_unwind(AssertUnwindSafe(|| oplog.checkpoint())) {
                    Ok(Ok(version)) => {
                        tracing::debug!(%version, "checkpoint");
                        None
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "could not make a checkpoint");
                        Some(error.to_string())
                    }
                    Err(_) => {
                        tracing::error!("making a checkpoint panicked");
                        Some("it panicked".into())
                    }
                };
                self.went("could not make a checkpoint", failure);
            }
            if wants.stop {
                // The last outcomes are written when the pond is closed.
                return;
            }
            if wants.flush || periodic {
                let failure = control.flush().err();
                if let Some(error) = &failure {
                    tracing::warn!(%error, "could not write outcomes to the control table; they are kept and tried again");
                }
                self.went(
                    "could not write outcomes to the control table",
                    failure.map(|error| error.to_string()),
                );
            }
            if periodic {
                each_period();
                due = Instant::now() + PERIOD;
            }
        }
    }
}
