//! A client's connection of HTTP/2: each stream is a request of its own, worked on by a task of its own.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{Request, request::Parts};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    net::{Lack, Stream},
    proxy::{
        carry::{Buf, Deadline},
        worker::Guest,
    },
};

use super::{
    answer::Answer,
    exchange,
    front::{Client, Link},
    h2_frames::Frames,
    h2_request::{self, Unfit},
    h2_stream::H2Stream,
    h2_wire::{Handle, Wire},
    noting,
    request_head::RequestHead,
    unread::Unread,
};

/// Requests of one connection at once.
const STREAMS: u32 = 128;

/// What a client may send before any of it was passed on: for each request, and for all of a connection. The second is
/// enough for all requests: one that is held never closes the window of another.
const WINDOW: u32 = 128 * 1024;
const WINDOW_OF_ALL: u32 = STREAMS * WINDOW;

/// What of an answer waits for the client at most.
const SEND_BUFFER: usize = 32 * 1024;

/// Streams that were reset before they were worked on, at most.
const RESET_EARLY: usize = 20;

/// Streams that we reset for what the client did wrong, at most.
const RESET_BY_US: usize = 200;

/// What the access log calls a request whose stream is reset because it breaks the rules: what HTTP/1.1 would answer it.
const MALFORMED: u16 = 400;

/// Serves a connection of HTTP/2 to its end. `begun` is what of it was read already.
pub(super) async fn serve(link: Rc<Link>, stream: Stream, begun: Option<Buf>, guest: Option<Guest>) {
    let wire = Rc::new(RefCell::new(Wire::new(stream, begun, Frames::default())));
    if let Err(error) = run(&link, &wire, guest).await {
        tracing::debug!(error = %error, "a connection of HTTP/2 ended");
    }
    let mut wire = wire.borrow_mut();
    wire.say_goodbye();
}

async fn run(link: &Rc<Link>, wire: &Rc<RefCell<Wire<Frames>>>, guest: Option<Guest>) -> io::Result<()> {
    let limits = &link.settings.limits;
    let mut timer = Deadline::new(Instant::now() + limits.header_timeout);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW_OF_ALL)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESET_EARLY)
        .max_local_error_reset_streams(Some(RESET_BY_US))
        .enable_connect_protocol();
    let mut handshake = pin!(builder.handshake::<_, Bytes>(Handle(Rc::clone(wire))));
    let connection = poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        match wire.borrow_mut().poll_send(cx) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        if let Poll::Ready(result) = polled {
            return Poll::Ready(result.map(Some).map_err(io::Error::other));
        }
        timer.poll(cx).map(|()| Ok(None))
    });
    let Some(connection) = connection.await? else { return Ok(()) };
    let now = Instant::now();
    if let Some(guest) = &guest {
        guest.quiet(now);
    }
    let mut driver = Driver {
        link,
        wire,
        connection,
        live: Rc::new(Live { count: Cell::new(0), quiet_since: Cell::new(now), guest }),
        timer,
        ending: None,
        broken: false,
        blocked: None,
        stop: Box::pin(link.shutdown.clone().cancelled_owned()),
    };
    poll_fn(|cx| driver.poll(cx)).await
}

/// The requests of a connection that are worked on.
#[derive(Debug)]
struct Live {
    count: Cell<usize>,
    /// When the last one ended.
    quiet_since: Cell<Instant>,
    /// The place of them all.
    guest: Option<Guest>,
}

/// A request that is worked on, and its place.
struct Alive {
    live: Rc<Live>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        let (left, now) = (self.live.count.get() - 1, Instant::now());
        self.live.count.set(left);
        self.live.quiet_since.set(now);
        if let Some(guest) = self.live.guest.as_ref().filter(|_| left == 0) {
            guest.quiet(now);
        }
    }
}

struct Driver<'a> {
    link: &'a Rc<Link>,
    wire: &'a Rc<RefCell<Wire<Frames>>>,
    connection: Connection<Handle<Frames>, Bytes>,
    live: Rc<Live>,
    timer: Deadline,
    /// No new requests are taken; what is done is waited for no longer than until then.
    ending: Option<Instant>,
    /// It was ended for what the client sent.
    broken: bool,
    /// Since when nothing could be sent, and how much had been sent until then.
    blocked: Option<(Instant, u64)>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Driver<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let ended = self.poll_requests(cx);
            let wrong = self.wire.borrow().frames.ends().filter(|_| !std::mem::replace(&mut self.broken, true));
            if let Some(reason) = wrong {
                self.ending = Some(Instant::now());
                self.connection.abrupt_shutdown(reason);
                continue;
            }
            let sent = self.wire.borrow_mut().poll_send(cx);
            match (sent, ended) {
                (Poll::Ready(Ok(_)), Some(result)) => return Poll::Ready(result),
                (Poll::Ready(Ok(true)), None) => continue,
                (Poll::Ready(Ok(false)), None) => self.note_progress(self.live.count.get() == 0 && self.has_streams()),
                (Poll::Ready(Err(error)), _) => return Poll::Ready(Err(error)),
                (Poll::Pending, _) => self.note_progress(true),
            }
            if self.ending.is_none() && self.stop.as_mut().poll(cx).is_ready() {
                self.end();
                continue;
            }
            if self.ending.is_none() && self.gives_way(cx) {
                // Nothing is worked on: whatever comes now may be sent again elsewhere.
                self.ending = Some(Instant::now());
                self.connection.abrupt_shutdown(Reason::NO_ERROR);
                continue;
            }
            return match self.poll_time(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            };
        }
    }

    /// Moves the connection on and begins to work on what came; the end of the connection.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Option<io::Result<()>> {
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    let Some(alive) = self.begin() else {
                        // It was not worked on: the client may send it again (RFC 9113, 8.7).
                        respond.send_reset(Reason::REFUSED_STREAM);
                        continue;
                    };
                    take(self.link, request, respond, alive);
                }
                Poll::Ready(Some(Err(error))) => return Some(Err(io::Error::other(error))),
                Poll::Ready(None) => return Some(Ok(())),
                Poll::Pending => return None,
            }
        }
    }

    /// A place for one more request: the first has that of the connection, each other takes one of its own, since
    /// each may have a connection to an upstream.
    fn begin(&self) -> Option<Alive> {
        let count = self.live.count.get();
        let place = match count {
            0 => None,
            _ => Some(self.place()?),
        };
        self.live.guest.iter().for_each(Guest::busy);
        self.live.count.set(count + 1);
        Some(Alive { live: Rc::clone(&self.live), _place: place })
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        let worker = &self.link.worker;
        let place = Arc::clone(&worker.permits).try_acquire_owned().ok();
        if place.is_none() {
            // When it is asked again there may be one.
            worker.make_room(Lack::Places);
        }
        place
    }

    /// Whether its place is needed, and nothing is asked on it.
    fn gives_way(&self, cx: &Context<'_>) -> bool {
        // It is woken for that also when the last request ends without its doing.
        let wanted = self.live.guest.as_ref().is_some_and(|guest| guest.leaves(cx));
        wanted && self.live.count.get() == 0 && self.blocked.is_none()
    }

    /// Whether answers that were written are not sent to their end.
    fn has_streams(&self) -> bool {
        self.connection.has_streams()
    }

    /// Notes since when the client takes nothing of what waits for it.
    fn note_progress(&mut self, waits: bool) {
        let total = self.wire.borrow().total;
        if !waits {
            self.blocked = None;
        } else if self.blocked.is_none_or(|(_, before)| before != total) {
            self.blocked = Some((Instant::now(), total));
        }
    }

    /// Takes no new requests, and ends when those that are worked on have ended.
    fn end(&mut self) {
        self.connection.graceful_shutdown();
        self.ending = Some(Instant::now() + self.link.settings.limits.linger.0);
    }

    /// Ready when the client had its time.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limits = &self.link.settings.limits;
        loop {
            let unfinished = self.wire.borrow().frames.unfinished.map(|since| since + limits.header_timeout);
            let blocked = self.blocked.map(|(since, _)| since + limits.body_window);
            let idle = (self.live.count.get() == 0 && self.blocked.is_none()).then(|| match self.ending {
                Some(ending) => ending.max(self.live.quiet_since.get()),
                None => self.live.quiet_since.get() + limits.keep_alive_timeout,
            });
            let Some(next) = [unfinished, blocked, idle].into_iter().flatten().min() else { return Poll::Pending };
            self.timer.set(next);
            if self.timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if idle == Some(next) && self.ending.is_none() {
                self.end();
                // What that has to say is sent by the next turn.
                cx.waker().wake_by_ref();
                continue;
            }
            return Poll::Ready(());
        }
    }
}

/// Reads a request and has it worked on, by a task that keeps what it needs and no more.
fn take(link: &Rc<Link>, request: Request<RecvStream>, respond: SendResponse<Bytes>, alive: Alive) {
    let (parts, body) = request.into_parts();
    let room = link.worker.shelf.lend();
    match h2_request::head(&parts, body.is_end_stream(), &link.settings.limits.for_heads(), room) {
        Ok(head) => {
            let client = client(link, H2Stream::new(Some(&head), body, respond));
            tokio::task::spawn_local(work(client, head, alive));
        }
        Err(unfit) => {
            tokio::task::spawn_local(refuse(Rc::clone(link), parts, (body, respond), unfit, alive));
        }
    }
}

/// Who asks by a stream.
fn client(link: &Link, stream: H2Stream) -> Client {
    Client::new(link, Stream::Within(Box::new(stream)))
}

/// Works on one request.
async fn work(mut client: Client, head: RequestHead, alive: Alive) {
    let arena = client.worker.arenas.lend();
    arena.hold(|| exchange::run(&mut client, &head, &arena)).await;
    drop(alive);
}

/// Answers what is no request, or resets its stream.
async fn refuse(
    link: Rc<Link>,
    request: Parts,
    (body, mut respond): (RecvStream, SendResponse<Bytes>),
    unfit: Unfit,
    alive: Alive,
) {
    let answer = match unfit {
        Unfit::Refused(bad) => Some(Answer::from(bad)),
        Unfit::Malformed => {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            None
        }
    };
    let mut client = client(&link, H2Stream::new(None, body, respond));
    let read = |_: &Client| Unread::of_stream(&request);
    if let Some(answer) = answer {
        client.refuse(&answer, read).await;
    } else {
        noting::begin_unread(&mut client);
        noting::end_unread(&mut client, MALFORMED, read);
    }
    drop(alive);
}
