//! A strict reader of chunked bodies that works in place: what it lets through is what it understood.
//!
//! Sizes are hexadecimal digits alone, every line ends in CR LF, extensions are dropped, trailer fields are checked
//! and those that must not trail are dropped. Anything else is an error: never guessed, never passed on.

use std::sync::Arc;

use crate::model::RouteOptions;

use super::field;

/// The body broke the rules of chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub struct BadChunk;

/// Trailer sections and extensions are at most this long.
const SIDE_LIMIT: usize = 8 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a size, so many read.
    Size(u8),
    /// In an extension, which is dropped.
    Extension,
    /// After the CR of a size line.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// After the last chunk's size line.
    Trailer,
    Done,
}

/// The reader.
#[derive(Debug)]
pub struct ChunkScanner {
    state: State,
    left: u64,
    /// Bytes of extensions in this line.
    side: usize,
    /// A trailer section that did not come at once.
    trailer: Vec<u8>,
    passes: Passes,
    /// Bytes of data that may be taken before [`ChunkScanner::bound`] is called again.
    room: u64,
    /// Of the route whose fields must not trail either; absent where it has none.
    route: Option<Arc<RouteOptions>>,
}

/// What is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passes {
    Everything,
    Data,
    /// The data, and the trailer section apart from it.
    DataAndTrailer,
}

/// What became of a piece of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// So many bytes of the input belong to the body.
    pub consumed: usize,
    /// So many bytes, now at the front of the input, are to be passed on.
    pub produced: usize,
    /// The body is over.
    pub done: bool,
}

impl ChunkScanner {
    /// A reader that lets the framing through, or the data alone.
    pub fn new(data_only: bool) -> Self {
        Self::with(if data_only { Passes::Data } else { Passes::Everything })
    }

    /// A reader that lets the data through, and gives the trailer section as `tail`.
    pub(super) fn apart() -> Self {
        Self::with(Passes::DataAndTrailer)
    }

    fn with(passes: Passes) -> Self {
        Self { state: State::Size(0), left: 0, side: 0, trailer: Vec::new(), passes, room: u64::MAX, route: None }
    }

    /// From now on, no more than so many bytes of data are taken.
    pub(super) fn bound(&mut self, most: u64) {
        self.room = most;
    }

    /// Drops the trailers that the route withholds in the head.
    pub(super) fn withhold(&mut self, route: &Arc<RouteOptions>) {
        let has_own = !route.set_request_headers.is_empty() || !route.hide_request_headers.is_empty();
        self.route = has_own.then(|| Arc::clone(route));
    }

    /// More data is to come than there is room for.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Data && self.room == 0 && self.left > 0
    }

    /// Reads on. What is to be passed on is moved to the front of `input`; trailers that came in pieces are put
    /// into `tail`, to be passed on behind it.
    pub fn scan(&mut self, input: &mut [u8], tail: &mut Vec<u8>) -> Result<Scanned, BadChunk> {
        let (mut read, mut write) = (0, 0);
        while self.state != State::Done {
            if self.state == State::Data {
                let most = self.left.min(self.room);
                let here = usize::try_from(most).unwrap_or(usize::MAX).min(input.len() - read);
                if write != read {
                    input.copy_within(read..read + here, write);
                }
                (read, write) = (read + here, write + here);
                self.left -= here as u64;
                self.room -= here as u64;
                if self.left > 0 {
                    break;
                }
                self.state = State::DataCr;
            }
            if self.state == State::Trailer {
                read += self.trailer(input.get(read..).unwrap_or_default(), tail)?;
                break;
            }
            let Some(byte) = input.get(read).copied() else { break };
            read += 1;
            if self.line(byte)?
                && self.passes == Passes::Everything
                && let Some(to) = input.get_mut(write)
            {
                *to = byte;
                write += 1;
            }
        }
        Ok(Scanned { consumed: read, produced: write, done: self.state == State::Done })
    }

    /// One byte of framing; says whether it is passed on.
    fn line(&mut self, byte: u8) -> Result<bool, BadChunk> {
        let pass = match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => {
                // A size that does not fit a signed number of 64 bits would mean something else to some readers.
                if digits == 16 || self.left >> 59 != 0 {
                    return Err(BadChunk);
                }
                let value = (byte as char).to_digit(16).unwrap_or(0);
                self.left = self.left << 4 | u64::from(value);
                self.state = State::Size(digits + 1);
                true
            }
            (State::Size(1..), b'\r') | (State::Extension, b'\r') => {
                self.state = State::SizeLf;
                true
            }
            (State::Size(1..), b';') => {
                (self.state, self.side) = (State::Extension, 1);
                false
            }
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.side += 1;
                if self.side > SIDE_LIMIT {
                    return Err(BadChunk);
                }
                false
            }
            (State::SizeLf, b'\n') => {
                self.state = if self.left == 0 { State::Trailer } else { State::Data };
                true
            }
            (State::DataCr, b'\r') => {
                self.state = State::DataLf;
                true
            }
            (State::DataLf, b'\n') => {
                self.state = State::Size(0);
                true
            }
            (
                State::Size(_)
                | State::Extension
                | State::SizeLf
                | State::Data
                | State::DataCr
                | State::DataLf
                | State::Trailer
                | State::Done,
                _,
            ) => return Err(BadChunk),
        };
        Ok(pass)
    }

    /// Takes from the trailer section and says how much; at its end what may pass is put into `tail`.
    fn trailer(&mut self, input: &[u8], tail: &mut Vec<u8>) -> Result<usize, BadChunk> {
        for (index, byte) in input.iter().enumerate() {
            self.trailer.push(*byte);
            if self.trailer == b"\r\n" || self.trailer.ends_with(b"\r\n\r\n") {
                let section = trailers(&self.trailer, self.route.as_deref())?;
                if self.passes != Passes::Data {
                    tail.extend_from_slice(&section);
                }
                self.trailer = Vec::new();
                self.state = State::Done;
                return Ok(index + 1);
            }
            let lone_lf = *byte == b'\n' && !self.trailer.ends_with(b"\r\n");
            if lone_lf || self.trailer.len() > SIDE_LIMIT {
                return Err(BadChunk);
            }
        }
        Ok(input.len())
    }
}

/// Reads a trailer section and gives what of it may pass.
fn trailers(section: &[u8], route: Option<&RouteOptions>) -> Result<Vec<u8>, BadChunk> {
    if !field::lines_end_in_crlf(section) {
        return Err(BadChunk);
    }
    let mut fields = [httparse::EMPTY_HEADER; 64];
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((length, _))) if length == section.len() => {}
        Ok(httparse::Status::Complete(_) | httparse::Status::Partial) | Err(_) => return Err(BadChunk),
    }
    let mut passing = Vec::new();
    for field in fields.iter().take_while(|field| !field.name.is_empty()) {
        let name = field.name.as_bytes();
        if field::may_trail(name) && !route.is_some_and(|route| field::withholds(route, name)) {
            for part in [name, b": ", field.value, b"\r\n"] {
                passing.extend_from_slice(part);
            }
        }
    }
    passing.extend_from_slice(b"\r\n");
    Ok(passing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the text in pieces; what was passed on, what was left over, or an error.
    fn run(text: &[u8], piece: usize, data_only: bool) -> Result<(Vec<u8>, Option<Vec<u8>>), BadChunk> {
        let (mut scanner, mut out, mut at) = (ChunkScanner::new(data_only), Vec::new(), 0);
        while at < text.len() {
            let mut input = text[at..(at + piece).min(text.len())].to_vec();
            let mut tail = Vec::new();
            let scanned = scanner.scan(&mut input, &mut tail)?;
            out.extend_from_slice(&input[..scanned.produced]);
            out.extend_from_slice(&tail);
            at += scanned.consumed;
            if scanned.done {
                return Ok((out, Some(text[at..].to_vec())));
            }
            assert_eq!(scanned.consumed, input.len());
        }
        Ok((out, None))
    }

    #[test]
    fn good_bodies_pass_in_any_pieces() {
        let cases: &[(&str, &str, &str)] = &[
            ("0\r\n\r\n", "0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("a;x=\"y\"\r\n0123456789\r\n00;z\r\n\r\n", "a\r\n0123456789\r\n00\r\n\r\n", "0123456789"),
            ("1\r\na\r\n0\r\nX: y\r\nContent-Length: 5\r\n\r\n", "1\r\na\r\n0\r\nX: y\r\n\r\n", "a"),
        ];
        for (text, raw, data) in cases {
            for piece in 1..=text.len() {
                assert_eq!(run(text.as_bytes(), piece, false), Ok((raw.as_bytes().to_vec(), Some(vec![]))), "{text:?}");
                assert_eq!(run(text.as_bytes(), piece, true), Ok((data.as_bytes().to_vec(), Some(vec![]))), "{text:?}");
            }
        }
    }

    #[test]
    fn what_follows_the_body_is_left_alone() {
        assert_eq!(run(b"1\r\na\r\n0\r\n\r\nGET /", 64, false).unwrap().1.unwrap(), b"GET /");
    }

    #[test]
    fn doubtful_bodies_are_refused() {
        for text in [
            "\r\n",
            "5\nhello\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "-1\r\n",
            "5;a\nb\r\nhello\r\n",
            "5;a\rb\r\nhello\r\n",
            "5;\0\r\nhello\r\n",
            "10000000000000000\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\nX: y\n\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\n\n",
            "g\r\n",
            "5\r\rhello",
        ] {
            for piece in [1, 3, text.len()] {
                let result = run(text.as_bytes(), piece, false);
                assert_eq!(result, Err(BadChunk), "{text:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn endless_side_matter_is_refused() {
        let extension = format!("5;{}\r\n", "x".repeat(SIDE_LIMIT + 1));
        assert_eq!(run(extension.as_bytes(), 1000, false), Err(BadChunk));
        let trailer = format!("0\r\n{}", "X: y\r\n".repeat(SIDE_LIMIT / 6 + 1));
        assert_eq!(run(trailer.as_bytes(), 1000, false), Err(BadChunk));
    }

    proptest! {
        #[test]
        fn bytes_never_panic_and_pieces_never_matter(text in prop::collection::vec(
            prop_oneof![Just(b'0'), Just(b'2'), Just(b'\r'), Just(b'\n'), Just(b';'), Just(b'a'), any::<u8>()], 0..60),
            piece in 1usize..9,
        ) {
            prop_assert_eq!(run(&text, piece, false).is_err(), run(&text, 1, false).is_err());
            if let (Ok(a), Ok(b)) = (run(&text, piece, true), run(&text, 1, true)) {
                prop_assert_eq!(a, b);
            }
        }
    }
}
