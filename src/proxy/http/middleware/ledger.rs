//! What middlewares remember between requests, for all workers.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::LazyLock,
};

use crate::{model::Alias, proxy::worker::subscriber};

use super::{basic_auth::Passwords, in_flight_limit::Flights, oidc::Used, oidc_provider::Providers, rate_limit::Rates};

/// What is remembered.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Ledger {
    pub(super) rates: Rates,
    pub(super) flights: Flights,
    pub(super) passwords: Passwords,
    pub(super) providers: Providers,
    pub(super) logins: Used,
}

/// A middleware of a route, and a client of its.
pub(super) type Key = (u64, Option<IpAddr>);

/// The key under which a middleware of a route remembers a client. All addresses of a network that one subscriber of
/// IPv6 has are one client.
pub(super) fn key(route: &Alias, index: usize, client: Option<IpAddr>) -> Key {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    (SEED.hash_one((route.as_str(), index)), client.map(subscriber))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_is_one_client() {
        let key = |index, client: &str| key(&"app".parse().unwrap(), index, Some(client.parse().unwrap()));
        assert_eq!(key(0, "2001:db8::1"), key(0, "2001:db8::ffff:1"));
        assert_ne!(key(0, "2001:db8::1"), key(0, "2001:db8:0:1::1"));
        assert_ne!(key(0, "192.0.2.1"), key(0, "192.0.2.2"));
        assert_ne!(key(0, "192.0.2.1"), key(1, "192.0.2.1"));
    }
}
