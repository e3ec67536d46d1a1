//! The settings that the control table knows: their names, what they are when nobody set them, and what they may be.
//!
//! Sizes are written `256MiB` (or `B`, `KiB`, `GiB`, `TiB`; a number alone counts bytes), durations `24h` (or `s`, `m`,
//! `h`, `d`). All who read such a value do it through here, so that each is understood in one way.

use std::borrow::Cow;
use std::time::Duration;

use crate::control::keys::{REMOTE_CONFIG_KEY, SUPERSEDED_KEY, TIMELINE_ID_KEY, TIMELINE_KEY};
pub use crate::control::quantity::{parse_duration, parse_size};
pub use crate::control::retention::{Recent, Retention, Rule, parse_retention};
use crate::host::memory;

/// The setting that bounds content which was accepted and is not yet stored.
pub const DIRTY_BUDGET_KEY: &str = "dirty_budget";

/// The setting that bounds decoded extents kept for readers.
pub const CACHE_BUDGET_KEY: &str = "cache_budget";

/// The setting that says how much history is kept.
pub const RETENTION_KEY: &str = "retention";

/// The setting that says how long data files stay that a merge or prune has replaced.
pub const KEEP_REPLACED_KEY: &str = "keep_replaced";

/// The setting that says which factories' nodes run after commits.
pub const ENABLED_FACTORIES_KEY: &str = "enabled_factories";

/// The value of that setting under which no node runs.
const NO_FACTORIES: &str = "none";

/// The value of that setting under which all run.
pub(crate) const ALL_FACTORIES: &str = "all";

/// Beginning of the settings that say in which mode a factory runs.
pub const FACTORY_MODE: &str = "factory_mode:";

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Bytes, at least so many.
    Size(u64),
    Duration,
    Retention,
    /// Paths of factories' nodes, or none.
    Nodes,
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
pub const SETTINGS: [Setting; 10] = [
    Setting {
        name: FACTORY_MODE,
        default: "",
        doc: "the mode in which a factory runs here; of `remote`, `push` on a source and `pull` on a replica",
        kind: Kind::Text,
    },
    Setting {
        name: ENABLED_FACTORIES_KEY,
        default: "",
        doc: "which nodes under /etc/system.d run here: their paths, with commas between, or all, or none; unset: all, and none of a fork's",
        kind: Kind::Nodes,
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
        doc: "how much history is kept, as `30d`, `1000 versions` (maintenance's own do not count) or `all 1h, minutely 1d, hourly 30d, daily`; unset: all of it",
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
        Kind::Nodes
            if [ALL_FACTORIES, NO_FACTORIES].contains(&value)
                || value.split(',').all(|path| path.trim().starts_with('/')) =>
        {
            Ok(())
        }
        Kind::Nodes => {
            Err("it is paths of nodes, as /etc/system.d/10-remote, with commas between, or all, or none")
        }
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
