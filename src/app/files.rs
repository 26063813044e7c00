//! Watches the configuration files and has them read again when they change.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::control::Control;

/// Several changes in a row are answered by one reload.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// Watches until the end the files that were read at that time. Directories are watched, not files: editors and
/// orchestrators replace files.
pub(super) async fn watch_files(
    control: Control,
    (mut files, read_at): (watch::Receiver<Vec<PathBuf>>, Timestamp),
    end: CancellationToken,
) {
    let (changed_in, mut changed) = mpsc::channel::<()>(1);
    let mut watched = files.borrow_and_update().clone();
    let mut watcher = start_or_tell(&watched, &changed_in);
    if watched.iter().any(|file| changed_after(file, read_at)) {
        let _ = changed_in.try_send(());
    }
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            Some(()) = changed.recv() => {
                if end.run_until_cancelled(until_quiet(&mut changed)).await.is_none() {
                    return;
                }
                if let Some(empty) = watched.iter().find(|file| is_empty(file)) {
                    let file = empty.display();
                    tracing::warn!(%file, "an empty file is taken for one that is being written: `dormouse reload` takes it");
                    continue;
                }
                // The outcome is in the journal and among the problems. The end does not wait for a slow disk.
                let _ = end.run_until_cancelled(control.reload()).await;
            }
            Ok(()) = files.changed() => {
                let now = files.borrow_and_update().clone();
                if now != watched {
                    // The new watch begins before the old one ends: no change falls between them.
                    drop(std::mem::replace(&mut watcher, start_or_tell(&now, &changed_in)));
                    watched = now;
                    // A new file may have changed after it was read and before it was watched.
                    let _ = changed_in.try_send(());
                }
            }
        }
    }
}

/// Waits until nothing has changed for a while, but not for ever.
async fn until_quiet(changed: &mut mpsc::Receiver<()>) {
    for _ in 0..10 {
        tokio::time::sleep(DEBOUNCE).await;
        if changed.try_recv().is_err() {
            return;
        }
    }
}

/// Whether a file was written after that: while the program started, nobody watched it.
fn changed_after(file: &Path, then: Timestamp) -> bool {
    let written = std::fs::metadata(file).and_then(|facts| facts.modified()).ok();
    written.and_then(|written| Timestamp::try_from(written).ok()).is_some_and(|written| written > then)
}

/// Whether a file is there and holds nothing: somebody has cut it and is about to write it anew.
fn is_empty(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|facts| facts.is_file() && facts.len() == 0)
}

fn start_or_tell(files: &[PathBuf], changed: &mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    match start(files, changed.clone()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "configuration files can not be watched; SIGHUP and the API still reload");
            None
        }
    }
}

fn start(files: &[PathBuf], changed: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let names: BTreeSet<PathBuf> =
        files.iter().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone())).collect();
    let directories: BTreeSet<PathBuf> = names.iter().filter_map(|file| file.parent()).map(PathBuf::from).collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if !matches!(event.kind, notify::EventKind::Access(_)) && event.paths.iter().any(|path| concerns(&names, path))
        {
            // Full: a reload is due already.
            let _ = changed.try_send(());
        }
    })?;
    for directory in &directories {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Whether a change of this path may change the configuration: a file that was read, a new one beside it that may be
/// included, or the link that orchestrators swap when they replace mounted files.
fn concerns(read: &BTreeSet<PathBuf>, path: &Path) -> bool {
    let may_be_included = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
    read.contains(path) || may_be_included || path.file_name().is_some_and(|name| name == "..data")
}
