//! Text into HTML.

/// Escapes a text for element content and for attribute values in either kind of quotes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // NUL is no character of HTML; browsers replace it the same way.
            '\0' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_with_a_meaning_in_html_is_left() {
        assert_eq!(escape(r#"<b title='x' "&">"#), "&lt;b title=&#39;x&#39; &quot;&amp;&quot;&gt;");
        assert_eq!(escape("Grüße"), "Grüße");
    }
}
