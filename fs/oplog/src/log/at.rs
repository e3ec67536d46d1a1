//! Which version is meant, and how people write it.

use std::fmt;

use chrono::{
    DateTime, Local, LocalResult, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, TimeZone, Utc,
};

use crate::{BadTagName, TagName, Version};

/// Which version is meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum At {
    /// The newest.
    Tip,
    /// This one.
    Version(Version),
    /// The newest that was committed at or before this time, microseconds since 1970 UTC.
    Timestamp(i64),
    /// The oldest that is kept.
    Start,
    /// The one that has this name.
    Tag(TagName),
}

/// The forms that times have, for help and error texts.
pub const TIMES: &str = "RFC 3339 (2026-11-20T18:30:00Z, 2026-11-20T18:30:00+01:00), local time (2026-11-20T18:30, \
                         \"2026-11-20 18:30:15\", 2026-11-20), how long ago (-10m; also s, h, d, w), or @SECONDS since 1970 UTC";

/// What stands before the name of a tag.
const TAG: &str = "tag:";

/// How times are shown to people.
pub const SHOWN_TIME: &str = "%Y-%m-%d %H:%M:%S %:z";

/// Why a text says no version.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AtError {
    /// It has none of the forms that versions are written in.
    #[error(
        "\"{0}\" is no version: give a number, as `pond log` lists them, start for the oldest, tag:NAME for one that has a name, or a time: {TIMES}"
    )]
    NoForm(String),
    /// It is said to be a tag, and is none.
    #[error(transparent)]
    BadTag(#[from] BadTagName),
    /// It is a local time, but not one point in time.
    #[error("\"{text}\" {why}")]
    NotOneTime {
        /// What was written.
        text: String,
        /// What is wrong with it, and what to write instead.
        why: &'static str,
    },
}

impl At {
    /// Reads which version is meant: a number, `start`, `tag:NAME`, or a time, of which [`TIMES`] tells the forms. A time without
    /// an offset is local, and one that is so long ago is reckoned from now.
    ///
    /// # Errors
    ///
    /// [`AtError::NoForm`] for what is written in none of these forms, so may be something else, such as a part of a file's name.
    pub fn parse(text: &str) -> Result<At, AtError> {
        At::parse_in(text, &Local, Utc::now())
    }

    /// The same, in a time zone of one's choice and at a time of one's choice.
    fn parse_in<Z: TimeZone>(text: &str, zone: &Z, now: DateTime<Utc>) -> Result<At, AtError> {
        let no_form = || AtError::NoForm(text.to_owned());
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if text == "start" {
            return Ok(At::Start);
        }
        if let Some(name) = text.strip_prefix(TAG) {
            return Ok(At::Tag(name.parse()?));
        }
        if is_number(text) {
            return text.parse().map(|number| At::Version(Version(number))).map_err(|_| no_form());
        }
        if let Some(ago) = text.strip_prefix('-') {
            let time = parse_ago(ago).and_then(|ago| now.checked_sub_signed(ago)).ok_or_else(no_form)?;
            return Ok(At::Timestamp(time.timestamp_micros()));
        }
        if let Some(seconds) = text.strip_prefix('@') {
            return parse_seconds(seconds).map(At::Timestamp).ok_or_else(no_form);
        }
        let exact =
            DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_str(text, SHOWN_TIME));
        if let Ok(time) = exact {
            return Ok(At::Timestamp(time.timestamp_micros()));
        }
        if let Some(time) = text.strip_suffix('Z') {
            let time = parse_naive(time).ok_or_else(no_form)?;
            return Ok(At::Timestamp(time.and_utc().timestamp_micros()));
        }
        let naive = parse_naive(text).ok_or_else(no_form)?;
        let why = match naive.and_local_timezone(zone.clone()) {
            LocalResult::Single(time) => return Ok(At::Timestamp(time.timestamp_micros())),
            LocalResult::None => {
                "does not exist here, the clocks skipped it: give an offset, as 2026-03-29T02:30:00+01:00"
            }
            LocalResult::Ambiguous(..) => {
                "came twice here, the clocks were set back: give an offset, as 2026-10-25T02:30:00+01:00"
            }
        };
        Err(AtError::NotOneTime { text: text.to_owned(), why })
    }
}

/// As [`At::parse`] reads it, exactly: a time in UTC.
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Tip => f.write_str("tip"),
            At::Version(version) => version.fmt(f),
            At::Start => f.write_str("start"),
            At::Tag(name) => write!(f, "{TAG}{name}"),
            At::Timestamp(micros) => match DateTime::from_timestamp_micros(*micros) {
                Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
                None => write!(f, "@{}", micros.div_euclid(1_000_000)),
            },
        }
    }
}

/// `NUMBER` and a unit, to how long that is.
fn parse_ago(text: &str) -> Option<TimeDelta> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    TimeDelta::try_seconds(number.parse::<i64>().ok()?.checked_mul(seconds)?)
}

/// A time that does not say where, or a day, which stands for when it begins.
fn parse_naive(text: &str) -> Option<NaiveDateTime> {
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
}

/// `SECONDS[.FRACTION]` to microseconds, without a detour through floating point.
fn parse_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let micros: i64 = format!("{fraction:0<6.6}").parse().ok()?;
    let micros = if whole.starts_with('-') { -micros } else { micros };
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::FixedOffset;

    /// 2026-11-20 18:30:15 UTC.
    const TIME: i64 = 1_795_199_415_000_000;

    /// Reads it an hour east of Greenwich, at [`TIME`].
    fn parse(text: &str) -> Result<At, AtError> {
        let now = DateTime::from_timestamp_micros(TIME).unwrap();
        At::parse_in(text, &FixedOffset::east_opt(3600).unwrap(), now)
    }

    fn time(text: &str) -> i64 {
        match parse(text) {
            Ok(At::Timestamp(time)) => time,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_version_is_a_number_or_the_oldest() {
        assert_eq!(parse("42"), Ok(At::Version(Version(42))));
        assert_eq!(parse("0"), Ok(At::Version(Version(0))));
        assert_eq!(parse("start"), Ok(At::Start));
        assert_eq!(parse("tag:v1"), Ok(At::Tag("v1".parse().unwrap())));
        assert_eq!(parse("tag:v1").unwrap().to_string(), "tag:v1");
        assert!(matches!(parse("tag:"), Err(AtError::BadTag(_))));
    }

    #[test]
    fn a_time_with_an_offset_is_meant_there() {
        assert_eq!(time("2026-11-20T18:30:15Z"), TIME);
        assert_eq!(time("2026-11-20T19:30:15+01:00"), TIME);
        assert_eq!(time("2026-11-20T18:30:15.000001Z"), TIME + 1);
        assert_eq!(time("2026-11-20T18:30Z"), TIME - 15_000_000);
        assert_eq!(time("2026-11-20 18:30:15Z"), TIME);
    }

    #[test]
    fn a_time_without_offset_is_local() {
        assert_eq!(time("2026-11-20 19:30:15"), TIME);
        assert_eq!(time("2026-11-20 19:30"), TIME - 15_000_000);
        assert_eq!(time("2026-11-20T19:30:15"), TIME);
        assert_eq!(time("2026-11-20T19:30"), TIME - 15_000_000);
        assert_eq!(time("2026-11-20"), TIME - (19 * 3600 + 30 * 60 + 15) * 1_000_000);
    }

    #[test]
    fn how_long_ago_is_reckoned_from_now() {
        for (text, seconds) in
            [("-0s", 0), ("-90s", 90), ("-10m", 600), ("-2h", 7200), ("-1d", 86_400), ("-3w", 1_814_400)]
        {
            assert_eq!(time(text), TIME - seconds * 1_000_000, "{text}");
        }
    }

    #[test]
    fn unix_seconds_are_read_exactly() {
        assert_eq!(time("@1795199415"), TIME);
        assert_eq!(time("@1795199415.25"), TIME + 250_000);
        assert_eq!(time("@-1.5"), -1_500_000);
        assert_eq!(time("@0"), 0);
    }

    #[test]
    fn what_is_no_version_is_refused_with_the_forms_that_are() {
        for text in [
            "",
            "yesterday",
            "@",
            "@1x",
            "@1.x",
            "2026-13-01",
            "18:30",
            "+1",
            "-",
            "-m",
            "-5",
            "-5y",
            "-+5m",
            "-5µ",
            " 5",
            "99999999999999999999999",
            "-9223372036854775807w",
            "-9223372036854775807s",
            "tip",
        ] {
            assert_eq!(parse(text), Err(AtError::NoForm(text.to_owned())), "{text}");
        }
        let said = parse("yesterday").unwrap_err().to_string();
        assert!(said.contains("a number") && said.contains("RFC 3339") && said.contains("-10m"), "{said}");
    }

    #[test]
    fn a_local_time_that_is_none_or_two_is_refused_rather_than_taken_for_a_name() {
        /// Where the clocks are always being changed.
        #[derive(Clone, Copy, Debug)]
        struct Odd(bool);
        impl chrono::Offset for Odd {
            fn fix(&self) -> FixedOffset {
                FixedOffset::east_opt(0).unwrap()
            }
        }
        impl TimeZone for Odd {
            type Offset = Odd;
            fn from_offset(offset: &Odd) -> Self {
                *offset
            }
            fn offset_from_local_date(&self, _: &NaiveDate) -> LocalResult<Odd> {
                LocalResult::None
            }
            fn offset_from_local_datetime(&self, _: &NaiveDateTime) -> LocalResult<Odd> {
                if self.0 { LocalResult::Ambiguous(*self, *self) } else { LocalResult::None }
            }
            fn offset_from_utc_date(&self, _: &NaiveDate) -> Odd {
                *self
            }
            fn offset_from_utc_datetime(&self, _: &NaiveDateTime) -> Odd {
                *self
            }
        }
        for (twice, said) in [(true, "came twice"), (false, "does not exist")] {
            let read = At::parse_in("2026-11-20T18:30", &Odd(twice), Utc::now());
            let Err(error @ AtError::NotOneTime { .. }) = read else { panic!("{read:?}") };
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn what_is_shown_can_be_given_back() {
        for at in [At::Start, At::Version(Version(7)), At::Timestamp(TIME), At::Timestamp(TIME + 1)] {
            assert_eq!(parse(&at.to_string()), Ok(at));
        }
    }
}
