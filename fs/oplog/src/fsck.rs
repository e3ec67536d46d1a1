//! Checking everything: the log, each data file and extent, each row, the journal. Nothing is changed.
//!
//! ```text
//! log.rs      entries: there, themselves, in a chain ── checkpoints: what the entries say ── _last_checkpoint
//!    │ files that entries name
//! files.rs    there, whole (pond.file), footer and footprint, each extent against its BLAKE3, on all cores
//!    │ rows
//! rows.rs     the invariants, the fold; names of nodes, so that a finding can say which paths it concerns
//! journal.rs  segments, frames, rows beyond the newest version
//! ```
//!
//! It may run beside a process that writes: then it reads as any reader does, and leaves out what that process is about to
//! change (files being written, the journal's tail).

mod check;
mod files;
mod journal;
mod log;
mod paths;
mod repair;
mod report;
mod rows;

pub use check::check;
pub use repair::{Repaired, Restore, repair};
pub use report::{Begins, Finding, Part, Report, Severity, Watch};

#[cfg(test)]
mod tests;
