//! Watches the files of certificates and has them read again when they change.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{model::Settings, net::Certificates};

/// Certificate and key are written one after the other: several changes in a row are answered by one look.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// Watches until the end. Directories are watched, not files: who renews a certificate replaces its files.
pub(super) async fn watch(
    certificates: Arc<Certificates>,
    mut settings: watch::Receiver<Arc<Settings>>,
    end: CancellationToken,
) {
    let (changed_in, mut changed) = mpsc::channel::<()>(1);
    let mut watched = certificates.directories();
    let mut watcher = start_or_tell(&watched, &changed_in);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            Some(()) = changed.recv() => {
                tokio::time::sleep(DEBOUNCE).await;
                let _ = changed.try_recv();
                let reading = Arc::clone(&certificates);
                if let Err(error) = tokio::task::spawn_blocking(move || reading.reload()).await {
                    tracing::error!(%error, "certificates could not be read again");
                }
            }
            Ok(()) = settings.changed() => {}
        }
        // Others are named, or a folder has got one within.
        let now = certificates.directories();
        if now != watched {
            // The new watch begins before the old one ends: no change falls between them.
            drop(std::mem::replace(&mut watcher, start_or_tell(&now, &changed_in)));
            watched = now;
            // A file may have changed after it was read and before it was watched.
            let _ = changed_in.try_send(());
        }
    }
}

fn start_or_tell(directories: &BTreeSet<PathBuf>, changed: &mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    if directories.is_empty() {
        return None;
    }
    match start(directories, changed.clone()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "files of certificates can not be watched; a reload still reads them");
            None
        }
    }
}

fn start(directories: &BTreeSet<PathBuf>, changed: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !matches!(event.kind, notify::EventKind::Access(_))) {
            // Full: a look is due already.
            let _ = changed.try_send(());
        }
    })?;
    for directory in directories {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}
