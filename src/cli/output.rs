//! Standard output: plain writes, and colours where a person looks.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::trouble::Trouble;

/// Where answers are written.
#[derive(Debug)]
pub(super) struct Output {
    colours: bool,
    stdout: io::Stdout,
}

/// The few colours, by what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Quiet,
    Busy,
    Bad,
}

impl Output {
    pub(super) fn new() -> Self {
        let stdout = io::stdout();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colours: stdout.is_terminal() && !refused && !dumb, stdout }
    }

    pub(super) fn line(&self, text: &str) -> Result<(), Trouble> {
        let mut stdout = self.stdout.lock();
        stdout.write_all(text.as_bytes())?;
        stdout.write_all(b"\n")?;
        Ok(stdout.flush()?)
    }

    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), Trouble> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Trouble::Failed(error.to_string()))?;
        self.line(&text)
    }

    /// A text in a colour, when there are colours.
    pub(super) fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Quiet => "2",
            Tone::Busy => "33",
            Tone::Bad => "31",
            Tone::Plain => return text.to_owned(),
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Tells a person on standard error; nobody there is no error.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
