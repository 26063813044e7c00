//! A DNS server as it is written.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV6},
    str::FromStr,
};

/// Where DNS servers listen.
const PORT: u16 = 53;

/// A DNS server: its name or its address, and its port, 53 unless it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsServer {
    /// A name, or an address without brackets; one of IPv6 with the number of its scope where it has one.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// A text names no DNS server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no DNS server: write its address or its name, with its port when that is not 53, as in `192.0.2.1`, `ns.example.com:5353` or `[2001:db8::1]:5353`"
)]
pub struct NoDnsServer(String);

impl FromStr for DnsServer {
    type Err = NoDnsServer;

    /// `HOST`, `HOST:PORT`, an IPv6 address also in brackets, and with the number of its scope (RFC 4007, 11.2).
    fn from_str(text: &str) -> Result<Self, NoDnsServer> {
        let wrong = || NoDnsServer(text.to_owned());
        let server = |host: &dyn ToString, port| Self { host: host.to_string(), port };
        if let Some(address) = text.parse::<Ipv4Addr>().map(|address| address.to_string()).ok().or_else(|| ipv6(text)) {
            return Ok(server(&address, PORT));
        }
        let (host, port) = match text.rsplit_once(':').filter(|_| !text.ends_with(']')) {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
            None => (text, PORT),
        };
        if let Some(inside) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return ipv6(inside).map(|address| server(&address, port)).ok_or_else(wrong);
        }
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        // What has only digits and dots was to be an address.
        let is_name = host.bytes().all(sound) && host.bytes().any(|byte| byte.is_ascii_alphabetic());
        let is_address = || format!("{host}:{port}").parse::<SocketAddr>().is_ok();
        if is_name || is_address() { Ok(server(&host, port)) } else { Err(wrong()) }
    }
}

/// An IPv6 address, in its usual form.
fn ipv6(text: &str) -> Option<String> {
    let address: SocketAddrV6 = format!("[{text}]:0").parse().ok()?;
    Some(match address.scope_id() {
        0 => address.ip().to_string(),
        scope => format!("{}%{scope}", address.ip()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_or_a_name_and_has_port_53_unless_another_is_written() {
        let check = |text: &str, host: &str, port| {
            assert_eq!(text.parse(), Ok(DnsServer { host: host.to_owned(), port }), "{text}");
        };
        check("192.0.2.1", "192.0.2.1", 53);
        check("192.0.2.1:5353", "192.0.2.1", 5353);
        check("2001:db8::1", "2001:db8::1", 53);
        check("[2001:db8::1]", "2001:db8::1", 53);
        check("[2001:db8::1]:5353", "2001:db8::1", 5353);
        check("fe80::1%2", "fe80::1%2", 53);
        check("[fe80::1%2]", "fe80::1%2", 53);
        check("[FE80:0::1%2]:5353", "fe80::1%2", 5353);
        check("ns.example.com", "ns.example.com", 53);
        check("ns_1.example.com:5353", "ns_1.example.com", 5353);
    }

    #[test]
    fn whatever_else_is_written_is_none() {
        for text in [
            "",
            ":53",
            "ns:",
            "ns:0",
            "ns:65536",
            "ns:dns",
            "a b",
            "tcp://ns",
            "ns:53:53",
            "[::1",
            "::1]",
            "[ns]:53",
            "[192.0.2.1]:53",
            "192.0.2.256",
            "1.2.3:53",
            "[]",
            "[::1]53",
            "2001:db8::1::",
            "fe80::1%",
            "[fe80::1%eth 0]:53",
            "192.0.2.1%2",
        ] {
            let told = text.parse::<DnsServer>().unwrap_err().to_string();
            assert!(told.starts_with(&format!("`{text}` is no DNS server: write")), "{told}");
        }
    }
}
