//! Damaged content that readers met: counted, and the first places kept, so that a status can tell.

use std::time::SystemTime;

use parking_lot::Mutex;

/// So many places are kept.
const PLACES: usize = 8;

/// Content that does not match its digests.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DamagedPlace {
    /// Name of the data file.
    pub file: String,
    /// Its row.
    pub row: u32,
    /// When it was met first, microseconds since 1970 UTC.
    pub since: i64,
}

/// What readers of an open log met.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DamageMet {
    /// Reads that failed for it.
    pub reads: u64,
    /// The first places.
    pub places: Vec<DamagedPlace>,
}

/// Takes note of it.
#[derive(Debug, Default)]
pub(crate) struct Damage(Mutex<DamageMet>);

impl Damage {
    /// A read failed for this row.
    pub(crate) fn met(&self, file: &str, row: u32) {
        let mut met = self.0.lock();
        met.reads += 1;
        let known = met.places.iter().any(|place| place.file == file && place.row == row);
        if !known && met.places.len() < PLACES {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            met.places.push(DamagedPlace { file: file.to_owned(), row, since: since.as_micros() as i64 });
        }
    }

    /// What was met so far.
    pub(crate) fn so_far(&self) -> DamageMet {
        self.0.lock().clone()
    }
}
