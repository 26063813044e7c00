//! Who is connected: how many connections there are in all, and how many each client has.
//!
//! One for all workers and all listeners for HTTP and TCP. A connection costs a look at two numbers when it comes and
//! when it goes; a request costs nothing. Flows of UDP are counted apart: whoever sends datagrams can pretend to be
//! anybody, and must not shut out the connections of another.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dashmap::{DashMap, Entry};
use tokio::time::Instant;

use super::{house::House, limits::Limits, own::Worker, settings::ProxySettings};
use crate::telemetry::TurnedAway;

/// A client is told of in the log at most once in this time, and so many are.
const TOLD: (Duration, usize) = (Duration::from_secs(60), 100);

/// See the module.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Crowd {
    pub(super) house: House,
    connections: DashMap<IpAddr, usize>,
    flows: DashMap<IpAddr, usize>,
    /// Of whom the log was told, and when; absent: of all together. A std mutex: held for a look, when somebody is
    /// turned away.
    told: Mutex<HashMap<Option<IpAddr>, Instant>>,
}

/// The place of a connection or flow; given back on drop.
#[derive(Debug)]
pub(in crate::proxy) struct Seat {
    crowd: Arc<Crowd>,
    /// Whose it is; absent: of one who may have any number.
    client: Option<IpAddr>,
    is_flow: bool,
    /// It is one of all connections that may be; neither of a flow nor of one that still waits.
    is_in: bool,
}

/// Everybody who shares an address or, of IPv6, the network of 64 bits that one subscriber has.
pub(in crate::proxy) fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Who is bounded as a client; absent: a proxy in front, behind which there are many, or this machine itself.
fn bounded(source: SocketAddr, settings: &ProxySettings) -> Option<IpAddr> {
    let address = source.ip().to_canonical();
    let mut proxies = settings.trusted_proxies.iter().chain(&settings.proxy_protocol);
    let free = address.is_loopback() || proxies.any(|network| network.contains(&address));
    (!free).then(|| subscriber(address))
}

/// A place for a connection that has come. There is none if its client has enough of them, or if all are taken and
/// nobody gives one up in a moment.
pub(in crate::proxy) async fn enter(
    worker: &Worker,
    source: SocketAddr,
    settings: &ProxySettings,
) -> Result<Seat, TurnedAway> {
    let crowd = &worker.shared.crowd;
    let (bound, all) = (settings.limits.connections_per_client, settings.limits.connections_in_all);
    let client = bounded(source, settings);
    if let Some(client) = client.filter(|client| !add(&crowd.connections, *client, bound)) {
        crowd.house.counters.turned_away(TurnedAway::Client);
        crowd.tell(Some(client), || {
            tracing::warn!(
                %client,
                "a client has {bound} connections, as many as one may have: more are turned away \
                 (`max_connections_per_client`; a proxy in front belongs in `trusted_proxies`)"
            );
        });
        return Err(TurnedAway::Client);
    }
    let mut seat = Seat { crowd: Arc::clone(crowd), client, is_flow: false, is_in: false };
    if crowd.house.enter(all).await {
        seat.is_in = true;
        return Ok(seat);
    }
    crowd.house.counters.turned_away(TurnedAway::Full);
    crowd.tell(None, || {
        tracing::warn!(
            "{all} connections are open, as many as may be: more are turned away until some end (`max_connections`, or \
             where the file says none, the bound on open descriptors)"
        );
    });
    Err(TurnedAway::Full)
}

/// A place for a flow of UDP. None: its client has enough of them.
pub(in crate::proxy) fn enter_flow(worker: &Worker, source: SocketAddr) -> Option<Seat> {
    let crowd = &worker.shared.crowd;
    let settings = worker.shared.settings.load();
    let client = bounded(source, &settings);
    let most = flows_of_one(&settings.limits);
    let Some(client) = client.filter(|client| !add(&crowd.flows, *client, most)) else {
        return Some(Seat { crowd: Arc::clone(crowd), client, is_flow: true, is_in: false });
    };
    crowd.house.counters.turned_away(TurnedAway::ClientFlows);
    crowd.tell(Some(client), || {
        tracing::warn!(
            %client,
            "a client has {most} flows of UDP, as many as one may have: datagrams of more are dropped (the bound grows \
             with that on open descriptors; a proxy in front belongs in `trusted_proxies`)"
        );
    });
    None
}

/// Flows of one client. A worker has as many places for flows as half of its connections, and half of them are left to
/// others. What a client may have of connections says nothing here: each question to a server of DNS is a flow.
fn flows_of_one(limits: &Limits) -> usize {
    (limits.connections / 4).max(1)
}

/// One more, unless there are as many as there may be.
fn add(numbers: &DashMap<IpAddr, usize>, client: IpAddr, most: usize) -> bool {
    let mut number = numbers.entry(client).or_insert(0);
    let fits = *number < most;
    *number += usize::from(fits);
    fits
}

fn take_away(numbers: &DashMap<IpAddr, usize>, client: IpAddr) {
    if let Entry::Occupied(mut number) = numbers.entry(client) {
        match number.get().checked_sub(1) {
            None | Some(0) => drop(number.remove()),
            Some(left) => *number.get_mut() = left,
        }
    }
}

impl Crowd {
    /// Has the operator told of a client, or of all together, now and then.
    fn tell(&self, of: Option<IpAddr>, tell: impl FnOnce()) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&of).is_some_and(|at| at.elapsed() < TOLD.0) {
            return;
        }
        told.retain(|_, at| at.elapsed() < TOLD.0);
        if told.len() < TOLD.1 || of.is_none() {
            told.insert(of, Instant::now());
            drop(told);
            tell();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let crowd = &self.crowd;
        if self.is_in {
            crowd.house.leave();
        }
        if let Some(client) = self.client {
            take_away(if self.is_flow { &crowd.flows } else { &crowd.connections }, client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_is_one_client() {
        let of = |client: &str| subscriber(client.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        // As a listener for both families tells them.
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn proxies_in_front_and_this_machine_are_no_clients() {
        let settings = ProxySettings {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            proxy_protocol: vec!["192.0.2.7/32".parse().unwrap()],
            ..ProxySettings::default()
        };
        let is_bounded = |address: &str| bounded(SocketAddr::new(address.parse().unwrap(), 1), &settings).is_some();
        for free in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7"] {
            assert!(!is_bounded(free), "{free}");
        }
        for client in ["192.0.2.8", "11.0.0.1", "2001:db8::1"] {
            assert!(is_bounded(client), "{client}");
        }
    }

    #[test]
    fn each_is_told_of_once_in_a_while_and_a_full_house_however_many_clients_were() {
        let crowd = Crowd::default();
        let told = |of| {
            let mut is_told = false;
            crowd.tell(of, || is_told = true);
            is_told
        };
        let client = |number: usize| Some(IpAddr::V4(u32::try_from(number).unwrap().into()));
        assert!((0..TOLD.1).all(|number| told(client(number))));
        assert!(!told(client(0)) && !told(client(TOLD.1)));
        assert!(told(None));
        assert!(!told(None));
    }

    #[test]
    fn what_a_client_has_is_counted_up_to_the_bound_and_forgotten_with_the_last() {
        let (numbers, client) = (DashMap::new(), "192.0.2.1".parse().unwrap());
        assert!(add(&numbers, client, 2) && add(&numbers, client, 2));
        assert!(!add(&numbers, client, 2));
        assert!(add(&numbers, "192.0.2.2".parse().unwrap(), 2), "another one has its own");
        take_away(&numbers, client);
        assert!(add(&numbers, client, 2));
        for _ in 0..2 {
            take_away(&numbers, client);
        }
        assert!(!numbers.contains_key(&client), "it takes no room any more");
    }
}
