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

/// Client connections for each worker. A request that is forwarded needs two descriptors, and engines, probes and
/// the management interface have a reserve.
pub(super) fn connections(descriptors: u64, workers: usize) -> usize {
    let reserve = (descriptors / 4).min(512);
    let each = (descriptors - reserve) / 2 / u64::try_from(workers).unwrap_or(1).max(1);
    usize::try_from(each).unwrap_or(usize::MAX).clamp(16, Limits::default().connections)
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

pub(super) fn proxy_settings(settings: &Settings, connections: usize) -> ProxySettings {
    ProxySettings {
        limits: Limits { connections, ..Limits::default() },
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
    connections: usize,
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
        proxy.store(Arc::new(proxy_settings(&in_force.borrow_and_update(), connections)));
    }
}
