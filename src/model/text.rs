//! What texts of HTTP and addresses are made of: tokens, and escapes of bytes.

/// Whether this is a token of RFC 9110, as methods and names of header fields are.
pub fn is_token(text: impl AsRef<[u8]>) -> bool {
    let of_token = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
    };
    let text = text.as_ref();
    !text.is_empty() && text.iter().all(of_token)
}

/// The byte that the escape at the beginning of a text stands for: `A` of `%41`. None where no escape is.
pub fn escaped_byte(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match text {
        [b'%', high, low, ..] => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
        _ => None,
    }
}

/// The bytes of a text with its escapes undone; what is none stays as it is.
pub fn without_escapes(text: &str) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, ..] = rest {
        let (byte, length) = escaped_byte(rest).map_or((*first, 1), |byte| (byte, 3));
        plain.push(byte);
        rest = rest.get(length..).unwrap_or_default();
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_of_ascii_and_have_no_separators() {
        for good in ["GET", "x-a_1", "!#$%&'*+-.^_`|~"] {
            assert!(is_token(good), "{good}");
        }
        for bad in ["", "a b", "a:b", "a/b", "a\"", "(a)", "ä", "a\n", "a\0", "\x7f"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    #[test]
    fn escapes_are_two_digits_behind_a_percent_sign() {
        for (text, plain) in [
            ("", &b""[..]),
            ("a%20b", b"a b"),
            ("%C3%a4", "ä".as_bytes()),
            ("%ff", b"\xff"),
            ("%2561", b"%61"),
            ("%", b"%"),
            ("%4", b"%4"),
            ("%zz%+1%41", b"%zz%+1A"),
            ("ä%6", "ä%6".as_bytes()),
        ] {
            assert_eq!(without_escapes(text), plain, "{text}");
        }
    }
}
