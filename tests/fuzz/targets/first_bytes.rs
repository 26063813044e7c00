//! The first bytes of a connection: a verdict does not depend on where the network cuts, and stays once it is given.
#![no_main]

use dormouse::{
    model::Opening,
    net::{Handshake, Hello, Judgement, ProxyHeader, client_hello, handshake, judge, pong, proxy_header},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let part = &bytes[..usize::from(*cut).min(bytes.len())];
    stays(client_hello, |hello| *hello == Hello::More, part, bytes);
    stays(handshake, |handshake| *handshake == Handshake::More, part, bytes);
    stays(proxy_header, |header| *header == ProxyHeader::More, part, bytes);
    for opening in Opening::ALL {
        stays(|bytes| judge(&[opening], bytes), |judgement| *judgement == Judgement::More, part, bytes);
    }
    let _ = pong(bytes);
    if let ProxyHeader::Whole { length, ends } = proxy_header(bytes) {
        assert!(length <= bytes.len(), "no more is taken than there is");
        if let Some(ends) = ends {
            let again = ends.header(dormouse::net::Carries::Stream);
            let whole = ProxyHeader::Whole { length: again.len(), ends: Some(ends) };
            let mapped = ends.source.ip().to_canonical() != ends.source.ip()
                || ends.destination.ip().to_canonical() != ends.destination.ip()
                || ends.source.is_ipv4() != ends.destination.is_ipv4();
            assert!(mapped || proxy_header(&again) == whole, "what is written reads the same");
        }
    }
});

fn stays<T: PartialEq + std::fmt::Debug>(
    look: impl Fn(&[u8]) -> T,
    is_open: impl Fn(&T) -> bool,
    part: &[u8],
    whole: &[u8],
) {
    let early = look(part);
    if !is_open(&early) {
        assert_eq!(look(whole), early, "the verdict changes with what comes behind");
    }
}
