//! What is noted of a request for the access log, and its line at the end. Without a log nothing is.

use std::{cell::RefCell, net::IpAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    backend::Backend,
    control::LiveRoute,
    model::AccessLog,
    net::Beneath,
    proxy::access,
    telemetry::{AccessHeaders, AccessRecord},
};

use super::{
    front::{Client, Next},
    request_head::RequestHead,
};

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Who asked, where that is not who the connection tells of.
    pub(super) client: Option<IpAddr>,
    /// Of the answer, once its head is there.
    pub(super) status: Option<u16>,
    /// Of the request's body, and of what a tunnel carried from the client.
    pub(super) bytes_in: u64,
    /// Sent to the client.
    pub(super) bytes_out: u64,
    /// How long it waited for a wake.
    pub(super) waited: Duration,
    /// When the upstream was last asked.
    asked: Option<Instant>,
    /// From there to its answer.
    upstream: Option<Duration>,
    /// Where it went, when its route has several backends.
    pub(super) backend: Option<Backend>,
    /// Who ended it early.
    pub(super) cut: Option<&'static str>,
}

/// So many unused notes are kept by a worker, at most.
const KEPT: usize = 64;

/// The unused notes of one worker: with many requests under way the allocator takes four times as long.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "what is lent is moved often, and is a word so")]
pub(super) struct NotesShelf(RefCell<Vec<Box<Notes>>>);

impl NotesShelf {
    /// Lends empty notes.
    fn lend(&self) -> Box<Notes> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes them back.
    fn keep(&self, mut notes: Box<Notes>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT {
            *notes = Notes::default();
            kept.push(notes);
        }
    }
}

impl Notes {
    /// The upstream has answered.
    pub(super) fn answered(&mut self, status: u16) {
        self.status = Some(status);
        self.upstream = self.asked.map(|asked| asked.elapsed());
    }

    /// The upstream is asked, perhaps once more.
    pub(super) fn asks(&mut self) {
        self.asked = Some(Instant::now());
    }
}

impl AccessHeaders for RequestHead {
    fn at(&self, place: usize) -> Option<(&str, &[u8])> {
        let field = self.fields().get(place)?;
        // A name is a token of ASCII.
        Some((std::str::from_utf8(self.part(&field.name)).unwrap_or_default(), self.part(&field.value)))
    }
}

impl Client {
    /// Notes something, where a log wants it.
    #[inline]
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Notes)) {
        if let Some(notes) = &mut self.notes {
            note(notes);
        }
    }

    fn record<'a>(&self, head: Option<&'a RequestHead>) -> AccessRecord<'a> {
        let client = head.map_or(self.peer.address, |head| self.peer.client(head, &self.settings.trusted_proxies));
        let mut record = access::record(client, self.arrived.into_std());
        record.secure = self.secured.is_some();
        if let Some(head) = head {
            (record.method, record.target, record.host) = (head.method(), head.target(), head.host());
            record.protocol = match self.stream.beneath() {
                Beneath::Within(_) => "HTTP/2.0",
                Beneath::Socket(_) | Beneath::Tls(_) if head.is_11 => "HTTP/1.1",
                Beneath::Socket(_) | Beneath::Tls(_) => "HTTP/1.0",
            };
            record.bytes_in = head.len() as u64;
            record.headers = head;
        }
        record
    }
}

/// Notes what comes, until it is dropped: then the line is written. So it is also when the work on it is ended early.
pub(super) struct Noting<'a> {
    pub(super) client: &'a mut Client,
    head: &'a RequestHead,
    route: &'a LiveRoute,
    /// Absent: nothing is noted.
    log: Option<Arc<AccessLog>>,
    ended: bool,
}

impl<'a> Noting<'a> {
    pub(super) fn begin(
        client: &'a mut Client,
        head: &'a RequestHead,
        route: &'a LiveRoute,
        log: Option<Arc<AccessLog>>,
    ) -> Self {
        client.notes = log.is_some().then(|| client.worker.notes.lend());
        Self { client, head, route, log, ended: false }
    }

    /// The work was done to its end.
    pub(super) fn end(mut self, next: Next) -> Next {
        self.ended = true;
        next
    }
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        let (Some(log), Some(notes)) = (self.log.take(), self.client.notes.take()) else { return };
        self.write(&log, &notes);
        self.client.worker.notes.keep(notes);
    }
}

impl Noting<'_> {
    fn write(&self, log: &AccessLog, notes: &Notes) {
        let status = notes.status.unwrap_or(499);
        // For what this keeps out, mostly all that went well, nothing is gathered.
        if !log.filters.has_status(status) {
            return;
        }
        let mut record = self.client.record(Some(self.head));
        record.client = notes.client.unwrap_or(record.client);
        record.status = status;
        record.cut = notes.cut.or((!self.ended).then_some(access::SHUTDOWN));
        record.bytes_in += notes.bytes_in;
        record.bytes_out = notes.bytes_out;
        record.waited = notes.waited;
        record.upstream = notes.upstream;
        record.route = Some(self.route.spec.alias.as_str());
        record.backend = self.route.backend.as_ref().or(notes.backend.as_ref()).map(Backend::id);
        access::write(&self.client.worker.shared, log, &record);
    }
}

/// The line of a request that no route has, or that could not be read.
pub(super) fn unrouted(client: &Client, head: Option<&RequestHead>, status: u16) {
    let shared = &client.worker.shared;
    if let Some(log) = access::of(shared, None) {
        access::write(shared, &log, &AccessRecord { status, ..client.record(head) });
    }
}
