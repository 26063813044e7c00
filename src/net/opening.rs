//! Whether the first bytes of a connection are those of a protocol.

use super::{
    client_hello::{Hello, client_hello},
    minecraft::{Handshake, handshake},
};
use crate::model::Opening;

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// They are.
    Yes,
    /// They are not, whatever comes.
    No,
    /// They may be: more must come.
    More,
}

/// The longest first line of HTTP that is waited for.
const LONGEST_LINE: usize = 8 * 1024;

/// The longest start of a session of PostgreSQL; its servers take no longer one.
const LONGEST_START: u32 = 10_000;

/// Whether a connection that begins so begins with one of these openings. With none named, any byte does.
pub fn judge(openings: &[Opening], bytes: &[u8]) -> Judgement {
    if openings.is_empty() {
        return if bytes.is_empty() { Judgement::More } else { Judgement::Yes };
    }
    let mut judgement = Judgement::No;
    for opening in openings {
        match one(*opening, bytes) {
            Judgement::Yes => return Judgement::Yes,
            Judgement::More => judgement = Judgement::More,
            Judgement::No => {}
        }
    }
    judgement
}

fn one(opening: Opening, bytes: &[u8]) -> Judgement {
    match opening {
        Opening::Tls => match client_hello(bytes) {
            Hello::Whole { .. } => Judgement::Yes,
            Hello::More => Judgement::More,
            Hello::Not => Judgement::No,
        },
        Opening::Http => http(bytes),
        Opening::Postgres => postgres(bytes),
        Opening::Minecraft => match handshake(bytes) {
            Handshake::Login => Judgement::Yes,
            Handshake::More => Judgement::More,
            Handshake::Status { .. } | Handshake::Not => Judgement::No,
        },
    }
}

/// A request line of HTTP/1, or the preface of HTTP/2, which looks like one.
fn http(bytes: &[u8]) -> Judgement {
    let end = bytes.iter().position(|b| *b == b'\n');
    let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    let token = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    let method = line.get(..token).unwrap_or_default();
    let is_token = method.iter().all(|b| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_' | b'!' | b'$' | b'.'));
    if !is_token || method.len() > 32 || line.iter().any(|b| b.is_ascii_control() && *b != b'\r') {
        return Judgement::No;
    }
    if end.is_none() {
        return if bytes.len() < LONGEST_LINE { Judgement::More } else { Judgement::No };
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let sound = match words.as_slice() {
        [method, target, version] => {
            let is_version = version.starts_with(b"HTTP/1.") || (*version == b"HTTP/2.0" && *method == b"PRI");
            !method.is_empty() && !target.is_empty() && is_version
        }
        _ => false,
    };
    if sound { Judgement::Yes } else { Judgement::No }
}

/// The start of a session, or the question whether it may be encrypted. Whoever cancels a query finds none in a server
/// that sleeps.
fn postgres(bytes: &[u8]) -> Judgement {
    const ASKS_FOR_TLS: u32 = 80_877_103;
    const ASKS_FOR_GSS: u32 = 80_877_104;
    // The length of a start is below 2^16.
    if bytes.iter().take(2).any(|b| *b != 0) {
        return Judgement::No;
    }
    let word = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|four| u32::from_be_bytes(*four));
    let Some(length) = word(0) else { return Judgement::More };
    if !(8..=LONGEST_START).contains(&length) {
        return Judgement::No;
    }
    match word(4) {
        None => Judgement::More,
        Some(ASKS_FOR_TLS | ASKS_FOR_GSS) if length == 8 => Judgement::Yes,
        Some(version) if version >> 16 == 3 => {
            let Some(pairs) = bytes.get(8..length as usize) else { return Judgement::More };
            let names_user = pairs.split(|b| *b == 0).step_by(2).any(|key| key == b"user");
            if names_user && pairs.ends_with(&[0, 0]) { Judgement::Yes } else { Judgement::No }
        }
        Some(_) => Judgement::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{client_hello::tests::hello, minecraft::tests::packet};
    use proptest::prelude::*;

    fn start(version: u32, pairs: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + pairs.len()).unwrap();
        [&length.to_be_bytes()[..], &version.to_be_bytes(), pairs].concat()
    }

    fn openings() -> Vec<(Opening, Vec<u8>)> {
        vec![
            (Opening::Tls, hello(&["a.example.org"], 16_384)),
            (Opening::Http, b"GET /a?b HTTP/1.1\r\n".to_vec()),
            (Opening::Http, b"PRI * HTTP/2.0\r\n".to_vec()),
            (Opening::Postgres, start(3 << 16, b"user\0me\0database\0d\0\0")),
            (Opening::Postgres, start((3 << 16) + 2, b"database\0user\0user\0me\0\0")),
            (Opening::Postgres, [0, 0, 0, 8, 4, 210, 22, 47].to_vec()),
            (Opening::Postgres, [0, 0, 0, 8, 4, 210, 22, 48].to_vec()),
            (Opening::Minecraft, packet(47, "mc.example.org", 2)),
        ]
    }

    #[test]
    fn each_opening_is_known_and_no_other_is_taken_for_it() {
        for (opening, bytes) in openings() {
            for count in 0..bytes.len() {
                let part = judge(&[opening], &bytes[..count]);
                // A request line ends one byte before its line end is whole.
                assert!(part == Judgement::More, "{count} bytes of {opening}: {part:?}");
            }
            for other in Opening::ALL {
                let expected = if other == opening { Judgement::Yes } else { Judgement::No };
                assert_eq!(judge(&[other], &bytes), expected, "{opening} as {other}");
            }
            assert_eq!(judge(&Opening::ALL, &bytes), Judgement::Yes);
        }
    }

    #[test]
    fn what_scanners_send_is_none() {
        let strange: [&[u8]; 9] = [
            b"\r\n\r\n",
            b"SSH-2.0-Go\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"GET /\r\n",
            b"GET / HTTP/3\r\n",
            &start(3 << 16, b"database\0user\0\0"),
            &start(2 << 16, b"user\0me\0\0"),
            &[0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 1],
            &packet(47, "mc.example.org", 1),
        ];
        for bytes in strange {
            assert_eq!(judge(&Opening::ALL, bytes), Judgement::No, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(judge(&[Opening::Http], &[b'A'; LONGEST_LINE]), Judgement::No);
    }

    #[test]
    fn without_openings_a_byte_does() {
        assert_eq!(judge(&[], b""), Judgement::More);
        assert_eq!(judge(&[], b"\0"), Judgement::Yes);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_a_verdict_stays(bytes in proptest::collection::vec(any::<u8>(), 0..80), cut in 0usize..80, which in 0..9usize) {
            let mut bytes = bytes;
            if let Some((_, known)) = openings().get(which) {
                bytes = [known.get(..cut.min(known.len())).unwrap_or_default(), &bytes].concat();
            }
            for opening in Opening::ALL {
                let part = judge(&[opening], &bytes[..cut.min(bytes.len())]);
                if part != Judgement::More {
                    prop_assert_eq!(judge(&[opening], &bytes), part);
                }
            }
        }
    }
}
