//! Own waiting pages: a text with placeholders.
//!
//! A template is a whole HTML document. `{{title}}`, `{{heading}}`, `{{status}}`, `{{dependencies}}` (list items),
//! `{{language}}` and `{{expected_seconds}}` (empty when not known) are replaced, everything escaped. Elements with
//! the ids `status` and `dependencies` are kept up to date, and the element with the id `waiting` vanishes when the
//! wake fails. Styles may be inline, images and fonts may come from `data:` and `https:`; scripts are Dormouse's alone.

/// The placeholders that a template may hold.
const PLACEHOLDERS: [&str; 6] = ["title", "heading", "status", "dependencies", "language", "expected_seconds"];

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// It holds a placeholder that is not known.
    #[error("`{{{{{0}}}}}` is no placeholder of a waiting page: use {known}", known = known())]
    Unknown(String),
    /// It is so large that it would be slow to show.
    #[error("a waiting page of {0} bytes is too large: keep it below 256 KiB")]
    TooLarge(usize),
}

fn known() -> String {
    PLACEHOLDERS.map(|name| format!("`{{{{{name}}}}}`")).join(", ")
}

/// Checks an own waiting page.
pub fn check_template(text: &str) -> Result<(), BadTemplate> {
    if text.len() > 256 * 1024 {
        return Err(BadTemplate::TooLarge(text.len()));
    }
    match pieces(text).find_map(|piece| match piece {
        Piece::Placeholder(name) if !PLACEHOLDERS.contains(&name) => Some(name),
        Piece::Placeholder(_) | Piece::Text(_) => None,
    }) {
        Some(name) => Err(BadTemplate::Unknown(name.to_owned())),
        None => Ok(()),
    }
}

/// Fills a template. `value` gives HTML for a placeholder; one that it does not know stays as it was written.
pub(super) fn fill_template(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len() + 256);
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Placeholder(name) => match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("{{{{{name}}}}}")),
            },
        }
    }
    out
}

enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

/// A placeholder is `{{`, a word of lower-case letters and `_` with or without blanks around it, `}}`. Anything else
/// in braces (styles, scripts) is text.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((name, tail)) = placeholder(rest) {
            rest = tail;
            return Some(Piece::Placeholder(name));
        }
        let next = rest.char_indices().skip(1).find(|(at, _)| placeholder(&rest[*at..]).is_some());
        let (text, tail) = rest.split_at(next.map_or(rest.len(), |(at, _)| at));
        rest = tail;
        Some(Piece::Text(text))
    })
}

fn placeholder(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix("{{")?;
    let end = inside.find(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == ' '))?;
    let tail = inside[end..].strip_prefix("}}")?;
    let name = inside[..end].trim();
    (!name.is_empty()).then_some((name, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_braces_of_styles_left_alone() {
        let value = |name: &str| (name == "title").then(|| "Wiki".to_owned());
        let filled =
            fill_template("<style>a{b:c}@media x{{}}</style>{{title}} {{ title }} {{other}} {{{title}}", value);
        assert_eq!(filled, "<style>a{b:c}@media x{{}}</style>Wiki Wiki {{other}} {Wiki");
    }

    #[test]
    fn a_filled_value_is_not_read_again() {
        let value = |name: &str| Some(if name == "title" { "{{status}}".to_owned() } else { "S".to_owned() });
        assert_eq!(fill_template("{{title}}{{status}}", value), "{{status}}S");
    }

    #[test]
    fn unknown_placeholders_are_named() {
        assert_eq!(check_template("<p>{{title}} {{status}}</p>"), Ok(()));
        assert_eq!(check_template("{{titel}}"), Err(BadTemplate::Unknown("titel".into())));
        assert!(check_template("{{titel}}").unwrap_err().to_string().contains("`{{title}}`"));
        assert!(matches!(check_template(&"x".repeat(300_000)), Err(BadTemplate::TooLarge(300_000))));
    }
}
