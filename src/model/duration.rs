//! Durations with units, as users write them: `90s`, `15m`, `1h30m`, `2d`, `1w`.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDuration {
    /// A number without a unit.
    #[error("`{0}` has no unit: write `{0}s`, `{0}m` or `{0}h`")]
    NoUnit(String),
    /// Not of the form number-unit, repeated.
    #[error("`{0}` is no duration: write for example `90s`, `15m`, `12h`, `2d` or `1w`")]
    Malformed(String),
    /// Longer than the program can count.
    #[error("`{0}` is too long: the longest duration is 10 years")]
    TooLong(String),
}

/// Units and their length in nanoseconds.
const UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
    ("M", 2_592_000_000_000_000),
];

const LONGEST: u128 = 3653 * 86_400_000_000_000;

/// Reads a non-negative duration. Units: `ns us ms s m h d w`, and `M` for 30 days. A bare `0` needs no unit.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    let malformed = || BadDuration::Malformed(text.to_owned());
    let too_long = || BadDuration::TooLong(text.to_owned());
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit = unit.trim();
        if unit.is_empty() && !number.is_empty() {
            return Err(BadDuration::NoUnit(text.trim().to_owned()));
        }
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
        nanos += times(number, *scale).ok_or_else(malformed)?;
        if nanos > LONGEST {
            return Err(too_long());
        }
        rest = tail.trim_start();
    }
    Ok(Duration::from_nanos(u64::try_from(nanos).map_err(|_| too_long())?))
}

/// A decimal number times a scale, at most 18 digits on either side of the point.
fn times(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.len() > 18 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let shift = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(digits(whole)? * scale + digits(fraction)? * scale / shift)
}

/// Writes a duration so that [`parse_duration`] reads the same one back: `1h30m`, `250ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let mut out = String::new();
    let mut seconds = duration.as_secs();
    for (name, size) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        let count = seconds / size;
        seconds %= size;
        if count > 0 {
            out.push_str(&format!("{count}{name}"));
        }
    }
    let mut nanos = duration.subsec_nanos();
    for (name, size) in [("ms", 1_000_000), ("us", 1000), ("ns", 1)] {
        let count = nanos / size;
        nanos %= size;
        if count > 0 {
            out.push_str(&format!("{count}{name}"));
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_read_and_required() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration(" 1.5s "), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("30"), Err(BadDuration::NoUnit("30".into())));
        for text in ["", "s", "5x", "1.2.3s", "-5s", "5 5s m"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(matches!(parse_duration("99999999h"), Err(BadDuration::TooLong(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse_duration(&text);
        }
    }
}
