//! From the store's tip to a goal: bundles are made on all cores, and sent in their order.

use std::time::{Duration, Instant};

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use pond_oplog::Version;

use super::pusher::{Pusher, blocking};
use super::ship::{Part, Shipped};
use crate::ReplicateError;
use crate::push::bundle::Contents;
use crate::push::pieces::{Piece, bundles};

/// From so many versions on a push tells how far it has got.
const LONG: u64 = 64;
const TELL: Duration = Duration::from_secs(5);

/// Log entries read ahead.
const READ_AHEAD: usize = 8;

impl Pusher {
    /// Ships all versions up to `goal`.
    pub(super) async fn catch_up(&mut self, goal: Version) -> Result<(), ReplicateError> {
        let owed = goal.0.saturating_sub(self.chain.tip.0);
        if owed == 0 {
            return Ok(());
        }
        let mut long = match owed {
            LONG.. => Some(Long::begin(self, goal).await?),
            _ => None,
        };
        let result = self.catch_up_telling(goal, &mut long).await;
        if let Some(long) = long {
            long.end(self);
        }
        result
    }

    async fn catch_up_telling(
        &mut self,
        goal: Version,
        long: &mut Option<Long>,
    ) -> Result<(), ReplicateError> {
        while self.chain.tip < goal {
            let first = self.chain.tip.next();
            let mut pieces = Box::pin(self.pieces(first, goal));
            let mut part = Part::default();
            while let Some(piece) = pieces.try_next().await? {
                let bytes = piece.contents.length();
                let (version, last) =
                    (piece.contents.position.version, piece.index + 1 == piece.contents.bundles.len());
                match self.ship(piece, goal, &mut part).await? {
                    Shipped::Fine => {}
                    // What follows was to be a pack on top of another manifest.
                    Shipped::Adopted => break,
                }
                if let (Some(long), true) = (long.as_mut(), last) {
                    long.shipped(self, version, bytes);
                }
            }
        }
        Ok(())
    }

    /// Makes the bundles of these versions, some at a time, and gives them in order.
    fn pieces(
        &self,
        first: Version,
        goal: Version,
    ) -> impl Stream<Item = Result<Piece, ReplicateError>> + use<> {
        let pond = self.source.pond.clone();
        let contents = stream::iter((first.0..=goal.0).map(Version))
            .map(move |version| {
                let pond = pond.clone();
                blocking(move || Contents::of_version(&pond, version))
            })
            .buffered(READ_AHEAD);
        bundles(contents, self.source.pond.clone(), self.source.level, self.stop.0.clone())
    }
}

/// A push of many versions.
struct Long {
    first: Version,
    goal: Version,
    told: Instant,
    bytes: u64,
    total: u64,
}

impl Long {
    async fn begin(pusher: &Pusher, goal: Version) -> Result<Self, ReplicateError> {
        let first = pusher.chain.tip.next();
        let pond = pusher.source.pond.clone();
        let total = blocking(move || {
            (first.0..=goal.0).try_fold(0u64, |sum, version| {
                let files = pond_oplog::version_files(&pond, Version(version))?;
                Ok(sum + files.entry.len() as u64 + files.added.iter().map(|file| file.length).sum::<u64>())
            })
        })
        .await?;
        pusher.source.progress.begin(&format!("pushing versions {first} to {goal}"), total);
        Ok(Long { first, goal, told: Instant::now(), bytes: 0, total })
    }

    fn shipped(&mut self, pusher: &Pusher, version: Version, bytes: u64) {
        self.bytes += bytes;
        pusher.source.progress.advance(bytes);
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            tracing::info!(
                place = pusher.source.store.place(),
                version = version.0,
                first = self.first.0,
                goal = self.goal.0,
                bytes = self.bytes,
                total_bytes = self.total,
                "pushing"
            );
        }
    }

    fn end(self, pusher: &Pusher) {
        pusher.source.progress.end();
    }
}
