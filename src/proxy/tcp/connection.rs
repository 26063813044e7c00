//! One client's connection.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::Instant};

use super::{dial, meet::meet, status};
use crate::{
    backend::Backend,
    control::LiveRoute,
    model::WakeOn,
    net::{Carries, Ended, Moved, NoTls, Stream, copy_both_ways, reset_when_dropped},
    proxy::{
        access::{self, StreamNotes},
        carry::{carry, gone},
        dialling::is_awake,
        group::Turn,
        listening::Port,
        ports::{Caller, Closed, First, Look, Met, Place, Way, enter, look},
        told,
        worker::{self, Worker},
    },
    telemetry::chain,
};

/// A client that has gone without a word is noticed after about two minutes; one to whom bytes are under way only when
/// the system gives those up, after a quarter of an hour.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// A client on its way to an endpoint.
pub(super) struct Session<'a> {
    pub(super) worker: Rc<Worker>,
    pub(super) stream: Stream,
    pub(super) caller: Caller,
    pub(super) route: Arc<LiveRoute>,
    /// What was read of it.
    pub(super) first: First,
    /// Where it stands among the members of its group.
    pub(super) turn: Option<Box<Turn<'a>>>,
    /// What is noted of it, where a log wants it.
    notes: &'a Option<StreamNotes>,
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

/// Serves a connection to a port of stream routes to its end.
pub(in crate::proxy) async fn connection(worker: Rc<Worker>, tcp: TcpStream, peer: SocketAddr, port: Arc<Port>) {
    let settings = worker.shared.settings.load_full();
    let Ok(ends) = told::ends(&tcp, peer, &settings).await else { return };
    let Ok(_seat) = worker::enter(&worker, ends.source, &settings).await else { return reset_when_dropped(&tcp) };
    drop(settings);
    if let Some(met) = meet(&worker, tcp, ends, &port).await {
        serve(worker, met).await;
    }
}

/// Serves a client of a stream route to its end.
pub(in crate::proxy) async fn serve(worker: Rc<Worker>, met: Met) {
    let Met { tcp, caller, route, mut first } = met;
    let notes = StreamNotes::begin(&worker.shared, &route, caller);
    let Some(_place) = Place::take(&route) else {
        tracing::debug!(route = %route.spec.alias, "a connection over the bound of the route was closed");
        note(&notes, 503, None);
        return reset_when_dropped(&tcp);
    };
    // Unless its end is seen.
    note(&notes, 499, Some(access::SHUTDOWN));
    let ends_here = route.spec.options.tls_termination;
    let begun = match prepare(&tcp) {
        Err(error) => Err(End::Closed(Closed(error.to_string()))),
        Ok(()) if ends_here => terminate(&worker, tcp, first.take()).await,
        Ok(()) => Ok(Stream::Plain(tcp)),
    };
    let ended = match begun {
        Ok(stream) => {
            if let Some(notes) = &notes {
                notes.secure.set(ends_here);
            }
            let turn = route.group.as_deref().map(Turn::new);
            let session = Session { worker, stream, caller, route: Arc::clone(&route), first, turn, notes: &notes };
            session.run().await
        }
        Err(end) => Err(end),
    };
    match ended {
        Ok(ended) => note(&notes, 200, access::cut(ended)),
        Err(End::Answered) => note(&notes, 200, None),
        Err(End::Left) => {
            note(&notes, 499, None);
            route.counters.client_left.fetch_add(1, Ordering::Relaxed);
        }
        Err(End::Closed(Closed(why))) => {
            note(&notes, 503, None);
            tracing::debug!(route = %route.spec.alias, client = %caller.ends.source, why, "a connection was closed");
        }
    }
}

fn note(notes: &Option<StreamNotes>, status: u16, cut: Option<&'static str>) {
    if let Some(notes) = notes {
        notes.status.set(status);
        notes.cut.set(cut);
    }
}

/// Does the handshake for an endpoint that has nothing to do with TLS. Nobody is woken for those who do not finish it.
async fn terminate(worker: &Worker, tcp: TcpStream, begun: Vec<u8>) -> Result<Stream, End> {
    let closed = |why: String| End::Closed(Closed(why));
    let tls = worker.shared.tls().ok_or_else(|| closed("TLS is not set up".to_owned()))?;
    match Box::pin(tls.accept_stream(tcp, begun)).await {
        Ok(stream) => Ok(Stream::Tls(stream)),
        Err(NoTls::Done) => Err(End::Answered),
        Err(NoTls::Other(tcp, _)) => {
            reset_when_dropped(&tcp);
            Err(closed("the client does not speak TLS".to_owned()))
        }
        Err(error @ NoTls::Failed(_)) => Err(closed(chain(&error))),
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl Session<'_> {
    async fn run(mut self) -> Result<Ended, End> {
        let (way, upstream) = self.reach().await?;
        prepare(&upstream).map_err(|error| End::Closed(Closed(error.to_string())))?;
        let mut begun = self.first.take();
        if self.route.spec.options.upstream.proxy_header {
            let header = self.caller.ends.header(Carries::Stream);
            begun.splice(0..0, header);
        }
        let idle = self.route.backend.as_ref().and_then(|backend| backend.policy().stream_idle);
        let (counters, notes) = (&self.route.counters, self.notes);
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
        let moved = |moved: Moved| {
            carried(moved.up, moved.down);
            if let Some(pass) = &way.pass {
                pass.touch();
            }
        };
        let ended = match self.stream {
            Stream::Plain(client) => copy_both_ways(&client, &upstream, begun, idle, moved).await,
            client @ (Stream::Tls(_) | Stream::Within(_)) => {
                Box::pin(carry(&self.worker.buffers, (client, upstream.into()), &begun, idle, moved)).await
            }
        };
        if ended == Ended::Silent {
            tracing::debug!(route = %self.route.spec.alias, "a silent connection was closed");
        }
        Ok(ended)
    }

    /// A connection to the endpoint, awake then.
    async fn reach(&mut self) -> Result<(Way, TcpStream), End> {
        let mut tries = dial::Tries::default();
        self.choose(None)?;
        loop {
            let route = Arc::clone(&self.route);
            let looked = look(&self.worker, &route, self.caller).await;
            let way = match looked {
                Ok(Look::Open(way)) => way,
                Ok(Look::Asleep(backend)) => {
                    let since = Instant::now();
                    let woken = self.wake(&route, backend).await;
                    if let Some(notes) = self.notes {
                        notes.waited.set(notes.waited.get() + since.elapsed());
                    }
                    woken?
                }
                Err(closed) => {
                    self.turned_away(closed)?;
                    continue;
                }
            };
            // A member that was awake sooner, perhaps.
            let route = Arc::clone(&self.route);
            let error = match dial::dial(self, &way).await? {
                Ok(upstream) => {
                    self.arrived();
                    return Ok((way, upstream));
                }
                Err(error) => error,
            };
            // The pass is given back meanwhile: what has died can be seen as such, and woken.
            let settling = way.is_settling(&route);
            drop(way);
            if !self.goes_elsewhere(settling, &error) {
                tries.after(&self.worker, &route, settling, error).await?;
            }
            self.choose(None)?;
        }
    }

    /// The endpoint has taken the connection.
    fn arrived(&self) {
        if let Some(member) = self.turn.as_ref().and_then(|turn| turn.member()) {
            member.answered();
        }
        if let Some(notes) = self.notes {
            notes.goes_by(&self.route);
        }
    }

    /// Wakes the backend, if what the client says is a reason to, or another client did meanwhile.
    async fn wake(&mut self, route: &LiveRoute, backend: &Backend) -> Result<Way, End> {
        if let WakeOn::Data(openings) = &route.spec.options.wake_on {
            let patience = self.worker.shared.settings.load().limits.header_timeout;
            let opens = tokio::select! {
                biased;
                opens = self.first.opens(&mut self.stream, openings, patience) => opens,
                // What is awake is for everyone, also for those who wait for it to speak first.
                () = is_awake(backend) => true,
            };
            if !opens {
                return Err(status::answer(self, backend).await);
            }
        }
        if self.turn.is_some() {
            return self.wait_for_any(backend).await;
        }
        // Who ends without a word has left. Who said something may only have nothing to add.
        let left = gone(self.stream.beneath(), self.first.is_empty());
        tokio::select! {
            biased;
            entered = enter(&self.worker, route, backend, self.caller) => entered.map_err(End::Closed),
            () = left => Err(End::Left),
        }
    }
}
