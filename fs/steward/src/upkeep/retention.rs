//! How far back history is to be kept: the setting `retention`, as far as remotes and readers let the floor rise.

use pond_oplog::{Floor, OpLog, Version};

use crate::StewardError;
use crate::control::settings::{RETENTION_KEY, Retention, parse_retention};
use crate::control::table::Control;

/// The setting `retention`, or `instead` of it.
fn retention(control: &Control, instead: Option<&str>) -> Result<Retention, StewardError> {
    let text = instead.map(str::to_owned).or_else(|| control.get(RETENTION_KEY)).unwrap_or_default();
    parse_retention(&text).map_err(|why| StewardError::BadSetting {
        key: RETENTION_KEY.to_owned(),
        value: text.clone(),
        why,
    })
}

/// Whether versions are let go of by their age.
pub(crate) fn is_by_age(control: &Control) -> bool {
    matches!(retention(control, None), Ok(Retention::Age(_)))
}

/// The floor that the setting `retention`, or `instead` of it, asks for, as far as remotes, which have everything up to
/// `watermark`, and readers let it rise; `None` where everything is kept, or it is there already.
pub(crate) fn wanted_floor(
    oplog: &OpLog,
    control: &Control,
    watermark: Option<Version>,
    instead: Option<&str>,
) -> Result<Option<Floor>, StewardError> {
    let version = match retention(control, instead)? {
        Retention::Everything => return Ok(None),
        Retention::Versions(count) => match oplog.oldest_of(count)? {
            Some(version) => version,
            None => return Ok(None),
        },
        Retention::Age(age) => {
            // In doubt nothing is old.
            let Some(now) = oplog.clock().now().certain() else { return Ok(None) };
            let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            match oplog.version_at(now.saturating_sub(micros))? {
                // What was committed while the clock was behind looks older than it is.
                Some(version) => version.min(oplog.newest_of_age(age)),
                None => return Ok(None),
            }
        }
    };
    let bounds = [watermark, oplog.oldest_pin()?];
    let version = bounds.into_iter().flatten().fold(version, Version::min);
    let reached = oplog.floor().map_or(Version(0), |floor| floor.version);
    match version > reached {
        true => Ok(Some(oplog.floor_at(version)?)),
        false => Ok(None),
    }
}
