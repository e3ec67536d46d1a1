//! Progress of long work: a bar with rate and time left on a terminal, events with
//! `--log-format json`, nothing otherwise.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::interrupt;
use crate::output::{LogFormat, Notices};

/// Least time between two events.
const INTERVAL: Duration = Duration::from_secs(1);

/// How far some work has come, in bytes. Several threads may advance it.
pub struct Progress {
    task: &'static str,
    show: Show,
    done: AtomicU64,
    total: AtomicU64,
}

enum Show {
    Nothing,
    Bar(ProgressBar),
    Events { notices: Notices, started: Instant, told: AtomicU64 },
}

impl Progress {
    /// Whether anybody looks on; if not, there is no need to find out the total.
    pub fn is_watched(notices: Notices) -> bool {
        notices.format() == LogFormat::Json || io::stderr().is_terminal()
    }

    /// Of `task` ("copy"), which has this many bytes to go.
    pub fn new(task: &'static str, total: u64, notices: Notices) -> Self {
        let show = match notices.format() {
            LogFormat::Json => {
                notices.event(&json!({"event": format!("{task}.started"), "bytes_total": total}));
                Show::Events { notices, started: Instant::now(), told: AtomicU64::new(0) }
            }
            LogFormat::Text if io::stderr().is_terminal() => Show::Bar(bar(task, total)),
            LogFormat::Text => Show::Nothing,
        };
        Progress { task, show, done: AtomicU64::new(0), total: AtomicU64::new(total) }
    }

    /// So many bytes more are done.
    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        match &self.show {
            Show::Nothing => {}
            Show::Bar(bar) => bar.inc(bytes),
            Show::Events { notices, started, told } => {
                let interval = INTERVAL.as_millis() as u64;
                let now = started.elapsed().as_millis() as u64;
                let last = told.load(Ordering::Relaxed);
                // Of several threads that find it due, one tells.
                if now >= last + interval
                    && told.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
                {
                    notices.event(&self.event("progress", *started));
                }
            }
        }
    }

    /// There is so much more to do than was known.
    pub fn expect(&self, more: u64) {
        self.total.fetch_add(more, Ordering::Relaxed);
        if let Show::Bar(bar) = &self.show {
            bar.inc_length(more);
        }
    }

    /// What is being worked on.
    pub fn item(&self, name: &dyn std::fmt::Display) {
        if let Show::Bar(bar) = &self.show {
            bar.set_message(name.to_string());
        }
    }

    /// Writes something else to standard error without tearing the bar.
    pub fn pause(&self, write: impl FnOnce()) {
        match &self.show {
            Show::Bar(bar) => bar.suspend(write),
            _ => write(),
        }
    }

    /// The work is over, or stops here.
    pub fn finish(self) {
        match &self.show {
            Show::Nothing => {}
            Show::Bar(bar) => bar.finish_and_clear(),
            Show::Events { notices, started, .. } => notices.event(&self.event("finished", *started)),
        }
    }

    fn event(&self, what: &str, started: Instant) -> serde_json::Value {
        let seconds = started.elapsed().as_secs_f64();
        json!({
            "event": format!("{}.{what}", self.task),
            "bytes": self.done.load(Ordering::Relaxed),
            "bytes_total": self.total.load(Ordering::Relaxed),
            "seconds": seconds,
        })
    }
}

/// Shows each stage of a transfer to or from a backup store.
pub struct Transfers {
    task: &'static str,
    notices: Notices,
    stage: Mutex<Option<Progress>>,
}

impl Transfers {
    /// Of `task` ("init").
    pub fn new(task: &'static str, notices: Notices) -> Self {
        Transfers { task, notices, stage: Mutex::new(None) }
    }

    fn stage(&self) -> MutexGuard<'_, Option<Progress>> {
        // A bar is whole whatever happened to whoever moved it.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl pond_replicate::Progress for Transfers {
    fn begin(&self, what: &str, total_bytes: u64) {
        self.end();
        let stage = Progress::new(self.task, total_bytes, self.notices);
        stage.item(&what);
        *self.stage() = Some(stage);
    }

    fn advance(&self, bytes: u64) {
        if let Some(stage) = self.stage().as_ref() {
            stage.advance(bytes);
        }
    }

    fn expect(&self, more_bytes: u64) {
        if let Some(stage) = self.stage().as_ref() {
            stage.expect(more_bytes);
        }
    }

    fn end(&self) {
        if let Some(stage) = self.stage().take() {
            stage.finish();
        }
    }

    fn cancelled(&self) -> bool {
        interrupt::check().is_err()
    }
}

fn bar(task: &str, total: u64) -> ProgressBar {
    const TEMPLATE: &str =
        "{prefix} [{bar:24}] {bytes}/{total_bytes} {binary_bytes_per_sec} ETA {eta} {wide_msg}";
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    // The template is a constant; were it wrong, the plain bar would do.
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(task.to_owned());
    bar
}
