//! The states of the demo's apps on the terminal: a table that is drawn over itself, or, where there is no terminal,
//! a line for each change. Pure: it makes the text, and somebody else writes it.

use std::{collections::BTreeMap, time::Duration};

/// What an app does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// It does not run.
    Asleep,
    /// It is frozen.
    Paused,
    /// It is being brought up.
    Waking,
    /// It serves.
    Awake,
    /// It takes nobody new and waits for the last one.
    Draining,
    /// It is being let down.
    Stopping,
    /// It did not start, or ended by itself.
    Failed,
}

/// One app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: RowState,
    /// For how long.
    pub since: Duration,
    /// How many use it now.
    pub passes: usize,
    /// When it goes to sleep, if nobody comes.
    pub sleeps_in: Option<Duration>,
}

/// The screen; it knows what it showed last.
#[derive(Debug)]
pub struct Screen {
    kind: Kind,
    shown: BTreeMap<String, RowState>,
}

#[derive(Debug)]
enum Kind {
    /// Lines for changes.
    Plain,
    /// A table, so many columns wide at most, of which so many lines are on the screen.
    Table { width: usize, lines: usize },
}

impl RowState {
    /// The word, a sign for it, and its colour by number.
    fn look(self) -> (&'static str, char, u8) {
        match self {
            Self::Asleep => ("asleep", '○', 90),
            Self::Paused => ("paused", '◌', 36),
            Self::Waking => ("waking", '◔', 33),
            Self::Awake => ("awake", '●', 32),
            Self::Draining => ("draining", '◑', 33),
            Self::Stopping => ("stopping", '◕', 33),
            Self::Failed => ("failed", '✕', 31),
        }
    }
}

impl Screen {
    /// A line for each change.
    pub fn plain() -> Self {
        Self { kind: Kind::Plain, shown: BTreeMap::new() }
    }

    /// A table on a terminal of so many columns.
    pub fn table(columns: u16) -> Self {
        Self { kind: Kind::Table { width: usize::from(columns).saturating_sub(1), lines: 0 }, shown: BTreeMap::new() }
    }

    /// What to write now. Empty when there is nothing new.
    pub fn render(&mut self, rows: &[Row]) -> String {
        let text = match &mut self.kind {
            Kind::Plain => changes(&self.shown, rows),
            Kind::Table { width, lines } => {
                let over = if *lines > 0 { format!("\x1b[{lines}A\r\x1b[J") } else { "\x1b[?25l".to_owned() };
                *lines = rows.len() + 1;
                over + &table(rows, *width)
            }
        };
        self.shown = rows.iter().map(|row| (row.name.clone(), row.state)).collect();
        text
    }

    /// What to write at the end: the cursor is shown again.
    pub fn finish(&mut self) -> &'static str {
        match self.kind {
            Kind::Plain | Kind::Table { lines: 0, .. } => "",
            Kind::Table { .. } => "\x1b[?25h",
        }
    }
}

fn changes(shown: &BTreeMap<String, RowState>, rows: &[Row]) -> String {
    let changed = rows.iter().filter(|row| shown.get(&row.name) != Some(&row.state));
    changed.map(|row| format!("{} is {}\n", row.name, row.state.look().0)).collect()
}

fn table(rows: &[Row], width: usize) -> String {
    let name_width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(4);
    let mut out =
        paint(&format!("  {:<name_width$}  {:<10}  {:>6}  {:>6}  next", "app", "state", "since", "in use"), width, 2);
    for row in rows {
        let (word, sign, colour) = row.state.look();
        let line = format!(
            "  {:<name_width$}  {sign} {word:<8}  {:>6}  {:>6}  {}",
            row.name,
            short(row.since),
            row.passes,
            next(row)
        );
        out.push_str(&paint(&line, width, colour));
    }
    out
}

/// A line in this colour, cut so that it never wraps.
fn paint(line: &str, width: usize, colour: u8) -> String {
    let cut: String = line.chars().take(width).collect();
    format!("\x1b[{colour}m{}\x1b[0m\n", cut.trim_end())
}

fn next(row: &Row) -> String {
    match (row.state, row.sleeps_in) {
        (RowState::Awake, _) if row.passes > 0 => "in use, stays awake".to_owned(),
        (RowState::Awake, Some(left)) => format!("sleeps in {}", short(left)),
        (RowState::Awake, None) => "stays awake".to_owned(),
        (RowState::Asleep | RowState::Paused, _) => "wakes on the next request".to_owned(),
        (RowState::Failed, _) => "tries again on a later request".to_owned(),
        (RowState::Waking | RowState::Draining | RowState::Stopping, _) => String::new(),
    }
}

/// Seconds, minutes or hours, in at most five characters.
fn short(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds @ 100..=5999 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, state: RowState, passes: usize, sleeps_in: Option<u64>) -> Row {
        let sleeps_in = sleeps_in.map(Duration::from_secs);
        Row { name: name.into(), state, since: Duration::from_secs(4), passes, sleeps_in }
    }

    /// Without colours and movements.
    fn bare(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('\x1b') {
            out.push_str(before);
            rest = &after[after.find(|c: char| c.is_ascii_alphabetic()).unwrap() + 1..];
        }
        out + rest
    }

    #[test]
    fn without_a_terminal_only_changes_are_told() {
        let mut screen = Screen::plain();
        let rows = [row("slow", RowState::Asleep, 0, None), row("nap", RowState::Paused, 0, None)];
        assert_eq!(screen.render(&rows), "slow is asleep\nnap is paused\n");
        assert_eq!(screen.render(&rows), "");
        assert_eq!(screen.render(&[row("slow", RowState::Waking, 0, None), rows[1].clone()]), "slow is waking\n");
        assert_eq!(screen.finish(), "");
    }

    #[test]
    fn the_table_says_what_comes_next() {
        let mut screen = Screen::table(100);
        let text = screen.render(&[
            row("slow", RowState::Awake, 0, Some(8)),
            row("live", RowState::Awake, 2, None),
            row("nap", RowState::Paused, 0, None),
        ]);
        assert_eq!(
            bare(&text),
            "  app   state        since  in use  next\n\
             \x20 slow  ● awake        4 s       0  sleeps in 8 s\n\
             \x20 live  ● awake        4 s       2  in use, stays awake\n\
             \x20 nap   ◌ paused       4 s       0  wakes on the next request\n"
        );
    }

    #[test]
    fn a_table_is_drawn_over_the_last_one_and_gives_the_cursor_back() {
        let mut screen = Screen::table(80);
        assert_eq!(screen.finish(), "");
        let rows = [row("slow", RowState::Asleep, 0, None), row("nap", RowState::Failed, 0, None)];
        assert!(screen.render(&rows).starts_with("\x1b[?25l"));
        assert!(screen.render(&rows).starts_with("\x1b[3A\r\x1b[J"));
        assert_eq!(screen.finish(), "\x1b[?25h");
    }

    #[test]
    fn no_line_wraps_on_a_narrow_terminal() {
        let text = Screen::table(20).render(&[row("a-rather-long-name", RowState::Draining, 1000, None)]);
        assert!(bare(&text).lines().all(|line| line.chars().count() < 20), "{text}");
    }

    #[test]
    fn times_stay_short() {
        for (seconds, expected) in [(0, "0 s"), (99, "99 s"), (100, "1 min"), (5999, "99 min"), (7200, "2 h")] {
            assert_eq!(short(Duration::from_secs(seconds)), expected);
        }
    }
}
