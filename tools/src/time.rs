//! Times as people see them, and how long things take.
//!
//! Shown in local time with its offset; in JSON as RFC 3339 in UTC. `At::parse` reads them.

use std::time::Duration;

use chrono::{DateTime, Local, SecondsFormat, Utc};
use pond_oplog::SHOWN_TIME;

/// Reads how long: `90s`, `5m`, `2h`, `1d`, or a number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let with_unit = if is_number { format!("{text}s") } else { text.to_owned() };
    pond_steward::settings::parse_duration(&with_unit).map_err(str::to_owned)
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
    time.with_timezone(&Local).format(SHOWN_TIME).to_string()
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
    use pond_oplog::At;

    /// 2026-11-20 18:30:15 UTC.
    const TIME: i64 = 1_795_199_415_000_000;

    #[test]
    fn programs_get_utc() {
        assert_eq!(rfc3339_micros(TIME), "2026-11-20T18:30:15.000000Z");
        assert_eq!(rfc3339_nanos(TIME * 1000 + 1), "2026-11-20T18:30:15.000000001Z");
    }

    #[test]
    fn what_people_see_can_be_given_back() {
        assert_eq!(At::parse(&local_micros(TIME)), Ok(At::Timestamp(TIME)));
    }
}
