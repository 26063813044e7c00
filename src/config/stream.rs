//! What only stream routes have: where they listen, by which names they share a port, and what of a stream wakes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thin_vec::ThinVec;

use super::{
    finish,
    route::{RouteDraft, Sni},
    tree::{Fields, Node},
    values,
};
use crate::model::{Alias, HostPattern, Opening, Place, Problem, Problems, RouteMatch, Scheme, Settings, WakeOn};

/// Reads the keys of stream routes.
pub(super) fn read(fields: &mut Fields<'_>, draft: &mut RouteDraft, problems: &mut Problems) {
    if let Some(node) = fields.get("bind") {
        draft.bind = values::list_of::<Bind>(node, problems).into_iter().map(|bind| bind.0).collect();
    }
    if let Some(node) = fields.get("sni") {
        draft.sni = sni(node, problems).map(|sni| (sni, node.place.clone()));
    }
    if let Some(node) = fields.get("relay_proxy_protocol_header") {
        draft.upstream.proxy_header = values::boolean(node, problems).unwrap_or(false);
    }
    if let Some(node) = fields.get("tls_termination") {
        draft.tls_termination = values::boolean(node, problems).unwrap_or(false).then(|| node.place.clone());
    }
    wake_on(fields, draft, problems);
    let asks = [
        ("bind", !draft.bind.is_empty()),
        ("sni", draft.sni.is_some()),
        ("relay_proxy_protocol_header", draft.upstream.proxy_header),
        ("tls_termination", draft.tls_termination.is_some()),
        ("wake_on", true),
        ("match", true),
    ];
    let first = asks.into_iter().filter(|(_, asks)| *asks).find_map(|(key, _)| Some((key, fields.entry(key)?)));
    draft.of_streams = first.map(|(key, entry)| (key, entry.place.clone()));
}

/// An address to listen on; GoDoxy's too.
struct Bind(IpAddr);

impl std::str::FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
        let address =
            if bare.eq_ignore_ascii_case("localhost") { Ok(Ipv4Addr::LOCALHOST.into()) } else { bare.parse() };
        address.map(Self).map_err(|_| format!("`{text}` is no address to listen on: write for example `127.0.0.1`"))
    }
}

/// `true` for the names of the alias, or the names themselves.
fn sni(node: &Node, problems: &mut Problems) -> Option<Sni> {
    match node.as_text().and_then(values::parse_bool) {
        Some(true) => Some(Sni::Alias),
        Some(false) => None,
        None => Some(Sni::Names(values::list_of(node, problems))).filter(|sni| match sni {
            Sni::Alias => true,
            Sni::Names(names) => !names.is_empty(),
        }),
    }
}

/// `wake_on: connect | data`, and the openings of `match`, which only make sense for data.
fn wake_on(fields: &mut Fields<'_>, draft: &mut RouteDraft, problems: &mut Problems) {
    let known = [("connect", false), ("data", true)];
    let on_data = fields.get("wake_on").and_then(|node| values::word(node, "value of `wake_on`", &known, problems));
    let Some(node) = fields.get("match") else {
        if on_data == Some(true) {
            draft.wake_on = WakeOn::Data(Vec::new());
        }
        return;
    };
    let openings: Vec<Opening> = values::list_of(node, problems);
    if on_data == Some(false) {
        let what = "`match` looks at the first bytes, which `wake_on: connect` does not wait for";
        problems.0.push(Problem::error(node.place.clone(), what).with_hint("write `wake_on: data`"));
    }
    draft.wake_on = WakeOn::Data(openings);
}

/// What a route answers to: hosts and the rest for HTTP, listening addresses and names for streams.
pub(super) fn matches(alias: &Alias, draft: &RouteDraft, scheme: Scheme, port: u16, settings: &Settings) -> RouteMatch {
    if !scheme.is_stream() {
        return RouteMatch { hosts: finish::hosts(alias, draft, settings), ..draft.matches.clone() };
    }
    let port = draft.listen_port.unwrap_or(port);
    let listen = binds(draft, port, settings).into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    let sni: ThinVec<HostPattern> = match &draft.sni {
        None => ThinVec::new(),
        Some((Sni::Alias, _)) => finish::hosts(alias, draft, settings),
        Some((Sni::Names(names), _)) => names.as_slice().into(),
    };
    RouteMatch { listen, sni, ..RouteMatch::default() }
}

/// Where stream routes listen that do not say where: on the addresses where HTTPS is served, when that is on their port
/// and they are told apart by their names, and else on those of HTTP.
fn binds(draft: &RouteDraft, port: u16, settings: &Settings) -> Vec<IpAddr> {
    if !draft.bind.is_empty() {
        return draft.bind.clone();
    }
    let mut binds: Vec<IpAddr> = Vec::new();
    let https = settings.listen.https.iter().filter(|address| draft.sni.is_some() && address.port() == port);
    let mut all: Vec<&SocketAddr> = https.collect();
    if all.is_empty() {
        all.extend(&settings.listen.http);
    }
    for address in all {
        if !binds.contains(&address.ip()) {
            binds.push(address.ip());
        }
    }
    if binds.is_empty() { vec![Ipv4Addr::UNSPECIFIED.into()] } else { binds }
}

/// Keys that do not belong together: those of streams on a route of HTTP, and the other way round.
pub(super) fn check(scheme: Scheme, draft: &RouteDraft, place: &Place, problems: &mut Problems) {
    if !scheme.is_stream() {
        if let Some((key, at)) = &draft.of_streams {
            let what = format!("`{key}` is for stream routes, and this is an `{scheme}` route");
            // Routes of HTTP listen together, wherever that is.
            let problem =
                if *key == "bind" { Problem::warning(at.clone(), what) } else { Problem::error(at.clone(), what) };
            problems.0.push(problem.with_hint("write `scheme: tcp`, or leave it out"));
        }
        return;
    }
    for (key, at) in &draft.of_http {
        let what = format!("`{key}` is for routes of HTTP, and this is a `{scheme}` route");
        let problem = match *key {
            "hosts" => Problem::error(at.clone(), what).with_hint("write `sni` for names in the TLS hello"),
            // Without these more would be let through, or something else.
            "paths" | "methods" | "headers" | "strip_prefix" | "middlewares" | "inbound_mtls_profile" => {
                Problem::error(at.clone(), what)
            }
            _ => Problem::warning(at.clone(), what),
        };
        problems.0.push(problem);
    }
    if let (Some(at), WakeOn::Data(openings)) = (&draft.tls_termination, &draft.wake_on)
        && openings.contains(&Opening::Tls)
    {
        let what = "`match: tls` never wakes a route with `tls_termination`: what it looks at is decrypted";
        let hint = "leave `match` out: only clients that finish their handshake wake";
        problems.0.push(Problem::error(at.clone(), what).with_hint(hint));
    }
    if scheme.has_udp() {
        let at = match (&draft.sni, &draft.tls_termination, &draft.wake_on) {
            (Some((_, at)), _, _) => Some(("sni", at)),
            (None, Some(at), _) => Some(("tls_termination", at)),
            (None, None, WakeOn::Data(openings)) if !openings.is_empty() => Some(("match", place)),
            (None, None, WakeOn::Data(_) | WakeOn::Connect) => None,
        };
        if let Some((key, at)) = at {
            let what = format!("`{key}` looks at the first bytes of a connection, and datagrams have none");
            problems.0.push(Problem::error(at.clone(), what).with_hint("write `scheme: tcp`"));
        }
    }
}
