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
    forwarded::FORWARDED_FOR,
    front::{Client, Next},
    request_head::RequestHead,
    unread::Unread,
};

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Who wants to know.
    log: Option<Arc<AccessLog>>,
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
    /// Lends empty notes for a log, where there is one.
    fn lend_for(&self, log: Option<Arc<AccessLog>>) -> Option<Box<Notes>> {
        log.map(|log| {
            let mut notes = self.0.borrow_mut().pop().unwrap_or_default();
            notes.log = Some(log);
            notes
        })
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
        // For what the log keeps out no clock is read.
        if self.log.as_ref().is_some_and(|log| log.filters.has_status(status)) {
            self.upstream = self.asked.map(|asked| asked.elapsed());
        }
    }

    /// The upstream is asked, perhaps once more; `at_once`: the request, which came then, waited for nothing.
    pub(super) fn asks(&mut self, at_once: Option<Instant>) {
        let at_once = at_once.filter(|_| self.waited.is_zero());
        self.asked = Some(at_once.unwrap_or_else(Instant::now));
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

    fn record<'a>(&self, head: &'a RequestHead) -> AccessRecord<'a> {
        let client = self.peer.client(head, &self.settings.trusted_proxies);
        let mut record = access::record(client, self.arrived.into_std());
        record.secure = self.secured.is_some();
        (record.method, record.target, record.host) = (head.method(), head.target(), head.host());
        record.protocol = match self.stream.beneath() {
            Beneath::Within(_) => "HTTP/2.0",
            Beneath::Socket(_) | Beneath::Tls(_) if head.is_11 => "HTTP/1.1",
            Beneath::Socket(_) | Beneath::Tls(_) => "HTTP/1.0",
        };
        record.bytes_in = head.len() as u64;
        record.headers = head;
        record
    }

    fn record_unread<'a>(&self, unread: &'a Unread) -> AccessRecord<'a> {
        let named = || unread.values(FORWARDED_FOR).collect();
        let client = self.peer.client_by(named, &self.settings.trusted_proxies);
        let mut record = access::record(client, self.arrived.into_std());
        record.secure = self.secured.is_some();
        (record.method, record.target, record.host) = (&unread.method, &unread.target, &unread.host);
        record.protocol = &unread.protocol;
        record.bytes_in = unread.len;
        record.headers = unread;
        record
    }
}

/// Notes what comes, until it is dropped: then the line is written. So it is also when the work on it is ended early.
pub(super) struct Noting<'a> {
    pub(super) client: &'a mut Client,
    head: &'a RequestHead,
    /// Absent: it has come to none.
    route: Option<&'a LiveRoute>,
    ended: bool,
}

impl<'a> Noting<'a> {
    pub(super) fn begin(
        client: &'a mut Client,
        head: &'a RequestHead,
        route: Option<&'a LiveRoute>,
        log: Option<Arc<AccessLog>>,
    ) -> Self {
        client.notes = client.worker.notes.lend_for(log);
        Self { client, head, route, ended: false }
    }

    /// The work was done to its end.
    pub(super) fn end(mut self, next: Next) -> Next {
        self.ended = true;
        next
    }
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        let Some(notes) = self.client.notes.take() else { return };
        if let Some(log) = &notes.log {
            self.write(log, &notes);
        }
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
        let mut record = self.client.record(self.head);
        record.client = notes.client.unwrap_or(record.client);
        record.status = status;
        record.cut = notes.cut.or((!self.ended).then_some(access::SHUTDOWN));
        record.bytes_in += notes.bytes_in;
        record.bytes_out = notes.bytes_out;
        record.waited = notes.waited;
        record.upstream = notes.upstream;
        record.route = self.route.map(|route| route.spec.alias.as_str());
        let backend = self.route.and_then(|route| route.backend.as_ref());
        record.backend = backend.or(notes.backend.as_ref()).map(Backend::id);
        access::write(&self.client.worker.shared, log, &record);
    }
}

/// Begins to note what is no request.
pub(super) fn begin_unread(client: &mut Client) {
    client.notes = client.worker.notes.lend_for(access::of(&client.worker.shared, None));
}

/// Writes the line of what is no request. `read` tells what of it can be read, where the log wants it.
pub(super) fn end_unread(client: &mut Client, status: u16, read: impl FnOnce(&Client) -> Unread) {
    let Some(notes) = client.notes.take() else { return };
    if let Some(log) = notes.log.as_deref().filter(|log| log.filters.has_status(status)) {
        let unread = read(client);
        let record = AccessRecord { status, bytes_out: notes.bytes_out, ..client.record_unread(&unread) };
        access::write(&client.worker.shared, log, &record);
    }
    client.worker.notes.keep(notes);
}
