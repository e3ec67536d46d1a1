//! Sizes and durations as people write them.

use std::time::Duration;

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

/// A number and the word after it.
pub(crate) fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim_start()))
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
        assert_eq!(parse_duration("36500d"), Ok(LONGEST));
    }
}
