//! How much history is kept: in whole up to some age or number of versions, and thinned out before that.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Datelike};
use pond_oplog::{Kept, Version};

use crate::control::quantity::{parse_duration, split_unit};

const WHY: &str = "it is a duration such as 30d, a count such as `1000 versions`, one of these and what is kept of older versions, \
     such as `all 1h, minutely 1d, hourly 30d, daily`, or empty";

/// The least time between two versions, microseconds.
const LEAST_STEP: i64 = 1000;

/// How much history is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What is kept in whole.
    pub recent: Recent,
    /// What is kept of versions before that, each alone.
    pub older: Vec<Rule>,
}

/// The versions that are all kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recent {
    /// All there are.
    Everything,
    /// Those of the last so long.
    Age(Duration),
    /// The newest so many.
    Versions(u64),
}

/// One version of each so long is kept: the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    every: Period,
    /// As long as it is no older than this; for ever where there is none.
    within: Option<Duration>,
}

/// A stretch of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Period {
    Minute,
    Hour,
    Day,
    /// From Monday on.
    Week,
    Month,
    Year,
}

impl Period {
    fn of(word: &str) -> Option<Period> {
        Some(match word {
            "minutely" => Period::Minute,
            "hourly" => Period::Hour,
            "daily" => Period::Day,
            "weekly" => Period::Week,
            "monthly" => Period::Month,
            "yearly" => Period::Year,
            _ => return None,
        })
    }

    /// The number of the period in which a time lies, microseconds since 1970 UTC.
    fn number(self, time: i64) -> i64 {
        let seconds = time.div_euclid(1_000_000);
        let date = || DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        match self {
            Period::Minute => seconds.div_euclid(60),
            Period::Hour => seconds.div_euclid(3600),
            Period::Day => seconds.div_euclid(86_400),
            // 1970 began on a Thursday.
            Period::Week => (seconds.div_euclid(86_400) + 3).div_euclid(7),
            Period::Month => i64::from(date().year()) * 12 + i64::from(date().month0()),
            Period::Year => date().year().into(),
        }
    }
}

/// How much history to keep, from text such as `30d`, `1000 versions` or `all 1h, minutely 1d, hourly 30d, daily`; empty text keeps
/// everything. The error says what is understood.
pub fn parse_retention(text: &str) -> Result<Retention, &'static str> {
    if text.trim().is_empty() {
        return Ok(Retention { recent: Recent::Everything, older: Vec::new() });
    }
    let mut parts = text.split(',').map(str::trim);
    let first = parts.next().unwrap_or_default();
    let first = first.strip_prefix("all ").map_or(first, str::trim);
    let recent = match split_unit(first).ok_or(WHY)? {
        (0, _) => return Err("at least the newest version is kept"),
        (count, "version" | "versions") => Recent::Versions(count),
        (_, "s" | "m" | "h" | "d") => Recent::Age(parse_duration(first)?),
        _ => return Err(WHY),
    };
    let rule = |part: &str| -> Result<Rule, &'static str> {
        let (word, within) = part.split_once(' ').unwrap_or((part, ""));
        let every = Period::of(word).ok_or(WHY)?;
        let within = match within.trim() {
            "" => None,
            within => Some(parse_duration(within)?),
        };
        Ok(Rule { every, within })
    };
    Ok(Retention { recent, older: parts.map(rule).collect::<Result<_, _>>()? })
}

impl Retention {
    /// Whether how old a version is decides about it.
    pub(crate) fn is_by_age(&self) -> bool {
        matches!(self.recent, Recent::Age(_)) || !self.older.is_empty()
    }

    /// Which of these versions, ascending, lie below what is kept in whole and stay, as of `now`, microseconds since 1970 UTC.
    pub(crate) fn stay(&self, versions: &[Kept], now: i64) -> HashSet<Version> {
        let mut stay = HashSet::new();
        if !self.older.is_empty() {
            // Times only grow, so after a clock was ahead they go on by the least step there is, and say nothing of when.
            let time = |kept: &Kept| kept.position().timestamp;
            let is_squeezed = |pair: &&[Kept]| time(&pair[1]) - time(&pair[0]) <= LEAST_STEP;
            stay.extend(versions.windows(2).filter(is_squeezed).map(|pair| pair[1].version()));
        }
        for Rule { every, within } in &self.older {
            let mut later = None;
            for kept in versions.iter().rev() {
                let time = kept.position().timestamp;
                let within = within.map(|within| i64::try_from(within.as_micros()).unwrap_or(i64::MAX));
                if within.is_some_and(|within| now.saturating_sub(time) > within) {
                    break;
                }
                if later.replace(every.number(time)) != Some(every.number(time)) {
                    stay.insert(kept.version());
                }
            }
        }
        stay
    }
}

#[cfg(test)]
mod tests {
    use pond_oplog::{Origin, Position, Timeline, TxnSeq};
    use pond_tinyfs::Lsn;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3600 * SECOND;

    fn version(number: u64, timestamp: i64) -> Kept {
        let position = Position {
            version: Version(number),
            digest: String::new(),
            timestamp,
            txn_seq: TxnSeq(number),
            cut_lsn: Lsn(number),
            timeline: Timeline::FIRST,
        };
        Kept::new(&position, Origin::mount())
    }

    fn stay(retention: &str, versions: &[Kept], now: i64) -> Vec<u64> {
        let mut stay: Vec<u64> =
            parse_retention(retention).unwrap().stay(versions, now).iter().map(|version| version.0).collect();
        stay.sort_unstable();
        stay
    }

    #[test]
    fn a_policy_is_read_or_refused() {
        let plain = |recent| Ok(Retention { recent, older: Vec::new() });
        assert_eq!(parse_retention("1000 versions"), plain(Recent::Versions(1000)));
        assert_eq!(parse_retention("30d"), plain(Recent::Age(Duration::from_secs(30 * 86_400))));
        assert_eq!(parse_retention(" "), plain(Recent::Everything));
        let policy = parse_retention("all 1h, minutely 1d, hourly 30d, daily").unwrap();
        assert_eq!(policy.recent, Recent::Age(Duration::from_secs(3600)));
        let day = Some(Duration::from_secs(86_400));
        assert_eq!(policy.older[0], Rule { every: Period::Minute, within: day });
        assert_eq!(policy.older[2], Rule { every: Period::Day, within: None });
        assert_eq!(policy.older.len(), 3);
        assert_eq!(parse_retention("1h,minutely   1d").unwrap().older[0].within, day);
        for bad in [
            "0 versions",
            "1000",
            "99999999999999d",
            "all",
            "hourly",
            "1h, 2h",
            "1h, hourly x",
            "1h,",
            "1h, secondly",
        ] {
            assert!(parse_retention(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_each_period_the_last_version_stays_as_long_as_its_rule_says() {
        // One in ten minutes for three days.
        let versions: Vec<Kept> = (0..432).map(|n| version(n as u64, n * 600 * SECOND)).collect();
        let now = 72 * HOUR;
        assert_eq!(stay("1h, daily", &versions, now), [143, 287, 431]);
        assert_eq!(stay("1h, hourly 5h", &versions, now), [407, 413, 419, 425, 431]);
        assert_eq!(stay("1h, weekly, monthly, yearly", &versions, now), [431]);
        assert_eq!(stay("1h, minutely 30m", &versions, now), [429, 430, 431]);
        assert!(stay("1h", &versions, now).is_empty());
        // What stayed stays: nothing that a later evaluation wants has gone before.
        let kept: Vec<Kept> = versions
            .iter()
            .filter(|kept| stay("1h, hourly 2d, daily", &versions, now).contains(&kept.version().0))
            .cloned()
            .collect();
        let later = now + 30 * HOUR;
        assert_eq!(
            stay("1h, hourly 2d, daily", &kept, later),
            stay("1h, hourly 2d, daily", &versions, later)
        );
    }

    #[test]
    fn versions_made_while_a_clock_was_behind_have_no_time_to_be_judged_by() {
        let versions: Vec<Kept> = (0..50).map(|n| version(n as u64, 10 * HOUR + n * 1000)).collect();
        assert_eq!(stay("9 versions, hourly 5h", &versions, 12 * HOUR).len(), 49);
        assert!(stay("9 versions", &versions, 12 * HOUR).is_empty());
    }

    #[test]
    fn weeks_begin_on_monday_and_times_before_1970_have_periods_too() {
        let monday = DateTime::parse_from_rfc3339("2026-11-30T00:00:00Z").unwrap().timestamp_micros();
        assert_eq!(Period::Week.number(monday), Period::Week.number(monday - 1) + 1);
        assert_eq!(Period::Week.number(monday), Period::Week.number(monday + 6 * 24 * HOUR));
        assert_eq!(Period::Day.number(-1), -1);
    }
}
