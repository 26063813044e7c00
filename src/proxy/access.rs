//! The access log of a request or stream: whether it has one, and the way of its line there.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use crate::{
    backend::Backend,
    control::LiveRoute,
    model::{AccessLog, AccessOutput, RouteLog, Transport},
    net::Ended,
    telemetry::{AccessRecord, Now},
};

use super::{Shared, ports::Caller};

/// Where lines go that nothing else was said of.
static STDOUT: LazyLock<Arc<AccessOutput>> =
    LazyLock::new(|| Arc::new(AccessOutput { stdout: true, ..AccessOutput::default() }));

/// The access log that is in force for a route, or for what found none.
pub(super) fn of(shared: &Shared, route: Option<&LiveRoute>) -> Option<Arc<AccessLog>> {
    match route.map_or(&RouteLog::Usual, |route| &route.spec.options.access_log) {
        RouteLog::Usual => shared.settings.load().access_log.clone(),
        RouteLog::Off => None,
        RouteLog::Own(log) => Some(Arc::clone(log)),
    }
}

/// Hands its line to the writer, unless the filters keep it out.
pub(super) fn write(shared: &Shared, log: &AccessLog, record: &AccessRecord<'_>) {
    let Some(line) = record.line(log, Now::get) else { return };
    let output = match &log.output {
        Some(output) => Arc::clone(output),
        None => shared.settings.load().access_log.as_ref().and_then(|log| log.output.clone()).unwrap_or_else(stdout),
    };
    shared.access.write(&output, line);
}

fn stdout() -> Arc<AccessOutput> {
    Arc::clone(&STDOUT)
}

/// Who ended what Dormouse did not see the end of.
pub(super) const SHUTDOWN: &str = "shutdown";

/// Who ended early what was carried both ways.
pub(super) fn cut(ended: Ended) -> Option<&'static str> {
    match ended {
        Ended::Whole => None,
        Ended::ClientCut => Some("client"),
        Ended::UpstreamCut => Some("upstream"),
        Ended::Silent => Some("idle"),
    }
}

/// A record of which nothing is known but who asked, and when.
pub(super) fn record<'a>(client: IpAddr, began: Instant) -> AccessRecord<'a> {
    AccessRecord {
        began,
        client,
        method: "",
        target: "",
        host: "",
        protocol: "",
        secure: false,
        status: 499,
        cut: None,
        bytes_in: 0,
        bytes_out: 0,
        waited: Duration::ZERO,
        upstream: None,
        route: None,
        backend: None,
        headers: &(),
    }
}

/// What is noted of a stream until it is dropped: then its line is written.
#[derive(Debug)]
pub(super) struct StreamNotes {
    shared: Arc<Shared>,
    route: Arc<LiveRoute>,
    /// Where it went.
    backend: RefCell<Option<Backend>>,
    log: Arc<AccessLog>,
    caller: Caller,
    began: Instant,
    /// 200 of one that was carried, 499 where the client left before, 503 where it was turned away.
    pub(super) status: Cell<u16>,
    /// Who ended it early.
    pub(super) cut: Cell<Option<&'static str>>,
    /// It came through TLS, which ended here.
    pub(super) secure: Cell<bool>,
    pub(super) waited: Cell<Duration>,
    pub(super) bytes_in: Cell<u64>,
    pub(super) bytes_out: Cell<u64>,
}

impl StreamNotes {
    /// None where no log wants them.
    pub(super) fn begin(shared: &Arc<Shared>, route: &Arc<LiveRoute>, caller: Caller) -> Option<Self> {
        Some(Self {
            log: of(shared, Some(route))?,
            shared: Arc::clone(shared),
            route: Arc::clone(route),
            backend: RefCell::new(route.backend.clone()),
            caller,
            began: Instant::now(),
            status: Cell::new(499),
            cut: Cell::default(),
            secure: Cell::default(),
            waited: Cell::default(),
            bytes_in: Cell::default(),
            bytes_out: Cell::default(),
        })
    }

    /// It goes to this member of its group.
    pub(super) fn goes_by(&self, member: &LiveRoute) {
        self.backend.borrow_mut().clone_from(&member.backend);
    }

    /// So many more bytes were carried.
    pub(super) fn carried(&self, up: u64, down: u64) {
        self.bytes_in.set(self.bytes_in.get() + up);
        self.bytes_out.set(self.bytes_out.get() + down);
    }
}

impl Drop for StreamNotes {
    fn drop(&mut self) {
        let target = self.caller.ends.destination.to_string();
        let backend = self.backend.take();
        let (method, protocol) = match self.caller.transport {
            Transport::Tcp => ("TCP", "TCP"),
            Transport::Udp => ("UDP", "UDP"),
        };
        let record = AccessRecord {
            method,
            protocol,
            secure: self.secure.get(),
            target: &target,
            status: self.status.get(),
            cut: self.cut.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            waited: self.waited.get(),
            route: Some(self.route.spec.alias.as_str()),
            backend: backend.as_ref().map(Backend::id),
            ..record(self.caller.ends.source.ip().to_canonical(), self.began)
        };
        write(&self.shared, &self.log, &record);
    }
}
