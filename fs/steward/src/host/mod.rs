//! The machine that a pond lives on: its processes, memory, mounts and disk.

pub(crate) mod end_process;
pub(crate) mod lock;
pub(crate) mod lock_holder;
pub(crate) mod memory;
pub mod mount_table;
pub(crate) mod priority;
pub(crate) mod processor;
pub(crate) mod reserve;
