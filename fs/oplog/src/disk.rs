//! What reaches the disk, and how: durable writes, the names of everything under a pond, space and spilled bytes.

pub mod durable;
pub(crate) mod errno;
pub mod exclusive_names;
pub(crate) mod layout;
pub(crate) mod listing;
pub(crate) mod map;
pub(crate) mod pin;
pub(crate) mod recorder;
pub(crate) mod space;
pub(crate) mod spill;
pub(crate) mod store;
