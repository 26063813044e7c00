//! The ways on which a case reaches its backend.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use dormouse::{
    backend::{Order, StatusState},
    model::IdlePolicy,
    provider::Script,
};

use crate::{client::Client, relay::Relay, sleeping::Sleeping};

/// How a case reaches its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In clear.
    Clear,
    /// Through TLS.
    Secure,
    /// In clear, and the backend sleeps.
    Asleep,
}

/// A relay on one of the ways.
#[derive(Debug)]
pub(crate) struct Front {
    relay: Relay,
    way: Way,
    sleeper: Option<Sleeping>,
}

impl Front {
    /// Starts it on a port of its own.
    pub(crate) fn start(way: Way, upstream: SocketAddr) -> Self {
        let policy = IdlePolicy { idle_timeout: Some(Duration::from_secs(3600)), ..IdlePolicy::default() };
        let sleeper = (way == Way::Asleep).then(|| Sleeping::new(Script::default(), policy));
        let backend = sleeper.as_ref().map(|sleeper| sleeper.backend.clone());
        Self { relay: Relay::serve(upstream, backend, way == Way::Secure), way, sleeper }
    }

    /// A client's connection.
    pub(crate) fn connect(&self) -> Client {
        match self.way {
            Way::Clear | Way::Asleep => Client::connect(self.relay.address),
            Way::Secure => Client::connect_secure(self.relay.address),
        }
    }

    /// How often the backend was woken; 0 for one that does not sleep.
    pub(crate) fn wakes(&self) -> usize {
        self.sleeper.as_ref().map_or(0, |sleeper| sleeper.engine.start_calls("app"))
    }

    /// Sends the backend to sleep, where it is one that does.
    pub(crate) fn sleep(&self) {
        let Some(Sleeping { backend, runtime, .. }) = &self.sleeper else { return };
        runtime.block_on(backend.order(Order::SleepNow, "a test"));
        let since = Instant::now();
        while backend.status().borrow().state != StatusState::Stopped {
            assert!(since.elapsed() < Duration::from_secs(20), "it does not sleep");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
