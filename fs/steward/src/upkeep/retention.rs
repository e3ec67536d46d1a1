//! How much history is to be kept: the setting `retention`, as far as remotes and readers let go of the rest.

use std::collections::HashSet;

use pond_oplog::{OpLog, Retained, Version};

use crate::StewardError;
use crate::control::settings::{RETENTION_KEY, Recent, Retention, parse_retention};
use crate::control::table::Control;

/// The setting `retention`, or `instead` of it.
fn retention(control: &Control, instead: Option<&str>) -> Result<Retention, StewardError> {
    let text = instead.map(str::to_owned).or_else(|| control.get(RETENTION_KEY)).unwrap_or_default();
    parse_retention(&text).map_err(|why| StewardError::BadSetting {
        key: RETENTION_KEY.to_owned(),
        value: text.clone(),
        why,
        advice: None,
    })
}

/// Whether the setting, or `instead` of it, lets go of versions by their age.
pub(crate) fn is_by_age(control: &Control, instead: Option<&str>) -> bool {
    retention(control, instead).is_ok_and(|retention| retention.is_by_age())
}

/// What the setting `retention`, or `instead` of it, wants to be kept, as far as remotes, which have everything up to `watermark`, and
/// readers let go of the rest; `None` where everything is kept, or nothing is to change.
pub(crate) fn wanted(
    oplog: &OpLog,
    control: &Control,
    watermark: Option<Version>,
    instead: Option<&str>,
) -> Result<Option<Retained>, StewardError> {
    let retention = retention(control, instead)?;
    let now = oplog.clock().now().certain();
    let version = match retention.recent {
        Recent::Everything => return Ok(None),
        // In doubt nothing is old.
        _ if now.is_none() && retention.is_by_age() => return Ok(None),
        Recent::Versions(count) => oplog.oldest_of(count)?,
        Recent::Age(age) => {
            let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            let version = oplog.version_at(now.unwrap_or_default().saturating_sub(micros))?;
            // What was committed while the clock was behind looks older than it is.
            version.map(|version| version.min(oplog.newest_of_age(age)))
        }
    };
    let before = oplog.retained();
    let reached = before.as_ref().map_or(Version(0), |before| before.floor.version);
    let pins = oplog.pins()?;
    // Below the floor a reader keeps the version that it reads, and no other.
    let oldest_pin = pins.iter().copied().filter(|pin| *pin >= reached).min();
    let bounds = [watermark, oldest_pin].into_iter().flatten();
    let version = bounds.fold(version.unwrap_or_default(), Version::min).max(reached);
    if version == Version(0) {
        return Ok(None);
    }
    let floor = match &before {
        Some(before) if before.floor.version == version => before.floor,
        _ => oplog.floor_at(version)?,
    };
    let mut below = before.as_ref().map_or_else(Vec::new, |before| before.below.clone());
    let mut stay: HashSet<Version> = oplog.tags().into_values().chain(pins).collect();
    if !retention.older.is_empty() || stay.iter().any(|&version| version < floor.version) {
        below.extend(oplog.describe(reached..floor.version)?);
        stay.extend(retention.stay(&below, now.unwrap_or_default()));
    }
    below.retain(|kept| stay.contains(&kept.version()));
    let wanted = Retained { floor, below };
    Ok((before.as_ref() != Some(&wanted)).then_some(wanted))
}
