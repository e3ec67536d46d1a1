//! Work that must not hold up commits: checkpoints, and writing outcomes; and how much disk space there is in use.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pond_oplog::{Layout, OpLog};

use crate::Sizes;
use crate::commit::committer::Committer;
use crate::control::table::Control;
use crate::host::reserve::RESERVE_FILE;

/// Outcomes are written so often.
const PERIOD: Duration = Duration::from_secs(10);

/// Disk space is measured anew once this many times as long has passed as it took.
const MEASURING_SHARE: u32 = 20;

/// What is to be done.
#[derive(Default)]
struct Wants {
    checkpoint: bool,
    flush: bool,
    stop: bool,
}

/// Disk space, and when it was measured, which took so long.
#[derive(Default)]
struct Measured {
    sizes: Sizes,
    when: Option<(Instant, Duration)>,
}

/// One thread [`run`](Self::run)s it; any may ask it.
#[derive(Default)]
pub(crate) struct Housekeeper {
    wants: Mutex<Wants>,
    wanted: Condvar,
    sizes: Mutex<Measured>,
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

    /// Disk space as it is now, or was some moments ago: measuring looks at every file, and may take a twentieth of the time.
    pub(crate) fn sizes(&self, pond: &Path) -> Sizes {
        let mut measured = self.sizes.lock();
        if measured.when.is_none_or(|(when, took)| when.elapsed() >= MEASURING_SHARE * took) {
            let started = Instant::now();
            measured.sizes = measure(pond);
            measured.when = Some((Instant::now(), started.elapsed()));
        }
        measured.sizes
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

    /// The thread.
    pub(crate) fn run(&self, oplog: &OpLog, control: &Control, committer: &Committer) {
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
                committer.disk().restore_reserve();
                due = Instant::now() + PERIOD;
            }
        }
    }
}

/// The disk space of a pond.
pub(crate) fn measure(pond: &Path) -> Sizes {
    let layout = Layout::new(pond);
    Sizes {
        data: size_of(&layout.data()),
        journal: size_of(&layout.journal()),
        control: size_of(&layout.control()),
        mirror: size_of(&layout.mirror()),
        reserve: std::fs::metadata(pond.join(RESERVE_FILE)).map_or(0, |file| file.blocks() * 512),
    }
}

/// Bytes in the files under a directory. Files that come and go meanwhile may be counted or not.
fn size_of(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => directories.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}
