//! Times as people write and read them.
//!
//! Shown in local time with its offset; in JSON as RFC 3339 in UTC. Read as RFC 3339, as
//! local `YYYY-MM-DD HH:MM[:SS]`, or as `@SECONDS` since 1970 UTC.

use std::time::Duration;

use chrono::{DateTime, Local, LocalResult, NaiveDate, NaiveDateTime, SecondsFormat, TimeZone, Utc};

/// What `--timestamp` accepts, for help and error texts.
pub const FORMS: &str = "RFC 3339 (2026-11-20T18:30:00Z, 2026-11-20T18:30:00+01:00), local time \
                         (\"2026-11-20 18:30\", \"2026-11-20 18:30:15\", 2026-11-20) or @SECONDS since 1970 UTC";

/// How times are shown to people.
const SHOWN: &str = "%Y-%m-%d %H:%M:%S %:z";

/// Reads how long: `90s`, `5m`, `2h`, `1d`, or a number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let with_unit = if is_number { format!("{text}s") } else { text.to_owned() };
    pond_steward::settings::parse_duration(&with_unit).map_err(str::to_owned)
}

/// Reads a point in time; the result is in microseconds since 1970 UTC.
pub fn parse(text: &str) -> Result<i64, String> {
    parse_in(text, &Local)
}

/// [`parse`] with a time zone of one's choice.
fn parse_in<Z: TimeZone>(text: &str, zone: &Z) -> Result<i64, String> {
    let text = text.trim();
    if let Some(seconds) = text.strip_prefix('@') {
        return parse_seconds(seconds).ok_or_else(|| format!("\"{text}\" is not @SECONDS"));
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_micros());
    }
    // As times are shown.
    if let Ok(time) = DateTime::parse_from_str(text, SHOWN) {
        return Ok(time.timestamp_micros());
    }
    let naive = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
        .ok_or_else(|| format!("\"{text}\" is not a time: give {FORMS}"))?;
    match naive.and_local_timezone(zone.clone()) {
        LocalResult::Single(time) => Ok(time.timestamp_micros()),
        LocalResult::None => Err(format!(
            "\"{text}\" does not exist here, the clocks skipped it: give an offset, as 2026-03-29T02:30:00+01:00"
        )),
        LocalResult::Ambiguous(..) => Err(format!(
            "\"{text}\" came twice here, the clocks were set back: give an offset, as 2026-10-25T02:30:00+01:00"
        )),
    }
}

/// `SECONDS[.FRACTION]` to microseconds, without a detour through floating point.
fn parse_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let micros: i64 = format!("{:0<6.6}", fraction).parse().ok()?;
    let micros = if whole.starts_with('-') { -micros } else { micros };
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

/// A time in microseconds since 1970 UTC for people: local, to the second, with its offset.
pub fn local_micros(micros: i64) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) => local(time),
        None => format!("@{}", micros.div_euclid(1_000_000)),
    }
}

/// A time in nanoseconds since 1970 UTC for people.
pub fn local_nanos(nanos: i64) -> String {
    local(DateTime::from_timestamp_nanos(nanos))
}

fn local(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format(SHOWN).to_string()
}

/// A time in microseconds since 1970 UTC for programs: RFC 3339 in UTC.
pub fn rfc3339_micros(micros: i64) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Micros, true),
        None => format!("@{}", micros.div_euclid(1_000_000)),
    }
}

/// A time in nanoseconds since 1970 UTC for programs.
pub fn rfc3339_nanos(nanos: i64) -> String {
    DateTime::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::FixedOffset;

    /// 2026-11-20 18:30:15 UTC.
    const TIME: i64 = 1_795_199_415_000_000;

    #[test]
    fn rfc_3339_is_read_with_its_offset() {
        assert_eq!(parse("2026-11-20T18:30:15Z"), Ok(TIME));
        assert_eq!(parse("2026-11-20T19:30:15+01:00"), Ok(TIME));
        assert_eq!(parse("2026-11-20T18:30:15.000001Z"), Ok(TIME + 1));
    }

    #[test]
    fn a_time_without_offset_is_local() {
        let zone = FixedOffset::east_opt(3600).unwrap();
        assert_eq!(parse_in("2026-11-20 19:30:15", &zone), Ok(TIME));
        assert_eq!(parse_in("2026-11-20 19:30", &zone), Ok(TIME - 15_000_000));
        assert_eq!(parse_in("2026-11-20T19:30:15", &zone), Ok(TIME));
        assert_eq!(parse_in("2026-11-20", &zone), Ok(TIME - (19 * 3600 + 30 * 60 + 15) * 1_000_000));
    }

    #[test]
    fn unix_seconds_are_read_exactly() {
        assert_eq!(parse("@1795199415"), Ok(TIME));
        assert_eq!(parse("@1795199415.25"), Ok(TIME + 250_000));
        assert_eq!(parse("@-1.5"), Ok(-1_500_000));
        assert_eq!(parse("@0"), Ok(0));
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_forms_that_are() {
        for text in ["", "yesterday", "@", "@1x", "@1.x", "2026-13-01", "18:30", "1795199415"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("yesterday").unwrap_err().contains("RFC 3339"));
    }

    #[test]
    fn programs_get_utc() {
        assert_eq!(rfc3339_micros(TIME), "2026-11-20T18:30:15.000000Z");
        assert_eq!(rfc3339_nanos(TIME * 1000 + 1), "2026-11-20T18:30:15.000000001Z");
    }

    #[test]
    fn what_people_see_can_be_given_back() {
        assert_eq!(parse(&local_micros(TIME)), Ok(TIME));
    }
}
