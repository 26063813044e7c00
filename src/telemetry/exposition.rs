//! The text form of the numbers: OpenMetrics.

use std::{collections::BTreeMap, fmt, sync::atomic::Ordering};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    connections::ConnectionCounters,
    histogram::Histogram,
    metrics::{BackendCounts, BackendSample, Counted, EndpointSample, World},
};

/// The text, with its end mark.
pub(super) fn write(counted: &Counted, world: &World) -> String {
    let mut page = Page(vec![build()]);
    page.0.extend(backends(&world.backends));
    page.0.extend(counts(counted));
    page.0.extend(routes(world));
    page.0.extend(endpoints(world));
    page.0.push(certificates(world));
    let mut dropped = Family::counter("access_log_dropped", "Lines of the access log that were not written");
    dropped.add([], Value::Count(world.access_log_dropped));
    page.0.push(dropped);
    page.0.extend(connections(&world.connections));
    let mut registry = Registry::with_prefix("dormouse");
    registry.register_collector(Box::new(page));
    let mut out = String::new();
    // Writing into a string can not fail; what was written stands in any case.
    let _ = text::encode(&mut out, &registry);
    out
}

/// A label: its name, and a backend, a route or a word of a closed set.
type Label = (&'static str, String);

/// All families of a scrape.
#[derive(Debug)]
struct Page(Vec<Family>);

/// One metric with all its label sets.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Vec<Label>, Value)>,
}

#[derive(Debug)]
enum Value {
    Count(u64),
    Seconds(f64),
    Gauge(i64),
    Histogram { sum: f64, buckets: Vec<(f64, u64)> },
    Info,
}

impl Family {
    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Self {
        Self { name, help, kind, samples: Vec::new() }
    }

    fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Counter)
    }

    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Gauge)
    }

    fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Histogram)
    }

    fn add(&mut self, labels: impl Into<Vec<Label>>, value: Value) {
        self.samples.push((labels.into(), value));
    }

    fn add_gauge(&mut self, labels: impl Into<Vec<Label>>, value: u64) {
        self.add(labels, Value::Gauge(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn add_histogram(&mut self, labels: impl Into<Vec<Label>>, histogram: &Histogram) {
        self.add(labels, Value::Histogram { sum: histogram.seconds(), buckets: histogram.buckets() });
    }
}

fn build() -> Family {
    let mut build = Family::new("build", "The running program", MetricType::Info);
    build.add([("version", env!("CARGO_PKG_VERSION").to_owned())], Value::Info);
    build
}

fn backends(samples: &[BackendSample]) -> [Family; 5] {
    let mut state = Family::gauge("backend_state", "1 for the state that the backend is in");
    let mut passes = Family::gauge("passes", "Requests, streams and dependants that use the backend now");
    let mut held = Family::gauge("held", "Requests that wait for the backend now");
    let mut asleep = Family::counter("asleep_seconds", "Time that the backend slept");
    let mut given_back = Family::gauge("given_back_bytes", "Memory that the backend's sleep gives back");
    for sample in samples {
        let backend = || ("backend", sample.id.to_string());
        state.add([backend(), ("state", sample.state.to_owned())], Value::Gauge(1));
        passes.add_gauge([backend()], sample.passes);
        held.add_gauge([backend()], sample.held);
        asleep.add([backend()], Value::Seconds(sample.asleep.as_secs_f64()));
        given_back.add_gauge([backend()], sample.gives_back);
    }
    [state, passes, held, asleep, given_back]
}

fn counts(counted: &Counted) -> [Family; 7] {
    let mut wakes = Family::counter("wakes", "Wakes by the kind of their cause and their result");
    let mut held = Family::histogram("held_seconds", "How long requests were held that were then let in");
    let mut ended = Family::counter("ended", "Times that the backend ended without an order");
    let mut sleeps = Family::counter("sleeps", "Times that the backend was let down, by the way down");
    let mut denied = Family::counter("sleeps_refused", "Sleeps that did not come about, by reason");
    let mut refused = Family::counter("refused", "Requests that were not let in, by reason");
    for (id, counts) in &counted.backends {
        let backend = || ("backend", id.to_string());
        for ((cause, result), count) in &counts.wakes {
            let words = [backend(), ("cause", (*cause).to_owned()), ("result", (*result).to_owned())];
            wakes.add(words, Value::Count(*count));
        }
        let BackendCounts { sleeps: slept, sleeps_refused, refused: reasons, .. } = counts;
        by_word(&mut sleeps, &backend, "how", slept);
        by_word(&mut denied, &backend, "reason", sleeps_refused);
        by_word(&mut refused, &backend, "reason", reasons);
        ended.add([backend()], Value::Count(counts.ended));
        held.add_histogram([backend()], &counts.held);
    }
    let mut phases = Family::histogram("wake_seconds", "How long the phases of wakes took");
    let all = &counted.phases;
    let named =
        [("dependencies", &all.dependencies), ("engine", &all.engine), ("ready", &all.ready), ("total", &all.total)];
    for (phase, histogram) in named {
        phases.add_histogram([("phase", phase.to_owned())], histogram);
    }
    [wakes, phases, held, ended, sleeps, denied, refused]
}

fn by_word(family: &mut Family, backend: &dyn Fn() -> Label, name: &'static str, counts: &BTreeMap<&'static str, u64>) {
    for (word, count) in counts {
        family.add([backend(), (name, (*word).to_owned())], Value::Count(*count));
    }
}

/// How endpoints fare, and how much of a group is at each of its members.
fn endpoints(world: &World) -> [Family; 3] {
    let mut healthy = Family::gauge("healthy", "1 while the health checks of the endpoint have an answer");
    let mut requests = Family::gauge("member_requests", "Requests under way to the member of a group");
    let mut left_out = Family::gauge("member_left_out", "1 while the member of a group is left out because it failed");
    for EndpointSample { route, leads_to, healthy: found, member } in &world.endpoints {
        let labels = || [("route", route.to_string()), ("leads_to", leads_to.clone())];
        if let Some(found) = found {
            healthy.add(labels(), Value::Gauge(i64::from(*found)));
        }
        if let Some((load, out)) = member {
            requests.add_gauge(labels(), u64::from(*load));
            left_out.add(labels(), Value::Gauge(i64::from(*out)));
        }
    }
    [healthy, requests, left_out]
}

/// Who is connected, and who might not be.
fn connections(counters: &ConnectionCounters) -> [Family; 2] {
    let mut open = Family::gauge("connections", "Connections of clients that are open");
    let now = counters.open.load(Ordering::Relaxed);
    open.add_gauge([], u64::try_from(now).unwrap_or(u64::MAX));
    let mut refused = Family::counter("connections_refused", "Connections and flows that were turned away, by reason");
    for (reason, count) in counters.refused() {
        refused.add([("reason", reason.to_owned())], Value::Count(count));
    }
    [open, refused]
}

/// Until when the certificates are good.
fn certificates(world: &World) -> Family {
    let mut ends =
        Family::gauge("certificate_end_seconds", "The second since 1970 until which the certificate is good");
    for (host, end) in &world.certificates {
        ends.add([("host", host.clone())], Value::Gauge(*end));
    }
    ends
}

/// Routes that had a request; the others would only take room.
fn routes(world: &World) -> [Family; 8] {
    let mut requests = Family::counter("requests", "Answered requests by the class of their status");
    let mut durations = Family::histogram("request_seconds", "From a request's arrival to the end of its answer");
    let mut in_flight = Family::gauge("in_flight", "Requests being worked on, and streams that are open, now");
    let mut streams = Family::counter("streams", "Connections and flows of stream routes");
    let mut bytes_in = Family::counter("bytes_in", "Bytes taken from clients");
    let mut bytes_out = Family::counter("bytes_out", "Bytes sent to clients");
    let mut errors = Family::counter("upstream_errors", "Errors of the upstream by kind");
    let mut left = Family::counter("client_left", "Clients that left before their answer");
    for (alias, counters) in &world.routes {
        let counters = counters.counted();
        let route = || ("route", alias.to_string());
        let (now, gone) = (counters.in_flight.load(Ordering::Relaxed), counters.client_left.load(Ordering::Relaxed));
        let classes = (1..=5).map(|class| (class, counters.class(class)));
        let let_in = counters.streams.load(Ordering::Relaxed);
        if now == 0 && gone == 0 && let_in == 0 && classes.clone().all(|(_, count)| count == 0) {
            continue;
        }
        for (class, count) in classes.filter(|(_, count)| *count > 0) {
            requests.add([route(), ("class", format!("{class}xx"))], Value::Count(count));
        }
        for (kind, count) in counters.errors().filter(|(_, count)| *count > 0) {
            errors.add([route(), ("kind", kind.to_owned())], Value::Count(count));
        }
        if let_in > 0 {
            streams.add([route()], Value::Count(let_in));
        } else {
            durations.add_histogram([route()], counters.durations());
        }
        in_flight.add([route()], Value::Gauge(now));
        bytes_in.add([route()], Value::Count(counters.bytes_in.load(Ordering::Relaxed)));
        bytes_out.add([route()], Value::Count(counters.bytes_out.load(Ordering::Relaxed)));
        left.add([route()], Value::Count(gone));
    }
    [requests, durations, in_flight, streams, bytes_in, bytes_out, errors, left]
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let mut out = encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for (labels, value) in &family.samples {
                encode(&mut out, labels, value)?;
            }
        }
        Ok(())
    }
}

fn encode(out: &mut MetricEncoder<'_>, labels: &Vec<Label>, value: &Value) -> fmt::Result {
    match value {
        Value::Info => return out.encode_info(labels),
        Value::Count(_) | Value::Seconds(_) | Value::Gauge(_) | Value::Histogram { .. } => {}
    }
    if labels.is_empty() { encode_value(out, value) } else { encode_value(&mut out.encode_family(labels)?, value) }
}

fn encode_value(out: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Count(count) => out.encode_counter::<NoLabelSet, _, u64>(count, None),
        Value::Seconds(seconds) => out.encode_counter::<NoLabelSet, _, u64>(seconds, None),
        Value::Gauge(value) => out.encode_gauge(value),
        Value::Histogram { sum, buckets } => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            out.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
        }
        Value::Info => Ok(()),
    }
}
