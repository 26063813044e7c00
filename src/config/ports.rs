//! Which port of a container a route leads to, and what is spoken there.

use super::{images, route::RouteDraft};
use crate::model::{Container, Problem, Problems, Scheme, Transport};

/// Ports that services for people usually have, best first.
const USUAL: [u16; 6] = [80, 8080, 3000, 8000, 443, 8443];

/// A port and a scheme, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) port: u16,
    pub(super) scheme: Scheme,
    pub(super) notes: Vec<String>,
}

/// Chooses what labels leave open; `Err` is the reason why there is no port.
pub(super) fn choose(container: &Container, draft: &RouteDraft) -> Result<Choice, String> {
    let exposed = |transport| {
        let mut ports: Vec<u16> =
            container.ports.iter().filter(|port| port.transport == transport).map(|port| port.port).collect();
        ports.sort_unstable();
        ports
    };
    let (tcp, udp) = (exposed(Transport::Tcp), exposed(Transport::Udp));
    let known = images::well_known(&container.image);
    let mut notes = Vec::new();
    let port = match &draft.port {
        Some((port, _)) => *port,
        None => {
            let (port, why) = chosen_port(&tcp, &udp, known.map(|(port, _)| port))?;
            if why != ONLY {
                notes.push(format!("port {port}: {why}"));
            }
            port
        }
    };
    let scheme = match draft.scheme {
        Some(scheme) => scheme,
        None => {
            let (scheme, why) = chosen_scheme(port, &tcp, &udp, known, draft);
            if scheme != Scheme::Http {
                notes.push(format!("scheme `{scheme}`: {why}"));
            }
            scheme
        }
    };
    Ok(Choice { port, scheme, notes })
}

const ONLY: &str = "the only one exposed";

fn chosen_port(tcp: &[u16], udp: &[u16], known: Option<u16>) -> Result<(u16, &'static str), String> {
    if let Some(port) = known.filter(|port| tcp.is_empty() || tcp.contains(port)) {
        return Ok((port, "well known of the image"));
    }
    match (tcp, udp) {
        ([], []) => return Err("it exposes no port and no label names one".to_owned()),
        ([only], _) | ([], [only]) => return Ok((*only, ONLY)),
        _ => {}
    }
    if let Some(port) = USUAL.into_iter().find(|port| tcp.contains(port)) {
        return Ok((port, "the usual one of those exposed"));
    }
    let lowest = tcp.first().or(udp.first()).copied().unwrap_or_default();
    Ok((lowest, "the lowest of those exposed"))
}

fn chosen_scheme(
    port: u16,
    tcp: &[u16],
    udp: &[u16],
    known: Option<(u16, Scheme)>,
    draft: &RouteDraft,
) -> (Scheme, &'static str) {
    // The well-known scheme is that of the well-known port; a database speaks its own on any port.
    if let Some((_, scheme)) = known.filter(|(known, scheme)| *known == port || scheme.is_stream()) {
        (scheme, "well known of the image")
    } else if tcp.is_empty() && udp.contains(&port) {
        (Scheme::Udp, "only UDP is exposed")
    } else if draft.listen_port.is_some() {
        (Scheme::Tcp, "a listening port is given")
    } else if port % 1000 == 443 {
        (Scheme::Https, "the port ends in 443")
    } else {
        (Scheme::Http, "as usual")
    }
}

/// A label that names a published host port probably means the port behind it; the container's own is what counts.
pub(super) fn warn_of_host_port(container: &Container, draft: &RouteDraft, problems: &mut Problems) {
    let Some((port, place)) = &draft.port else { return };
    if draft.host.is_some() || container.ports.iter().any(|exposed| exposed.port == *port) {
        return;
    }
    let behind = container.ports.iter().find(|exposed| exposed.published.is_some_and(|(_, host)| host == *port));
    if let Some(behind) = behind {
        let what = format!("{port} is the host's port for the container's port {}", behind.port);
        let hint = format!("ports of labels are the container's own: write {}, if that is meant", behind.port);
        problems.0.push(Problem::warning(place.clone(), what).with_hint(hint));
    }
}
