//! Who listens: which ports were taken before a unit was started, and so are not its own.
//!
//! The kernel lists listening sockets first in `/proc/net/tcp`, so that only the head of it is read.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader},
};

/// A listening socket, as its inode names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listener {
    pub(super) port: u16,
    inode: u64,
}

/// Listeners, such as those that were there before a unit.
pub(super) type Listeners = BTreeSet<Listener>;

/// All that may answer on the loopback, by IPv4; an error where the kernel does not tell.
pub(super) fn listeners() -> io::Result<Listeners> {
    let mut found = read("/proc/net/tcp")?;
    match read("/proc/net/tcp6") {
        Ok(more) => found.extend(more),
        // A machine without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// Whether everybody who listens on a port now did so before, and somebody does.
pub(super) fn is_taken(port: u16, before: &Listeners, now: &Listeners) -> bool {
    let mut on_port = now.iter().filter(|listener| listener.port == port).peekable();
    on_port.peek().is_some() && on_port.all(|listener| before.contains(listener))
}

fn read(path: &str) -> io::Result<Listeners> {
    let mut found = Listeners::new();
    for line in BufReader::new(File::open(path)?).lines().skip(1) {
        match parse(&line?) {
            Some(Line::Listens(listener)) => found.extend(listener),
            Some(Line::Other) => break,
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{path}` is not understood"))),
        }
    }
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// A listener; absent: one that loopback clients do not reach.
    Listens(Option<Listener>),
    /// A connection: no listener follows.
    Other,
}

/// Number, local address, remote address, state; the inode is the tenth field.
fn parse(line: &str) -> Option<Line> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    if fields.nth(1)? != "0A" {
        return Some(Line::Other);
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Line::Listens(answers_on_loopback(address).then_some(Listener { port, inode })))
}

/// Every address, or 127.0.0.1, also within IPv6. Words of 32 bits stand in the machine's own byte order.
fn answers_on_loopback(address: &str) -> bool {
    let loopback = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
    let mapped = format!("{:016X}{:08X}", 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]));
    let v4 = address.strip_prefix(mapped.as_str()).unwrap_or(address);
    v4 == loopback || address.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let head = "   0: 0100007F:1F90 00000000:0000";
        let rest = "00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        let listens = |port, inode| Some(Line::Listens(Some(Listener { port, inode })));
        assert_eq!(parse(&format!("{head} 0A {rest}")), listens(8080, 4711));
        assert_eq!(parse(&format!("{head} 01 {rest}")), Some(Line::Other));
        assert_eq!(parse("   0: 0100007F"), None);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn only_what_answers_on_the_loopback_counts() {
        for (address, answers) in [
            ("0100007F", true),
            ("00000000", true),
            ("0200007F", false),
            ("0100A8C0", false),
            ("00000000000000000000000000000000", true),
            ("0000000000000000FFFF00000100007F", true),
            ("00000000000000000000000001000000", false),
        ] {
            assert_eq!(answers_on_loopback(address), answers, "{address}");
        }
    }

    #[test]
    fn a_port_is_taken_while_all_who_listen_were_there_before() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let before = listeners().unwrap();
        assert!(is_taken(port, &before, &listeners().unwrap()));
        drop(first);
        assert!(!is_taken(port, &before, &listeners().unwrap()), "nobody listens");
        let second = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!(!is_taken(port, &before, &listeners().unwrap()), "another listens");
        drop(second);
    }
}
