//! What is noted of a request for the access log, and its line at the end. Without a log nothing is.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{control::LiveRoute, model::AccessLog, net::Beneath, proxy::access, telemetry::AccessRecord};

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
    /// Who ended it early.
    pub(super) cut: Option<&'static str>,
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
        let mut record = access::record(client, self.arrived.elapsed());
        record.secure = self.secured.is_some();
        if let Some(head) = head {
            (record.method, record.target, record.host) = (head.method(), head.target(), head.host());
            record.protocol = match self.stream.beneath() {
                Beneath::Within(_) => "HTTP/2.0",
                Beneath::Socket(_) | Beneath::Tls(_) if head.is_11 => "HTTP/1.1",
                Beneath::Socket(_) | Beneath::Tls(_) => "HTTP/1.0",
            };
            record.bytes_in = head.len() as u64;
            let name = |field: &super::request_head::Field| std::str::from_utf8(head.part(&field.name)).ok();
            let fields = head.fields().iter();
            record.headers = fields.filter_map(|field| Some((name(field)?, head.part(&field.value)))).collect();
        }
        record
    }
}

/// Notes what comes, until it is dropped: then the line is written. So it is also when the work on it is ended early.
pub(super) struct Noting<'a> {
    pub(super) client: &'a mut Client,
    head: &'a RequestHead,
    route: &'a LiveRoute,
    log: Arc<AccessLog>,
    ended: bool,
}

impl<'a> Noting<'a> {
    pub(super) fn begin(
        client: &'a mut Client,
        head: &'a RequestHead,
        route: &'a LiveRoute,
        log: Arc<AccessLog>,
    ) -> Self {
        client.notes = Some(Box::default());
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
        let Some(notes) = self.client.notes.take() else { return };
        let backend = self.route.backend.as_ref().map(|backend| backend.id().to_string());
        let mut record = self.client.record(Some(self.head));
        record.client = notes.client.unwrap_or(record.client);
        record.status = notes.status.unwrap_or(499);
        record.cut = notes.cut.or((!self.ended).then_some(access::SHUTDOWN));
        record.bytes_in += notes.bytes_in;
        record.bytes_out = notes.bytes_out;
        record.waited = notes.waited;
        record.upstream = notes.upstream;
        record.route = Some(self.route.spec.alias.as_str());
        record.backend = backend.as_deref();
        access::write(&self.client.worker.shared, &self.log, &record);
    }
}

/// The line of a request that no route has, or that could not be read.
pub(super) fn unrouted(client: &Client, head: Option<&RequestHead>, status: u16) {
    let shared = &client.worker.shared;
    if let Some(log) = access::of(shared, None) {
        access::write(shared, &log, &AccessRecord { status, ..client.record(head) });
    }
}
