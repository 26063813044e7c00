//! One client's connection.

use std::{net::SocketAddr, rc::Rc, sync::Arc, sync::atomic::Ordering, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::Instant};

use super::{dial, first::First, status};
use crate::{
    backend::Backend,
    control::LiveRoute,
    model::{Transport, WakeOn},
    net::{Beneath, Carries, Ended, copy_both_ways, reset_when_dropped},
    proxy::{
        Worker,
        access::{self, StreamNotes},
        dialling::is_awake,
        http::{Inner, gone},
        ports::{Caller, Closed, Look, Place, Port, Way, enter, look},
        told,
    },
};

/// A client that has gone without a word is noticed after about two minutes; one to whom bytes are under way only when
/// the system gives those up, after a quarter of an hour.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// A client and the route that it wants.
pub(super) struct Session {
    pub(super) worker: Rc<Inner>,
    pub(super) stream: TcpStream,
    pub(super) caller: Caller,
    pub(super) route: Arc<LiveRoute>,
    /// What was read of it.
    pub(super) first: First,
    /// What is noted of it, where a log wants it.
    notes: Option<StreamNotes>,
}

/// Why a session ended before it was carried.
pub(super) enum End {
    /// The client left.
    Left,
    /// It was turned away.
    Closed(Closed),
    /// It got what it came for.
    Answered,
}

/// Serves a connection to its end.
pub(in crate::proxy) async fn connection(worker: Worker, stream: TcpStream, peer: SocketAddr, port: Arc<Port>) {
    let Some(mut session) = meet(worker.0, stream, peer, &port).await else { return };
    let Some(_place) = Place::take(&session.route) else {
        tracing::debug!(route = %session.route.spec.alias, "a connection over the bound of the route was closed");
        if let Some(notes) = &session.notes {
            notes.status.set(503);
        }
        reset_when_dropped(&session.stream);
        return;
    };
    let route = Arc::clone(&session.route);
    if let Some(notes) = &session.notes {
        // Unless its end is seen.
        notes.cut.set(Some(access::SHUTDOWN));
    }
    let ended = session.run().await;
    if let Some(notes) = &session.notes {
        notes.status.set(match &ended {
            Ok(_) | Err(End::Answered) => 200,
            Err(End::Left) => 499,
            Err(End::Closed(_)) => 503,
        });
        notes.cut.set(match &ended {
            Ok(ended) => access::cut(*ended),
            Err(_) => None,
        });
    }
    match ended {
        Ok(_) | Err(End::Answered) => {}
        Err(End::Left) => {
            route.counters.client_left.fetch_add(1, Ordering::Relaxed);
        }
        Err(End::Closed(Closed(why))) => {
            tracing::debug!(route = %route.spec.alias, client = %peer, why, "a connection was closed");
        }
    }
}

/// Finds out who the client is and which route it wants.
async fn meet(worker: Rc<Inner>, stream: TcpStream, peer: SocketAddr, port: &Port) -> Option<Session> {
    let settings = worker.shared.settings.load_full();
    prepare(&stream).ok()?;
    let ends = told::ends(&stream, peer, &settings).await.ok()?;
    let patience = settings.limits.header_timeout;
    let mut first = First::default();
    let name = if port.needs_hello() { first.name(&stream, patience).await? } else { None };
    let caller = Caller { transport: Transport::Tcp, ends };
    let route = port.route(name.as_deref()).filter(|route| caller.may_use(route));
    let Some(route) = route else {
        tracing::debug!(client = %peer, "a connection that no route takes was closed");
        reset_when_dropped(&stream);
        return None;
    };
    let notes = StreamNotes::begin(&worker.shared, &route, caller);
    Some(Session { worker, stream, caller, route, first, notes })
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl Session {
    async fn run(&mut self) -> Result<Ended, End> {
        let (way, upstream) = self.reach().await?;
        prepare(&upstream).map_err(|error| End::Closed(Closed(error.to_string())))?;
        let mut begun = self.first.take();
        if self.route.spec.options.upstream.proxy_header {
            let header = self.caller.ends.header(Carries::Stream);
            begun.splice(0..0, header);
        }
        let idle = self.route.backend.as_ref().and_then(|backend| backend.policy().stream_idle);
        let (counters, notes) = (&self.route.counters, &self.notes);
        let carried = |up: u64, down: u64| {
            counters.bytes_in.fetch_add(up, Ordering::Relaxed);
            counters.bytes_out.fetch_add(down, Ordering::Relaxed);
            if let Some(notes) = notes {
                notes.carried(up, down);
            }
        };
        if let Some(notes) = notes {
            // Cut by the end of Dormouse, it was carried all the same.
            notes.status.set(200);
        }
        carried(begun.len() as u64, 0);
        let ended = copy_both_ways(&self.stream, &upstream, begun, idle, |moved| {
            carried(moved.up, moved.down);
            if let Some(pass) = &way.pass {
                pass.touch();
            }
        })
        .await;
        if ended == Ended::Silent {
            tracing::debug!(route = %self.route.spec.alias, "a silent connection was closed");
        }
        Ok(ended)
    }

    /// A connection to the endpoint, awake then.
    async fn reach(&mut self) -> Result<(Way, TcpStream), End> {
        let route = Arc::clone(&self.route);
        let mut tries = dial::Tries::default();
        loop {
            let way = match look(&self.worker, &route, self.caller).await.map_err(End::Closed)? {
                Look::Open(way) => way,
                Look::Asleep(backend) => {
                    let since = Instant::now();
                    let woken = self.wake(&route, backend).await;
                    if let Some(notes) = &self.notes {
                        notes.waited.set(notes.waited.get() + since.elapsed());
                    }
                    woken?
                }
            };
            let error = match dial::dial(self, &way).await? {
                Ok(upstream) => return Ok((way, upstream)),
                Err(error) => error,
            };
            // The pass is given back meanwhile: what has died can be seen as such, and woken.
            let settling = way.is_settling(&route);
            drop(way);
            tries.after(&self.worker, &route, settling, error).await?;
        }
    }

    /// Wakes the backend, if what the client says is a reason to, or another client did meanwhile.
    async fn wake(&mut self, route: &LiveRoute, backend: &Backend) -> Result<Way, End> {
        if let WakeOn::Data(openings) = &route.spec.options.wake_on {
            let patience = self.worker.shared.settings.load().limits.header_timeout;
            let opens = tokio::select! {
                biased;
                opens = self.first.opens(&self.stream, openings, patience) => opens,
                // What is awake is for everyone, also for those who wait for it to speak first.
                () = is_awake(backend) => true,
            };
            if !opens {
                return Err(status::answer(self, backend).await);
            }
        }
        // Who ends without a word has left. Who said something may only have nothing to add.
        let left = gone(Beneath::Socket(&self.stream), self.first.is_empty());
        tokio::select! {
            biased;
            entered = enter(&self.worker, route, backend, self.caller) => entered.map_err(End::Closed),
            () = left => Err(End::Left),
        }
    }
}
