//! What can be told of the body of a request by what of it has come, before any of it is worked on.

use super::{
    answer::{Answer, MALFORMED_BODY, TOO_LARGE},
    chunk::ChunkScanner,
    request_head::Framing,
};

/// A body by its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BegunBody {
    /// All of it is there.
    Whole,
    /// More of it is to come.
    Part,
    /// It breaks the rules of chunked coding.
    Malformed,
    /// It has more data than there may be.
    TooLarge,
}

impl BegunBody {
    /// Reads what has come, which may be followed by something else. `most`: bytes of data that there may be.
    pub(super) fn of(framing: Framing, input: &[u8], most: u64) -> Self {
        match framing {
            Framing::Length(length) if length > most => Self::TooLarge,
            Framing::Length(length) if length > input.len() as u64 => Self::Part,
            Framing::Length(_) | Framing::Empty | Framing::UntilClose => Self::Whole,
            Framing::Chunked => Self::of_chunks(input, most),
        }
    }

    fn of_chunks(input: &[u8], most: u64) -> Self {
        let mut scanner = ChunkScanner::new(false);
        scanner.bound(most);
        match scanner.scan(&mut input.to_vec(), &mut Vec::new()) {
            Err(_) => Self::Malformed,
            Ok(_) if scanner.is_over() => Self::TooLarge,
            Ok(read) if read.done => Self::Whole,
            Ok(_) => Self::Part,
        }
    }

    /// What is said to it without anybody else being asked.
    pub(super) fn refusal(self) -> Option<Answer> {
        match self {
            Self::Whole | Self::Part => None,
            Self::Malformed => Some(Answer::new(400, MALFORMED_BODY)),
            Self::TooLarge => Some(Answer::new(413, TOO_LARGE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_there_or_not_whatever_follows_it() {
        let check = |framing, input: &str, expected| {
            assert_eq!(BegunBody::of(framing, input.as_bytes(), 5), expected, "{framing:?} {input:?}");
        };
        for whole in
            ["0\r\n\r\n", "3\r\nabc\r\n0\r\nX: y\r\n\r\n", "1\r\na\r\n00;x\r\n\r\n", "0\r\n\r\nGET / HTTP/1.1\r\n"]
        {
            check(Framing::Chunked, whole, BegunBody::Whole);
        }
        for part in ["", "0\r\n", "5\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\nX: y\r\n"] {
            check(Framing::Chunked, part, BegunBody::Part);
        }
        for malformed in ["zz\r\n", "3\nabc", "1\r\nab\r\n", "0\r\nX y\r\n\r\n"] {
            check(Framing::Chunked, malformed, BegunBody::Malformed);
        }
        for large in ["6\r\nabcdef", "3\r\nabc\r\n3\r\ndef"] {
            check(Framing::Chunked, large, BegunBody::TooLarge);
        }
        check(Framing::Length(4), "abc", BegunBody::Part);
        check(Framing::Length(3), "abcd", BegunBody::Whole);
        check(Framing::Length(6), "", BegunBody::TooLarge);
        check(Framing::Empty, "zz\r\n", BegunBody::Whole);
    }
}
