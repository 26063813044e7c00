//! The PROXY protocol, versions 1 and 2: who a connection comes from, told by a proxy in front, or to one behind.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::net::TcpStream;

/// The longest header of version 1, with its line end.
const LONGEST_TEXT: usize = 107;

/// The longest content of a header of version 2 that is read; addresses have 36 bytes, the rest is for additions.
const LONGEST_CONTENT: usize = 4096;

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Where a connection comes from, and where it was made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

/// What is carried behind the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// A byte stream.
    Stream,
    /// Datagrams.
    Datagrams,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// A header so far: more must come.
    More,
    /// No header, or one that breaks the rules.
    Bad,
    /// A whole header.
    Whole {
        /// How many bytes it has.
        length: usize,
        /// What it tells; absent: the connection is the proxy's own, or of a kind without addresses.
        ends: Option<Ends>,
    },
}

/// Looks at the first bytes of a connection.
pub fn proxy_header(bytes: &[u8]) -> ProxyHeader {
    let binary = bytes.iter().zip(&SIGNATURE).all(|(a, b)| a == b);
    let text = bytes.iter().zip(b"PROXY ").all(|(a, b)| a == b);
    match bytes {
        _ if !binary && !text => ProxyHeader::Bad,
        bytes if bytes.len() < SIGNATURE.len() => ProxyHeader::More,
        bytes if binary => version_2(bytes),
        bytes => version_1(bytes),
    }
}

fn version_1(bytes: &[u8]) -> ProxyHeader {
    let window = bytes.get(..LONGEST_TEXT).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LONGEST_TEXT { ProxyHeader::More } else { ProxyHeader::Bad };
    };
    let Some(line) = window.get(..end).and_then(|line| str::from_utf8(line).ok()) else { return ProxyHeader::Bad };
    let words: Vec<&str> = line.split(' ').collect();
    let ends = match words.as_slice() {
        [_, "UNKNOWN", ..] => Some(None),
        [_, family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            ends_of_text(*family == "TCP6", [source, destination], [from, to]).map(Some)
        }
        _ => None,
    };
    ends.map_or(ProxyHeader::Bad, |ends| ProxyHeader::Whole { length: end + 2, ends })
}

fn ends_of_text(is_v6: bool, addresses: [&str; 2], ports: [&str; 2]) -> Option<Ends> {
    let end = |address: &str, port: &str| {
        let ip: IpAddr =
            if is_v6 { address.parse::<Ipv6Addr>().ok()?.into() } else { address.parse::<Ipv4Addr>().ok()?.into() };
        let plain = port.bytes().all(|b| b.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
        let port = port.parse().ok().filter(|_| plain)?;
        Some(SocketAddr::new(ip, port))
    };
    Some(Ends { source: end(addresses[0], ports[0])?, destination: end(addresses[1], ports[1])? })
}

fn version_2(bytes: &[u8]) -> ProxyHeader {
    let Some([command, family, high, low]) = bytes.get(12..).and_then(<[u8]>::first_chunk::<4>) else {
        return ProxyHeader::More;
    };
    let content = usize::from(u16::from_be_bytes([*high, *low]));
    if !matches!(command, 0x20 | 0x21) || content > LONGEST_CONTENT {
        return ProxyHeader::Bad;
    }
    let length = 16 + content;
    let Some(content) = bytes.get(16..length) else { return ProxyHeader::More };
    let is_local = *command == 0x20;
    let (ends, rest) = match family {
        0x11 | 0x12 => (ends_of_bytes::<4>(content), content.get(12..)),
        0x21 | 0x22 => (ends_of_bytes::<16>(content), content.get(36..)),
        // Unix sockets, and what has no addresses.
        0x31 | 0x32 => (None, content.get(216..)),
        0x00 => (None, None),
        _ if is_local => (None, None),
        _ => return ProxyHeader::Bad,
    };
    let needs = !is_local && *family != 0x00;
    match rest {
        Some(rest) if needs && !are_additions(rest) => ProxyHeader::Bad,
        None if needs => ProxyHeader::Bad,
        _ => ProxyHeader::Whole { length, ends: ends.filter(|_| needs) },
    }
}

fn ends_of_bytes<const N: usize>(content: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let address = |at: usize| content.get(at..)?.first_chunk::<N>().map(|bytes| IpAddr::from(*bytes));
    let port = |at: usize| content.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes));
    Some(Ends {
        source: SocketAddr::new(address(0)?, port(2 * N)?),
        destination: SocketAddr::new(address(N)?, port(2 * N + 2)?),
    })
}

/// Whether this is a row of additions: a kind, a length, so many bytes.
fn are_additions(mut rest: &[u8]) -> bool {
    while let Some([_, high, low]) = rest.first_chunk::<3>() {
        match rest.get(3 + usize::from(u16::from_be_bytes([*high, *low]))..) {
            Some(next) => rest = next,
            None => return false,
        }
    }
    rest.is_empty()
}

impl Ends {
    /// A header of version 2 that tells this.
    pub fn header(&self, carries: Carries) -> Vec<u8> {
        let kind = match carries {
            Carries::Stream => 1,
            Carries::Datagrams => 2,
        };
        let mut bytes = Vec::with_capacity(52);
        bytes.extend(SIGNATURE);
        bytes.push(0x21);
        match (self.source.ip().to_canonical(), self.destination.ip().to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([0x10 | kind, 0, 12]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            (source, destination) => {
                bytes.extend([0x20 | kind, 0, 36]);
                bytes.extend(as_v6(source).octets());
                bytes.extend(as_v6(destination).octets());
            }
        }
        bytes.extend(self.source.port().to_be_bytes());
        bytes.extend(self.destination.port().to_be_bytes());
        bytes
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Takes the header with which a connection begins, and not a byte more. An error when there is none, or when it does
/// not come in time.
pub async fn take_proxy_header(stream: &TcpStream, patience: Duration) -> io::Result<Option<Ends>> {
    let take = async {
        let mut bytes = Vec::with_capacity(128);
        loop {
            let more = match proxy_header(&bytes) {
                ProxyHeader::Whole { ends, .. } => return Ok(ends),
                ProxyHeader::Bad => return Err(io::ErrorKind::InvalidData.into()),
                ProxyHeader::More => lacking(stream, &bytes).await?,
            };
            read_more(stream, &mut bytes, more).await?;
        }
    };
    tokio::time::timeout(patience, take).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// How many bytes can be read without taking one that is not the header's. No header is shorter than 15.
async fn lacking(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if let Some(left) = SIGNATURE.len().checked_sub(bytes.len()).filter(|left| *left > 0) {
        return Ok(left);
    }
    if !bytes.starts_with(b"PROXY") {
        let content = bytes.get(14..16).and_then(<[u8]>::first_chunk::<2>).map(|length| u16::from_be_bytes(*length));
        return Ok(content.map_or(16, |content| 16 + usize::from(content)) - bytes.len());
    }
    // Up to the line's end, where that is in sight.
    let mut sight = [0; LONGEST_TEXT];
    let count = stream.peek(&mut sight).await?;
    let seen = sight.get(..count).unwrap_or_default();
    Ok(seen.iter().position(|b| *b == b'\n').map_or(count, |at| at + 1))
}

/// Reads at most so many bytes.
async fn read_more(stream: &TcpStream, bytes: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let mut room = vec![0; most];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut room) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                bytes.extend_from_slice(room.get(..count).unwrap_or_default());
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn check(bytes: &[u8], expected: Option<Ends>) {
        assert_eq!(proxy_header(bytes), ProxyHeader::Whole { length: bytes.len(), ends: expected });
        for count in 0..bytes.len() {
            assert_eq!(proxy_header(&bytes[..count]), ProxyHeader::More, "{count} bytes of {bytes:?}");
        }
    }

    #[test]
    fn headers_of_text_are_read() {
        check(b"PROXY TCP4 10.1.2.3 10.0.0.1 5000 443\r\n", Some(ends("10.1.2.3:5000", "10.0.0.1:443")));
        check(b"PROXY TCP6 fe80::1 ::1 1 65535\r\n", Some(ends("[fe80::1]:1", "[::1]:65535")));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN fe80::1 ::1 1 2\r\n", None);
    }

    #[test]
    fn headers_of_bytes_are_read() {
        for (a, b) in [("10.1.2.3:5000", "10.0.0.1:443"), ("[fe80::1]:1", "[::1]:2")] {
            check(&ends(a, b).header(Carries::Stream), Some(ends(a, b)));
            check(&ends(a, b).header(Carries::Datagrams), Some(ends(a, b)));
        }
        let mixed = ends("10.1.2.3:5000", "[::1]:2").header(Carries::Stream);
        check(&mixed, Some(ends("[::ffff:10.1.2.3]:5000", "[::1]:2")));
        let mut with_addition = ends("10.1.2.3:5000", "10.0.0.1:443").header(Carries::Stream);
        with_addition.extend([4, 0, 2, 9, 9]);
        with_addition[15] += 5;
        check(&with_addition, Some(ends("10.1.2.3:5000", "10.0.0.1:443")));
        check(&[&SIGNATURE[..], &[0x20, 0, 0, 0]].concat(), None);
        check(&[&SIGNATURE[..], &[0x21, 0, 0, 3, 1, 2, 3]].concat(), None);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat();
        let texts: [&[u8]; 8] = [
            b"GET / HTTP/1.1",
            b"PROXY TCP4 10.1.2.3 10.0.0.1 5000 70000\r\n",
            b"PROXY TCP4 10.1.2.3 10.0.0.1 05000 443\r\n",
            b"PROXY TCP4 fe80::1 ::1 1 2\r\n",
            b"PROXY TCP4 10.1.2.3 10.0.0.1 5000\r\n",
            b"PROXY UDP4 10.1.2.3 10.0.0.1 1 2\r\n",
            b"PROXY  TCP4 10.1.2.3 10.0.0.1 1 2\r\n",
            &long,
        ];
        for text in texts {
            assert_eq!(proxy_header(text), ProxyHeader::Bad, "{:?}", String::from_utf8_lossy(text));
        }
        // A version that is unknown, addresses that are cut, a length out of bounds, additions that do not end.
        for tail in [
            &[0x31, 0x11, 0, 0][..],
            &[0x21, 0x11, 0, 2, 1, 2],
            &[0x21, 0x11, 0xFF, 0xFF],
            &[0x21, 0x11, 0, 14, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 4, 9],
            &[0x21, 0x55, 0, 0],
        ] {
            assert_eq!(proxy_header(&[&SIGNATURE[..], tail].concat()), ProxyHeader::Bad, "{tail:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_a_verdict_stays(tail in proptest::collection::vec(any::<u8>(), 0..60), cut in 0usize..80, kind in 0..3) {
            let bytes = match kind {
                0 => tail,
                1 => [&b"PROXY TCP4 "[..], &tail].concat(),
                _ => [&SIGNATURE[..], &tail].concat(),
            };
            let part = proxy_header(&bytes[..cut.min(bytes.len())]);
            if part != ProxyHeader::More {
                prop_assert_eq!(proxy_header(&bytes), part);
            }
            if let ProxyHeader::Whole { length, .. } = proxy_header(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }

    /// Whatever the pieces in which it comes, the header is taken and what is behind it is left.
    #[tokio::test]
    async fn not_a_byte_behind_the_header_is_taken() {
        let text = b"PROXY TCP4 10.1.2.3 10.0.0.1 5000 443\r\n".to_vec();
        let bytes = ends("10.1.2.3:5000", "10.0.0.1:443").header(Carries::Stream);
        let unknown = b"PROXY UNKNOWN\r\n".to_vec();
        for (header, piece) in [(&text, 1), (&text, 7), (&text, 400), (&bytes, 1), (&bytes, 400), (&unknown, 400)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let all = [header.as_slice(), b"hello"].concat();
            let write = async {
                for part in all.chunks(piece) {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.unwrap();
            };
            let (taken, ()) = tokio::join!(take_proxy_header(&stream, Duration::from_secs(30)), write);
            assert_eq!(taken.unwrap().is_some(), header != &unknown);
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"hello");
        }
    }
}
