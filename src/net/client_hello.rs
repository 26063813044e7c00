//! The first message of a TLS client, looked at without decrypting anything: whether it is one, which name it asks for,
//! and whether it is an authority's challenge.

/// The longest hello that is looked at, records and all. Those of browsers have about 2 KiB.
pub const LONGEST_HELLO: usize = 16 * 1024;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// A hello so far: more must come.
    More,
    /// No hello of TLS, or one that breaks the rules.
    Not,
    /// A whole hello.
    Whole {
        /// The name asked for, in lower case and without a dot at its end; absent: none was.
        name: Option<String>,
        /// It is an authority that wants to see that the name is ours (RFC 8737).
        is_challenge: bool,
    },
}

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: usize = 0;
const PROTOCOLS: usize = 16;
const HOST_NAME: u8 = 0;

/// The protocol of an authority's challenge (RFC 8737).
pub(super) const CHALLENGE: &[u8] = b"acme-tls/1";

/// The fatal alert for those who ask for a name that nobody answers to: `unrecognized_name` (RFC 6066, 3).
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Looks at the first bytes of a connection.
pub fn client_hello(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Ok(message) => match asked(message.as_slice()) {
            Some((name, is_challenge)) => Hello::Whole { name, is_challenge },
            None => Hello::Not,
        },
        Err(lacks) => lacks,
    }
}

/// The body of the hello, taken out of its records.
fn message(bytes: &[u8]) -> Result<Vec<u8>, Hello> {
    let mut input = Input(bytes);
    let mut message: Vec<u8> = Vec::new();
    loop {
        if let Some([kind, a, b, c]) = message.first_chunk::<4>() {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if *kind != CLIENT_HELLO || length > LONGEST_HELLO {
                return Err(Hello::Not);
            }
            if let Some(body) = message.get(4..4 + length) {
                return Ok(body.to_vec());
            }
        } else if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Hello::Not);
        }
        let head = [input.0.first(), input.0.get(1)];
        // What begins otherwise is not waited for.
        if head[0].is_some_and(|kind| *kind != HANDSHAKE_RECORD) || head[1].is_some_and(|major| *major != 3) {
            return Err(Hello::Not);
        }
        let more = if bytes.len() < LONGEST_HELLO { Hello::More } else { Hello::Not };
        let Some(length) = input.take(3).and_then(|_| input.number(2)) else { return Err(more) };
        if length == 0 || length > 1 << 14 {
            return Err(Hello::Not);
        }
        let here = input.0.len().min(length);
        message.extend_from_slice(input.take(here).unwrap_or_default());
        let whole = message.first_chunk::<4>().is_some_and(|[_, a, b, c]| {
            message.len() >= 4 + (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c))
        });
        if here < length && !whole {
            let foreign = message.first().is_some_and(|kind| *kind != CLIENT_HELLO);
            return Err(if foreign { Hello::Not } else { more });
        }
    }
}

/// The name in the body of a hello, and whether it is a challenge; `None` when the body breaks the rules.
fn asked(body: &[u8]) -> Option<(Option<String>, bool)> {
    let mut input = Input(body);
    input.take(2 + 32)?;
    input.vector(1)?;
    input.vector(2)?;
    input.vector(1)?;
    if input.0.is_empty() {
        return Some((None, false));
    }
    let mut extensions = Input(input.vector(2)?);
    let (mut found, mut is_challenge) = (None, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let content = extensions.vector(2)?;
        match kind {
            // Two names are no name.
            SERVER_NAME if found.is_some() => return None,
            SERVER_NAME => found = Some(server_name(content)?),
            PROTOCOLS => is_challenge = offers_challenge(content)?,
            _ => {}
        }
    }
    input.0.is_empty().then_some((found, is_challenge))
}

/// Whether the challenge is among the protocols that are offered.
fn offers_challenge(content: &[u8]) -> Option<bool> {
    let mut input = Input(content);
    let mut list = Input(input.vector(2)?);
    let mut found = false;
    while !list.0.is_empty() {
        found |= list.vector(1)? == CHALLENGE;
    }
    input.0.is_empty().then_some(found)
}

fn server_name(content: &[u8]) -> Option<String> {
    let mut input = Input(content);
    let mut list = Input(input.vector(2)?);
    let kind = list.number(1)?;
    let name = str::from_utf8(list.vector(2)?).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let sound = !name.is_empty() && name.len() <= 253 && name.bytes().all(sound);
    (kind == usize::from(HOST_NAME) && sound && input.0.is_empty() && list.0.is_empty())
        .then(|| name.to_ascii_lowercase())
}

/// What is left to be read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of one or two bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes behind their length, which has so many bytes itself.
    fn vector(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector(bytes: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[length.len() - bytes..], content].concat()
    }

    /// A hello that asks for these names, each in an extension of its own, cut into records of this size.
    pub(in crate::net) fn hello(names: &[&str], record: usize) -> Vec<u8> {
        hello_with(&[], names, record)
    }

    fn hello_with(protocols: &[&[u8]], names: &[&str], record: usize) -> Vec<u8> {
        let mut extensions = [&[0, 43][..], &vector(2, &[2, 3, 4])].concat();
        if !protocols.is_empty() {
            let list: Vec<u8> = protocols.iter().flat_map(|name| vector(1, name)).collect();
            extensions.extend([&[0, 16][..], &vector(2, &vector(2, &list))].concat());
        }
        for name in names {
            let entry = [&[0][..], &vector(2, name.as_bytes())].concat();
            extensions.extend([&[0, 0][..], &vector(2, &vector(2, &entry))].concat());
        }
        let body = [
            &[3, 3][..],
            &[7; 32],
            &vector(1, &[9; 32]),
            &vector(2, &[0x13, 0x01]),
            &vector(1, &[0]),
            &vector(2, &extensions),
        ]
        .concat();
        let message = [&[1][..], &vector(3, &body)].concat();
        message.chunks(record).flat_map(|part| [&[22, 3, 1][..], &vector(2, part)].concat()).collect()
    }

    fn whole(name: Option<&str>) -> Hello {
        Hello::Whole { name: name.map(str::to_owned), is_challenge: false }
    }

    #[test]
    fn a_challenge_is_told_from_other_protocols() {
        for (protocols, expected) in [
            (&[&b"h2"[..], b"http/1.1"][..], false),
            (&[b"acme-tls/1"], true),
            (&[b"h2", b"acme-tls/1"], true),
            (&[b"acme-tls/12"], false),
        ] {
            let whole = Hello::Whole { name: Some("a.test".to_owned()), is_challenge: expected };
            assert_eq!(client_hello(&hello_with(protocols, &["a.test"], 30)), whole, "{protocols:?}");
        }
        let broken = hello_with(&[b"h2"], &["a.test"], 16_384);
        let at = broken.windows(2).position(|pair| pair == b"h2").unwrap();
        let broken: Vec<u8> = broken.iter().enumerate().map(|(i, b)| if i == at - 1 { 9 } else { *b }).collect();
        assert_eq!(client_hello(&broken), Hello::Not);
    }

    #[test]
    fn the_name_is_found_however_the_hello_is_cut() {
        for record in [1, 3, 40, 16_384] {
            assert_eq!(client_hello(&hello(&["Db.Example.org."], record)), whole(Some("db.example.org")), "{record}");
            assert_eq!(client_hello(&hello(&[], record)), whole(None), "{record}");
        }
    }

    #[test]
    fn each_beginning_of_a_hello_asks_for_more() {
        let bytes = hello(&["db.example.org"], 50);
        for count in 0..bytes.len() {
            assert_eq!(client_hello(&bytes[..count]), Hello::More, "{count} bytes");
        }
        let with_more = [&bytes[..], &[23, 3, 3, 0, 1, 0]].concat();
        assert_eq!(client_hello(&with_more), whole(Some("db.example.org")));
    }

    #[test]
    fn what_is_no_hello_is_seen_at_once() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", &[22, 2], &[22, 3, 1, 0, 0], &[22, 3, 1, 0, 9, 2], &[0]]
        {
            assert_eq!(client_hello(bytes), Hello::Not, "{bytes:?}");
        }
        for names in [&["a", "b"][..], &["a b"], &[""], &["a\0"]] {
            assert_eq!(client_hello(&hello(names, 16_384)), Hello::Not, "{names:?}");
        }
    }

    #[test]
    fn no_more_is_waited_for_than_the_longest_hello() {
        let endless: Vec<u8> = [22, 3, 1, 0, 1, 1].repeat(3000);
        assert_eq!(client_hello(&endless), Hello::Not);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_a_verdict_stays(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            let mut changed = hello(&["db.example.org"], 60);
            let at = cut % changed.len();
            changed[at] = bytes.first().copied().unwrap_or_default();
            for bytes in [bytes, changed] {
                let part = client_hello(&bytes[..cut.min(bytes.len())]);
                if part != Hello::More {
                    prop_assert_eq!(client_hello(&bytes), part);
                }
            }
        }
    }
}
