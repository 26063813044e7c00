//! The way into a backend: at once when it is awake; otherwise who may wake it, who waits, and who is told what.

use std::net::IpAddr;

use crate::model::{Cause, RequestFacts};

use super::{
    answer::Answer,
    attempt::{Job, Way, gone},
    front::Next,
};

/// Why there is no way in.
pub(super) enum Entry {
    /// The client is told so.
    Answer(Answer),
    /// It was answered, at length.
    #[allow(dead_code)]
    Done(Next),
    /// It left.
    Left,
}

/// Whether an address is of a loopback, private or link-local network.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Enters the backend of the route.
pub(super) async fn enter(job: &mut Job<'_>, port: u16) -> Result<Way, Entry> {
    let Some(backend) = &job.route.backend else {
        return Err(Entry::Answer(Answer::new(503, "the service is switched off")));
    };
    let pass = match backend.try_enter() {
        Some(pass) => pass,
        None => {
            let patience = backend.policy().patience();
            let cause = Cause::Request(RequestFacts {
                method: job.head.method().to_owned(),
                host: job.head.host().to_owned(),
                path: job.head.path().to_owned(),
                client: job.client.peer.address,
                agent: job.head.get("user-agent").map(|agent| agent.chars().take(200).collect()),
            });
            let entered = tokio::select! {
                biased;
                entered = backend.enter(cause, patience) => entered,
                () = gone(&job.client.stream, false) => return Err(Entry::Left),
            };
            entered.map_err(|refused| {
                Entry::Answer(Answer::new(503, refused.reason()).retry_after(refused.retry_after()))
            })?
        }
    };
    let (address, own) =
        pass.dial(port).ok_or_else(|| Entry::Answer(Answer::new(502, "the service can not be reached")))?;
    Ok(Way { address, own, generation: pass.generation(), pass: Some(pass) })
}
