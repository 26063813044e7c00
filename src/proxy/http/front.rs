//! The client's side: heads are read from a connection, answered one after the other, and the connection kept alive.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    task::unconstrained,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    model::Transport,
    net::{Beneath, Secured, Stream, has_unread, reset_when_dropped},
    proxy::{
        carry::{Buf, Deadline},
        ports::{self, Caller},
        told,
        worker::{self, Guest, ProxySettings},
    },
};

use super::{
    answer::Answer,
    arena::{Arena, Held},
    bad_request::BadRequest,
    call, crowded, exchange,
    forwarded::Peer,
    h2_connection,
    noting::{self, Notes},
    request_head::{self, RequestHead},
    secure::{self, Https, Met},
    unread::Unread,
    worker::HttpWorker,
};

/// At a shutdown, a connection on which nothing was asked yet has so long for its one request.
pub(super) const FIRST_WORDS: Duration = Duration::from_secs(1);

/// When another process has taken over, one on which nothing is asked has so long for its last request: clients that
/// keep their connections busy learn from an answer that theirs ends, rather than from a request that is lost.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What all requests of a connection have in common.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) worker: Rc<HttpWorker>,
    pub(super) settings: Arc<ProxySettings>,
    pub(super) peer: Rc<Peer>,
    /// What is known of its TLS; absent: it came in clear.
    pub(super) secured: Option<Rc<Secured>>,
    pub(super) shutdown: CancellationToken,
}

/// A client's connection, or one stream of it.
pub(super) struct Client {
    pub(super) stream: Stream,
    /// What is known of its TLS; absent: it came in clear.
    pub(super) secured: Option<Rc<Secured>>,
    pub(super) peer: Rc<Peer>,
    /// What came and was not used yet. Nothing is held while nothing came.
    pub(super) input: Option<Buf>,
    pub(super) worker: Rc<HttpWorker>,
    pub(super) settings: Arc<ProxySettings>,
    pub(super) timer: Deadline,
    /// When the first byte of the request came.
    pub(super) arrived: Instant,
    /// Its head came with that byte, as a whole.
    pub(super) prompt: bool,
    /// When the last answer ended, or the connection began.
    pub(super) quiet_since: Instant,
    /// What is noted of the present request, where a log wants it.
    pub(super) notes: Option<Box<Notes>>,
    /// Nothing was asked on it yet.
    fresh: bool,
    /// A shutdown waits for what is asked first, and not for long.
    parting: bool,
    /// Its place; absent: one stream of many, which have one together.
    guest: Option<Guest>,
    shutdown: CancellationToken,
    /// The shutdown, once it wakes this task.
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The next request may come.
    Again,
    /// It ends now.
    Close,
    /// It ends, but what the client still sends is read away first, so that it gets to see the answer.
    Linger,
    /// It is reset: the client must not take what it got for the whole.
    Reset,
}

enum Wait {
    Ready,
    Ended,
}

/// Serves a connection to its end, through TLS where its listener has it.
pub(in crate::proxy) async fn connection(
    worker: Rc<HttpWorker>,
    tcp: TcpStream,
    https: Option<Rc<Https>>,
    (peer, guest): (SocketAddr, Guest),
    shutdown: CancellationToken,
) {
    let port = tcp.local_addr().map_or(0, |address| address.port());
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let settings = worker.shared.settings.load_full();
    let Ok(ends) = told::ends(&tcp, peer, &settings).await else { return };
    // Who waits for the place of another is not asked for its own; and it was not silent while a proxy told of it.
    guest.busy();
    let _seat = match worker::enter(&worker, ends.source, &settings).await {
        Ok(seat) => seat,
        Err(why) => return crowded::turn_away_at_once(tcp, https.is_some(), why),
    };
    guest.silent(Instant::now());
    let (stream, secured) = match https {
        None => (Stream::Plain(tcp), None),
        Some(https) => {
            let caller = Caller { transport: Transport::Tcp, ends };
            let begun = || guest.half(Instant::now());
            match Box::pin(secure::meet(&https, tcp, caller, &shutdown, begun)).await {
                Met::Secured(stream, secured) => (Stream::Tls(stream), Some(*secured)),
                Met::Clear(tcp, begun) => {
                    let link = Link::new(worker, settings, (ends.source, port), None, shutdown);
                    let mut client = Client::new(&link, Stream::Plain(tcp));
                    client.guest = Some(guest);
                    return Box::pin(client.refuse_clear(begun)).await;
                }
                Met::Stream(tcp, first, route) => {
                    guest.busy();
                    return (https.streams)(ports::Met { tcp, caller, route, first }).await;
                }
                Met::Nobody => return,
            }
        }
    };
    if secured.is_some() {
        // It has spoken.
        guest.half(Instant::now());
    }
    let http2 = secured.as_ref().is_some_and(|secured| secured.http2);
    let link = Link::new(worker, settings, (ends.source, port), secured, shutdown);
    if http2 {
        return Box::pin(h2_connection::serve(Rc::new(link), stream, None, Some(guest))).await;
    }
    let mut client = Client::new(&link, stream);
    client.guest = Some(guest);
    let mut first = client.secured.is_none();
    loop {
        let next = match client.head().await {
            Ok(Some(head)) => {
                let arena = client.worker.arenas.lend();
                exchange(&mut client, &head, &arena).await
            }
            Ok(None) => Next::Close,
            Err(_) if first && client.speaks_http2() => {
                let Client { stream, input, guest, .. } = client;
                return Box::pin(h2_connection::serve(Rc::new(link), stream, input, guest)).await;
            }
            Err(answer) => Box::pin(client.refuse_head(&answer)).await,
        };
        first = false;
        match next {
            Next::Again => {}
            Next::Close => return client.stream.say_goodbye(),
            Next::Linger => return Box::pin(client.linger()).await,
            Next::Reset => return client.reset(),
        }
    }
}

/// Works on a request. A function of its own, so that nothing of it is on the stack of who waits.
#[inline(never)]
fn exchange<'a>(
    client: &'a mut Client,
    head: &'a RequestHead,
    arena: &'a Arena,
) -> Held<'a, impl Future<Output = Next> + use<'a>> {
    arena.hold(|| exchange::run(client, head, arena))
}

impl Link {
    /// Of a client that came from this address to this port.
    fn new(
        worker: Rc<HttpWorker>,
        settings: Arc<ProxySettings>,
        (source, port): (SocketAddr, u16),
        secured: Option<Secured>,
        shutdown: CancellationToken,
    ) -> Self {
        let peer = Rc::new(Peer::new(source, port, secured.is_some(), &settings.trusted_proxies));
        Self { worker, settings, peer, secured: secured.map(Rc::new), shutdown }
    }
}

impl Client {
    pub(super) fn new(link: &Link, stream: Stream) -> Self {
        let now = Instant::now();
        Self {
            stream,
            peer: Rc::clone(&link.peer),
            secured: link.secured.clone(),
            input: None,
            worker: Rc::clone(&link.worker),
            settings: Arc::clone(&link.settings),
            timer: Deadline::new(now + link.settings.limits.keep_alive_timeout),
            arrived: now,
            prompt: true,
            quiet_since: now,
            notes: None,
            fresh: true,
            parting: false,
            guest: None,
            shutdown: link.shutdown.clone(),
            stop: None,
        }
    }

    /// Whether what came is the beginning of a connection of HTTP/2, which is no request (RFC 9113, 3.3).
    fn speaks_http2(&self) -> bool {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        self.input.as_ref().is_some_and(|input| {
            let known = input.len().min(PREFACE.len());
            input.filled().get(..known) == PREFACE.get(..known)
        })
    }

    /// Whether no new request is taken on this connection.
    pub(super) fn is_stopping(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Resolves when no new request is taken.
    pub(super) async fn stopping(&self) {
        self.shutdown.cancelled().await;
    }

    /// The next head; `None` when the client or we are done.
    async fn head(&mut self) -> Result<Option<RequestHead>, Answer> {
        let limits = self.settings.limits.for_heads();
        let mut started = self.input.as_ref().is_some_and(|input| !input.is_empty());
        (self.arrived, self.prompt) = (self.quiet_since, true);
        self.timer.set(self.quiet_since + if started { limits.header } else { limits.keep_alive });
        if let Some(guest) = self.guest.as_ref().filter(|_| !started) {
            guest.quiet(self.quiet_since);
        }
        loop {
            if let Some(mut input) = self.input.take_if(|input| !input.is_empty()) {
                if !started {
                    self.arrived = Instant::now();
                    self.guest.iter().for_each(|guest| guest.half(self.arrived));
                }
                let head = match request_head::take(&mut input, &self.worker.shelf, limits.line, limits.head) {
                    Ok(head) => head,
                    Err(bad) => {
                        self.input = Some(input);
                        return Err(bad.into());
                    }
                };
                if head.is_none() && !input.make_room(limits.head) {
                    self.input = Some(input);
                    return Err(BadRequest::HeadTooLarge.into());
                }
                self.input = Some(input).filter(|input| !input.is_empty());
                if let Some(head) = head {
                    self.fresh = false;
                    self.guest.iter().for_each(Guest::busy);
                    return Ok(Some(head));
                }
                self.guest.iter().for_each(|guest| guest.half(self.arrived));
                if !started {
                    started = true;
                    self.timer.set(self.arrived + limits.header);
                }
            }
            self.prompt = !started;
            if let Wait::Ended = poll_fn(|cx| self.poll_input(cx, started)).await {
                let late = started && self.timer.has_come();
                return if late { Err(Answer::new(408, "The request did not come in time.")) } else { Ok(None) };
            }
        }
    }

    /// Reads more of a head, for as long as the timer allows; before its first byte a shutdown ends the wait, too, and
    /// somebody who needs the place.
    fn poll_input(&mut self, cx: &mut Context<'_>, started: bool) -> Poll<Wait> {
        if let Poll::Ready(wait) = self.poll_read(cx) {
            return Poll::Ready(wait);
        }
        if self.timer.poll(cx).is_ready() {
            return Poll::Ready(Wait::Ended);
        }
        if started {
            return Poll::Pending;
        }
        if let Some(guest) = self.guest.as_ref().filter(|guest| guest.leaves(cx)) {
            if !self.stream.beneath().socket().is_some_and(has_unread) {
                return Poll::Ready(Wait::Ended);
            }
            // It has gone on, and we hear of that in a moment: to close now would be a reset.
            guest.stays(cx);
        }
        if self.poll_stop(cx).is_pending() {
            return Poll::Pending;
        }
        let succeeded = self.worker.shared.is_succeeded();
        if !self.fresh && !succeeded {
            return Poll::Ready(Wait::Ended);
        }
        // Who has just been let in is about to ask.
        if !std::mem::replace(&mut self.parting, true) {
            self.timer.set(Instant::now() + if succeeded { LAST_WORDS } else { FIRST_WORDS });
        }
        self.timer.poll(cx).map(|()| Wait::Ended)
    }

    /// Ready when no new request is taken. Heard of by this task from the first poll on.
    fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_stopping() {
            return Poll::Ready(());
        }
        if self.stop.is_some() {
            return Poll::Pending;
        }
        let stop = self.stop.insert(Box::pin(self.shutdown.clone().cancelled_owned()));
        Pin::new(&mut unconstrained(stop.as_mut())).poll(cx)
    }

    /// The answer has ended. Returns how long it took since the request's first byte.
    pub(super) fn ended(&mut self) -> Duration {
        self.quiet_since = Instant::now();
        self.quiet_since - self.arrived
    }

    /// Reads what is there; a buffer is lent only when there is something to read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Wait> {
        if self.stream.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let mut input = self.input.take().unwrap_or_else(|| self.worker.buffers.lend());
        let mut spare = ReadBuf::new(input.spare_mut());
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut spare);
        let count = spare.filled().len();
        input.fill(count);
        self.input = Some(input).filter(|input| !input.is_empty());
        polled.map(|result| if result.is_ok() && count > 0 { Wait::Ready } else { Wait::Ended })
    }

    /// Sends an answer of our own. The connection stays only when the request was read whole.
    pub(super) fn answer(&mut self, head: Option<&RequestHead>, answer: &Answer) -> impl Future<Output = Next> {
        self.answer_with(head, answer, &[])
    }

    /// The same, with header fields that the route of the request wants.
    pub(super) async fn answer_with(
        &mut self,
        head: Option<&RequestHead>,
        answer: &Answer,
        wanted: &[(String, String)],
    ) -> Next {
        let whole = head.is_some_and(|head| head.keep_alive && !head.has_body());
        let keep_alive = whole && !self.is_stopping();
        // Nothing but the text is kept while it is sent: every connection carries the room of this.
        let text = {
            let is_http2 = matches!(self.stream.beneath(), Beneath::Within(_));
            let call = head.and_then(|head| call::told(head, answer, is_http2));
            call.as_ref().unwrap_or(answer).write_with(head, keep_alive, wanted)
        };
        let window = self.settings.limits.body_window;
        let written = tokio::time::timeout(window, self.stream.write_all(&text)).await;
        self.quiet_since = Instant::now();
        let sent = if matches!(written, Ok(Ok(()))) { text.len() as u64 } else { 0 };
        // What a call is told is an error here, whatever its status of HTTP.
        self.note(|notes| (notes.status, notes.bytes_out) = (Some(answer.status), sent));
        match written {
            Ok(Ok(())) if keep_alive => Next::Again,
            Ok(Ok(())) => Next::Linger,
            Ok(Err(_)) | Err(_) => Next::Close,
        }
    }

    /// Answers what is no request.
    async fn refuse_head(&mut self, answer: &Answer) -> Next {
        self.refuse(answer, |client| Unread::of_bytes(client.input.as_ref().map_or(&[], Buf::filled))).await
    }

    /// Answers what is no request. `read` tells what of it can be read, where a log wants it.
    pub(super) async fn refuse(&mut self, answer: &Answer, read: impl FnOnce(&Self) -> Unread) -> Next {
        noting::begin_unread(self);
        let next = self.answer(None, answer).await;
        noting::end_unread(self, answer.status, read);
        next
    }

    /// Answers one who began like this in clear where TLS is spoken, and ends the connection.
    async fn refuse_clear(mut self, begun: Vec<u8>) {
        self.refuse(&secure::speaks_tls(), |_| Unread::of_bytes(&begun)).await;
        self.linger().await;
    }

    /// Ends the connection so that the client can still read what it was sent: our side is closed, and what it
    /// sends is read away, within bounds.
    async fn linger(mut self) {
        let (time, mut bytes) = self.settings.limits.linger;
        // In clear that is done at once; a goodbye of TLS may have to wait for room.
        if !matches!(tokio::time::timeout(time, self.stream.shutdown()).await, Ok(Ok(()))) {
            return;
        }
        drop(self.input.take());
        self.timer.set(Instant::now() + time);
        loop {
            match poll_fn(|cx| self.poll_input(cx, true)).await {
                Wait::Ready => {}
                Wait::Ended => return,
            }
            let count = self.input.take().map_or(0, |input| input.len());
            let Some(left) = bytes.checked_sub(count) else { return };
            bytes = left;
        }
    }

    /// Ends the connection with a reset.
    fn reset(self) {
        // One within another connection is reset by being dropped before its end.
        if let Some(tcp) = self.stream.beneath().socket() {
            reset_when_dropped(tcp);
        }
    }
}
