//! What is known of the backends, kept in the store.

use std::{collections::HashMap, path::Path, time::Duration};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::{
    control::{self, Control},
    model::Severity,
    store::Store,
};

/// What is remembered is saved this often, when it has changed.
const REMEMBER: Duration = Duration::from_secs(5);

/// Opens the store, and tells what is wrong with it.
pub(super) async fn open_store(state_dir: &Path) -> anyhow::Result<Store> {
    let (store, notices) = Store::open(state_dir).await.context("open the state directory")?;
    for notice in notices {
        match notice.severity {
            Severity::Error => tracing::error!("{notice:#}"),
            Severity::Warning => tracing::warn!("{notice:#}"),
            Severity::Hint => tracing::info!("{notice:#}"),
        }
    }
    Ok(store)
}

/// Keeps what is known of all backends, and waits until it is written.
pub(super) async fn remember_all(control: &Control, store: &Store) {
    for backend in control.backends() {
        store.save(control::remember(&backend));
    }
    // What could not be written is in the log, and tried once more when the store is closed.
    let _ = store.flush().await;
}

pub(super) async fn remember_now_and_then(control: Control, store: Store, end: CancellationToken) {
    let mut written = HashMap::new();
    loop {
        for backend in control.backends() {
            let status = backend.status().borrow().version;
            let mark = (status, backend.last_used());
            if written.insert(backend.id().clone(), mark) != Some(mark) {
                store.save(control::remember(&backend));
            }
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(REMEMBER) => {}
        }
    }
}
