//! The settings that the control table knows: their names, what they are when nobody set them, and what they may be.
//!
//! Sizes are written `256MiB` (or `B`, `KiB`, `GiB`, `TiB`; a number alone counts bytes), durations `24h` (or `s`, `m`,
//! `h`, `d`). All who read such a value do it through here, so that each is understood in one way.

use std::borrow::Cow;
use std::time::Duration;

use crate::control::keys::{REMOTE_CONFIG_KEY, SUPERSEDED_KEY, TIMELINE_ID_KEY, TIMELINE_KEY};
use crate::host::memory;

/// The setting that bounds content which was accepted and is not yet stored.
pub const DIRTY_BUDGET_KEY: &str = "dirty_budget";

/// The setting that bounds decoded extents kept for readers.
pub const CACHE_BUDGET_KEY: &str = "cache_budget";

/// The setting that says how much history is kept.
pub const RETENTION_KEY: &str = "retention";

/// The setting that says how long data files stay that a merge or prune has replaced.
pub const KEEP_REPLACED_KEY: &str = "keep_replaced";

/// Beginning of the settings that say in which mode a factory runs.
pub const FACTORY_MODE: &str = "factory_mode:";

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Bytes, at least so many.
    Size(u64),
    Duration,
    Retention,
    /// Whoever uses it says what it may be.
    Text,
}

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name; what ends with `:` stands for a name that follows.
    pub name: &'static str,
    /// What holds where it is not set; empty: nothing. Of a size it is the most: see [`Setting::default`].
    default: &'static str,
    /// What it is for.
    pub doc: &'static str,
    kind: Kind,
}

/// A budget that nobody set takes this part of the memory there is, if that is less than its most.
const BUDGET_SHARE: u64 = 8;

impl Setting {
    /// What holds here where it is not set; empty: nothing. Budgets of memory go by what there is: an eighth of what the
    /// machine has, or the control group that this process is in.
    pub fn default(&self) -> Cow<'static, str> {
        let Kind::Size(least) = self.kind else { return self.default.into() };
        // The defaults are sizes: a test parses them all.
        let most = parse_size(self.default).unwrap_or(least);
        match memory::limit() / BUDGET_SHARE {
            share if share >= most => self.default.into(),
            share => format!("{}MiB", share.max(least) >> 20).into(),
        }
    }
}

/// All settings there are.
pub const SETTINGS: [Setting; 9] = [
    Setting {
        name: FACTORY_MODE,
        default: "",
        doc: "the mode in which a factory runs here; of `remote`, `push` on a source and `pull` on a replica",
        kind: Kind::Text,
    },
    Setting {
        name: DIRTY_BUDGET_KEY,
        default: "256MiB",
        doc: "content accepted and not yet stored, with what storing it takes; writers slow down as it fills; read when \
              the pond is opened",
        kind: Kind::Size(16 << 20),
    },
    Setting {
        name: CACHE_BUDGET_KEY,
        default: "256MiB",
        doc: "decoded content kept in memory for readers; read when the pond is opened",
        kind: Kind::Size(1 << 20),
    },
    Setting {
        name: RETENTION_KEY,
        default: "",
        doc: "how much history is kept, as `30d` or `1000 versions` (maintenance's own do not count); unset: all of it",
        kind: Kind::Retention,
    },
    Setting {
        name: KEEP_REPLACED_KEY,
        default: "24h",
        doc: "how long data files stay that a merge or prune has replaced",
        kind: Kind::Duration,
    },
    Setting {
        name: REMOTE_CONFIG_KEY,
        default: "",
        doc: "the configuration of the backup store that a replica follows",
        kind: Kind::Text,
    },
    Setting {
        name: SUPERSEDED_KEY,
        default: "",
        doc: "why this source takes no writes any more; empty: it does",
        kind: Kind::Text,
    },
    Setting {
        name: TIMELINE_KEY,
        default: "",
        doc: "the timeline on which a promoted pond commits; `pond promote` sets it",
        kind: Kind::Text,
    },
    Setting {
        name: TIMELINE_ID_KEY,
        default: "",
        doc: "the random id of that timeline; `pond promote` sets it",
        kind: Kind::Text,
    },
];

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// All of it.
    Everything,
    /// Versions of the last so long.
    Age(Duration),
    /// The newest so many versions.
    Versions(u64),
}

/// The longest duration that is accepted: a hundred years.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// Bytes, from text such as `256MiB`; the error says what is understood.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    const WHY: &str = "a size is a number with B, KiB, MiB, GiB or TiB, such as 256MiB";
    let (number, unit) = split_unit(text).ok_or(WHY)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(WHY),
    };
    number.checked_mul(1 << shift).ok_or("it exceeds 64 bits")
}

/// A time, from text such as `24h`; the error says what is understood.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const WHY: &str = "a duration is a number with s, m, h or d, such as 24h";
    let (number, unit) = split_unit(text).ok_or(WHY)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(WHY),
    };
    // What is longer is a slip of the finger, and cannot be reckoned with.
    let duration = number.checked_mul(seconds).map(Duration::from_secs);
    duration.filter(|duration| *duration <= LONGEST).ok_or("a duration is at most 36500d, a hundred years")
}

/// How much history to keep, from text such as `30d` or `1000 versions`; empty text keeps everything.
pub fn parse_retention(text: &str) -> Result<Retention, &'static str> {
    const WHY: &str = "it is a duration such as 30d, a count such as `1000 versions`, or empty";
    if text.is_empty() {
        return Ok(Retention::Everything);
    }
    match split_unit(text).ok_or(WHY)? {
        (0, _) => Err("at least the newest version is kept"),
        (count, "version" | "versions") => Ok(Retention::Versions(count)),
        (_, "s" | "m" | "h" | "d") => parse_duration(text).map(Retention::Age),
        _ => Err(WHY),
    }
}

/// A number and the word after it.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim_start()))
}

/// The setting of this name.
fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| match setting.name.strip_suffix(':') {
        Some(_) => key.len() > setting.name.len() && key.starts_with(setting.name),
        None => setting.name == key,
    })
}

/// Whether there is a setting of this name.
pub(crate) fn is_known(key: &str) -> bool {
    find(key).is_some()
}

/// Why a setting cannot be this; what depends on the pond's state is checked elsewhere.
pub(crate) fn check(key: &str, value: &str) -> Result<(), &'static str> {
    let setting = find(key).ok_or("there is no setting of this name")?;
    match setting.kind {
        Kind::Text => Ok(()),
        // As it was before anybody set it.
        _ if value.is_empty() => Ok(()),
        Kind::Size(least) => match parse_size(value)? {
            bytes if bytes < least => Err("it is too small to work with"),
            bytes if bytes > memory::limit() => {
                Err("there is not so much memory: this machine, or the control group we are in, has less")
            }
            _ => Ok(()),
        },
        Kind::Duration => parse_duration(value).map(drop),
        Kind::Retention => parse_retention(value).map(drop),
    }
}

/// A size as it is set, or, where it is not, its default; what cannot be understood is reported and the default holds.
pub(crate) fn size(value: Option<&str>, key: &str) -> u64 {
    let value = value.filter(|value| !value.is_empty());
    let parsed = value.map(|value| {
        parse_size(value).inspect_err(|why| tracing::warn!(key, value, why, "a setting is not understood"))
    });
    match parsed {
        Some(Ok(bytes)) => bytes,
        // The defaults are sizes: a test parses them all.
        _ => parse_size(&find(key).map_or("".into(), Setting::default)).unwrap_or_default(),
    }
}

/// A duration as it is set, or, where it is not, its default; what cannot be understood is reported and the default holds.
pub(crate) fn duration(value: Option<&str>, key: &str) -> Duration {
    let value = value.filter(|value| !value.is_empty());
    let parsed = value.map(|value| {
        parse_duration(value)
            .inspect_err(|why| tracing::warn!(key, value, why, "a setting is not understood"))
    });
    match parsed {
        Some(Ok(duration)) => duration,
        // The defaults are durations: a test parses them all.
        _ => parse_duration(&find(key).map_or("".into(), Setting::default)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_with_their_units_or_not_at_all() {
        assert_eq!(parse_size("256MiB"), Ok(256 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("1 GiB"), Ok(1 << 30));
        for bad in ["", "MiB", "1MB", "-1", "1.5GiB", "99999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for bad in ["", "24", "h", "1w", "36501d", "99999999999999d", "18446744073709551615s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_retention("1000 versions"), Ok(Retention::Versions(1000)));
        assert_eq!(parse_retention("30d"), Ok(Retention::Age(Duration::from_secs(30 * 86_400))));
        assert_eq!(parse_retention(""), Ok(Retention::Everything));
        assert!(parse_retention("0 versions").is_err());
        assert!(parse_retention("1000").is_err());
        assert!(parse_retention("99999999999999d").is_err());
        assert_eq!(parse_duration("36500d"), Ok(LONGEST));
    }

    #[test]
    fn every_default_is_a_valid_value() {
        for setting in &SETTINGS {
            let name = if setting.name == FACTORY_MODE { "factory_mode:exec-log" } else { setting.name };
            assert_eq!(check(name, &setting.default()), Ok(()), "{name}");
        }
    }

    #[test]
    fn unknown_names_and_bad_values_are_refused() {
        assert!(check("dirty_bugdet", "256MiB").is_err());
        assert!(check("factory_mode:", "push").is_err());
        assert!(check(DIRTY_BUDGET_KEY, "1KiB").is_err());
        assert!(check(DIRTY_BUDGET_KEY, "4096TiB").is_err());
        assert!(check(CACHE_BUDGET_KEY, "many").is_err());
        assert!(check(RETENTION_KEY, "sometimes").is_err());
        assert!(check("factory_mode:exec-log", "quiet").is_ok());
    }
}
