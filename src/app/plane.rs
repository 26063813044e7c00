//! The settings of the data plane: bounds by what the system allows, and what the configuration says, followed.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    model::{HttpsRedirect, Settings},
    proxy::{Limits, ProxySettings},
};

/// As many client connections as there are descriptors for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// For each worker.
    each: usize,
    /// For all of them.
    all: usize,
}

impl Places {
    /// A request that is forwarded needs two descriptors, and engines, probes and the management interface have a
    /// reserve.
    pub(super) fn of(descriptors: u64, workers: usize) -> Self {
        let reserve = (descriptors / 4).min(512);
        let each = (descriptors - reserve) / 2 / u64::try_from(workers).unwrap_or(1).max(1);
        let each = usize::try_from(each).unwrap_or(usize::MAX).clamp(16, Limits::default().connections);
        Self { each, all: each.saturating_mul(workers.max(1)) }
    }

    /// Warns of a bound that is never reached, because others are reached before.
    pub(super) fn tell_of(self, settings: &Settings) {
        if let Some(wanted) = settings.max_connections.filter(|wanted| *wanted > self.all) {
            let possible = self.all;
            tracing::warn!(
                wanted,
                possible,
                "`max_connections` is more than there are places for: raise the bound on open descriptors (`LimitNOFILE` \
                 of systemd, `--ulimit nofile` of Docker), at most {} are served on each processor",
                Limits::default().connections
            );
        }
    }
}

/// What the front may. One client must not be able to take every place, whoever it is: half of them is left to others,
/// and more than anybody needs where nothing was bounded by hand.
fn limits(settings: &Settings, places: Places) -> Limits {
    let all = settings.max_connections.unwrap_or(places.all).min(places.all);
    Limits {
        connections: places.each,
        connections_in_all: all,
        connections_per_client: settings.max_connections_per_client.unwrap_or(all / 2).max(1),
        ..Limits::default()
    }
}

/// Takes as many descriptors as the system lets us have, and says how many that is.
pub(super) fn raise_descriptors() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, soft, "the bound on open descriptors can not be raised");
            soft
        }
    }
}

pub(super) fn proxy_settings(settings: &Settings, places: Places) -> ProxySettings {
    ProxySettings {
        limits: limits(settings, places),
        trusted_proxies: settings.trusted_proxies.clone(),
        proxy_protocol: settings.proxy_protocol.clone(),
        wakes_per_client: settings.wakes_per_client,
        https_redirect: redirect_port(settings),
        hsts: settings.tls.hsts.map(|hsts| hsts.value()),
        access_log: settings.access_log.clone(),
        shutdown_timeout: settings.shutdown_timeout,
    }
}

/// The port that those are sent to who come in clear.
fn redirect_port(settings: &Settings) -> Option<u16> {
    let listening = settings.listen.https.first().map(SocketAddr::port)?;
    match settings.tls.redirect {
        HttpsRedirect::On => Some(listening),
        HttpsRedirect::Port(port) => Some(port),
        HttpsRedirect::Off => None,
    }
}

/// Gives the data plane its settings anew after each reload.
pub(super) async fn follow_settings(
    mut in_force: watch::Receiver<Arc<Settings>>,
    proxy: Arc<ArcSwap<ProxySettings>>,
    places: Places,
    end: CancellationToken,
) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            changed = in_force.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let settings = Arc::clone(&in_force.borrow_and_update());
        places.tell_of(&settings);
        proxy.store(Arc::new(proxy_settings(&settings, places)));
    }
}
