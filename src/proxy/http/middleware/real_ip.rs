//! `real_ip`: who asked is what a proxy in front says, for all that follows and for the service.

use std::{net::IpAddr, rc::Rc};

use ipnet::IpNet;

use crate::model::RealIp;

use super::super::{front::Client, request_head::RequestHead};

pub(super) fn apply(client: &mut Client, head: &RequestHead, rule: &RealIp) {
    if let Some(address) = found(rule, client.peer.address, head.all(&rule.header)) {
        client.peer = Rc::new(client.peer.behind(head, address));
    }
}

/// The last address that the field names; with `recursive` the last one that is of none of the proxies.
fn found<'a>(rule: &RealIp, peer: IpAddr, values: impl Iterator<Item = &'a str>) -> Option<IpAddr> {
    let trusts = |address: IpAddr| rule.from.iter().any(|network: &IpNet| network.contains(&address));
    if !trusts(peer) {
        return None;
    }
    let values: Vec<&str> = values.collect();
    let mut found = None;
    for item in values.iter().flat_map(|value| value.split(',')).rev() {
        let Ok(address) = item.trim().parse::<IpAddr>() else { break };
        found = Some(address.to_canonical());
        if !rule.recursive || !trusts(address.to_canonical()) {
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
            ("10.0.0.1", &["::ffff:192.0.2.7"], true, Some("192.0.2.7")),
        ] {
            let expected = expected.map(|address| address.parse().unwrap());
            let found = found(&rule(recursive), peer.parse().unwrap(), values.iter().copied());
            assert_eq!(found, expected, "{peer} {values:?} {recursive}");
        }
    }
}
