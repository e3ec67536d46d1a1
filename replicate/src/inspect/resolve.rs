//! Which version of a store is meant.

use pond_oplog::{At, Version};

use crate::ReplicateError;
use crate::history::tip::Shortfall;
use crate::inspect::manifests::Known;
use crate::inspect::survey::Survey;

/// A version of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub version: Version,
    /// BLAKE3 of its log entry, by which `.pond/position` and `pond log` know it.
    pub digest: String,
    /// When it was committed, microseconds since 1970 UTC.
    pub timestamp: i64,
    /// The base with which a restore of it begins.
    pub base: Version,
    /// The oldest version that is there.
    pub oldest: Version,
    /// The newest version that is there.
    pub newest: Version,
    /// What the store lacks, or may lack, behind that one.
    pub shortfall: Option<Shortfall>,
}

/// The number of the version that is meant.
pub(crate) async fn number(survey: &Survey<'_>, at: At) -> Result<Version, ReplicateError> {
    let (root, tip, place) = (survey.root, survey.tip, survey.store.place());
    match at {
        At::Tip => Ok(tip),
        At::Start => Ok(root),
        At::Version(version) if (root..=tip).contains(&version) => Ok(version),
        At::Version(version) => Err(ReplicateError::Other(format!(
            "there is no version {version} in {place}: it has versions {root} to {tip}"
        ))),
        At::Tag(tag) => Err(ReplicateError::Other(format!(
            "a backup store does not tell which version has the tag {tag}: name the version by its number, or make a replica \
             (`pond init --from-backup`) and use tag:{tag} there"
        ))),
        At::Timestamp(time) => {
            let (mut low, mut high) = (root.0, tip.0 + 1);
            if timestamp(survey, root).await? > time {
                return Err(ReplicateError::Other(format!(
                    "{place} is younger than that: the first version that can be restored is version {root}"
                )));
            }
            // Times ascend with versions.
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                match timestamp(survey, Version(middle)).await? <= time {
                    true => low = middle,
                    false => high = middle,
                }
            }
            Ok(Version(low))
        }
    }
}

async fn timestamp(survey: &Survey<'_>, version: Version) -> Result<i64, ReplicateError> {
    survey.anywhere(version).await.map(|known| known.manifest.timestamp)
}

/// The version that is meant.
pub(crate) async fn resolve(survey: &Survey<'_>, at: At) -> Result<Found, ReplicateError> {
    let version = number(survey, at).await?;
    let Known { manifest, .. } = survey.anywhere(version).await?;
    Ok(Found {
        version,
        digest: manifest.entry.blake3.clone(),
        timestamp: manifest.timestamp,
        base: survey.base_for(version).map_or(survey.root, |(base, _)| base),
        oldest: survey.root,
        newest: survey.tip,
        shortfall: shortfall(survey),
    })
}

fn shortfall(survey: &Survey<'_>) -> Option<Shortfall> {
    let (place, newest) = (survey.store.place().to_owned(), survey.tip);
    match &survey.head {
        Ok(head) if Version(head.version) > newest => {
            Some(Shortfall::Missing { place, first: newest.next(), last: Version(head.version) })
        }
        Ok(_) => None,
        Err(why) => Some(Shortfall::NoHead { place, why: why.clone(), newest }),
    }
}
