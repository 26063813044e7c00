//! Schedules: windows of the week in which a backend is kept awake. The only policy that knows the wall clock.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, ToSpan, Zoned, civil::Time, civil::Weekday, tz::TimeZone};

/// A window such as `Mon-Fri 08:00-18:00 Europe/Berlin`. One that ends before it starts goes over midnight.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    days: [bool; 7],
    start: Time,
    /// Exclusive; `None` is the end of the day.
    end: Option<Time>,
    zone: TimeZone,
    text: String,
}

/// All windows of a backend; awake while any holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schedule(pub Vec<Window>);

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no window ({why}): write for example `Mon-Fri 08:00-18:00 Europe/Berlin`")]
pub struct BadWindow {
    text: String,
    why: String,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl FromStr for Window {
    type Err = BadWindow;

    fn from_str(text: &str) -> Result<Self, BadWindow> {
        let bad = |why: String| BadWindow { text: text.to_owned(), why };
        let mut words = text.split_whitespace().peekable();
        let mut days = [true; 7];
        if words.peek().is_some_and(|word| !word.starts_with(|c: char| c.is_ascii_digit())) {
            days = parse_days(words.next().unwrap_or_default()).map_err(bad)?;
        }
        let hours = words.next().ok_or_else(|| bad("hours are missing".into()))?;
        let (start, end) = hours.split_once('-').ok_or_else(|| bad(format!("`{hours}` is not `HH:MM-HH:MM`")))?;
        let start = parse_time(start).map_err(bad)?.ok_or_else(|| bad("it starts at the end of the day".into()))?;
        let end = parse_time(end).map_err(bad)?;
        if end == Some(start) {
            return Err(bad("it has no length".into()));
        }
        let zone = match words.next() {
            Some(name) => TimeZone::get(name).map_err(|_| bad(format!("`{name}` is no time zone")))?,
            None => TimeZone::system(),
        };
        if let Some(extra) = words.next() {
            return Err(bad(format!("`{extra}` is too much")));
        }
        Ok(Self { days, start, end, zone, text: text.split_whitespace().collect::<Vec<_>>().join(" ") })
    }
}

fn parse_days(text: &str) -> Result<[bool; 7], String> {
    let index = |name: &str| {
        let word = name.to_ascii_lowercase();
        DAYS.iter().position(|day| word.len() >= 3 && word.starts_with(day)).ok_or(format!("`{name}` is no day"))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        match part.split_once('-') {
            None => days[index(part)?] = true,
            Some((from, to)) => {
                let (mut day, last) = (index(from)?, index(to)?);
                while day != last {
                    days[day] = true;
                    day = (day + 1) % 7;
                }
                days[last] = true;
            }
        }
    }
    Ok(days)
}

/// `24:00` is the end of the day, `None`.
fn parse_time(text: &str) -> Result<Option<Time>, String> {
    let bad = || format!("`{text}` is no time of day");
    let (hour, minute) = text.split_once(':').ok_or_else(bad)?;
    let (hour, minute) = (hour.parse::<i8>().map_err(|_| bad())?, minute.parse::<i8>().map_err(|_| bad())?);
    if (hour, minute) == (24, 0) {
        return Ok(None);
    }
    Time::new(hour, minute, 0, 0).map(Some).map_err(|_| bad())
}

impl Window {
    fn opens_on(&self, weekday: Weekday) -> bool {
        self.days[weekday.to_monday_zero_offset() as usize]
    }

    /// Whether the window holds at this moment.
    pub fn holds(&self, at: Timestamp) -> bool {
        let now = at.to_zoned(self.zone.clone());
        let time = now.time();
        let before_end = |time: Time| self.end.is_none_or(|end| time < end);
        let over_midnight = self.end.is_some_and(|end| end < self.start);
        if over_midnight {
            let yesterday = now.weekday().previous();
            (self.opens_on(now.weekday()) && time >= self.start) || (self.opens_on(yesterday) && before_end(time))
        } else {
            self.opens_on(now.weekday()) && time >= self.start && before_end(time)
        }
    }

    /// The next moment after `at` when the window begins or ends.
    pub fn next_change(&self, at: Timestamp) -> Option<Timestamp> {
        let now = at.to_zoned(self.zone.clone());
        let midnight = Time::midnight();
        (-1..=8)
            .filter_map(|offset| now.date().checked_add(i64::from(offset).days()).ok())
            .flat_map(|date| [self.start, self.end.unwrap_or(midnight)].map(|time| date.to_datetime(time)))
            .filter_map(|moment| moment.to_zoned(self.zone.clone()).ok())
            .map(|moment: Zoned| moment.timestamp())
            .filter(|moment| *moment > at && self.holds(*moment) != self.holds(*moment - 1.second()))
            .min()
    }
}

impl Schedule {
    /// Whether any window holds.
    pub fn holds(&self, at: Timestamp) -> bool {
        self.0.iter().any(|window| window.holds(at))
    }

    /// The next moment when any window begins or ends.
    pub fn next_change(&self, at: Timestamp) -> Option<Timestamp> {
        self.0.iter().filter_map(|window| window.next_change(at)).min()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_holds_in_its_own_time_zone() {
        let office = window("Mon-Fri 08:00-18:00 Europe/Berlin");
        // 2026-11-23 is a Monday; Berlin is one hour ahead of UTC in winter.
        assert!(!office.holds(at("2026-11-23T06:59:59Z")));
        assert!(office.holds(at("2026-11-23T07:00:00Z")));
        assert!(!office.holds(at("2026-11-23T17:00:00Z")));
        assert!(!office.holds(at("2026-11-22T10:00:00Z")));
        assert_eq!(office.next_change(at("2026-11-21T10:00:00Z")), Some(at("2026-11-23T07:00:00Z")));
        assert_eq!(office.next_change(at("2026-11-23T07:00:00Z")), Some(at("2026-11-23T17:00:00Z")));
    }

    #[test]
    fn a_window_may_go_over_midnight() {
        let night = window("Sat 22:00-02:00 UTC");
        assert!(night.holds(at("2026-11-21T23:00:00Z")));
        assert!(night.holds(at("2026-11-22T01:00:00Z")));
        assert!(!night.holds(at("2026-11-21T01:00:00Z")));
        assert_eq!(night.next_change(at("2026-11-21T23:00:00Z")), Some(at("2026-11-22T02:00:00Z")));
    }

    #[test]
    fn whole_days_and_lists_of_days() {
        let weekend = window("Sat,Sun 00:00-24:00 UTC");
        assert!(weekend.holds(at("2026-11-22T23:59:59Z")));
        assert!(!weekend.holds(at("2026-11-23T00:00:00Z")));
        assert!(window("09:00-10:00 UTC").holds(at("2026-11-23T09:30:00Z")));
    }

    #[test]
    fn malformed_windows_say_why() {
        for text in [
            "",
            "Mon",
            "Mon 8-9",
            "Moo 08:00-09:00",
            "Mon 08:00-08:00",
            "Mon 08:00-09:00 Nowhere/City",
            "Mon 08:00-09:00 UTC x",
        ] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }
}
