//! The signals that this program heeds.

use std::{future::Future, sync::Arc};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    control::{Control, ReloadFailed},
    model::format_duration,
    proxy::Shared,
    telemetry::{AccessWriter, chain},
};

/// Those that only ask for something are ours from now on: until they can be heeded they are not to end us.
pub(super) fn claim() {
    for kind in [SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::hangup()] {
        drop(signal(kind));
    }
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn until_told_to_end() {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals can not be waited for");
            std::future::pending().await
        }
    }
}

/// Heeds the signal from this call on, also before the future is first polled.
pub(super) fn reload_on_hangup(control: Control, end: CancellationToken) -> impl Future<Output = ()> {
    let hangup = signal(SignalKind::hangup());
    async move {
        let Ok(mut hangup) = hangup else { return };
        // The end does not wait for a slow disk.
        while let Some(Some(())) = end.run_until_cancelled(hangup.recv()).await
            && let Some(taken) = end.run_until_cancelled(control.reload()).await
        {
            match taken {
                // The journal has told what is wrong.
                Ok(_) | Err(ReloadFailed::Problems(_)) => {}
                Err(error @ (ReloadFailed::Ending | ReloadFailed::Fault)) => tracing::error!("{}", chain(&error)),
            }
        }
    }
}

/// Looks at the files of the access log on SIGUSR1, as those who rotate the logs of other servers send it. Heeds the
/// signal from this call on.
pub(super) fn look_at_logs(access: AccessWriter, end: CancellationToken) -> impl Future<Output = ()> {
    let asked = signal(SignalKind::user_defined1());
    async move {
        let Ok(mut asked) = asked else { return };
        while let Some(Some(())) = end.run_until_cancelled(asked.recv()).await {
            access.look();
        }
    }
}

/// Once another process has taken over: clients have a deadline from the first signal on, and are cut by the second.
pub(super) async fn heed_ends(shared: Arc<Shared>) {
    until_told_to_end().await;
    let within = format_duration(shared.settings.load().shutdown_timeout);
    tracing::info!("ending: what is in use may finish within {within} (a second signal cuts it)");
    shared.at_leisure.send_replace(false);
    until_told_to_end().await;
    shared.hurry.cancel();
}
