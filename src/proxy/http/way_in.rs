//! The way of a request to an endpoint that is awake, whatever its route leads to.

use std::time::Duration;

use crate::model::{RouteTarget, Scheme};

use super::{
    answer::Answer,
    attempt::{Job, Way},
    balance, secure,
    wake::{self, Entry},
};

/// The way to the route's endpoint, or to one of several, which is awake then.
pub(super) async fn enter(job: &mut Job<'_>) -> Result<Way, Entry> {
    if job.turn.is_none() { directly(job).await } else { Box::pin(balance::enter(job)).await }
}

/// The way to the route's only endpoint.
pub(super) async fn directly(job: &mut Job<'_>) -> Result<Way, Entry> {
    let way = reach(job).await?;
    if let RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. } = &job.route.spec.target {
        match endpoint.scheme {
            Scheme::Https => {
                let tls = secure::target(&job.route.spec, way.at).map_err(Entry::Answer)?;
                return Ok(Way { tls: Some(tls), ..way });
            }
            Scheme::H2c => return Ok(Way { h2c: true, ..way }),
            Scheme::Http | Scheme::Tcp | Scheme::Udp | Scheme::TcpUdp => {}
        }
    }
    Ok(way)
}

async fn reach(job: &mut Job<'_>) -> Result<Way, Entry> {
    if let RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. } = &job.route.spec.target
        && endpoint.scheme.is_stream()
    {
        // Plain HTTP on a port that speaks something else would only look like an answer.
        return Err(Entry::Answer(Answer::new(502, "The service speaks a protocol that is not supported yet.")));
    }
    match &job.route.spec.target {
        RouteTarget::Address { host, endpoint } => {
            let found = job.client.worker.names.resolve(host, endpoint.port).await;
            let address = found.map_err(|_| Entry::Answer(Answer::new(502, "The service can not be reached.")))?;
            Ok(Way { at: address.into(), own: true, generation: 0, h2c: false, tls: None, pass: None })
        }
        RouteTarget::Down { .. } | RouteTarget::Group(_) => Err(Entry::Answer(
            Answer::new(503, "The service is down, and no request starts it.").retry_after(Duration::from_secs(30)),
        )),
        RouteTarget::Backend { endpoint, .. } => wake::enter(job, endpoint.port).await,
    }
}
