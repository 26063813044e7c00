//! `real_ip`: who asked is what a proxy in front says, for all that follows and for the service.

use std::{net::IpAddr, rc::Rc};

use ipnet::IpNet;

use crate::model::RealIp;

use super::{super::forwarded::named, asker::Asker};

pub(super) fn apply(asker: &mut Asker<'_>, rule: &RealIp) {
    if let Some(address) = found(rule, asker.peer.address, asker.head.values(&rule.header)) {
        asker.peer = Rc::new(asker.peer.behind(asker.head, address));
    }
}

/// The last address that the field names; with `recursive` the last one that is of none of the proxies.
fn found<'a>(rule: &RealIp, peer: IpAddr, values: impl Iterator<Item = &'a [u8]>) -> Option<IpAddr> {
    let trusts = |address: IpAddr| rule.from.iter().any(|network: &IpNet| network.contains(&address));
    if !trusts(peer) {
        return None;
    }
    let values: Vec<&[u8]> = values.collect();
    let mut found = None;
    for item in values.iter().flat_map(|value| value.split(|b| *b == b',')).rev() {
        let Some(address) = named(item) else { break };
        found = Some(address);
        if !rule.recursive || !trusts(address) {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proxies_are_believed() {
        let rule =
            |recursive| RealIp { header: "X-Real-IP".to_owned(), from: vec!["10.0.0.0/8".parse().unwrap()], recursive };
        for (peer, values, recursive, expected) in [
            ("10.0.0.1", &["192.0.2.7"][..], false, Some("192.0.2.7")),
            ("192.0.2.1", &["192.0.2.7"], false, None),
            ("10.0.0.1", &[], false, None),
            ("10.0.0.1", &["nobody"], false, None),
            ("10.0.0.1", &["192.0.2.7, 10.0.0.2"], false, Some("10.0.0.2")),
            ("10.0.0.1", &["192.0.2.6, 192.0.2.7", "10.0.0.2"], true, Some("192.0.2.7")),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], true, Some("10.0.0.3")),
            ("10.0.0.1", &["192.0.2.7, x, 10.0.0.2"], true, Some("10.0.0.2")),
            ("10.0.0.1", &["192.0.2.7:4711, 10.0.0.2:80"], true, Some("192.0.2.7")),
            ("10.0.0.1", &["[2001:db8::7]:4711, [2001:db8::8]"], true, Some("2001:db8::8")),
            ("10.0.0.1", &["[2001:db8::7]:4711"], true, Some("2001:db8::7")),
            ("10.0.0.1", &["::ffff:192.0.2.7"], true, Some("192.0.2.7")),
        ] {
            let expected = expected.map(|address| address.parse().unwrap());
            let values = values.iter().map(|value| value.as_bytes());
            let found = found(&rule(recursive), peer.parse().unwrap(), values.clone());
            assert_eq!(found, expected, "{peer} {:?} {recursive}", values.collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_no_text_takes_no_other_with_it() {
        let from = vec!["10.0.0.0/8".parse().unwrap()];
        let rule = RealIp { header: "X-Forwarded-For".to_owned(), from, recursive: true };
        let found = found(&rule, "10.0.0.1".parse().unwrap(), [&b"\xff, 192.0.2.7, 10.0.0.2"[..]].into_iter());
        assert_eq!(found, Some("192.0.2.7".parse().unwrap()));
    }
}
