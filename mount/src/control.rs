//! The control socket: how commands talk to the daemon of a mounted pond, in lines of JSON.

pub mod client;
pub(crate) mod descriptor;
pub(crate) mod protocol;
