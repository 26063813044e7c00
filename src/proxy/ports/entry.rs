//! The way into a backend for streams: who may wake it, who waits, who is turned away.

use std::{sync::atomic::Ordering, time::Instant};

use crate::{
    backend::{Backend, Pass},
    control::LiveRoute,
    model::{Audience, Cause, IgnoreCase, RequestFacts, RouteTarget, Spot, Transport},
    net::{Ends, is_private},
    proxy::worker::{Worker, causes_wake},
    telemetry::RouteCounters,
};

/// Who wants in.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Caller {
    pub(in crate::proxy) transport: Transport,
    pub(in crate::proxy) ends: Ends,
}

/// Where a stream goes.
#[derive(Debug)]
pub(in crate::proxy) struct Way {
    pub(in crate::proxy) at: Spot,
    /// That is the backend's own, not a forwarder that accepts for it.
    pub(in crate::proxy) own: bool,
    /// Keeps the backend awake as long as it lives.
    pub(in crate::proxy) pass: Option<Pass>,
}

/// Why there is no way in. The words are for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy) struct Closed(pub(in crate::proxy) String);

/// What a look at the backend says.
#[derive(Debug)]
pub(in crate::proxy) enum Look<'a> {
    /// In.
    Open(Way),
    /// It is not awake: to be entered with patience.
    Asleep(&'a Backend),
}

impl Caller {
    fn word(self) -> &'static str {
        match self.transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        }
    }

    /// Whether the route is there for it.
    pub(in crate::proxy) fn may_use(self, route: &LiveRoute) -> bool {
        match route.spec.audience {
            Audience::Everyone => true,
            Audience::PrivateNetworks => is_private(self.ends.source.ip().to_canonical()),
        }
    }

    pub(in crate::proxy) fn cause(self) -> Cause {
        Cause::Request(RequestFacts {
            method: self.word().to_owned(),
            host: self.ends.destination.to_string(),
            path: String::new(),
            client: self.ends.source.ip(),
            agent: None,
        })
    }
}

impl Way {
    /// Unless it leads back to one of our own ports: it might for ever. Inside another namespace none is ours.
    fn out_of(self, worker: &Worker, caller: Caller) -> Result<Self, Closed> {
        match self.at {
            Spot::Network(address) if worker.shared.ports.listens_at(caller.transport, address) => {
                Err(Closed(format!("it leads to `{address}`, where a stream route itself listens")))
            }
            Spot::Network(_) | Spot::Inside(..) => Ok(self),
        }
    }

    /// The backend woke a moment ago and may still be starting.
    pub(in crate::proxy) fn is_settling(&self, route: &LiveRoute) -> bool {
        let woke = self.pass.as_ref().and_then(Pass::woke);
        let settle = route.backend.as_ref().map(|backend| backend.policy().settle);
        woke.zip(settle).is_some_and(|(woke, settle)| woke.at + settle > Instant::now())
    }
}

/// A member is chosen before.
const SEVERAL: &str = "it is none of its group";

/// Enters what is awake, or needs no waking.
pub(in crate::proxy) async fn look<'a>(
    worker: &Worker,
    route: &'a LiveRoute,
    caller: Caller,
) -> Result<Look<'a>, Closed> {
    match &route.spec.target {
        RouteTarget::Address { host, endpoint } => match worker.names.resolve(host, endpoint.port).await {
            Ok(address) => Way { at: address.into(), own: true, pass: None }.out_of(worker, caller).map(Look::Open),
            Err(error) => Err(Closed(format!("`{host}` is not known: {error}"))),
        },
        RouteTarget::Down { .. } => Err(Closed("its owner switched it off".to_owned())),
        RouteTarget::Group(_) => Err(Closed(SEVERAL.to_owned())),
        RouteTarget::Backend { endpoint, .. } => {
            let Some(backend) = &route.backend else { return Err(Closed("it is not there".to_owned())) };
            let ignored = is_ignored(route, backend, caller);
            let pass = if ignored { backend.try_enter_quietly() } else { backend.try_enter() };
            match pass {
                Some(pass) => through(pass, endpoint.port)?.out_of(worker, caller).map(Look::Open),
                None if ignored => Err(Closed("it sleeps, and this client does not wake it".to_owned())),
                None => Ok(Look::Asleep(backend)),
            }
        }
    }
}

/// Enters a backend that is not awake, and waits for it. Dropping the future gives the place up.
pub(in crate::proxy) async fn enter(
    worker: &Worker,
    route: &LiveRoute,
    backend: &Backend,
    caller: Caller,
) -> Result<Way, Closed> {
    may_wake(worker, backend, caller)?;
    let entered = backend.enter(caller.cause(), backend.policy().patience()).await;
    entered_by(worker, route, entered.map_err(|refused| Closed(refused.reason().to_owned()))?, caller)
}

/// Whether this client may still cause wakes.
pub(in crate::proxy) fn may_wake(worker: &Worker, backend: &Backend, caller: Caller) -> Result<(), Closed> {
    if causes_wake(backend) && !worker.shared.may_wake(caller.ends.source.ip()) {
        backend.count_refusal("too_many_wakes");
        return Err(Closed("too many services were started from this address".to_owned()));
    }
    Ok(())
}

/// The way of one that has a pass.
pub(in crate::proxy) fn entered_by(
    worker: &Worker,
    route: &LiveRoute,
    pass: Pass,
    caller: Caller,
) -> Result<Way, Closed> {
    let port = match &route.spec.target {
        RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. } => endpoint.port,
        RouteTarget::Down { .. } => return Err(Closed("its owner switched it off".to_owned())),
        RouteTarget::Group(_) => return Err(Closed(SEVERAL.to_owned())),
    };
    through(pass, port)?.out_of(worker, caller)
}

fn through(pass: Pass, port: u16) -> Result<Way, Closed> {
    match (pass.dial(port), pass.running().closed()) {
        (Some((at, own)), _) => Ok(Way { at, own, pass: Some(pass) }),
        (None, Some(why)) => Err(Closed(why.to_string())),
        (None, None) => Err(Closed(format!("its port {port} can not be reached"))),
    }
}

/// A client of a network that neither wakes nor keeps awake.
pub(in crate::proxy) fn is_ignored(route: &LiveRoute, backend: &Backend, caller: Caller) -> bool {
    let policy = backend.policy();
    let client = caller.ends.source.ip();
    let case = IgnoreCase { method: caller.word(), path: "", agent: "", client };
    [&route.spec.options.ignore, &policy.ignore].iter().any(|rules| !rules.is_empty() && rules.matches(case))
}

/// A place among those that a route bounds; given back on drop.
#[derive(Debug)]
pub(in crate::proxy) struct Place(std::sync::Arc<RouteCounters>);

impl Place {
    /// None when all are taken.
    pub(in crate::proxy) fn take(route: &LiveRoute) -> Option<Self> {
        let counters = &route.counters;
        let before = counters.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = Self(std::sync::Arc::clone(counters));
        // Of a group each member has a bound of its own.
        let bound = route.spec.options.upstream.max_conns.filter(|_| route.group.is_none());
        let bound = bound.map_or(i64::MAX, |most| i64::try_from(most).unwrap_or(i64::MAX));
        if before < bound {
            counters.streams.fetch_add(1, Ordering::Relaxed);
            Some(place)
        } else {
            None
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
