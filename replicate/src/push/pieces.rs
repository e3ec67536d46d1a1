//! Bundles in their order, made on all cores.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures::stream::{self, Stream, TryStreamExt};

use crate::ReplicateError;
use crate::push::bundle::{Bundle, Contents};

/// A bundle of a version.
pub(crate) struct Piece {
    pub(crate) contents: Arc<Contents>,
    /// Which of the version's bundles.
    pub(crate) index: usize,
    pub(crate) bundle: Bundle,
}

/// Makes the bundles of contents, as many at a time as there are cores.
pub(crate) fn bundles(
    contents: impl Stream<Item = Result<Contents, ReplicateError>>,
    scratch: PathBuf,
    level: i32,
    stop: Arc<AtomicBool>,
) -> impl Stream<Item = Result<Piece, ReplicateError>> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    contents
        .map_ok(|contents| {
            let contents = Arc::new(contents);
            let count = contents.bundles.len();
            stream::iter((0..count).map(move |index| Ok((contents.clone(), index))))
        })
        .try_flatten()
        .map_ok(move |(contents, index)| {
            let (scratch, stop) = (scratch.clone(), stop.clone());
            // Spawned here, so that it is made while others are sent.
            let made = tokio::task::spawn_blocking(move || {
                let bundle = contents.build(index, level, &scratch, &stop)?;
                Ok(Piece { contents, index, bundle })
            });
            async move {
                made.await.unwrap_or_else(|error| {
                    Err(ReplicateError::Other(format!("a thread that made a bundle ended early: {error}")))
                })
            }
        })
        .try_buffered(cores)
}
