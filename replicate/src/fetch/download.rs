//! Downloads: objects that are read while they come, within a budget of memory.

use pond_oplog::Version;
use tokio::sync::{Semaphore, mpsc};

use crate::ReplicateError;
use crate::fetch::meter::Meter;
use crate::fetch::workers::{Pieces, Workers};
use crate::store::Store;

/// Bytes of all downloads in memory.
const BUDGET: usize = 128 << 20;
/// The most that one download has in memory: a piece with the reader, one in the channel and one being sent.
const DOWNLOAD: u64 = 24 << 20;

/// Reads objects side by side. Each takes its share of the budget before it begins; a large one passes through its share
/// in pieces.
pub(crate) struct Downloads<'a> {
    store: &'a Store,
    meter: &'a Meter<'a>,
    budget: Semaphore,
}

impl<'a> Downloads<'a> {
    pub(crate) fn new(store: &'a Store, meter: &'a Meter<'a>) -> Self {
        Downloads { store, meter, budget: Semaphore::new(BUDGET) }
    }

    /// Gives an object of `length` bytes to a reader while it comes; none if it is not there. `version` is for errors.
    pub(crate) async fn get<'s, T: Send + 's>(
        &self,
        workers: &Workers<'s, '_>,
        key: &str,
        length: u64,
        version: Option<Version>,
        consume: impl FnOnce(Pieces) -> T + Send + 's,
    ) -> Result<Option<T>, ReplicateError> {
        let share = u32::try_from(length.clamp(1, DOWNLOAD)).unwrap_or(u32::MAX);
        let _share = self
            .budget
            .acquire_many(share)
            .await
            .map_err(|error| ReplicateError::Other(error.to_string()))?;
        let Some(mut object) = self.store.get_stream(key).await? else { return Ok(None) };
        if object.length() != length {
            let why = format!("it has {} bytes and should have {length}", object.length());
            return Err(ReplicateError::Corrupt { key: key.to_owned(), version, why });
        }
        let (sender, receiver) = mpsc::channel(1);
        let feed = async {
            // Dropped at the end, or on an error: the reader then has no more.
            let sender = sender;
            while let Some(piece) = object.next().await? {
                self.meter.add(piece.len() as u64);
                // A reader that has seen enough has its reasons, and says them.
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
            Ok::<_, ReplicateError>(())
        };
        let (fed, consumed) = futures::join!(feed, workers.run(move || consume(Pieces::new(receiver))));
        // What a reader says of a download that broke off is only a consequence.
        fed?;
        consumed.map(Some)
    }
}
