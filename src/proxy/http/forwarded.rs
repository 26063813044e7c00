//! Who asked, as the backend is told: `X-Forwarded-*`, `Forwarded`, `X-Real-IP`.
//!
//! What a client claims is dropped; what a trusted proxy says is kept and extended.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::proxy::carry::Buf;

use super::{field::Known, request_head::RequestHead};

/// Where proxies tell for whom they ask.
pub(super) const FORWARDED_FOR: &str = "x-forwarded-for";

/// The other end of a client's connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// It is a proxy whose word counts.
    trusted: bool,
    /// The fields that are the same for each request of an untrusted peer.
    fixed: String,
    /// What the client spoke to us.
    scheme: &'static str,
    text: String,
    /// As it stands in `Forwarded`.
    node: String,
    /// The port that it came to, for requests that name none.
    port: String,
    /// The port that it came from; 0: that is not known.
    from_port: u16,
}

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn trusts(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The address that an item of such a list names, with or without a port. Each is read by itself: one that is no text
/// takes no other with it.
pub(super) fn named(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    address.map(canonical)
}

/// Whether there is one such field, and it is text.
fn is_single(head: &RequestHead, name: &str) -> bool {
    let mut values = head.values(name);
    values.next().is_some_and(|value| std::str::from_utf8(value).is_ok()) && values.next().is_none()
}

impl Peer {
    pub(super) fn new(peer: SocketAddr, local_port: u16, secure: bool, trusted: &[IpNet]) -> Self {
        let address = canonical(peer.ip());
        let text = address.to_string();
        let scheme = if secure { "https" } else { "http" };
        let fixed = format!("X-Forwarded-For: {text}\r\nX-Real-IP: {text}\r\nX-Forwarded-Proto: {scheme}\r\n");
        let node = if address.is_ipv6() { format!("\"[{text}]\"") } else { text.clone() };
        Self {
            address,
            trusted: trusts(trusted, address),
            fixed,
            scheme,
            text,
            node,
            port: local_port.to_string(),
            from_port: peer.port(),
        }
    }

    /// The client behind trusted proxies: the last address in `X-Forwarded-For` that is none of them.
    pub(super) fn client(&self, head: &RequestHead, trusted: &[IpNet]) -> IpAddr {
        self.client_by(|| head.values(FORWARDED_FOR).collect(), trusted)
    }

    /// The same, by the values of `X-Forwarded-For`.
    pub(super) fn client_by<'a>(&self, values: impl FnOnce() -> Vec<&'a [u8]>, trusted: &[IpNet]) -> IpAddr {
        if !self.trusted {
            return self.address;
        }
        let mut client = self.address;
        let values = values();
        for item in values.iter().flat_map(|value| value.split(|b| *b == b',')).rev() {
            let Some(address) = named(item) else { break };
            client = address;
            if !trusts(trusted, client) {
                break;
            }
        }
        client
    }

    /// The same connection, as that of the client whom a proxy names.
    pub(super) fn behind(&self, head: &RequestHead, client: IpAddr) -> Self {
        let port = self.port.parse().unwrap_or(0);
        Self::new(SocketAddr::new(client, 0), port, self.is_secure(head), &[])
    }

    /// Whether it is a proxy whose word counts.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The port of the other end, where that is known.
    pub(super) fn port_of_client(&self) -> Option<u16> {
        Some(self.from_port).filter(|port| *port != 0)
    }

    /// Whether the client came by TLS, to us or to a proxy whose word counts.
    pub(super) fn is_secure(&self, head: &RequestHead) -> bool {
        self.scheme == "https" || self.came_by_tls(head)
    }

    /// Whether a trusted proxy says that its client came by TLS.
    pub(super) fn came_by_tls(&self, head: &RequestHead) -> bool {
        self.trusted && head.get("x-forwarded-proto").is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
    }

    /// Whether fields of this kind that the peer sent are passed on as they are.
    pub(super) fn keeps(&self, head: &RequestHead, name: &[u8]) -> bool {
        // Those that are extended or replaced below are written there.
        self.trusted && ![FORWARDED_FOR, "forwarded"].iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes())) && {
            // Only the first of several counts, and an odd one could be read differently: one or none.
            std::str::from_utf8(name).is_ok_and(|name| is_single(head, name))
        }
    }

    /// Writes the fields.
    pub(super) fn write(&self, head: &RequestHead, trusted: &[IpNet], out: &mut Buf) {
        if !self.trusted {
            out.push(self.fixed.as_bytes());
            self.write_host(head, out);
            self.write_port(head, out);
            out.push(b"Forwarded: for=");
        } else {
            out.push(b"X-Forwarded-For: ");
            for value in head.values(FORWARDED_FOR) {
                out.push(value);
                out.push(b", ");
            }
            out.push(self.text.as_bytes());
            out.push(b"\r\n");
            let missing = |name: &str| !is_single(head, name);
            if missing("x-real-ip") {
                let claimed = self.client(head, trusted);
                out.push(format!("X-Real-IP: {claimed}\r\n").as_bytes());
            }
            if missing("x-forwarded-proto") {
                out.push(b"X-Forwarded-Proto: ");
                out.push(self.scheme.as_bytes());
                out.push(b"\r\n");
            }
            if missing("x-forwarded-host") {
                self.write_host(head, out);
            }
            if missing("x-forwarded-port") {
                self.write_port(head, out);
            }
            out.push(b"Forwarded: ");
            for value in head.values("forwarded") {
                out.push(value);
                out.push(b", ");
            }
            out.push(b"for=");
        }
        out.push(self.node.as_bytes());
        if !head.authority().is_empty() {
            out.push(b";host=\"");
            out.push(head.authority().as_bytes());
            out.push(b"\"");
        }
        out.push(b";proto=");
        out.push(self.scheme.as_bytes());
        out.push(b"\r\n");
    }

    fn write_host(&self, head: &RequestHead, out: &mut Buf) {
        if !head.authority().is_empty() {
            out.push(b"X-Forwarded-Host: ");
            out.push(head.authority().as_bytes());
            out.push(b"\r\n");
        }
    }

    fn write_port(&self, head: &RequestHead, out: &mut Buf) {
        out.push(b"X-Forwarded-Port: ");
        out.push(head.port().unwrap_or(&self.port).as_bytes());
        out.push(b"\r\n");
    }
}

/// Whether a field is one that is written here.
pub(super) fn is_ours(known: Known) -> bool {
    known == Known::Forwarding
}
