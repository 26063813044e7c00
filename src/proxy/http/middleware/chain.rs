//! The middlewares of a route, one after the other.

use crate::{
    control::LiveRoute,
    model::{Middleware, Middlewares},
};

use super::{
    super::{answer::Answer, front::Client, request_head::RequestHead, rewrite},
    basic_auth, clients, cors, forward_auth,
    in_flight_limit::{self, Place},
    ledger::key,
    max_body, path, rate_limit, real_ip, redirect,
};

/// What the middlewares want changed in a request that they let in.
#[derive(Debug, Default)]
pub(in crate::proxy::http) struct Edits {
    /// The target that the service gets; absent: the one that came.
    pub(in crate::proxy::http) target: Option<String>,
    /// Header fields that were found out for this request.
    pub(in crate::proxy::http) fields: Vec<(String, String)>,
    /// Its places among the requests in flight.
    places: Vec<Place>,
}

/// Why a request was not let in, and what its client is told.
pub(super) struct Refusal {
    /// For the log.
    pub(super) reason: &'static str,
    pub(super) answer: Box<Answer>,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, answer: Answer) -> Self {
        Self { reason, answer: Box::new(answer) }
    }
}

/// Asks the middlewares of a route. An error is what the client gets instead.
pub(in crate::proxy::http) async fn admit(
    client: &mut Client,
    head: &RequestHead,
    route: &LiveRoute,
    chain: &Middlewares,
) -> Result<Edits, Answer> {
    let mut edits = Edits::default();
    for (index, step) in chain.steps.iter().enumerate() {
        if let Err(Refusal { reason, answer }) = apply(client, head, route, (index, step), &mut edits).await {
            let address = address(client, head);
            tracing::debug!(route = %route.spec.alias, client = %address, status = answer.status, "not let in: {reason}");
            return Err(*answer);
        }
    }
    Ok(edits)
}

async fn apply(
    client: &mut Client,
    head: &RequestHead,
    route: &LiveRoute,
    (index, step): (usize, &Middleware),
    edits: &mut Edits,
) -> Result<(), Refusal> {
    let ledger = &client.worker.shared.ledger;
    match step {
        Middleware::RealIp(rule) => {
            real_ip::apply(client, head, rule);
            Ok(())
        }
        Middleware::RedirectHttp => redirect::to_https(client, head),
        Middleware::Clients(list) => clients::check(list, address(client, head)),
        Middleware::RateLimit(limit) => {
            let key = key(&route.spec.alias, index, Some(address(client, head)));
            rate_limit::check(&ledger.rates, limit, key)
        }
        Middleware::InFlightLimit(limit) => {
            let key = key(&route.spec.alias, index, limit.per_client.then(|| address(client, head)));
            edits.places.push(in_flight_limit::take(&client.worker.shared, limit, key)?);
            Ok(())
        }
        Middleware::BasicAuth(auth) => basic_auth::check(&ledger.passwords, auth, head.get("authorization")).await,
        Middleware::ForwardAuth(auth) => {
            edits.fields.extend(forward_auth::ask(client, head, auth).await?);
            Ok(())
        }
        Middleware::Cors(rule) => cors::preflight(rule, head),
        Middleware::MaxBody(most) => max_body::check(*most, head.framing),
        Middleware::StripPrefix(_) | Middleware::AddPrefix(_) | Middleware::Rewrite(_) => {
            let target = path::change(step, &current(head, route, edits))?;
            edits.target = Some(target);
            Ok(())
        }
        Middleware::Redirect { to, status } => redirect::elsewhere(to, *status, &current(head, route, edits)),
    }
}

/// The target as it is so far.
fn current(head: &RequestHead, route: &LiveRoute, edits: &Edits) -> String {
    edits.target.clone().unwrap_or_else(|| {
        let (slash, rest) = rewrite::strip(head.target(), route.spec.matches.strip_prefix.as_deref());
        format!("{slash}{rest}")
    })
}

/// Who asks.
pub(super) fn address(client: &Client, head: &RequestHead) -> std::net::IpAddr {
    client.peer.client(head, &client.settings.trusted_proxies)
}
