//! What a worker has for itself, whatever its clients speak.

use std::{convert::Infallible, fmt, io, rc::Rc, sync::Arc, time::Duration};

use tokio::{net::TcpStream, sync::Semaphore};

use super::{
    dial::{self, Names},
    guests::Guests,
    shared::Shared,
};
use crate::{
    model::Spot,
    net::{self, Lack},
    proxy::carry::Buffers,
};

/// So often others give way for one connection.
const GIVING_WAY: usize = 4;

/// Ends a connection to an upstream that waits for requests, and says whether there was one.
pub(in crate::proxy) type GiveWay = Rc<dyn Fn() -> bool>;

/// One worker's own things. Not shared between threads; a copy is the same worker.
#[derive(Clone)]
pub(in crate::proxy) struct Worker {
    pub(in crate::proxy) shared: Arc<Shared>,
    pub(in crate::proxy) buffers: Rc<Buffers>,
    pub(in crate::proxy) names: Rc<Names>,
    pub(in crate::proxy) permits: Arc<Semaphore>,
    /// Places that flows of UDP may take besides: connections must have one even where datagrams from everywhere
    /// pretend to be flows.
    pub(in crate::proxy) flows: Arc<Semaphore>,
    pub(in crate::proxy) guests: Rc<Guests>,
    give_way: GiveWay,
}

impl Worker {
    /// A worker. `give_way` is asked where descriptors have run out.
    pub(in crate::proxy) fn new(shared: Arc<Shared>, give_way: GiveWay) -> Self {
        let connections = shared.settings.load().limits.connections;
        Self {
            shared,
            buffers: Rc::default(),
            names: Rc::default(),
            permits: Arc::new(Semaphore::new(connections)),
            flows: Arc::new(Semaphore::new(connections / 2)),
            guests: Rc::default(),
            give_way,
        }
    }

    /// Has those give way who can be spared: connections to upstreams that wait for requests, where descriptors ran
    /// out; then one of a client who is quiet. Says whether there is room in a moment.
    pub(in crate::proxy) fn make_room(&self, lack: Lack) -> bool {
        (lack == Lack::Descriptors && (self.give_way)()) || self.guests.make_room()
    }

    /// Gives up places of its quiet clients when somebody waits for one, on whichever worker. Never ends.
    pub(in crate::proxy) async fn give_places(&self) -> Infallible {
        self.shared.crowd.house.answer(|| self.make_room(Lack::Places)).await
    }

    /// Connects, within a time. Where descriptors have run out others give way.
    pub(in crate::proxy) async fn connect(&self, to: Spot, patience: Duration) -> io::Result<TcpStream> {
        for _ in 0..GIVING_WAY {
            match dial::connect(to, patience).await {
                Err(error) if net::is_scarcity(&error) && self.make_room(Lack::Descriptors) => {
                    // Who gives way does so before we go on.
                    tokio::task::yield_now().await;
                }
                done => return done,
            }
        }
        dial::connect(to, patience).await
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("shared", &self.shared).field("guests", &self.guests).finish_non_exhaustive()
    }
}
