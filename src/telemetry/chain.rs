//! An error with all its causes, on one line.

use std::error::Error;

/// The error and its causes, joined by colons. A cause that the text before already ends with is not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{what}")]
    struct Layer {
        what: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(whats: &[&'static str]) -> Option<Box<Layer>> {
        let (what, rest) = whats.split_first()?;
        Some(Box::new(Layer { what, source: layers(rest) }))
    }

    fn check(whats: &[&'static str], expected: &str) {
        assert_eq!(chain(&*layers(whats).unwrap()), expected);
    }

    #[test]
    fn each_cause_follows_and_none_is_repeated() {
        check(&["start container `a`"], "start container `a`");
        check(
            &["start container `a`", "ask the engine", "no such file"],
            "start container `a`: ask the engine: no such file",
        );
        check(&["start: no such file", "no such file", "os error 2"], "start: no such file: os error 2");
    }
}
