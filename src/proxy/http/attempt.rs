//! One try to get a request answered, on one connection to the upstream.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWriteExt, Interest, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::{Instant, Sleep},
};

use crate::{backend::Pass, control::LiveRoute};

use super::{
    answer::Answer,
    buffer::Buf,
    dial,
    front::{Client, Next},
    pool::{Connection, Key, Slot},
    relay::{Cut, Emit, Pump},
    request_head::{Framing, RequestHead},
    response_head::{self, ResponseHead},
    rewrite::{self, Ending},
    tunnel,
};

/// Informational responses before the final one, at most.
const INTERIM: usize = 32;

/// How long a connection to an engine's forwarder must stay open before it is believed.
const FORWARDER_PROOF: Duration = Duration::from_millis(20);

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) address: SocketAddr,
    /// The address is the backend's own, not a forwarder that accepts for it.
    pub(super) own: bool,
    pub(super) generation: u64,
    /// Keeps the backend awake as long as it lives.
    pub(super) pass: Option<Pass>,
}

impl Way {
    /// The end of the time after a wake in which the backend may still be starting.
    pub(super) fn settles_at(&self, settle: Duration) -> Option<std::time::Instant> {
        let woke = self.pass.as_ref()?.woke()?;
        woke.at.checked_add(settle).filter(|end| *end > std::time::Instant::now())
    }
}

/// One request, whatever the number of tries.
pub(super) struct Job<'a> {
    pub(super) client: &'a mut Client,
    pub(super) head: &'a RequestHead,
    pub(super) route: &'a LiveRoute,
    /// What of the request is under way; kept between tries while nothing of it was written.
    pub(super) body: Option<Pump>,
    /// Told to the client once.
    pub(super) wake: Option<Duration>,
}

impl Job<'_> {
    /// Whether more of the request is still to come from the client, as far as can be told without reading it.
    pub(super) fn is_incomplete(&self) -> bool {
        let input = self.client.input.as_ref().map_or(&[][..], Buf::filled);
        match self.head.framing {
            Framing::Length(length) => length > input.len() as u64,
            Framing::Chunked => !input.ends_with(b"0\r\n\r\n"),
            Framing::Empty | Framing::UntilClose => false,
        }
    }
}

/// What went wrong in a try, before anything of the answer reached the client.
#[derive(Debug)]
pub(super) enum Fault {
    /// No connection.
    Dial(io::Error),
    /// All connections that the route allows are in use.
    Crowded,
    /// The connection ended before the first byte of an answer.
    Silent,
    /// A 502 or 503 of a backend that woke a moment ago.
    HalfStarted,
    /// No answer in time.
    Late,
    /// The answer is not HTTP, or not an answer to this request.
    Bad(#[allow(dead_code, reason = "shown in logs")] &'static str),
    /// The client left.
    ClientLeft,
    /// The client's body broke the rules.
    ClientBad,
    /// The client's body did not come at the least rate.
    ClientSlow,
}

/// A try that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: Fault,
    /// Bytes of the request that were written upstream.
    pub(super) written: u64,
    /// The connection had waited in the pool.
    pub(super) reused: bool,
}

enum Event {
    Head,
    /// The request is written.
    Written,
    Fault(Fault),
}

/// Tries.
pub(super) async fn attempt(job: &mut Job<'_>, way: &Way, fresh: bool) -> Result<Next, Failure> {
    let early = |fault| Failure { fault, written: 0, reused: false };
    let key = Key { address: way.address, generation: way.generation };
    let worker = std::rc::Rc::clone(&job.client.worker);
    let pooled = if fresh { None } else { worker.pool.take(key) };
    let reused = pooled.is_some();
    let mut upstream = match pooled {
        Some(connection) => connection,
        None => connect(job, way).await.map_err(early)?,
    };
    let pump = match job.body.take() {
        Some(pump) => pump,
        None => start(job, way).map_err(early)?,
    };
    let mut run = Run { pump, write_failed: false };
    let result = run.head(job, way, &mut upstream).await;
    let (head, input) = match result {
        Ok(found) => found,
        Err(fault) => {
            let written = run.pump.sent;
            if written == 0 {
                job.body = Some(run.pump);
            }
            return Err(Failure { fault, written, reused });
        }
    };
    Ok(respond(job, way, key, upstream, run, head, input).await)
}

/// The request's head, and what came of its body, ready to be written.
fn start(job: &mut Job<'_>, way: &Way) -> Result<Pump, Fault> {
    let worker = &job.client.worker;
    let mut out = worker.buffers.lend();
    let (mark, peer) = (&worker.shared.mark, &job.client.peer);
    rewrite::request(job.head, &job.route.spec, peer, mark, way.address, &mut out);
    let begun = if job.head.has_body() { job.client.input.take() } else { None };
    let mut pump =
        Pump::new(job.head.framing, Emit::AsIs, out, begun, &worker.buffers).map_err(|_| Fault::ClientBad)?;
    if let Some(surplus) = pump.take_surplus() {
        job.client.input = Some(surplus);
    }
    Ok(pump)
}

async fn connect(job: &mut Job<'_>, way: &Way) -> Result<Connection, Fault> {
    let (stream, slot) = tokio::select! {
        biased;
        opened = open(job, way) => opened?,
        () = gone(&job.client.stream, false) => return Err(Fault::ClientLeft),
    };
    // A forwarder accepts before the app listens, and closes then: what may not be repeated is sent only to a
    // connection that stays open.
    if !way.own && !job.head.may_be_repeated() {
        let ended = tokio::time::timeout(FORWARDER_PROOF, stream.readable()).await.is_ok();
        if ended {
            return Err(Fault::Dial(io::ErrorKind::ConnectionReset.into()));
        }
    }
    Ok(Connection::new(stream, slot))
}

/// A connection to the upstream, with its place where the route bounds them.
async fn open(job: &Job<'_>, way: &Way) -> Result<(TcpStream, Option<Slot>), Fault> {
    let upstream = &job.route.spec.upstream;
    let patience = upstream.connect_timeout;
    let slot = match upstream.max_conns {
        Some(bound) => Some(job.client.worker.pool.place(way.address, bound, patience).await.ok_or(Fault::Crowded)?),
        None => None,
    };
    Ok((dial::connect(way.address, patience).await.map_err(Fault::Dial)?, slot))
}

/// Resolves when the client has left: its connection is reset, or ended before the request did (`incomplete`).
/// Half-closing after a whole request is not leaving.
pub(super) async fn gone(client: &TcpStream, incomplete: bool) {
    loop {
        match client.peek(&mut [0]).await {
            Ok(0) if incomplete => return,
            Ok(0) => {
                // It may have gone for good: let the kernel find out.
                let keepalive = socket2::TcpKeepalive::new()
                    .with_time(Duration::from_secs(5))
                    .with_interval(Duration::from_secs(5))
                    .with_retries(3);
                let _ = socket2::SockRef::from(client).set_tcp_keepalive(&keepalive);
                break;
            }
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
    let _ = client.ready(Interest::ERROR).await;
}

/// The request's way to the upstream, and what is known of the connection.
pub(super) struct Run {
    pump: Pump,
    write_failed: bool,
}

impl Run {
    /// Writes the request and reads heads until the final one, or the 101 that was asked for.
    async fn head(
        &mut self,
        job: &mut Job<'_>,
        way: &Way,
        upstream: &mut Connection,
    ) -> Result<(ResponseHead, Buf), Fault> {
        let max_head = job.client.settings.limits.head;
        let to_head = job.head.method() == "HEAD";
        let mut input = None;
        for _ in 0..INTERIM {
            let head = loop {
                if let Some(buf) = &input
                    && let Some(head) =
                        response_head::read(buf, to_head, max_head).map_err(|_| Fault::Bad("malformed"))?
                {
                    break head;
                }
                self.more(job, upstream, &mut input, max_head).await?;
            };
            let Some(mut buf) = input.take() else { return Err(Fault::Silent) };
            if head.status >= 200 {
                self.check_settled(job, way, &head)?;
                return Ok((head, buf));
            }
            if head.status == 101 {
                return if answers_upgrade(job.head, &head, &buf) {
                    Ok((head, buf))
                } else {
                    Err(Fault::Bad("101 unasked"))
                };
            }
            if job.head.is_11 && (head.status != 100 || job.head.expects_continue) {
                interim(job, &head, &buf).await?;
            }
            buf.consume(head.length);
            input = Some(buf).filter(|buf| !buf.is_empty());
        }
        Err(Fault::Bad("informational responses without end"))
    }

    /// A 502 or 503 shortly after a wake is that of an app that has not finished starting.
    fn check_settled(&self, job: &Job<'_>, way: &Way, head: &ResponseHead) -> Result<(), Fault> {
        let settle = job.route.backend.as_ref().map_or(Duration::ZERO, |backend| backend.policy().settle);
        let early = matches!(head.status, 502 | 503) && way.settles_at(settle).is_some();
        if early && job.head.may_be_repeated() { Err(Fault::HalfStarted) } else { Ok(()) }
    }

    /// Reads more of a response head, while the request is still being written.
    async fn more(
        &mut self,
        job: &mut Job<'_>,
        upstream: &mut Connection,
        input: &mut Option<Buf>,
        max_head: usize,
    ) -> Result<(), Fault> {
        let waits = job.route.spec.upstream.response_header_timeout;
        let Client { stream, timer, settings, worker, input: rest, .. } = &mut *job.client;
        let (mut client_read, _) = stream.split();
        let (mut up_read, mut up_write) = upstream.stream.split();
        if !self.pump.finished() && !self.write_failed {
            let mut progress = Progress::default();
            let event = poll_fn(|cx| {
                match self.pump.poll(cx, &mut client_read, &mut up_write) {
                    Poll::Ready(Ok(())) => {
                        // Often the answer is not there yet, and the second wait sees to the rest.
                        return Poll::Ready(Event::Written);
                    }
                    Poll::Ready(Err(Cut::Sink(_))) => {
                        // The answer may have come all the same.
                        self.write_failed = true;
                        return Poll::Ready(Event::Written);
                    }
                    Poll::Ready(Err(Cut::Source(_))) => return Poll::Ready(Event::Fault(Fault::ClientLeft)),
                    Poll::Ready(Err(Cut::Malformed)) => return Poll::Ready(Event::Fault(Fault::ClientBad)),
                    Poll::Pending => {}
                }
                if let Poll::Ready(event) = poll_head(cx, &mut up_read, input, &worker.buffers, max_head) {
                    return Poll::Ready(event);
                }
                // Blocked by the client, or by the upstream.
                let by_client = !self.pump.has_output();
                let expecting = by_client && job.head.expects_continue && self.pump.received == 0;
                let (window, minimum) = if by_client && !expecting {
                    (settings.limits.body_window, settings.limits.body_minimum)
                } else {
                    (waits, 1)
                };
                if progress.is_too_slow(cx, timer, self.pump.received + self.pump.sent, window, minimum) {
                    let fault = if by_client && !expecting { Fault::ClientSlow } else { Fault::Late };
                    return Poll::Ready(Event::Fault(fault));
                }
                Poll::Pending
            })
            .await;
            if let Some(surplus) = self.pump.take_surplus() {
                *rest = Some(surplus);
            }
            match event {
                Event::Head => return Ok(()),
                Event::Written => {}
                Event::Fault(fault) => return Err(fault),
            }
        }
        timer.as_mut().reset(Instant::now() + waits);
        let mut left = pin!(gone(client_read.as_ref(), false));
        let event = poll_fn(|cx| {
            if let Poll::Ready(event) = poll_head(cx, &mut up_read, input, &worker.buffers, max_head) {
                return Poll::Ready(event);
            }
            if left.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Fault(Fault::ClientLeft));
            }
            timer.as_mut().poll(cx).map(|()| Event::Fault(Fault::Late))
        })
        .await;
        match event {
            Event::Head | Event::Written => Ok(()),
            Event::Fault(fault) => Err(fault),
        }
    }
}

/// Whether a 101 answers what the client asked for.
fn answers_upgrade(request: &RequestHead, head: &ResponseHead, buf: &Buf) -> bool {
    let (Some(asked), Some(given)) = (&request.upgrade, &head.upgrade) else { return false };
    let given = buf.filled().get(given.clone()).unwrap_or_default();
    request.part(asked).eq_ignore_ascii_case(given)
}

/// Passes an informational response on.
async fn interim(job: &mut Job<'_>, head: &ResponseHead, buf: &Buf) -> Result<(), Fault> {
    let mut out = job.client.worker.buffers.lend();
    let hide = job.route.spec.hide_response_headers.as_slice();
    let ending = Ending { is_11: true, keep_alive: true, wake: None, set: &[], hide };
    rewrite::response(head, buf.filled(), ending, &mut out);
    let window = job.client.settings.limits.body_window;
    match tokio::time::timeout(window, job.client.stream.write_all(out.filled())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Fault::ClientLeft),
        Err(_) => Err(Fault::ClientSlow),
    }
}

/// Reads what came of a response head.
fn poll_head(
    cx: &mut Context<'_>,
    source: &mut ReadHalf<'_>,
    input: &mut Option<Buf>,
    buffers: &std::rc::Rc<super::buffer::Buffers>,
    max_head: usize,
) -> Poll<Event> {
    if source.as_ref().poll_read_ready(cx).is_pending() {
        return Poll::Pending;
    }
    let buf = input.get_or_insert_with(|| buffers.lend());
    if buf.spare_mut().is_empty() && !buf.make_room(max_head) {
        return Poll::Ready(Event::Fault(Fault::Bad("head too large")));
    }
    let mut spare = ReadBuf::new(buf.spare_mut());
    let polled = Pin::new(source).poll_read(cx, &mut spare);
    let count = spare.filled().len();
    buf.fill(count);
    let empty = buf.is_empty();
    if empty {
        *input = None;
    }
    match polled {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Ok(())) if count > 0 => Poll::Ready(Event::Head),
        Poll::Ready(_) if empty => Poll::Ready(Event::Fault(Fault::Silent)),
        Poll::Ready(_) => Poll::Ready(Event::Fault(Fault::Bad("head cut"))),
    }
}

/// Watches that a body that waits for its client moves at a least rate.
#[derive(Debug, Default)]
pub(super) struct Progress {
    since: Option<u64>,
}

impl Progress {
    /// To be asked whenever nothing moves, with the bytes moved so far.
    pub(super) fn is_too_slow(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Pin<Box<Sleep>>,
        moved: u64,
        window: Duration,
        minimum: u64,
    ) -> bool {
        let mut since = match self.since {
            Some(since) => since,
            None => {
                timer.as_mut().reset(Instant::now() + window);
                moved
            }
        };
        while timer.as_mut().poll(cx).is_ready() {
            if moved - since < minimum {
                return true;
            }
            since = moved;
            timer.as_mut().reset(Instant::now() + window);
        }
        self.since = Some(since);
        false
    }

    /// Nothing waits for the client.
    pub(super) fn rest(&mut self) {
        self.since = None;
    }
}

/// Sends the response. From here on nothing is tried again: the client sees what happens.
async fn respond(
    job: &mut Job<'_>,
    way: &Way,
    key: Key,
    mut upstream: Connection,
    mut run: Run,
    head: ResponseHead,
    mut input: Buf,
) -> Next {
    let counters = &job.route.counters;
    counters.answered(head.status);
    let (is_11, worker) = (job.head.is_11, std::rc::Rc::clone(&job.client.worker));
    let (emit, may_stay) = rewrite::emit(&head, is_11);
    // A client that still sends is told that this connection ends with the answer.
    let keep_alive =
        job.head.keep_alive && may_stay && run.pump.finished() && !run.write_failed && !job.client.is_stopping();
    let ending = Ending {
        is_11,
        keep_alive,
        wake: job.wake.take().map(|took| took.as_millis()),
        set: &job.route.spec.set_response_headers,
        hide: &job.route.spec.hide_response_headers,
    };
    let mut out = worker.buffers.lend();
    rewrite::response(&head, input.filled(), ending, &mut out);
    input.consume(head.length);
    let begun = Some(input).filter(|input| !input.is_empty());
    if head.status == 101 {
        return tunnel::run(job, way, upstream, out, begun).await;
    }
    let Ok(mut pump) = Pump::new(head.framing, emit, out, begun, &worker.buffers) else {
        counters.upstream_errors.fetch_add(1, Ordering::Relaxed);
        return refuse(job).await;
    };
    let end = stream(job, way, &mut upstream, &mut run, &mut pump).await;
    counters.bytes_in.fetch_add(run.pump.received + job.head.len() as u64, Ordering::Relaxed);
    counters.bytes_out.fetch_add(pump.sent, Ordering::Relaxed);
    let whole = run.pump.finished() && !run.write_failed;
    match end {
        End::Whole => {
            if head.keep_alive && whole && pump.take_surplus().is_none() {
                worker.pool.put(key, upstream);
            }
            match (keep_alive, whole) {
                (true, true) => Next::Again,
                (false, true) if may_stay && job.client.input.is_none() => Next::Close,
                _ => Next::Linger,
            }
        }
        End::UpstreamCut => {
            counters.upstream_errors.fetch_add(1, Ordering::Relaxed);
            // Where the end of the connection is the end of the body, only a reset tells that it is no end.
            if may_stay { Next::Close } else { Next::Reset }
        }
        End::ClientCut => {
            counters.client_left.fetch_add(1, Ordering::Relaxed);
            Next::Reset
        }
    }
}

/// The body was malformed from its first byte: nothing was sent yet, so the client gets an answer of ours.
async fn refuse(job: &mut Job<'_>) -> Next {
    match job.client.answer(Some(job.head), &Answer::new(502, "The service answered with a malformed response.")).await
    {
        Next::Again | Next::Linger => Next::Linger,
        Next::Close | Next::Reset => Next::Close,
    }
}

enum End {
    Whole,
    UpstreamCut,
    ClientCut,
}

/// Moves the response's body to the client, and what is left of the request's body to the upstream.
async fn stream(job: &mut Job<'_>, way: &Way, upstream: &mut Connection, run: &mut Run, pump: &mut Pump) -> End {
    let Client { stream, timer, settings, input: rest, .. } = &mut *job.client;
    let (mut client_read, mut client_write) = stream.split();
    let (mut up_read, mut up_write) = upstream.stream.split();
    let mut progress = Progress::default();
    let mut touched = 0;
    let limits = &settings.limits;
    let mut poll_response = |cx: &mut Context<'_>, up_read: &mut ReadHalf<'_>, client_write: &mut WriteHalf<'_>| {
        match pump.poll(cx, up_read, client_write) {
            Poll::Ready(Ok(())) => return Poll::Ready(End::Whole),
            Poll::Ready(Err(Cut::Source(_) | Cut::Malformed)) => return Poll::Ready(End::UpstreamCut),
            Poll::Ready(Err(Cut::Sink(_))) => return Poll::Ready(End::ClientCut),
            Poll::Pending => {}
        }
        if pump.received != touched
            && let Some(pass) = &way.pass
        {
            touched = pump.received;
            pass.touch();
        }
        if !pump.has_output() {
            progress.rest();
        } else if progress.is_too_slow(cx, timer, pump.sent, limits.body_window, limits.body_minimum) {
            return Poll::Ready(End::ClientCut);
        }
        Poll::Pending
    };
    if !run.pump.finished() {
        let end = poll_fn(|cx| {
            if let Poll::Ready(end) = poll_response(cx, &mut up_read, &mut client_write) {
                return Poll::Ready(Some(end));
            }
            if run.write_failed {
                return Poll::Pending;
            }
            match run.pump.poll(cx, &mut client_read, &mut up_write) {
                Poll::Ready(Ok(())) => Poll::Ready(None),
                // The upstream takes no more, and may still be answering.
                Poll::Ready(Err(Cut::Sink(_))) => {
                    run.write_failed = true;
                    Poll::Pending
                }
                Poll::Ready(Err(Cut::Source(_) | Cut::Malformed)) => Poll::Ready(Some(End::ClientCut)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if let Some(surplus) = run.pump.take_surplus() {
            *rest = Some(surplus);
        }
        if let Some(end) = end {
            return end;
        }
    }
    let mut left = None;
    let client: &TcpStream = client_read.as_ref();
    poll_fn(|cx| {
        if let Poll::Ready(end) = poll_response(cx, &mut up_read, &mut client_write) {
            return Poll::Ready(end);
        }
        // Looked at only when the answer takes longer than one turn.
        let left = left.get_or_insert_with(|| Box::pin(gone(client, false)));
        left.as_mut().poll(cx).map(|()| End::ClientCut)
    })
    .await
}
