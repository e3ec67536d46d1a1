//! Where the chain of a timeline stands in a store, by what lies there: HEAD is a hint.

use pond_oplog::{PondId, Timeline, Version};

use crate::ReplicateError;
use crate::format::{
    self, Damage, FORMAT, HEAD_KEY, Head, Kind, Manifest, TimelineDocument, base_manifest_key, manifest_key,
    parse_folder,
};
use crate::history::find;
use crate::history::lineage::Lineage;
use crate::history::timeline;
use crate::store::Store;

/// A store's chain of versions, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The last version.
    pub(crate) tip: Version,
    /// BLAKE3 of its manifest.
    pub(crate) digest: String,
    /// Where that manifest lies by itself.
    pub(crate) key: String,
    /// BLAKE3 of its log entry, which its manifest tells; `None` where that was not read, and only HEAD tells of the chain.
    pub(crate) entry: Option<String>,
    /// When it was committed.
    pub(crate) timestamp: i64,
    /// The base with which the chain begins, and the timeline in whose folder it is.
    pub(crate) root: (Version, Timeline),
    /// The newest base, likewise.
    pub(crate) newest_base: (Version, Timeline),
    /// Bytes of bundles since that one.
    pub(crate) since_base: u64,
    /// The first version that lies, or will lie, in this timeline's folder.
    pub(crate) first: Version,
    /// Data files in it that were damaged when they were shipped, as far as is known.
    pub(crate) damaged: Vec<Damage>,
}

impl Chain {
    /// What HEAD says of it.
    pub(crate) fn head(&self, pond_id: PondId, timeline: Timeline) -> Head {
        Head {
            format: FORMAT,
            pond_id,
            timeline,
            version: self.tip.0,
            manifest: self.digest.clone(),
            root: self.root.0.0,
            root_timeline: self.root.1,
            newest_base: self.newest_base.0.0,
            newest_base_timeline: self.newest_base.1,
            since_base: self.since_base,
            timestamp: self.timestamp,
            damaged: self.damaged.clone(),
        }
    }
}

/// What HEAD says.
pub(crate) enum Hint {
    /// Where the chain's tip was when it was written.
    Head(Head),
    /// Nothing, for this reason: it is missing, or cannot be read.
    Nothing(String),
}

/// Reads HEAD. One that is damaged says nothing; only that of a newer program is an error.
pub(crate) async fn read_head(store: &Store) -> Result<Hint, ReplicateError> {
    let Some(bytes) = store.get(HEAD_KEY).await? else {
        return Ok(Hint::Nothing(format!("{HEAD_KEY} is missing")));
    };
    match format::decode::<Head>(HEAD_KEY, &bytes) {
        Ok(head) => Ok(Hint::Head(head)),
        Err(ReplicateError::Corrupt { why, .. }) => {
            let why = if bytes.is_empty() { "it is empty".to_owned() } else { why };
            Ok(Hint::Nothing(format!("{HEAD_KEY} cannot be read ({why})")))
        }
        Err(error) => Err(error),
    }
}

/// What to make of a version that is not there, where later ones are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gaps {
    /// The chain ends before it: whoever pushes puts it again.
    End,
    /// It does not matter here: it may be in a pack, and whoever fetches finds out.
    Pass,
}

/// A manifest that was read, as the tip of a chain.
struct Tip {
    digest: String,
    manifest: Manifest,
}

impl Tip {
    fn onto(self, chain: &Chain) -> Chain {
        let mut damaged = chain.damaged.clone();
        format::add_damage(&mut damaged, &self.manifest);
        Chain {
            damaged,
            tip: Version(self.manifest.version),
            digest: self.digest,
            key: self.manifest.key(),
            entry: Some(self.manifest.entry.blake3.clone()),
            timestamp: self.manifest.timestamp,
            since_base: chain.since_base + self.manifest.packed_length(),
            ..chain.clone()
        }
    }
}

/// The chains of one pond in a store.
#[derive(Clone, Copy)]
pub(crate) struct Chains<'a> {
    /// The store.
    pub(crate) store: &'a Store,
    /// The pond.
    pub(crate) pond_id: PondId,
}

impl Chains<'_> {
    /// Reads a manifest that lies by itself; none if it is not there.
    async fn read(&self, key: &str, kind: Kind, version: Version) -> Result<Option<Tip>, ReplicateError> {
        let Some(bytes) = self.store.get(key).await? else { return Ok(None) };
        let manifest: Manifest = format::decode(key, &bytes)?;
        if manifest.pond_id != self.pond_id {
            return Err(ReplicateError::ForeignPond {
                place: self.store.place().to_owned(),
                found: manifest.pond_id,
                ours: self.pond_id,
            });
        }
        manifest.check(key, kind, version)?;
        Ok(Some(Tip { digest: format::digest(&bytes), manifest }))
    }

    /// The chain that HEAD tells of, if the manifests that it names are there and the tip follows the version before it.
    pub(crate) async fn at_head(
        &self,
        timeline: &TimelineDocument,
        head: &Head,
    ) -> Result<Option<Chain>, ReplicateError> {
        let (version, base) = (Version(head.version), Version(head.newest_base));
        let root = (Version(head.root), head.root_timeline);
        let first = first_version(timeline, root.0);
        if !(root.0 <= base && base <= version) {
            return Ok(None);
        }
        let root_key = base_manifest_key(root.1, root.0);
        let tip_key =
            if version == root.0 { root_key.clone() } else { manifest_key(timeline.timeline, version) };
        let kind = if version == root.0 { Kind::Base } else { Kind::Delta };
        let base_key = base_manifest_key(head.newest_base_timeline, base);
        let (tip, begun, newest) = futures::join!(
            self.read(&tip_key, kind, version),
            self.read(&root_key, Kind::Base, root.0),
            self.store.length(&base_key),
        );
        let (Some(tip), Some(begun), Some(_)) = (tip?, begun?, newest?) else { return Ok(None) };
        if tip.digest != head.manifest || begun.manifest.parent.is_some() {
            return Ok(None);
        }
        let before = match version {
            version if version == root.0 => None,
            version if version == root.0.next() => Some(begun.digest),
            version if version == first => timeline.fork_manifest.clone(),
            version => {
                let before = Version(version.0 - 1);
                let key = manifest_key(timeline.timeline, before);
                let Some(found) = self.read(&key, Kind::Delta, before).await? else { return Ok(None) };
                Some(found.digest)
            }
        };
        if tip.manifest.parent != before {
            return Ok(None);
        }
        Ok(Some(Chain {
            tip: version,
            digest: tip.digest,
            key: tip_key,
            entry: Some(tip.manifest.entry.blake3),
            timestamp: tip.manifest.timestamp,
            root,
            newest_base: (base, head.newest_base_timeline),
            since_base: head.since_base,
            first,
            damaged: head.damaged.clone(),
        }))
    }

    /// The chain of a timeline, by listing: slower than HEAD, and does without it.
    pub(crate) async fn locate(
        &self,
        timeline: &TimelineDocument,
        gaps: Gaps,
    ) -> Result<Option<Chain>, ReplicateError> {
        let number = timeline.timeline;
        let mut folders: Vec<(Kind, Version)> = self
            .store
            .list_folders(&number.to_string())
            .await?
            .iter()
            .filter_map(|name| parse_folder(name))
            .collect();
        folders.sort_by_key(|&(_, version)| version);
        let parent = match (timeline.parent, timeline.fork_version, &timeline.fork_manifest) {
            (Some(parent), Some(fork), Some(manifest)) => {
                Some(Box::pin(self.ancestor(parent, Version(fork), manifest, gaps)).await?)
            }
            _ => None,
        };
        let bases = folders.iter().filter(|(kind, _)| *kind == Kind::Base).map(|&(_, version)| version);
        let mut chain = parent;
        for version in bases {
            let key = base_manifest_key(number, version);
            // A base counts once its manifest is there.
            let Some(found) = self.read(&key, Kind::Base, version).await? else { continue };
            match &mut chain {
                Some(chain) => (chain.newest_base, chain.since_base) = ((version, number), 0),
                None if found.manifest.parent.is_none() => {
                    let mut damaged = Vec::new();
                    format::add_damage(&mut damaged, &found.manifest);
                    chain = Some(Chain {
                        damaged,
                        tip: version,
                        digest: found.digest,
                        key,
                        entry: Some(found.manifest.entry.blake3),
                        timestamp: found.manifest.timestamp,
                        root: (version, number),
                        newest_base: (version, number),
                        since_base: 0,
                        first: version.next(),
                    });
                }
                None => {}
            }
        }
        let Some(chain) = chain else { return Ok(None) };
        let deltas = folders.iter().filter(|(kind, version)| *kind == Kind::Delta && *version >= chain.first);
        let mut deltas: Vec<Version> = deltas.map(|&(_, version)| version).collect();
        if gaps == Gaps::End {
            // Manifests come one after the other, so the chain ends where a version's folder is not there: one that lies
            // beyond a gap is put again, and found to be there, once the gap is filled.
            let contiguous = deltas.iter().zip(chain.first.0..).take_while(|(version, at)| version.0 == *at);
            let contiguous = contiguous.count();
            if contiguous < deltas.len() {
                tracing::info!(
                    place = self.store.place(),
                    version = chain.first.0 + contiguous as u64,
                    "a version is not in the backup store, and something of later ones is; going on from there"
                );
            }
            deltas.truncate(contiguous);
        }
        while let Some(end) = deltas.pop() {
            // A folder in which there is a bundle only is that of a push that was cut off.
            let key = manifest_key(number, end);
            let Some(found) = self.read(&key, Kind::Delta, end).await? else { continue };
            let follows = gaps == Gaps::Pass || end == chain.first || {
                let before = manifest_key(number, Version(end.0 - 1));
                self.store.length(&before).await?.is_some()
            };
            if follows {
                return Ok(Some(found.onto(&chain)));
            }
        }
        Ok(Some(chain))
    }

    /// The chain of a timeline up to the version at which another one left it.
    async fn ancestor(
        &self,
        timeline: Timeline,
        fork: Version,
        manifest: &str,
        gaps: Gaps,
    ) -> Result<Chain, ReplicateError> {
        let missing = |what: &str| ReplicateError::BrokenChain {
            version: fork,
            key: format::timeline_key(timeline),
            why: format!("a later timeline leaves it at that version, and {what}"),
        };
        let document = timeline::load(self.store, self.pond_id, timeline)
            .await?
            .ok_or_else(|| missing("it is not there"))?;
        let chain = self.locate(&document, gaps).await?.ok_or_else(|| missing("it has no base"))?;
        let lineage = Lineage::load(self.store, self.pond_id, timeline).await?;
        let found = find::manifest(self.store, &lineage, self.pond_id, fork).await?;
        let (found, digest) = found.ok_or_else(|| missing("that version's manifest is not there"))?;
        if digest != manifest {
            return Err(missing("that version's manifest is another one than the later timeline says"));
        }
        let newest_base = if chain.newest_base.0 <= fork { chain.newest_base } else { chain.root };
        Ok(Chain {
            tip: fork,
            digest,
            key: found.key(),
            timestamp: found.timestamp,
            entry: Some(found.entry.blake3),
            newest_base,
            first: fork.next(),
            ..chain
        })
    }

    /// Follows the chain of a timeline beyond what HEAD knew: the answer to a put of HEAD, or the end of a push, may have
    /// been lost. Goes at most `most` versions further.
    pub(crate) async fn forward(
        &self,
        timeline: Timeline,
        mut chain: Chain,
        most: u64,
    ) -> Result<Chain, ReplicateError> {
        for _ in 0..most {
            let next = chain.tip.next();
            let key = manifest_key(timeline, next);
            let Some(found) = self.read(&key, Kind::Delta, next).await? else { return Ok(chain) };
            if found.manifest.parent.as_deref() != Some(&chain.digest) {
                return Err(ReplicateError::BrokenChain {
                    version: next,
                    key,
                    why: "its parent is not the version before it".into(),
                });
            }
            chain = found.onto(&chain);
        }
        Ok(chain)
    }
}

/// The first version in a timeline's own folder.
fn first_version(timeline: &TimelineDocument, root: Version) -> Version {
    timeline.fork_version.map_or(root, Version).next()
}
