//! Whether the manifests of a store are one chain, from its root to its tip.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use pond_oplog::{Timeline, Version};

use crate::ReplicateError;
use crate::format::{HEAD_KEY, Head, base_manifest_key};
use crate::history::chain::{self, Hint};
use crate::inspect::flaw::{Flaw, Severity};
use crate::inspect::manifests::{Known, Manifests, REQUESTS};
use crate::inspect::survey::Survey;

/// The manifests of a store, and which of them fit.
pub(crate) struct Links {
    /// Manifests of versions after the root, as far as they make sense by themselves.
    pub(crate) deltas: BTreeMap<Version, Known>,
    /// Those of bases.
    pub(crate) bases: BTreeMap<Version, Known>,
    /// Versions of which the manifest is damaged, missing, or not what the others say.
    pub(crate) broken: BTreeSet<Version>,
    /// Bases likewise.
    pub(crate) broken_bases: BTreeSet<Version>,
    pub(crate) flaws: Vec<Flaw>,
}

impl Links {
    /// Reads all manifests that lie by themselves and holds them against each other and against HEAD.
    pub(crate) async fn check(survey: &Survey<'_>) -> Result<Self, ReplicateError> {
        let deltas = match survey.root < survey.tip {
            true => survey.singles(survey.root.0 + 1..=survey.tip.0).await,
            false => Manifests::new(),
        };
        let bases: BTreeMap<Version, Timeline> = match survey.bases.contains_key(&survey.root) {
            true => survey.bases.clone(),
            false => {
                let root = (survey.root, survey.lineage.timeline_of(survey.root));
                survey.bases.clone().into_iter().chain([root]).collect()
            }
        };
        let read = async |(version, timeline)| (version, survey.base(version, timeline).await);
        let bases: Manifests =
            futures::stream::iter(bases).map(read).buffer_unordered(REQUESTS).collect().await;
        let mut links = Links {
            deltas: BTreeMap::new(),
            bases: BTreeMap::new(),
            broken: BTreeSet::new(),
            broken_bases: BTreeSet::new(),
            flaws: survey.flaws.clone(),
        };
        links.read(survey, deltas, bases)?;
        links.link(survey);
        links.link_bases(survey);
        links.check_head(survey).await?;
        Ok(links)
    }

    /// Sorts out what could not be read.
    fn read(
        &mut self,
        survey: &Survey<'_>,
        deltas: Manifests,
        bases: Manifests,
    ) -> Result<(), ReplicateError> {
        for (version, read) in deltas {
            match read {
                Ok(known) => drop(self.deltas.insert(version, known)),
                Err(error) => {
                    self.broken.insert(version);
                    self.flaws.push(unreadable(&survey.manifest_key(version), version, error)?);
                }
            }
        }
        for (version, read) in bases {
            match read {
                Ok(known) => drop(self.bases.insert(version, known)),
                Err(error) => {
                    self.broken_bases.insert(version);
                    let key = base_manifest_key(survey.lineage.timeline_of(version), version);
                    self.flaws.push(unreadable(&key, version, error)?);
                }
            }
        }
        Ok(())
    }

    /// Each version names the manifest of the one before it.
    fn link(&mut self, survey: &Survey<'_>) {
        let root = self.bases.get(&survey.root).map(|known| known.digest.clone());
        let mut before = (survey.root, root);
        for (version, known) in &self.deltas {
            let follows = before.0.next() == *version;
            let parent = known.manifest.parent.as_ref();
            if let (true, Some(digest)) = (follows, &before.1)
                && parent != Some(digest)
            {
                let other = before.0;
                let named = parent.map_or("none", String::as_str);
                let what = format!(
                    "it is not the manifest on which version {version} builds, which names {named}, and it has {digest}: one of the two is \
                     damaged, or of another time"
                );
                self.flaws.push(Flaw::damage(survey.manifest_key(other), Some(other), what));
                self.broken.insert(*version);
                match other == survey.root {
                    true => drop(self.broken_bases.insert(other)),
                    false => drop(self.broken.insert(other)),
                }
            }
            before = (*version, Some(known.digest.clone()));
        }
    }

    /// A base names the manifest of its version, and has its log entry.
    fn link_bases(&mut self, survey: &Survey<'_>) {
        for (version, base) in &self.bases {
            let key = || base.manifest.key();
            if *version == survey.root {
                if base.manifest.parent.is_some() {
                    // Its own beginning is gone, as where a store was copied in part.
                    let what = "history begins with it, and it names a manifest before it: what came before is missing";
                    self.flaws.push(Flaw::notice(key(), Some(*version), what));
                }
                continue;
            }
            let Some(delta) = self.deltas.get(version) else { continue };
            if base.manifest.parent.as_ref() != Some(&delta.digest)
                || base.manifest.entry != delta.manifest.entry
            {
                let what = "it is the base of another version than the one of its number in the store, or one of the two manifests is damaged";
                self.flaws.push(Flaw::damage(key(), Some(*version), what));
                self.broken_bases.insert(*version);
            }
        }
    }

    /// Compares HEAD, which is read once more if it looks old: a push may just have written it.
    async fn check_head(&mut self, survey: &Survey<'_>) -> Result<(), ReplicateError> {
        let tip = match survey.tip == survey.root {
            true => self.bases.get(&survey.tip),
            false => self.deltas.get(&survey.tip),
        };
        let found = survey.check_head(tip.map(|known| (known.digest.as_str(), known.manifest.timestamp)));
        if found.is_empty() {
            return Ok(());
        }
        let again = match chain::read_head(survey.store).await? {
            Hint::Head(head) => Some(head),
            Hint::Nothing(_) => None,
        };
        let moved = |again: &Head| survey.head.as_ref().ok() != Some(again);
        if again.as_ref().is_some_and(moved) {
            return Ok(());
        }
        // With another digest than HEAD's the tip may be the one that is damaged.
        let is_tip = |flaw: &Flaw| {
            flaw.severity == Severity::Damage && flaw.problem.contains("that version's manifest")
        };
        if found.iter().any(is_tip) && survey.tip != survey.root {
            self.broken.insert(survey.tip);
        }
        debug_assert!(found.iter().all(|flaw| flaw.key == HEAD_KEY));
        self.flaws.extend(found);
        Ok(())
    }
}

fn unreadable(key: &str, version: Version, error: ReplicateError) -> Result<Flaw, ReplicateError> {
    match error {
        ReplicateError::MissingVersion { .. } => {
            Ok(Flaw::damage(key, Some(version), "the manifest is missing"))
        }
        error => Flaw::of(key, Some(version), error),
    }
}
