//! The numbers behind `/metrics`.
//!
//! Counted here: what happens seldom (wakes, sleeps, refusals, waits), fed by the journal and by those who were held.
//! Collected at a scrape: what the owners know better (states, routes). Requests to an awake backend touch only the
//! atomics of their route. Every label is a backend, a route, or a word of a closed set; what no longer exists is
//! forgotten at the next scrape.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{ConnectionCounters, Entry, Happening, Phases, RouteCounters, exposition, histogram::Histogram};
use crate::model::{Alias, BackendId};

/// The numbers; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// A std mutex: held for a few additions, never across an await, and never by a request to an awake backend.
    counted: Arc<Mutex<Counted>>,
}

/// What is known of the world at a scrape.
#[derive(Debug, Default)]
pub struct World {
    /// Every backend.
    pub backends: Vec<BackendSample>,
    /// Every route with its counters.
    pub routes: Vec<(Alias, Arc<RouteCounters>)>,
    /// Every endpoint that is checked, or is one of several.
    pub endpoints: Vec<EndpointSample>,
    /// The first host of each certificate, and the second since 1970 until which it is good.
    pub certificates: Vec<(String, i64)>,
    /// Lines of the access log that were not written.
    pub access_log_dropped: u64,
    /// The connections of clients.
    pub connections: Arc<ConnectionCounters>,
}

/// An endpoint at a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSample {
    /// The route that leads to it.
    pub route: Alias,
    /// The backend or address.
    pub leads_to: String,
    /// What its health checks have found; absent: nothing.
    pub healthy: Option<bool>,
    /// Requests under way to it, and whether it is left out because it failed; absent: it is no member of a group.
    pub member: Option<(u32, bool)>,
}

/// A backend at a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSample {
    /// Which.
    pub id: BackendId,
    /// Its state, a word of a closed set.
    pub state: &'static str,
    /// Passes that are out.
    pub passes: u64,
    /// Requests held now.
    pub held: u64,
    /// All time asleep, the present sleep included.
    pub asleep: Duration,
    /// Bytes of memory that its sleep gives back.
    pub gives_back: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) backends: BTreeMap<BackendId, BackendCounts>,
    pub(super) phases: PhaseHistograms,
}

/// Counts of one backend, by words of closed sets.
#[derive(Debug, Default)]
pub(super) struct BackendCounts {
    /// By the kind of cause and the result.
    pub(super) wakes: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) sleeps: BTreeMap<&'static str, u64>,
    pub(super) sleeps_refused: BTreeMap<&'static str, u64>,
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// Ends that nobody ordered.
    pub(super) ended: u64,
    pub(super) held: Histogram,
}

#[derive(Debug, Default)]
pub(super) struct PhaseHistograms {
    pub(super) dependencies: Histogram,
    pub(super) engine: Histogram,
    pub(super) ready: Histogram,
    pub(super) total: Histogram,
}

impl Metrics {
    /// Counts a line of the journal.
    pub fn observe(&self, entry: &Entry) {
        let Some(id) = &entry.backend else { return };
        let mut counted = self.lock();
        if let Happening::Woke(phases) = &entry.what {
            counted.phases.add(phases);
        }
        let counts = counted.backends.entry(id.clone()).or_default();
        let cause = entry.cause.kind();
        match &entry.what {
            Happening::Woke(_) => *counts.wakes.entry((cause, "ok")).or_default() += 1,
            Happening::WakeFailed { .. } => *counts.wakes.entry((cause, "failed")).or_default() += 1,
            Happening::Slept { how, .. } => *counts.sleeps.entry(how).or_default() += 1,
            Happening::DrainEnded => *counts.sleeps_refused.entry("traffic").or_default() += 1,
            Happening::DrainDenied(_) => *counts.sleeps_refused.entry("in_use").or_default() += 1,
            Happening::SleepFailed(_) => *counts.sleeps_refused.entry("engine").or_default() += 1,
            Happening::Ended(_) => counts.ended += 1,
            Happening::Waking
            | Happening::Draining
            | Happening::Stopping
            | Happening::Paused
            | Happening::FoundRunning
            | Happening::Gone
            | Happening::Pinned(_)
            | Happening::Unpinned
            | Happening::Unhealthy(_)
            | Happening::Healthy
            | Happening::Note(_) => {}
        }
    }

    /// Counts the wait of a request that was held and then let in.
    pub fn held(&self, backend: &BackendId, waited: Duration) {
        self.lock().backends.entry(backend.clone()).or_default().held.add(waited);
    }

    /// Counts a request that was not let in, by a word of a closed set.
    pub fn refused(&self, backend: &BackendId, reason: &'static str) {
        *self.lock().backends.entry(backend.clone()).or_default().refused.entry(reason).or_default() += 1;
    }

    /// Everything in the text form of OpenMetrics. Forgets backends that are not in the world.
    pub fn render(&self, world: &World) -> String {
        let known: BTreeSet<&BackendId> = world.backends.iter().map(|sample| &sample.id).collect();
        let mut counted = self.lock();
        counted.backends.retain(|id, _| known.contains(id));
        for sample in &world.backends {
            counted.backends.entry(sample.id.clone()).or_default();
        }
        exposition::write(&counted, world)
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PhaseHistograms {
    fn add(&self, phases: &Phases) {
        self.dependencies.add(phases.dependencies);
        self.engine.add(phases.engine);
        self.ready.add(phases.ready);
        self.total.add(phases.total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Cause,
        telemetry::{Journal, TurnedAway},
    };

    fn id(name: &str) -> BackendId {
        format!("local/{name}").parse().unwrap()
    }

    fn sample(name: &str, state: &'static str) -> BackendSample {
        BackendSample { id: id(name), state, passes: 2, held: 3, asleep: Duration::from_millis(2500), gives_back: 7 }
    }

    fn world(names: &[&str]) -> World {
        World {
            backends: names.iter().map(|name| sample(name, "awake")).collect(),
            routes: Vec::new(),
            endpoints: vec![EndpointSample {
                route: "web".parse().unwrap(),
                leads_to: "sim/a:80".to_owned(),
                healthy: Some(false),
                member: Some((3, true)),
            }],
            certificates: Vec::new(),
            access_log_dropped: 3,
            connections: Arc::default(),
        }
    }

    fn check(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn what_the_journal_tells_is_counted() {
        let metrics = Metrics::default();
        let journal = Journal::counted_by(metrics.clone());
        let phases = Phases { total: Duration::from_millis(700), ..Phases::default() };
        journal.record(Some(&id("a")), Happening::Woke(phases), Cause::Schedule);
        journal.record(Some(&id("a")), Happening::Woke(phases), Cause::Schedule);
        let failed = Happening::WakeFailed { why: "no such image".into(), retry_after: Duration::ZERO };
        journal.record(Some(&id("a")), failed, Cause::Person("eve".into()));
        let slept = Happening::Slept { how: "paused", took: Duration::ZERO };
        journal.record(Some(&id("a")), slept, Cause::Idle);
        journal.record(Some(&id("a")), Happening::DrainEnded, Cause::Idle);
        journal.record(Some(&id("a")), Happening::Ended(Some(1)), Cause::Engine("died".into()));
        journal.record(None, Happening::Note("reloaded".into()), Cause::Dormouse("file".into()));
        let text = metrics.render(&world(&["a"]));
        check(
            &text,
            &[
                r#"dormouse_wakes_total{backend="local/a",cause="schedule",result="ok"} 2"#,
                r#"dormouse_wakes_total{backend="local/a",cause="person",result="failed"} 1"#,
                r#"dormouse_wake_seconds_count{phase="total"} 2"#,
                r#"dormouse_wake_seconds_sum{phase="total"} 1.4"#,
                r#"dormouse_wake_seconds_bucket{le="0.5",phase="total"} 0"#,
                r#"dormouse_wake_seconds_bucket{le="1.0",phase="total"} 2"#,
                r#"dormouse_sleeps_total{backend="local/a",how="paused"} 1"#,
                r#"dormouse_sleeps_refused_total{backend="local/a",reason="traffic"} 1"#,
                r#"dormouse_ended_total{backend="local/a"} 1"#,
            ],
        );
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("eve"), "a person is no label");
    }

    #[test]
    fn what_the_owners_know_is_collected() {
        let metrics = Metrics::default();
        metrics.held(&id("a"), Duration::from_millis(20));
        metrics.refused(&id("a"), "too_many_held");
        let counters = Arc::new(RouteCounters::default());
        counters.answered(204);
        counters.took(Duration::from_millis(3));
        counters.bytes_out.fetch_add(77, std::sync::atomic::Ordering::Relaxed);
        let stream = Arc::new(RouteCounters::default());
        stream.streams.fetch_add(2, std::sync::atomic::Ordering::Relaxed);
        let routes = vec![
            ("app".parse().unwrap(), counters),
            ("db".parse().unwrap(), stream),
            ("quiet".parse().unwrap(), Arc::default()),
        ];
        let connections = Arc::new(ConnectionCounters::default());
        connections.open.fetch_add(5, std::sync::atomic::Ordering::Relaxed);
        connections.turned_away(TurnedAway::Client);
        let text = metrics.render(&World { routes, connections, ..world(&["a"]) });
        check(
            &text,
            &[
                r#"dormouse_backend_state{backend="local/a",state="awake"} 1"#,
                r#"dormouse_passes{backend="local/a"} 2"#,
                r#"dormouse_held{backend="local/a"} 3"#,
                r#"dormouse_asleep_seconds_total{backend="local/a"} 2.5"#,
                r#"dormouse_given_back_bytes{backend="local/a"} 7"#,
                r#"dormouse_held_seconds_count{backend="local/a"} 1"#,
                r#"dormouse_refused_total{backend="local/a",reason="too_many_held"} 1"#,
                r#"dormouse_requests_total{route="app",class="2xx"} 1"#,
                r#"dormouse_request_seconds_bucket{le="0.005",route="app"} 1"#,
                r#"dormouse_bytes_out_total{route="app"} 77"#,
                r#"dormouse_streams_total{route="db"} 2"#,
                r#"dormouse_in_flight{route="db"} 0"#,
                r#"dormouse_healthy{route="web",leads_to="sim/a:80"} 0"#,
                r#"dormouse_member_requests{route="web",leads_to="sim/a:80"} 3"#,
                r#"dormouse_member_left_out{route="web",leads_to="sim/a:80"} 1"#,
                "dormouse_access_log_dropped_total 3",
                "dormouse_connections 5",
                r#"dormouse_connections_refused_total{reason="full"} 0"#,
                r#"dormouse_connections_refused_total{reason="client"} 1"#,
            ],
        );
        assert!(!text.contains("quiet"), "a route without requests takes no room");
    }

    #[test]
    fn what_no_longer_exists_is_forgotten() {
        let metrics = Metrics::default();
        for name in ["a", "b"] {
            metrics.refused(&id(name), "gone");
        }
        assert!(metrics.render(&world(&["a", "b"])).contains("local/b"));
        assert!(!metrics.render(&world(&["a"])).contains("local/b"));
        let again = metrics.render(&world(&["a", "b"]));
        assert!(!again.contains(r#"refused_total{backend="local/b""#), "{again}");
    }
}
