//! Connections to upstreams that wait for their next request; one pool for each worker.
//!
//! The last one put back is the first one taken. A connection is known by the address and the generation of the
//! backend behind it: when the backend is let down, or gets another address, the old ones are dropped, and never used
//! again.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{backend::Backend, model::Spot, net::Stream};

use super::{h2_hub::Hub, h2_link::Link, h2_upstream::Record};

/// A connection may wait this long.
const IDLE: Duration = Duration::from_secs(60);

/// A connection is used this long at most.
const AGE: Duration = Duration::from_secs(3600);

/// So many wait for one address.
const KEPT: usize = 128;

/// What a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) at: Spot,
    /// Of the backend; 0 for an address that never sleeps.
    pub(super) generation: u64,
    /// How TLS is spoken on it; 0 for a connection in clear.
    pub(super) tls: u64,
}

/// A quick hash: the keys are addresses of backends, which no client chooses.
#[derive(Debug, Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// A connection to an upstream. Lent and put back with each request, in a box: it is never copied.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// It is not kept for another request from then on.
    dies: Instant,
    /// Its place among those that the route allows.
    slot: Option<Slot>,
    /// Of a stream of HTTP/2: what is known of it. What is shared is not put back.
    pub(super) record: Option<Rc<Record>>,
}

/// A place among the connections that a route allows to one address.
#[derive(Debug)]
pub(super) struct Slot {
    _place: OwnedSemaphorePermit,
    places: Rc<Places>,
}

#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    waiting: Cell<usize>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    /// It is not used any more from then on.
    until: Instant,
}

impl Slot {
    /// Whether others wait for a place.
    fn is_wanted(&self) -> bool {
        self.places.waiting.get() > 0
    }
}

/// The pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Endpoints that speak HTTP/2, or may.
    hubs: RefCell<HashMap<Key, Rc<Hub>, BuildHasherDefault<Mixer>>>,
    idle: RefCell<HashMap<Key, Vec<Idle>, BuildHasherDefault<Mixer>>>,
    /// By address and bound; only where a route sets one.
    places: RefCell<HashMap<(Spot, usize), Rc<Places>>>,
    sweeping: Cell<bool>,
    /// Of backends: someone waits for the end of this generation.
    watched: RefCell<HashSet<Key>>,
}

impl Connection {
    pub(super) fn new(stream: Stream, slot: Option<Slot>) -> Box<Self> {
        Box::new(Self { stream, dies: Instant::now() + AGE, slot, record: None })
    }

    /// A stream of a connection of HTTP/2.
    pub(super) fn shared(stream: Stream, record: Rc<Record>) -> Box<Self> {
        Box::new(Self { stream, dies: Instant::now() + AGE, slot: None, record: Some(record) })
    }

    /// Whether nothing came while it waited: neither its end nor bytes that nobody asked for.
    fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }
}

/// Counts one who waits for a place.
struct Waiter<'a>(&'a Places);

impl<'a> Waiter<'a> {
    fn new(places: &'a Places) -> Self {
        places.waiting.set(places.waiting.get() + 1);
        Self(places)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Pool {
    /// A waiting connection that is still good.
    pub(super) fn take(&self, key: Key, now: Instant) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(&key)?;
        while let Some(Idle { mut connection, until }) = waiting.pop() {
            if now < until && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// A place for one more connection to an address that takes at most `bound`. Waits until one is free, and not
    /// longer than that; dropping the future gives the wait up.
    pub(super) async fn place(&self, at: Spot, bound: usize, patience: Duration) -> Option<Slot> {
        let places = Rc::clone(self.places.borrow_mut().entry((at, bound)).or_insert_with(|| {
            Rc::new(Places { free: Arc::new(Semaphore::new(bound.max(1))), waiting: Cell::new(0) })
        }));
        let _waiter = Waiter::new(&places);
        let place = tokio::time::timeout(patience, Arc::clone(&places.free).acquire_owned()).await.ok()?.ok()?;
        Some(Slot { _place: place, places: Rc::clone(&places) })
    }

    /// Puts a connection back, to be dropped when the backend that it leads to is let down. One whose place others wait
    /// for is dropped at once.
    pub(super) fn put(self: &Rc<Self>, key: Key, connection: Box<Connection>, now: Instant, backend: Option<&Backend>) {
        if connection.record.is_some() || connection.slot.as_ref().is_some_and(Slot::is_wanted) {
            return;
        }
        self.sweep_from_now_on();
        let mut idle = self.idle.borrow_mut();
        let until = connection.dies.min(now + IDLE);
        let item = Idle { connection, until };
        match idle.get_mut(&key) {
            Some(waiting) if waiting.len() < KEPT => waiting.push(item),
            Some(_) => {}
            None => {
                idle.retain(|other, _| other.at != key.at || other.generation == key.generation);
                idle.insert(key, vec![item]);
                self.watch(key, backend);
            }
        }
    }

    /// What there is to an endpoint that may speak HTTP/2.
    pub(super) fn hub(self: &Rc<Self>, key: Key, backend: Option<&Backend>) -> Rc<Hub> {
        let mut hubs = self.hubs.borrow_mut();
        if let Some(hub) = hubs.get(&key) {
            return Rc::clone(hub);
        }
        hubs.retain(|other, _| other.at != key.at || other.generation == key.generation);
        self.watch(key, backend);
        self.sweep_from_now_on();
        Rc::clone(hubs.entry(key).or_default())
    }

    /// A connection of HTTP/2 that takes one more request.
    pub(super) fn room(&self, hub: &Hub, now: Instant) -> Option<Rc<Link>> {
        hub.room(now, IDLE, AGE)
    }

    fn watch(self: &Rc<Self>, key: Key, backend: Option<&Backend>) {
        if let Some(backend) = backend.filter(|_| self.watched.borrow_mut().insert(key)) {
            tokio::task::spawn_local(Rc::clone(self).keep_while_awake(key, backend.clone()));
        }
    }

    fn sweep_from_now_on(self: &Rc<Self>) {
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).sweep());
        }
    }

    /// Drops every waiting connection of an address.
    pub(super) fn forget(&self, at: Spot) {
        self.idle.borrow_mut().retain(|key, _| key.at != at);
        for (_, hub) in self.hubs.borrow().iter().filter(|(key, _)| key.at == at) {
            hub.forget(false);
        }
    }

    /// Drops every waiting connection: descriptors have run out. Says whether there was one.
    pub(super) fn give_way(&self) -> bool {
        let waiting: usize = self.idle.borrow_mut().drain().map(|(_, waiting)| waiting.len()).sum();
        let shared: usize = self.hubs.borrow().values().map(|hub| hub.forget(false)).sum();
        waiting + shared > 0
    }

    /// Drops all connections of a generation when it is over.
    async fn keep_while_awake(self: Rc<Self>, key: Key, backend: Backend) {
        backend.outlives(key.generation).await;
        self.idle.borrow_mut().remove(&key);
        if let Some(hub) = self.hubs.borrow_mut().remove(&key) {
            hub.forget(true);
        }
        self.watched.borrow_mut().remove(&key);
    }

    /// Drops those that waited too long. Runs only while some wait, so that a quiet worker has no timer.
    async fn sweep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(IDLE).await;
            let now = Instant::now();
            let mut idle = self.idle.borrow_mut();
            idle.retain(|_, waiting| {
                waiting.retain_mut(|item| now < item.until && item.connection.is_quiet());
                !waiting.is_empty()
            });
            let mut hubs = self.hubs.borrow_mut();
            hubs.retain(|_, hub| !hub.sweep(now, IDLE, AGE) || Rc::strong_count(hub) > 1);
            if idle.is_empty() && hubs.is_empty() {
                self.sweeping.set(false);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, net};

    use tokio::{
        net::TcpStream,
        task::LocalSet,
        time::{advance, sleep},
    };

    use super::*;

    /// A connection to one who keeps it open, and the other end.
    fn connection() -> (Box<Connection>, net::TcpStream) {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let (far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        (Connection::new(Stream::Plain(TcpStream::from_std(near).unwrap()), None), far)
    }

    fn key() -> Key {
        let at = net::SocketAddr::from(([127, 0, 0, 1], 80)).into();
        Key { at, generation: 0, tls: 0 }
    }

    fn take(pool: &Pool) -> Option<Box<Connection>> {
        pool.take(key(), Instant::now())
    }

    fn put(pool: &Rc<Pool>, connection: Box<Connection>) {
        pool.put(key(), connection, Instant::now(), None);
    }

    fn is_closed(mut far: net::TcpStream) -> bool {
        far.read(&mut [0]).is_ok_and(|count| count == 0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_used_again_while_it_has_not_waited_too_long() {
        let test = async {
            let (pool, (one, far)) = (Rc::new(Pool::default()), connection());
            put(&pool, one);
            advance(IDLE - Duration::from_millis(1)).await;
            put(&pool, take(&pool).unwrap());
            advance(IDLE).await;
            assert!(take(&pool).is_none() && is_closed(far));
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_grows_only_so_old_however_busy_it_is() {
        let test = async {
            let (pool, (mut one, far)) = (Rc::new(Pool::default()), connection());
            let step = IDLE / 2;
            for _ in 1..AGE.as_secs() / step.as_secs() {
                put(&pool, one);
                advance(step).await;
                one = take(&pool).expect("it is younger");
            }
            put(&pool, one);
            advance(step).await;
            assert!(take(&pool).is_none() && is_closed(far));
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_nobody_takes_are_closed_and_then_nothing_is_looked_at() {
        let test = async {
            let (pool, (one, far)) = (Rc::new(Pool::default()), connection());
            put(&pool, one);
            sleep(2 * IDLE).await;
            assert!(is_closed(far) && !pool.sweeping.get());
            // The next one begins it anew.
            let (other, far) = connection();
            put(&pool, other);
            sleep(2 * IDLE).await;
            assert!(is_closed(far));
        };
        LocalSet::new().run_until(test).await;
    }
}
