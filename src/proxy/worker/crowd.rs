//! Who is connected: how many connections there are in all, and how many each client has.
//!
//! One for all workers and all listeners for HTTP and TCP. A connection costs a look at two numbers when it comes and
//! when it goes; a request costs nothing. Flows of UDP are counted apart: whoever sends datagrams can pretend to be
//! anybody, and must not shut out the connections of another.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry};
use tokio::time::Instant;

use super::{own::Worker, settings::ProxySettings};
use crate::{
    net::Lack,
    telemetry::{ConnectionCounters, TurnedAway},
};

/// How long one may wait for a place that somebody gives up. It has not been silent for long enough by then to be asked
/// for its own.
const PATIENCE: Duration = Duration::from_millis(750);

/// How often it looks whether there is one.
const LOOK: Duration = Duration::from_millis(25);

/// So many wait at once; more are turned away without.
const WAITING: usize = 64;

/// A client is told of in the log at most once in this time, and so many are.
const TOLD: (Duration, usize) = (Duration::from_secs(60), 100);

/// See the module.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Crowd {
    pub(in crate::proxy) counters: Arc<ConnectionCounters>,
    connections: DashMap<IpAddr, usize>,
    flows: DashMap<IpAddr, usize>,
    /// Who waits for a place.
    waiting: AtomicUsize,
    /// Of whom the log was told, and when. A std mutex: held for a look, when somebody is turned away.
    told: Mutex<HashMap<IpAddr, Instant>>,
}

/// The place of a connection or flow; given back on drop.
#[derive(Debug)]
pub(in crate::proxy) struct Seat {
    crowd: Arc<Crowd>,
    /// Whose it is; absent: of one who may have any number.
    client: Option<IpAddr>,
    is_flow: bool,
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
    let limits = &settings.limits;
    let client = bounded(source, settings);
    if !client.is_none_or(|client| add(&crowd.connections, client, limits.connections_per_client)) {
        crowd.counters.turned_away(TurnedAway::Client);
        crowd.tell(client, "connections", limits.connections_per_client);
        return Err(TurnedAway::Client);
    }
    let seat = Seat { crowd: Arc::clone(crowd), client, is_flow: false };
    // Given back by the seat, whether it was taken or not.
    if crowd.counters.open.fetch_add(1, Ordering::Relaxed) < limits.connections_in_all
        || Box::pin(crowd.place_given_up(worker, limits.connections_in_all)).await
    {
        return Ok(seat);
    }
    crowd.counters.turned_away(TurnedAway::Full);
    Err(TurnedAway::Full)
}

/// A place for a flow of UDP. None: its client has enough of them.
pub(in crate::proxy) fn enter_flow(worker: &Worker, source: SocketAddr) -> Option<Seat> {
    let crowd = &worker.shared.crowd;
    let settings = worker.shared.settings.load();
    let client = bounded(source, &settings);
    // A worker has as many places for flows as half of its connections.
    let most = settings.limits.connections_per_client.min(settings.limits.connections / 4).max(1);
    if client.is_none_or(|client| add(&crowd.flows, client, most)) {
        return Some(Seat { crowd: Arc::clone(crowd), client, is_flow: true });
    }
    crowd.counters.turned_away(TurnedAway::ClientFlows);
    crowd.tell(client, "flows of UDP", most);
    None
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
    /// Has clients who are quiet give up their places, until so many are left that this one has one.
    async fn place_given_up(&self, worker: &Worker, most: usize) -> bool {
        let Some(_waits) = Waits::begin(&self.waiting) else { return false };
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            worker.make_room(Lack::Places);
            tokio::time::sleep(LOOK).await;
            if self.counters.open.load(Ordering::Relaxed) <= most {
                return true;
            }
        }
        false
    }

    /// Tells the operator, now and then.
    fn tell(&self, client: Option<IpAddr>, what: &'static str, most: usize) {
        let Some(client) = client else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&client).is_some_and(|at| at.elapsed() < TOLD.0) {
            return;
        }
        told.retain(|_, at| at.elapsed() < TOLD.0);
        if told.len() < TOLD.1 {
            told.insert(client, Instant::now());
            drop(told);
            tracing::warn!(
                %client,
                "a client has {most} {what}, as many as one may have: more are turned away \
                 (`max_connections_per_client`; a proxy in front belongs in `trusted_proxies`)"
            );
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let crowd = &self.crowd;
        if !self.is_flow {
            crowd.counters.open.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(client) = self.client {
            take_away(if self.is_flow { &crowd.flows } else { &crowd.connections }, client);
        }
    }
}

/// One who waits, until it is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Option<Self> {
        let waits = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
