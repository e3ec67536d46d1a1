//! Versions as values: to read one is to hold a [`View`](view::View) of it; what differs between them, and what all of them cost.

pub(crate) mod cost;
pub(crate) mod difference;
pub(crate) mod lives;
pub(crate) mod names;
pub(crate) mod past;
pub(crate) mod scratch;
pub(crate) mod stored;
pub(crate) mod view;
pub(crate) mod views;
