//! Times and durations for people.

use std::time::Duration;

use jiff::Timestamp;

/// A duration in the one or two units that matter: `340 ms`, `12 s`, `12 m`, `5 h 20 m`, `3 d 4 h`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{large} {large_unit}") } else { format!("{large} {large_unit} {small} {small_unit}") }
    };
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} m", seconds / 60),
        3600..172_800 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// An amount of memory: `850 KiB`, `64 MiB`, `1.5 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    match kib {
        ..1000.0 => format!("{kib:.0} KiB"),
        ..1_024_000.0 => format!("{:.0} MiB", kib / 1024.0),
        _ => format!("{:.1} GiB", kib / 1_048_576.0),
    }
}

/// How long ago a time was, as the API writes it; what can not be read is shown as it is.
pub(super) fn ago(at: &str, now: Timestamp) -> String {
    at.parse::<Timestamp>().map_or_else(|_| at.to_owned(), |at| whole(distance(at, now)))
}

/// How long until a time, as the API writes it.
pub(super) fn until(at: &str, now: Timestamp) -> String {
    at.parse::<Timestamp>().map_or_else(|_| at.to_owned(), |at| whole(distance(now, at)))
}

fn distance(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Nobody reads the milliseconds of a distance to a point in time.
fn whole(distance: Duration) -> String {
    if distance.as_secs() == 0 { "0 s".to_owned() } else { duration(distance) }
}

/// A text of at most so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_units_that_matter() {
        let check = |millis, expected| assert_eq!(duration(Duration::from_millis(millis)), expected);
        check(0, "0 ms");
        check(340, "340 ms");
        check(12_900, "12 s");
        check(59_999, "59 s");
        check(12 * 60_000 + 30_000, "12 m");
        check(3_600_000, "1 h");
        check(5 * 3_600_000 + 20 * 60_000, "5 h 20 m");
        check(3 * 86_400_000 + 4 * 3_600_000, "3 d 4 h");
    }

    #[test]
    fn amounts_of_memory_have_their_unit() {
        let check = |amount, expected| assert_eq!(bytes(amount), expected);
        check(850 << 10, "850 KiB");
        check(64 << 20, "64 MiB");
        check(1536 << 20, "1.5 GiB");
    }

    #[test]
    fn times_are_told_by_their_distance() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        assert_eq!(ago("2026-11-22T11:48:00Z", now), "12 m");
        assert_eq!(until("2026-11-22T14:00:00Z", now), "2 h");
        assert_eq!(ago("2026-11-22T12:00:01Z", now), "0 s");
        assert_eq!(ago("yesterday", now), "yesterday");
    }

    #[test]
    fn long_texts_are_cut_at_characters() {
        assert_eq!(cut("kürzer", 6), "kürzer");
        assert_eq!(cut("kürzer", 4), "kür…");
    }
}
