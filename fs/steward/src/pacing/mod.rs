//! Who may write now, and what the background does next: decisions without I/O, threads or clocks.
//!
//! Whatever is looked at, the time included, is an argument, so that a simulation can ask the same functions.

pub(crate) mod backpressure;
pub(crate) mod scheduler;
