//! Formats: which one this program knows, and whether that is enough for a pond.
//!
//! A pond says in its table's configuration what a program must know to read it (`pond.minReader`) and to write it
//! (`pond.minWriter`). Both only grow, by commits that [`evolve.rs`](crate::oplog::evolve) makes.

use std::path::Path;

use crate::log::action::property::{MIN_READER, MIN_WRITER, ORIGIN, POND_ID};
use crate::log::action::{Metadata, Protocol};
use crate::log::delta::Log;
use crate::log::retained;
use crate::log::snapshot::{self, Snapshot};
use crate::rows::schema;
use crate::{Identity, Layout, OpLogError, Version};

/// The format that this program gives new ponds: that of the oldest program which can write them.
pub(crate) const FORMAT: u32 = 1;
/// The newest that it knows: a pond gets it once it keeps versions below its floor, or has a column that takes it.
const NEWEST: u32 = if schema::WRITER > retained::FORMAT { schema::WRITER } else { retained::FORMAT };

/// The newest format that this program knows.
#[cfg(not(debug_assertions))]
pub(crate) fn known() -> u32 {
    NEWEST
}

#[cfg(debug_assertions)]
pub(crate) use pretended::known;
#[cfg(debug_assertions)]
pub use pretended::{Pretended, pretend_to_know};

/// For tests, which need a program that is newer than this one.
#[cfg(debug_assertions)]
mod pretended {
    use std::cell::Cell;

    thread_local! {
        static KNOWN: Cell<u32> = const { Cell::new(super::NEWEST) };
    }

    pub(crate) fn known() -> u32 {
        KNOWN.get()
    }

    /// Lets this thread pretend, until the value is dropped, that it is of a program that knows formats up to `format`.
    #[must_use]
    pub fn pretend_to_know(format: u32) -> Pretended {
        Pretended(KNOWN.replace(format))
    }

    /// Ends the pretence when dropped.
    #[derive(Debug)]
    pub struct Pretended(u32);

    impl Drop for Pretended {
        fn drop(&mut self) {
            KNOWN.set(self.0);
        }
    }
}

/// Who the table's pond is; an error if this program cannot read it.
pub(crate) fn identity(log: &Log, snapshot: &Snapshot) -> Result<Identity, OpLogError> {
    let configuration = &snapshot.metadata.configuration;
    let not_a_pond = |why: String| OpLogError::NotAPond { path: log.table().to_path_buf(), why };
    let get = |name: &str| {
        configuration
            .get(name)
            .ok_or_else(|| not_a_pond(format!("its table has no {name} in its configuration")))
    };
    let number = |name: &str| {
        get(name)?.parse().map_err(|error| not_a_pond(format!("its table's {name} is no number: {error}")))
    };
    let pond_id = get(POND_ID)?
        .parse()
        .map_err(|error| not_a_pond(format!("its table's {POND_ID} is no id: {error}")))?;
    let origin = configuration.get(ORIGIN).cloned();
    let identity =
        Identity { pond_id, min_reader: number(MIN_READER)?, min_writer: number(MIN_WRITER)?, origin };
    check_readable(log, Some(&snapshot.metadata), Some(&snapshot.protocol))?;
    Ok(identity)
}

/// The format that a reader must know, as far as these say.
pub(crate) fn min_reader(metadata: Option<&Metadata>, protocol: Option<&Protocol>) -> Option<u32> {
    let configured = metadata.and_then(|metadata| metadata.configuration.get(MIN_READER));
    // What is no number is nothing this program knows.
    let configured = configured.map(|number| number.parse().unwrap_or(u32::MAX));
    // Ours has always been 1: whoever asks for more of Delta's own versions is a newer program.
    let newer = protocol.filter(|protocol| protocol.min_reader_version > 1).map(|_| known() + 1);
    configured.max(newer)
}

/// An error if these say that this program must not read the table.
pub(crate) fn check_readable(
    log: &Log,
    metadata: Option<&Metadata>,
    protocol: Option<&Protocol>,
) -> Result<(), OpLogError> {
    check_known(log, min_reader(metadata, protocol))
}

/// An error if this format, which reading the table takes, is not known.
pub(crate) fn check_known(log: &Log, needed: Option<u32>) -> Result<(), OpLogError> {
    match needed.filter(|&needed| needed > known()) {
        Some(needed) => Err(too_new(log, "read", needed)),
        None => Ok(()),
    }
}

/// An error if this program must not write to the pond.
pub(crate) fn check_writable(log: &Log, identity: &Identity) -> Result<(), OpLogError> {
    match identity.min_writer > known() {
        true => Err(too_new(log, "write", identity.min_writer)),
        false => Ok(()),
    }
}

/// Whether this program may write to the pond at `pond`, as its version `version` says: to be asked before a replica becomes a
/// source that goes on from there. Costs what loading the table's state costs.
///
/// # Errors
///
/// [`OpLogError::TooNew`] if it may not, and damage of the log.
pub fn may_write(pond: &Path, version: Version) -> Result<(), OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    check_writable(&log, &identity(&log, &snapshot::load_from(&log, version, version)?)?)
}

fn too_new(log: &Log, purpose: &'static str, needed: u32) -> OpLogError {
    OpLogError::TooNew { path: log.table().to_path_buf(), purpose, needed, known: known() }
}
