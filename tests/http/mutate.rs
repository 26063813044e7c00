//! Requests that nobody thought of: cases of the battery, changed at random by a seed.

/// A small generator (xorshift): the same seed gives the same requests everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

/// What goes into the changed bytes: the words and symbols on which readers differ.
const WORDS: [&[u8]; 44] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b" ",
    b"\t",
    b"\0",
    b":",
    b",",
    b";",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"\xc2\x85",
    b"0",
    b"5",
    b"-1",
    b"+5",
    b"0x5",
    b"ffffffffffffffff",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"chunked",
    b"identity",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 05\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"transfer-encoding:chunked\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b" Transfer-Encoding: chunked\r\n",
    b"X: y\r\n",
    b"Host: app.test\r\n",
    b"Host: other.test\r\n",
    b"Connection: close\r\n",
    b"Connection: Content-Length\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"GET /inserted HTTP/1.1\r\nHost: app.test\r\n\r\n",
    b"POST /inserted HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello",
];

impl Random {
    /// From a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).expect("smaller than a usize")
    }
}

/// One of the corpus, changed in one to four places.
pub(crate) fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let to = (at + random.below(12)).min(bytes.len());
        let word = WORDS[random.below(WORDS.len())];
        match random.below(8) {
            0 => drop(bytes.splice(at..at, word.iter().copied())),
            1 => drop(bytes.splice(at..to, word.iter().copied())),
            2 => drop(bytes.drain(at..to)),
            3 => {
                let piece = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            4 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = u8::try_from(random.below(256)).expect("a byte");
                }
            }
            5 => between_lines(random, &mut bytes, word),
            6 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => swap_lines(random, &mut bytes),
        }
    }
    bytes
}

/// Puts a word where a line begins.
fn between_lines(random: &mut Random, bytes: &mut Vec<u8>, word: &[u8]) {
    let starts: Vec<_> =
        bytes.windows(2).enumerate().filter(|(_, pair)| pair == b"\r\n").map(|(at, _)| at + 2).collect();
    if !starts.is_empty() {
        let at = starts[random.below(starts.len())];
        drop(bytes.splice(at..at, word.iter().copied()));
    }
}

fn swap_lines(random: &mut Random, bytes: &mut Vec<u8>) {
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if lines.len() > 1 {
        let (one, two) = (random.below(lines.len()), random.below(lines.len()));
        lines.swap(one, two);
        *bytes = lines.concat();
    }
}
