//! The route of a request, and whether it may use that.

use std::{borrow::Cow, sync::Arc};

use crate::{
    backend::StatusState,
    control::LiveRoute,
    model::Audience,
    net,
    routing::{Query, plain_path},
    web,
};

use super::{
    answer::Answer,
    field::{HOP_MARK, Known},
    front::Client,
    request_head::RequestHead,
    request_target::hides_slash,
    secure, waiting,
};

/// Why a request has come to no route, or not into the one that it has come to.
pub(super) struct Unserved {
    pub(super) answer: Answer,
    /// The one that has a word in how that is told.
    pub(super) route: Option<Arc<LiveRoute>>,
}

impl From<Answer> for Box<Unserved> {
    fn from(answer: Answer) -> Self {
        Self::new(Unserved { answer, route: None })
    }
}

/// The route of a request that may use it.
pub(super) fn find(client: &Client, head: &RequestHead) -> Result<Arc<LiveRoute>, Box<Unserved>> {
    let shared = &client.worker.shared;
    let marked = head.fields().iter().any(|field| field.known == Known::HopMark);
    if marked && head.all(HOP_MARK).flat_map(|value| value.split(',')).any(|mark| mark.trim() == shared.mark) {
        return Err(Answer::new(508, "This request came back to where it had been sent from.").into());
    }
    let unknown = || match shared.ports.names_beside_https(head.host()) {
        // The certificate of this connection may be good for a host that is a stream's.
        true if client.secured.is_some() => Answer::new(421, "This connection was made for another host."),
        true | false => Answer::new(404, "Nothing is served under this address."),
    };
    let written = if head.target() == "*" { "/" } else { head.path() };
    // Nearly every path is as plain as it can be, which one look tells.
    let is_odd = memchr::memchr2(b'%', b'\\', written.as_bytes()).is_some();
    let path = if is_odd { plain_path(written) } else { Cow::Borrowed(written) };
    let table = shared.table.load();
    let find = |path: &str| {
        table.by_host.find(&Query { host: head.host(), path, method: head.method(), headers: &|name| head.get(name) })
    };
    let page = reserved(head).and_then(|page| find(&page)).filter(|route| is_not_awake(route));
    let route = page.or_else(|| find(&path)).ok_or_else(unknown)?;
    if route.spec.audience == Audience::PrivateNetworks
        && !net::is_private(client.peer.client(head, &client.settings.trusted_proxies))
    {
        return Err(unknown().into());
    }
    let unserved = |answer| Box::new(Unserved { answer, route: Some(Arc::clone(route)) });
    secure::check(client, head, route).map_err(unserved)?;
    // Where routes differ by path, a slash that is hidden from us must not be one to the backend: it could be found
    // under the path of one route by way of another. So it could where what follows two slashes is read as a host.
    let begins_twice = written.starts_with("//");
    if (begins_twice || (is_odd && hides_slash(&path)))
        && table.by_host.of_host(head.host()).iter().any(|route| !route.spec.matches.paths.is_empty())
    {
        let why = if begins_twice { "The path begins with two slashes." } else { "The path hides a slash." };
        return Err(unserved(Answer::new(400, why)));
    }
    Ok(Arc::clone(route))
}

/// The path of the waiting page whose resource is asked for: it is served by the page's own route.
fn reserved(head: &RequestHead) -> Option<String> {
    if head.path().starts_with(web::RESERVED_PREFIX) { waiting::page_path(head.target()) } else { None }
}

fn is_not_awake(route: &LiveRoute) -> bool {
    match &route.group {
        Some(group) => !group.is_awake(),
        None => route.backend.as_ref().is_some_and(|backend| backend.status().borrow().state != StatusState::Awake),
    }
}
