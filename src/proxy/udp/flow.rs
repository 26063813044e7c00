//! One client: its datagrams, and the answers.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io, mem,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{io::Interest, net::UdpSocket, sync::Notify, time::Instant};

use super::{door::Pair, port::Common};
use crate::{
    backend::{Backend, Pass},
    control::{LiveGroup, LiveRoute, UnderWay},
    model::IdlePolicy,
    net::{self, Carries},
    proxy::{
        access::StreamNotes,
        dialling::dial_pause,
        group::{Asker, Turn},
        ports::{Caller, Closed, Look, Way, enter, is_ignored, look},
        worker::Worker,
    },
};

/// Datagrams, and bytes of them, that a flow keeps while its backend wakes.
const KEPT: (usize, usize) = (256, 256 << 10);

/// After a wake: within this time, a port that nobody listens on yet says so.
const REFUSAL: Duration = Duration::from_millis(1);

/// A flow.
#[derive(Debug)]
pub(super) struct Flow {
    route: Arc<LiveRoute>,
    /// The group that it is of, and the member that it stays with.
    pinned: Option<(Arc<LiveRoute>, usize, UnderWay)>,
    caller: Caller,
    /// When a datagram last moved, in either direction.
    moved: Cell<Instant>,
    /// The endpoint said no to a datagram, as was seen when the next one was sent.
    refused: Notify,
    /// What is noted of it, where a log wants it.
    notes: Option<StreamNotes>,
    state: RefCell<State>,
}

#[derive(Debug)]
enum State {
    /// Its backend wakes, or what was kept is being sent.
    Waiting { kept: VecDeque<Vec<u8>>, bytes: usize },
    /// What comes is sent on at once.
    Open { upstream: Rc<UdpSocket>, pass: Option<Rc<Pass>> },
}

impl Flow {
    /// A flow; of a group it is pinned to one member. None when there is nobody to take it.
    pub(super) fn new(worker: &Worker, route: Arc<LiveRoute>, caller: Caller, now: Instant) -> Option<Self> {
        let notes = StreamNotes::begin(&worker.shared, &route, caller);
        let state = State::Waiting { kept: VecDeque::new(), bytes: 0 };
        let (route, pinned) = match route.group.as_deref() {
            None => (route, None),
            Some(group) => {
                let at = turn_of(worker, group, caller)?;
                let member = group.members.get(at)?;
                let load = member.under_way();
                let bound = member.route.spec.options.upstream.max_conns;
                if bound.is_some_and(|most| member.load() as usize > most) {
                    return None;
                }
                (Arc::clone(&member.route), Some((route, at, load)))
            }
        };
        if let Some(notes) = &notes {
            notes.goes_by(&route);
        }
        let (moved, refused, state) = (Cell::new(now), Notify::new(), RefCell::new(state));
        Some(Self { route, pinned, caller, moved, refused, notes, state })
    }

    /// Whether it waits for nothing, and nothing moved for so long.
    pub(super) fn is_quiet_for(&self, time: Duration) -> bool {
        matches!(*self.state.borrow(), State::Open { .. }) && self.moved.get().elapsed() >= time
    }

    /// A datagram of the client: sent on, or kept. One that finds no room is lost, as it may be on any way.
    pub(super) fn take(&self, common: &Common, datagram: &[u8]) {
        self.moved.set(Instant::now());
        let counters = &self.route.counters;
        let whole = self.with_header(datagram);
        match &mut *self.state.borrow_mut() {
            State::Open { upstream, pass } => {
                if let Some(pass) = pass {
                    pass.touch();
                }
                if let Err(error) = send_on(upstream, whole.as_deref().unwrap_or(datagram), &self.refused) {
                    tracing::debug!(client = %self.caller.ends.source, %error, "a datagram was not sent");
                    return;
                }
            }
            State::Waiting { kept, bytes } => {
                let whole = whole.unwrap_or_else(|| datagram.to_vec());
                let fits = kept.len() < KEPT.0 && *bytes + whole.len() <= KEPT.1;
                if !fits || !common.keep(whole.len()) {
                    tracing::debug!(client = %self.caller.ends.source, "a datagram over the bounds was dropped");
                    return;
                }
                *bytes += whole.len();
                kept.push_back(whole);
            }
        }
        counters.bytes_in.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        if let Some(notes) = &self.notes {
            notes.carried(datagram.len() as u64, 0);
        }
    }

    /// The datagram behind its PROXY header, where the route asks for one.
    fn with_header(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.route.spec.options.upstream.proxy_header.then(|| {
            let mut whole = self.caller.ends.header(Carries::Datagrams);
            whole.extend_from_slice(datagram);
            whole
        })
    }

    /// The oldest datagram that is kept.
    fn next_kept(&self, common: &Common) -> Option<Vec<u8>> {
        match &mut *self.state.borrow_mut() {
            State::Waiting { kept, bytes } => {
                let next = kept.pop_front()?;
                *bytes -= next.len();
                common.let_go(next.len());
                Some(next)
            }
            State::Open { .. } => None,
        }
    }

    fn kept(&self) -> usize {
        match &*self.state.borrow() {
            State::Waiting { kept, .. } => kept.len(),
            State::Open { .. } => 0,
        }
    }

    /// What is still kept is let go.
    pub(super) fn end(&self, common: &Common) {
        if let State::Waiting { kept, bytes } = &mut *self.state.borrow_mut() {
            common.let_go(mem::take(bytes));
            kept.clear();
        }
    }

    /// The endpoint takes no datagrams: the backend is looked at, or the name looked up again.
    fn distrust(&self, worker: &Worker, error: &io::Error) -> Closed {
        match &self.route.backend {
            Some(backend) => backend.suspect(),
            None => worker.names.forget(),
        }
        if let Some((group, at, _)) = &self.pinned
            && let Some(member) = group.group.as_ref().and_then(|group| group.members.get(*at))
        {
            member.refused();
        }
        Closed(format!("the endpoint takes no datagrams: {error}"))
    }

    /// There is no socket to send from.
    fn not_made(&self, error: &io::Error) -> Closed {
        if error.kind() == io::ErrorKind::PermissionDenied {
            tracing::warn!(route = %self.route.spec.alias, %error, "datagrams can not be sent to the endpoint");
        }
        Closed(error.to_string())
    }

    fn policy(&self) -> Arc<IdlePolicy> {
        self.route.backend.as_ref().map_or_else(Arc::default, |backend| backend.policy())
    }

    /// Nothing moved for the flow's time.
    async fn silent(&self) {
        let most = self.policy().flow_timeout;
        loop {
            let until = self.moved.get() + most;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// The member whose turn it is.
fn turn_of(worker: &Worker, group: &LiveGroup, caller: Caller) -> Option<usize> {
    let is_barred = |route: &LiveRoute, backend: &Backend| is_ignored(route, backend, caller);
    let client = caller.ends.source.ip().to_canonical();
    Turn::new(group).next(None, &Asker { shared: &worker.shared, client, is_barred: &is_barred })
}

/// Carries a flow to its end.
pub(super) async fn run(common: &Rc<Common>, flow: &Flow, pair: Pair) {
    if let Err(Closed(why)) = carry(common, flow, pair).await {
        if let Some(notes) = flow.notes.as_ref().filter(|notes| notes.status.get() != 200) {
            notes.status.set(503);
        }
        tracing::debug!(route = %flow.route.spec.alias, client = %pair.client, why, "a flow ended");
    }
}

async fn carry(common: &Rc<Common>, flow: &Flow, pair: Pair) -> Result<(), Closed> {
    let (worker, route) = (&common.worker, &flow.route);
    let way = match look(worker, route, flow.caller).await? {
        Look::Open(way) => way,
        Look::Asleep(backend) => {
            let since = Instant::now();
            let entered = enter(worker, route, backend, flow.caller).await;
            if let Some(notes) = &flow.notes {
                notes.waited.set(since.elapsed());
            }
            entered?
        }
    };
    let upstream = net::connect_udp(way.at).await.map_err(|error| flow.not_made(&error))?;
    let upstream = Rc::new(upstream);
    deliver(common, flow, &way, &upstream).await?;
    // Nothing is awaited between the last datagram that was kept and this: none is overtaken.
    let pass = way.pass.map(Rc::new);
    if let Some(notes) = &flow.notes {
        notes.status.set(200);
    }
    *flow.state.borrow_mut() = State::Open { upstream: Rc::clone(&upstream), pass: pass.clone() };
    tokio::select! {
        error = answers(common, flow, pair, &upstream, pass.as_deref()) => Err(flow.distrust(worker, &error)),
        () = flow.refused.notified() => Err(flow.distrust(worker, &io::ErrorKind::ConnectionRefused.into())),
        () = flow.silent() => Ok(()),
        () = is_over(route.backend.as_ref(), pass.as_deref()) => {
            Err(Closed("the backend is down, or has another address".to_owned()))
        }
    }
}

/// Resolves when nobody is behind the address any more, or another one: the next datagram begins a flow to where the
/// backend is then.
async fn is_over(backend: Option<&Backend>, pass: Option<&Pass>) {
    match backend.zip(pass) {
        Some((backend, pass)) => backend.outlives(pass.generation()).await,
        None => std::future::pending().await,
    }
}

/// Sends what was kept, in order. After a wake the first one tells whether somebody listens already, and what was there
/// by then goes out in turn: what comes meanwhile must not wait for that again, or a quick client would never be through.
async fn deliver(common: &Common, flow: &Flow, way: &Way, upstream: &UdpSocket) -> Result<(), Closed> {
    let mut heard = !way.is_settling(&flow.route);
    let mut crowd = if heard { 0 } else { flow.kept() };
    while let Some(datagram) = flow.next_kept(common) {
        let mut tries = 0;
        if let Some(rest) = crowd.checked_sub(1) {
            crowd = rest;
            common.turn().await;
        }
        while let Err(error) = send(upstream, &datagram, !heard).await {
            tries += 1;
            if error.kind() != io::ErrorKind::ConnectionRefused || !way.is_settling(&flow.route) {
                return Err(flow.distrust(&common.worker, &error));
            }
            tokio::time::sleep(dial_pause(tries)).await;
            common.turn().await;
        }
        heard = true;
        flow.moved.set(Instant::now());
    }
    Ok(())
}

/// Sends at once. That the endpoint refused an earlier one is told here, and only once: that was not about this one.
fn send_on(upstream: &UdpSocket, datagram: &[u8], refused: &Notify) -> io::Result<()> {
    let mut sent = upstream.try_send(datagram);
    if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused) {
        refused.notify_one();
        sent = upstream.try_send(datagram);
    }
    sent.map(|_| ())
}

async fn send(upstream: &UdpSocket, datagram: &[u8], proof: bool) -> io::Result<()> {
    upstream.send(datagram).await?;
    if proof {
        tokio::time::sleep(REFUSAL).await;
        if let Some(error) = upstream.take_error()? {
            return Err(error);
        }
    }
    Ok(())
}

/// Resolves when an answer may be there, or with what came instead: that does not make a socket readable.
async fn answered(upstream: &UdpSocket) -> io::Result<()> {
    loop {
        let ready = upstream.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            let error = || upstream.take_error()?.map_or(Err(io::ErrorKind::WouldBlock.into()), Err);
            match upstream.try_io(Interest::ERROR, error) {
                // It was told to somebody who sent.
                Err(none) if none.kind() == io::ErrorKind::WouldBlock => {}
                told => return told,
            }
        }
        if ready.is_readable() {
            return Ok(());
        }
    }
}

/// Passes answers back, until the endpoint refuses.
async fn answers(common: &Common, flow: &Flow, pair: Pair, upstream: &UdpSocket, pass: Option<&Pass>) -> io::Error {
    loop {
        if let Err(error) = answered(upstream).await {
            return error;
        }
        let late = {
            let mut room = common.room.borrow_mut();
            match upstream.try_recv(&mut room) {
                Ok(count) => {
                    common.was_answered();
                    flow.moved.set(Instant::now());
                    if let Some(pass) = pass {
                        pass.touch();
                    }
                    flow.route.counters.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
                    if let Some(notes) = &flow.notes {
                        notes.carried(0, count as u64);
                    }
                    let answer = room.get(..count).unwrap_or_default();
                    let sent = common.door.try_send(answer, pair);
                    matches!(sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock).then(|| answer.to_vec())
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(error) => return error,
            }
        };
        if let Some(answer) = late
            && common.door.writable().await.is_ok()
        {
            let _ = common.door.try_send(&answer, pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// Connected to where nobody is, and told so.
    async fn refused() -> (UdpSocket, SocketAddr) {
        let address = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let upstream = net::connect_udp(address.into()).await.unwrap();
        upstream.send(b"to nobody").await.unwrap();
        must(upstream.ready(Interest::ERROR)).await.unwrap();
        (upstream, address)
    }

    async fn must<T>(coming: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), coming).await.unwrap()
    }

    #[tokio::test]
    async fn a_refusal_ends_the_waiting_for_an_answer_once() {
        let (upstream, address) = refused().await;
        assert_eq!(must(answered(&upstream)).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let endpoint = UdpSocket::bind(address).await.unwrap();
        endpoint.send_to(b"an answer", upstream.local_addr().unwrap()).await.unwrap();
        must(answered(&upstream)).await.unwrap();
        assert_eq!(upstream.try_recv(&mut [0; 100]).unwrap(), b"an answer".len());
    }

    #[tokio::test]
    async fn a_refusal_of_an_earlier_datagram_loses_no_other_and_is_told() {
        let (upstream, address) = refused().await;
        let endpoint = UdpSocket::bind(address).await.unwrap();
        let told = Notify::new();
        send_on(&upstream, b"to the endpoint", &told).unwrap();
        let mut room = [0; 100];
        let count = must(endpoint.recv(&mut room)).await.unwrap();
        assert_eq!(&room[..count], b"to the endpoint");
        must(told.notified()).await;
    }
}
