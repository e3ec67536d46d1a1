//! Versions as values: to read one is to hold a [`View`](view::View) of it.

pub(crate) mod scratch;
pub(crate) mod stored;
pub(crate) mod view;
pub(crate) mod views;
