//! What differs between two forms of a backend or a route, in words for people.

use std::{fmt, time::Duration};

use super::change::Target;
use crate::model::{BackendSpec, Group, IdlePolicy, RouteOptions, RouteSpec, format_duration};

/// The differences of two backends, each as `key from → to`, or as the key where the values are long.
pub(super) fn backend_differences(old: &BackendSpec, new: &BackendSpec) -> Vec<String> {
    let mut words = policy_differences(&old.policy, &new.policy);
    note(&mut words, "network", &old.unit.network, &new.unit.network);
    note(&mut words, "command", &old.unit.command, &new.unit.command);
    note(&mut words, "the engine's name", &old.unit.name, &new.unit.name);
    note(&mut words, "ready", &old.ready, &new.ready);
    if old.ports != new.ports {
        words.push(format!("ports {:?} → {:?}", old.ports, new.ports));
    }
    if old.depends_on != new.depends_on {
        let names = |spec: &BackendSpec| {
            let names: Vec<String> = spec.depends_on.iter().map(|dependency| dependency.on.to_string()).collect();
            if names.is_empty() { "nothing".to_owned() } else { names.join(" and ") }
        };
        let (from, to) = (names(old), names(new));
        words.push(if from == to { "depends_on".to_owned() } else { format!("depends_on {from} → {to}") });
    }
    note(&mut words, "who names it", &old.provenance, &new.provenance);
    words
}

/// The differences of two routes; the place alone is none.
pub(super) fn route_differences(old: &RouteSpec, new: &RouteSpec) -> Vec<String> {
    let mut words = Vec::new();
    if old.target != new.target {
        let (from, to) = (Target(&old.target).to_string(), Target(&new.target).to_string());
        if from != to {
            words.push(format!("{from} → {to}"));
        }
        if let (Some(old), Some(new)) = (old.group(), new.group()) {
            group_differences(&mut words, old, new);
        }
    }
    let (was, is) = (&old.matches, &new.matches);
    note(&mut words, "hosts", &was.hosts, &is.hosts);
    note(&mut words, "paths", &was.paths, &is.paths);
    note(&mut words, "methods", &was.methods, &is.methods);
    note(&mut words, "headers", &was.headers, &is.headers);
    note(&mut words, "strip_prefix", &was.strip_prefix, &is.strip_prefix);
    note(&mut words, "listening addresses", &was.listen, &is.listen);
    note(&mut words, "sni", &was.sni, &is.sni);
    note(&mut words, "audience", &old.audience, &new.audience);
    // Each field by its name: a new one is not forgotten here.
    let RouteOptions {
        upstream,
        wake_on,
        tls_termination,
        client_profile,
        set_request_headers,
        set_response_headers,
        hide_request_headers,
        hide_response_headers,
        middlewares,
        waiting,
        waiting_page,
        title,
        ignore,
        asleep_response,
        health,
        access_log,
        link,
    } = &*new.options;
    let was = &old.options;
    note(&mut words, "upstream", &was.upstream, upstream);
    note(&mut words, "wake_on", &was.wake_on, wake_on);
    note(&mut words, "tls_termination", &was.tls_termination, tls_termination);
    note(&mut words, "inbound_mtls_profile", &was.client_profile, client_profile);
    note(&mut words, "request headers", &was.set_request_headers, set_request_headers);
    note(&mut words, "response headers", &was.set_response_headers, set_response_headers);
    note(&mut words, "hidden request headers", &was.hide_request_headers, hide_request_headers);
    note(&mut words, "hidden response headers", &was.hide_response_headers, hide_response_headers);
    note(&mut words, "middlewares", &was.middlewares, middlewares);
    note(&mut words, "waiting", &was.waiting, waiting);
    note(&mut words, "waiting_page", &was.waiting_page, waiting_page);
    note(&mut words, "title", &was.title, title);
    note(&mut words, "ignore", &was.ignore, ignore);
    note(&mut words, "asleep_response", &was.asleep_response, asleep_response);
    note(&mut words, "healthcheck", &was.health, health);
    note(&mut words, "access_log", &was.access_log, access_log);
    if new.group().is_none() {
        note(&mut words, "load_balance", &was.link, link);
    }
    words
}

/// The differences of two groups beside those who are in them.
fn group_differences(words: &mut Vec<String>, old: &Group, new: &Group) {
    let Group { mode, sticky, wake_more_at, members: _ } = new;
    if old.mode != *mode {
        words.push(format!("mode {} → {mode}", old.mode));
    }
    note(words, "sticky", &old.sticky, sticky);
    note(words, "wake_more_at", &old.wake_more_at, wake_more_at);
    // Who comes and goes is told of the target.
    if targets(old) != targets(new) {
        return;
    }
    if weights(old) == weights(new) {
        note(words, "how its members are served", &options(old), &options(new));
    } else {
        words.push("weights".to_owned());
    }
}

fn targets(group: &Group) -> Vec<String> {
    group.members.iter().map(|member| Target(&member.route.target).to_string()).collect()
}

fn options(group: &Group) -> Vec<&RouteOptions> {
    group.members.iter().map(|member| &*member.route.options).collect()
}

fn weights(group: &Group) -> Vec<u16> {
    group.members.iter().map(|member| member.weight).collect()
}

fn policy_differences(old: &IdlePolicy, new: &IdlePolicy) -> Vec<String> {
    let mut words = Vec::new();
    let mut pair = |key: &str, from: String, to: String| {
        if from != to {
            words.push(format!("{key} {from} → {to}"));
        }
    };
    let mut span = |key, from, to| pair(key, maybe(from), maybe(to));
    span("idle_timeout", old.idle_timeout, new.idle_timeout);
    span("stop_timeout", Some(old.stop_timeout), Some(new.stop_timeout));
    span("stop_after", old.stop_after, new.stop_after);
    span("wake_timeout", Some(old.wake_timeout), Some(new.wake_timeout));
    span("settle", Some(old.settle), Some(new.settle));
    span("stream_idle", old.stream_idle, new.stream_idle);
    span("flow_timeout", Some(old.flow_timeout), Some(new.flow_timeout));
    span("min_uptime", Some(old.min_uptime), Some(new.min_uptime));
    span("hold_timeout", old.hold_timeout, new.hold_timeout);
    span("drain_timeout", Some(old.drain_timeout), Some(new.drain_timeout));
    pair("stop_method", old.stop_method.to_string(), new.stop_method.to_string());
    pair("max_held", old.max_held.to_string(), new.max_held.to_string());
    note(&mut words, "dependency only", &old.dependency_only, &new.dependency_only);
    note(&mut words, "stop_signal", &old.stop_signal, &new.stop_signal);
    note(&mut words, "start_endpoint", &old.start_endpoint, &new.start_endpoint);
    note(&mut words, "waiting", &old.waiting, &new.waiting);
    note(&mut words, "ignore", &old.ignore, &new.ignore);
    note(&mut words, "asleep_response", &old.asleep_response, &new.asleep_response);
    note(&mut words, "schedule", &old.schedule, &new.schedule);
    note(&mut words, "busy", &old.busy, &new.busy);
    note(&mut words, "on_wake_timeout", &old.on_wake_timeout, &new.on_wake_timeout);
    note(&mut words, "wake_after_manual_stop", &old.wake_after_manual_stop, &new.wake_after_manual_stop);
    words
}

fn note<T: PartialEq + fmt::Debug>(words: &mut Vec<String>, key: &str, old: &T, new: &T) {
    if old != new {
        words.push(key.to_owned());
    }
}

fn maybe(span: Option<Duration>) -> String {
    span.map_or_else(|| "none".to_owned(), format_duration)
}
