//! A connection of HTTP/2 to a service, which many requests share.
//!
//! It is used only once the service has sent its settings: by then it has shown that it speaks HTTP/2, and has told how
//! many requests it takes at once.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::{
    sync::Notify,
    time::{Instant, Sleep},
};

use crate::net::Stream;

use super::{
    h2_marks::Marks,
    h2_wire::{Handle, Wire},
    pool::Slot,
};

/// Requests on one connection at once, where the service allows more.
const STREAMS: u32 = 128;

/// What a service may send before any of it was passed on: for each answer, and for all of a connection. The second is
/// enough for all answers: a client that takes nothing never closes the window of another.
const WINDOW: u32 = 256 * 1024;
const WINDOW_OF_ALL: u32 = STREAMS * WINDOW;

/// After a refusal, so many answers let one request more at once be tried: each that is refused costs a try.
const RECOVERY: u32 = 32;

/// What of a request waits for the service at most.
const SEND_BUFFER: usize = 32 * 1024;

/// How long a connection that nobody uses any more may take to say its last.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<Bytes>,
    shared: Rc<Told>,
    wire: Rc<RefCell<Wire<Marks>>>,
    born: Instant,
    quiet_since: Cell<Instant>,
    /// Requests on it.
    live: Cell<usize>,
    /// So many it has shown to take, where it refused one more.
    bound: Cell<usize>,
    /// Answered since that was last set.
    answered: Cell<u32>,
    /// No more requests are put on it.
    retired: Cell<bool>,
    /// It goes through TLS.
    pub(super) secure: bool,
    /// Its place among those that the route allows.
    _slot: Option<Slot>,
}

/// What the one who drives a connection tells.
#[derive(Debug, Default)]
struct Told {
    ended: Cell<bool>,
    /// It has ended, or its settings came.
    changed: Notify,
}

/// Why there is no connection of HTTP/2.
#[derive(Debug)]
pub(super) enum NoLink {
    /// It ended before it said anything.
    Ended,
    /// It speaks something else.
    Other,
    /// It said nothing in time.
    Late,
}

impl Link {
    /// Begins to speak HTTP/2 on a fresh connection.
    pub(super) async fn establish(
        stream: Stream,
        slot: Option<Slot>,
        max_head: usize,
        patience: Duration,
    ) -> Result<Rc<Self>, NoLink> {
        let secure = matches!(stream, Stream::Tls(_));
        let wire = Rc::new(RefCell::new(Wire::new(stream, None, Marks::default())));
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(STREAMS as usize)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW_OF_ALL)
            .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER);
        let handshake = builder.handshake::<_, Bytes>(Handle(Rc::clone(&wire))).await;
        let (sender, connection) = handshake.map_err(|_| NoLink::Ended)?;
        let shared = Rc::new(Told::default());
        let driver =
            Driver { wire: Rc::clone(&wire), connection, shared: Rc::clone(&shared), settled: false, last: None };
        tokio::task::spawn_local(driver.run());
        tokio::time::timeout(patience, shared.changed.notified()).await.map_err(|_| NoLink::Late)?;
        if shared.ended.get() {
            let frames = &wire.borrow().frames;
            return Err(if frames.came && !frames.settled { NoLink::Other } else { NoLink::Ended });
        }
        let now = Instant::now();
        Ok(Rc::new(Self {
            sender,
            shared,
            wire,
            born: now,
            quiet_since: Cell::new(now),
            live: Cell::new(0),
            bound: Cell::new(STREAMS as usize),
            answered: Cell::new(0),
            retired: Cell::new(false),
            secure,
            _slot: slot,
        }))
    }

    /// Whether one more request may be put on it.
    pub(super) fn has_room(&self) -> bool {
        self.is_good() && self.live.get() < self.bound.get().min(self.sender.current_max_send_streams())
    }

    /// Whether requests may be put on it at all.
    pub(super) fn is_good(&self) -> bool {
        !(self.retired.get() || self.shared.ended.get() || self.marks(|marks| marks.last_seen.is_some()))
    }

    /// Whether it may be kept: it is good, and neither too old nor unused for too long.
    pub(super) fn may_stay(&self, now: Instant, idle: Duration, age: Duration) -> bool {
        let too_quiet = self.is_unused() && now.saturating_duration_since(self.quiet_since.get()) >= idle;
        self.is_good() && !too_quiet && now.saturating_duration_since(self.born) < age
    }

    pub(super) fn is_unused(&self) -> bool {
        self.live.get() == 0
    }

    /// Whether WebSockets can be had on it (RFC 8441).
    pub(super) fn takes_websockets(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// No more requests are put on it; those under way go on.
    pub(super) fn retire(&self) {
        self.retired.set(true);
    }

    /// It refused a request: so many as there are without that one are as many as it takes.
    pub(super) fn refused(&self) {
        self.bound.set(self.live.get().saturating_sub(1).max(1));
        self.answered.set(0);
    }

    /// What opens requests.
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// What its frames told.
    pub(super) fn marks<T>(&self, ask: impl FnOnce(&mut Marks) -> T) -> T {
        ask(&mut self.wire.borrow_mut().frames)
    }

    /// One more request is put on it.
    pub(super) fn enter(&self) {
        self.live.set(self.live.get() + 1);
    }

    /// A request on it has ended, answered or not.
    pub(super) fn leave(&self, answered: bool) {
        self.live.set(self.live.get() - 1);
        self.quiet_since.set(Instant::now());
        if answered && self.bound.get() < STREAMS as usize {
            self.recover();
        }
    }

    /// What it refused may have been too much for a moment only.
    fn recover(&self) {
        self.answered.set(self.answered.get() + 1);
        if self.answered.get() == RECOVERY {
            self.answered.set(0);
            self.bound.set(self.bound.get() + 1);
        }
    }
}

/// Moves a connection on.
struct Driver {
    wire: Rc<RefCell<Wire<Marks>>>,
    connection: Connection<Handle<Marks>, Bytes>,
    shared: Rc<Told>,
    /// That the settings came was told.
    settled: bool,
    /// The end of its last words, once nobody uses it any more.
    last: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    async fn run(mut self) {
        if let Err(error) = poll_fn(|cx| self.poll(cx)).await {
            tracing::debug!(%error, "a connection of HTTP/2 to a service ended");
        }
        self.shared.ended.set(true);
        self.shared.changed.notify_one();
        self.wire.borrow_mut().say_goodbye();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let ended = pin!(&mut self.connection).poll(cx);
            if !self.settled && self.wire.borrow().frames.settled {
                self.settled = true;
                self.shared.changed.notify_one();
            }
            if self.wire.borrow().frames.is_other {
                return Poll::Ready(Err(io::Error::other("it speaks something else")));
            }
            if self.wire.borrow().frames.frames.is_flood() {
                return Poll::Ready(Err(io::Error::other("a flood of frames")));
            }
            let sent = self.wire.borrow_mut().poll_send(cx);
            match (sent, ended) {
                (Poll::Ready(Err(error)), _) => return Poll::Ready(Err(error)),
                (_, Poll::Ready(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                (Poll::Ready(Ok(_)), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
                (Poll::Ready(Ok(true)), Poll::Pending) => continue,
                (Poll::Ready(Ok(false)) | Poll::Pending, Poll::Pending) | (Poll::Pending, Poll::Ready(Ok(()))) => {}
            }
            if Rc::strong_count(&self.shared) > 1 {
                return Poll::Pending;
            }
            let last = self.last.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORDS)));
            return last.as_mut().poll(cx).map(Ok);
        }
    }
}
