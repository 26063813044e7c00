//! Options by name.

use std::{collections::HashMap, env, time::Duration};

/// The words behind each name.
pub(crate) type Options = HashMap<String, String>;

/// Those of the command line: `--name`, `--name value`, `--name=value`.
pub(crate) fn read() -> Options {
    let mut options = HashMap::new();
    let mut words = env::args().skip(1).peekable();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--") else { continue };
        let value = match name.split_once('=') {
            Some((name, value)) => {
                options.insert(name.to_owned(), value.to_owned());
                continue;
            }
            None => words.next_if(|next| !next.starts_with("--")).unwrap_or_default(),
        };
        options.insert(name.to_owned(), value);
    }
    options
}

/// One that is a number.
pub(crate) fn number(options: &Options, name: &str, default: u64) -> u64 {
    options.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One that is a duration.
pub(crate) fn time(options: &Options, name: &str) -> Duration {
    let text = options.get(name).map_or("0", String::as_str);
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let amount: f64 = digits.parse().unwrap_or(0.0);
    Duration::from_secs_f64(if unit == "s" { amount } else { amount / 1000.0 })
}
