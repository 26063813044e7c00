//! The middlewares of a route, one after the other.

use crate::{
    control::LiveRoute,
    model::{Middleware, Middlewares},
};

use super::{
    super::{answer::Answer, request_head::RequestHead, rewrite},
    asker::Asker,
    basic_auth, clients, cors, forward_auth,
    in_flight_limit::{self, Place},
    ledger::key,
    max_body, oidc, path, rate_limit, real_ip, redirect,
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
    asker: &mut Asker<'_>,
    route: &LiveRoute,
    chain: &Middlewares,
) -> Result<Edits, Answer> {
    let mut edits = Edits::default();
    for (index, step) in chain.steps.iter().enumerate() {
        if let Err(Refusal { reason, answer }) = apply(asker, route, (index, step), &mut edits).await {
            let client = asker.address();
            tracing::debug!(route = %route.spec.alias, %client, status = answer.status, "not let in: {reason}");
            return Err(*answer);
        }
    }
    Ok(edits)
}

/// Asks one. Those that ask others in turn need much room, and nobody else gives it.
async fn apply(
    asker: &mut Asker<'_>,
    route: &LiveRoute,
    (index, step): (usize, &Middleware),
    edits: &mut Edits,
) -> Result<(), Refusal> {
    let (ledger, head) = (&asker.client.worker.ledger, asker.head);
    match step {
        Middleware::RealIp(rule) => {
            real_ip::apply(asker, rule);
            Ok(())
        }
        Middleware::RedirectHttp => redirect::to_https(asker),
        Middleware::Clients(list) => clients::check(list, asker.address()),
        Middleware::RateLimit(limit) => {
            let key = key(&route.spec.alias, index, Some(asker.address()));
            rate_limit::check(&ledger.rates, limit, key)
        }
        Middleware::InFlightLimit(limit) => {
            let key = key(&route.spec.alias, index, limit.per_client.then(|| asker.address()));
            edits.places.push(in_flight_limit::take(ledger, limit, key)?);
            Ok(())
        }
        Middleware::BasicAuth(auth) => basic_auth::check(&ledger.passwords, auth, head.get("authorization")).await,
        Middleware::ForwardAuth(auth) => {
            edits.fields.extend(Box::pin(forward_auth::ask(asker, auth)).await?);
            Ok(())
        }
        Middleware::Oidc(rule) => {
            edits.fields.extend(Box::pin(oidc::check(asker, route, rule)).await?);
            Ok(())
        }
        Middleware::Cors(rule) => cors::preflight(rule, head),
        Middleware::MaxBody(most) => max_body::check(*most, head.framing),
        Middleware::StripPrefix(_) | Middleware::AddPrefix(_) | Middleware::Rewrite(_) => {
            let target = path::change(step, &current(head, route, edits))?;
            edits.target = Some(target);
            Ok(())
        }
        // They look at what is answered.
        Middleware::Retry(_) | Middleware::ErrorPages(_) | Middleware::Compress(_) => Ok(()),
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
