//! Bases: every live file of one version, so that a restore need not begin with the first.
//!
//! A chain begins with the base of the oldest version that the pond holds. A further one is written every
//! [`BASE_VERSIONS`] versions, once the bundles since the last weigh half of what is live: before that, a restore from it would
//! save less than it costs to keep.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream;
use pond_oplog::{OpLogError, Version};

use crate::ReplicateError;
use crate::format::{self, Manifest, PACK_VERSIONS, in_timeline};
use crate::history::chain::Chain;
use crate::push::bundle::{Contents, Stamp, manifest};
use crate::push::pieces::bundles;
use crate::push::pusher::{Pusher, Source, blocking};

use crate::store::PutIfAbsent;

/// Versions between two bases, at least.
pub(crate) const BASE_VERSIONS: u64 = 1024;

/// Begins a chain: the base of the oldest version that the pond holds.
pub(crate) async fn begin(
    source: &Source,
    schema: &str,
    stop: &Arc<AtomicBool>,
) -> Result<Chain, ReplicateError> {
    let pond = source.pond.clone();
    let contents = blocking(move || Contents::of_base(&pond, oldest(&pond)?)).await?;
    let version = contents.position.version;
    let (base, digest) = write(source, schema, contents, None, stop, async || Ok(())).await?;
    let mut damaged = Vec::new();
    format::add_damage(&mut damaged, &base);
    Ok(Chain {
        damaged,
        tip: version,
        digest,
        key: base.key(),
        entry: Some(base.entry.blake3),
        timestamp: base.timestamp,
        root: (version, source.timeline),
        newest_base: (version, source.timeline),
        since_base: 0,
        first: version.next(),
    })
}

/// The oldest version that the pond holds: 0 unless older ones were left out, let go of or cleaned away.
pub(crate) fn oldest(pond: &Path) -> Result<Version, ReplicateError> {
    let mut version = Version(0);
    loop {
        // What is kept may have lost its files to a merge and a cleaning, so that a later version is the first with all of them.
        match pond_oplog::live_files(pond, version) {
            Ok(_) => return Ok(version),
            Err(
                OpLogError::NoSuchVersion { first: later, .. }
                | OpLogError::NoLongerKept { floor: later, .. }
                | OpLogError::Thinned { after: later, .. },
            ) if later > version => {
                version = later;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends a base, and after each of its bundles lets `between` run; the manifest that counts, and its digest.
async fn write(
    source: &Source,
    schema: &str,
    contents: Contents,
    parent: Option<&str>,
    stop: &Arc<AtomicBool>,
    mut between: impl AsyncFnMut() -> Result<(), ReplicateError>,
) -> Result<(Manifest, String), ReplicateError> {
    let one = stream::iter([Ok(contents)]);
    let mut pieces = Box::pin(bundles(one, source.pond.clone(), source.level, stop.clone()));
    let mut made = Vec::new();
    let mut contents = None;
    while let Some(piece) = pieces.try_next().await? {
        // The chain's first base has to do with what there is. What a later one would hold is in the versions before it, mostly
        // from before it was damaged.
        if parent.is_some()
            && let Some(file) = piece.bundle.files.iter().find(|file| file.damaged)
        {
            return Err(ReplicateError::DamagedSource {
                version: piece.contents.position.version,
                name: file.name.clone(),
            });
        }
        let key = in_timeline(source.timeline, &piece.bundle.reference.key);
        piece.bundle.object.send(&source.store, &key).await?;
        made.push((piece.bundle.reference, piece.bundle.files));
        contents = Some(piece.contents);
        between().await?;
    }
    let nothing = || ReplicateError::Other("a base without a log entry".into());
    let contents = contents.ok_or_else(nothing)?;
    let stamp = Stamp { pond_id: source.pond_id, timeline: source.timeline, parent, schema };
    let ours = manifest(&contents, &made, &stamp)?;
    let (key, bytes) = (ours.key(), format::encode(&ours)?);
    match source.store.put_if_absent(&key, bytes.clone()).await? {
        PutIfAbsent::Created => Ok((ours, format::digest(&bytes))),
        PutIfAbsent::Exists(found) => adopt(source, &key, &ours, &found),
    }
}

/// A base that was there first counts if it is of the same version; its checkpoint may have other bytes.
fn adopt(
    source: &Source,
    key: &str,
    ours: &Manifest,
    found: &Bytes,
) -> Result<(Manifest, String), ReplicateError> {
    let theirs = crate::push::ship::adopt(source.store.place(), key, ours, found)?;
    Ok((theirs, format::digest(found)))
}

impl Pusher {
    /// Writes a base of the tip if one is due. Versions that are committed meanwhile are shipped in between.
    pub(crate) async fn write_base_if_due(&mut self) -> Result<(), ReplicateError> {
        let version = self.chain.tip;
        if version.0 < self.chain.newest_base.0.0 + BASE_VERSIONS || version < self.next_base_check {
            return Ok(());
        }
        self.next_base_check = Version(version.0 + PACK_VERSIONS);
        let pond = self.source.pond.clone();
        let live = blocking(move || Ok(pond_oplog::live_files(&pond, version)?)).await?;
        let live: u64 = live.files.iter().map(|file| file.length).sum();
        if self.chain.since_base < live / 2 {
            return Ok(());
        }
        match self.write_base().await {
            // Replicas begin with an earlier one.
            Err(error @ ReplicateError::DamagedSource { .. }) => {
                tracing::warn!(%error, place = self.place(), "no new base is made");
                self.next_base_check = Version(version.0 + BASE_VERSIONS);
                Ok(())
            }
            result => result,
        }
    }

    pub(crate) async fn write_base(&mut self) -> Result<(), ReplicateError> {
        let (version, parent) = (self.chain.tip, self.chain.digest.clone());
        let (pond, source, schema, stop) =
            (self.source.pond.clone(), self.source.clone(), self.schema.clone(), self.stop.0.clone());
        let contents = blocking(move || Contents::of_base(&pond, version)).await?;
        let before = self.chain.since_base;
        write(&source, &schema, contents, Some(&parent), &stop, async || {
            self.ship_up_to((self.source.newest)()).await
        })
        .await?;
        self.chain.newest_base = (version, source.timeline);
        self.chain.since_base -= before;
        self.write_head().await
    }
}
