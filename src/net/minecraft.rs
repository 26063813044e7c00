//! The beginning of a session of Minecraft (Java edition): a ping of the server list, or a player who joins.

/// The longest handshake: numbers, a port, and a server name of 255 characters.
const LONGEST: usize = 1100;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// A handshake so far: more must come.
    More,
    /// No handshake.
    Not,
    /// A server list wants to know how the server is.
    Status {
        /// The version of the protocol that the client speaks.
        protocol: i32,
        /// How many bytes the handshake has.
        length: usize,
    },
    /// A player joins.
    Login,
}

/// Looks at the first bytes of a connection.
pub fn handshake(bytes: &[u8]) -> Handshake {
    let mut input = bytes;
    let size = match number(&mut input) {
        Some(Ok(size)) => usize::try_from(size).ok().filter(|size| (6..=LONGEST).contains(size)),
        Some(Err(())) => None,
        None => return Handshake::More,
    };
    let Some(size) = size else { return Handshake::Not };
    let Some(packet) = input.get(..size) else {
        // Each packet begins with its kind, which is 0 here.
        return if input.first().is_some_and(|kind| *kind != 0) { Handshake::Not } else { Handshake::More };
    };
    let length = bytes.len() - input.len() + size;
    match read(packet) {
        Some((protocol, 1)) => Handshake::Status { protocol, length },
        // 3: a player who is handed over by another server.
        Some((_, 2 | 3)) => Handshake::Login,
        _ => Handshake::Not,
    }
}

/// The version and what the client is about to do.
fn read(mut packet: &[u8]) -> Option<(i32, i32)> {
    let kind = number(&mut packet)?.ok()?;
    let protocol = number(&mut packet)?.ok()?;
    let name = usize::try_from(number(&mut packet)?.ok()?).ok()?;
    str::from_utf8(packet.get(..name)?).ok()?;
    packet = packet.get(name + 2..)?;
    let next = number(&mut packet)?.ok()?;
    (kind == 0 && packet.is_empty()).then_some((protocol, next))
}

/// A number of one to five bytes, the low bits first; `None` when more must come.
fn number(input: &mut &[u8]) -> Option<Result<i32, ()>> {
    let mut value: u32 = 0;
    for (index, byte) in input.iter().take(5).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            *input = input.get(index + 1..).unwrap_or_default();
            return Some(Ok(value.cast_signed()));
        }
    }
    if input.len() < 5 { None } else { Some(Err(())) }
}

fn put_number(out: &mut Vec<u8>, value: usize) {
    let mut value = value;
    while value > 0x7F {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The answer to a ping of a server list: nobody plays, and these words.
pub fn status_answer(protocol: i32, words: &str) -> Vec<u8> {
    let words: String = words.chars().flat_map(escaped).collect();
    let text = format!(
        r#"{{"version":{{"name":"asleep","protocol":{protocol}}},"players":{{"max":0,"online":0}},"description":{{"text":"{words}"}}}}"#
    );
    let mut content = vec![0];
    put_number(&mut content, text.len());
    content.extend(text.bytes());
    let mut packet = Vec::with_capacity(content.len() + 5);
    put_number(&mut packet, content.len());
    packet.extend(content);
    packet
}

/// A character inside a string of JSON.
fn escaped(c: char) -> Vec<char> {
    match c {
        '"' | '\\' => vec!['\\', c],
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)).chars().collect(),
        c => vec![c],
    }
}

/// What a client sends behind its handshake for a status, and our answer: the request itself (`None` inside), or a
/// ping, which comes back as it is. `None`: more must come, or it is neither.
pub fn pong(bytes: &[u8]) -> Option<(usize, Option<Vec<u8>>)> {
    match bytes {
        [1, 0, ..] => Some((2, None)),
        [9, 1, ..] => bytes.get(..10).map(|ping| (10, Some(ping.to_vec()))),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::net) fn packet(protocol: u8, name: &str, next: u8) -> Vec<u8> {
        let mut content = vec![0, protocol];
        put_number(&mut content, name.len());
        content.extend(name.bytes());
        content.extend([0x63, 0xDD, next]);
        let mut packet = Vec::new();
        put_number(&mut packet, content.len());
        packet.extend(content);
        packet
    }

    #[test]
    fn logins_are_told_from_pings() {
        let ping = packet(47, "mc.example.org", 1);
        assert_eq!(handshake(&ping), Handshake::Status { protocol: 47, length: ping.len() });
        let long = "x".repeat(255);
        for name in ["mc.example.org", "", long.as_str()] {
            assert_eq!(handshake(&packet(47, name, 2)), Handshake::Login, "{name}");
        }
        assert_eq!(handshake(&[&packet(47, "a", 3)[..], &[5, 0, 1]].concat()), Handshake::Login);
        for count in 0..ping.len() {
            assert_eq!(handshake(&ping[..count]), Handshake::More, "{count} bytes");
        }
    }

    #[test]
    fn what_is_no_handshake_is_seen() {
        let strange: [&[u8]; 7] = [
            b"GET / HTTP/1.1\r\n",
            &[0xFE, 0x01, 0xFA],
            &[0x16, 0x03, 0x01, 0x02, 0x00],
            &[0xFF; 5],
            &[7, 0, 47, 1, b'a', 0, 0, 9],
            &[7, 1, 47, 1, b'a', 0, 0, 2],
            &[7, 0, 47, 9, b'a', 0, 0, 2],
        ];
        for bytes in strange {
            assert_eq!(handshake(bytes), Handshake::Not, "{bytes:?}");
        }
    }

    #[test]
    fn a_status_is_json_in_a_packet() {
        let bytes = status_answer(47, "\"world\" is\nasleep");
        let begin = bytes.iter().position(|b| *b == b'{').unwrap();
        let text = str::from_utf8(&bytes[begin..]).unwrap();
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(value["description"]["text"], "\"world\" is\nasleep");
        assert_eq!(value["version"]["protocol"], 47);
        let mut input = bytes.as_slice();
        assert_eq!(number(&mut input), Some(Ok(i32::try_from(input.len()).unwrap())));
        assert_eq!(pong(&[1, 0, 9, 1]), Some((2, None)));
        assert_eq!(pong(&[9, 1, 1, 2, 3, 4, 5, 6, 7, 8]), Some((10, Some(vec![9, 1, 1, 2, 3, 4, 5, 6, 7, 8]))));
        assert_eq!(pong(&[9, 1, 1]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_a_verdict_stays(bytes in proptest::collection::vec(any::<u8>(), 0..60), cut in 0usize..60) {
            for bytes in [[&[20, 0][..], &bytes].concat(), bytes] {
                let part = handshake(&bytes[..cut.min(bytes.len())]);
                if part != Handshake::More {
                    prop_assert_eq!(handshake(&bytes), part);
                }
                let _ = pong(&bytes);
            }
        }
    }
}
