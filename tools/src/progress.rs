//! Progress of long work: a bar with rate and time left on a terminal, events with
//! `--log-format json`, nothing otherwise.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::output::{LogFormat, Notices};

/// Least time between two events.
const INTERVAL: Duration = Duration::from_secs(1);

/// How far some work has come, in bytes.
pub struct Progress {
    task: &'static str,
    show: Show,
    done: Cell<u64>,
    total: u64,
}

enum Show {
    Nothing,
    Bar(ProgressBar),
    Events { notices: Notices, started: Instant, last: Cell<Instant> },
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
                let now = Instant::now();
                Show::Events { notices, started: now, last: Cell::new(now) }
            }
            LogFormat::Text if io::stderr().is_terminal() => Show::Bar(bar(task, total)),
            LogFormat::Text => Show::Nothing,
        };
        Progress { task, show, done: Cell::new(0), total }
    }

    /// So many bytes more are done.
    pub fn advance(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        match &self.show {
            Show::Nothing => {}
            Show::Bar(bar) => bar.inc(bytes),
            Show::Events { notices, started, last } => {
                if last.get().elapsed() >= INTERVAL {
                    last.set(Instant::now());
                    notices.event(&self.event("progress", *started));
                }
            }
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

    /// The work is over.
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
            "bytes": self.done.get(),
            "bytes_total": self.total,
            "seconds": seconds,
        })
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
