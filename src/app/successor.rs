//! The one before: has a new process take over.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    candidate::{Candidate, Sockets},
    heir::Heir,
    legacy::Legacy,
    legacy_events::Events,
    nodes::Nodes,
    remember::remember_all,
    upgrade_line::ToNew,
};
use crate::{
    api::UpgradeOrder,
    backend::{Ask, Lender, StatusState},
    control::{Control, Lending, LentBackend},
    net,
    proxy::Shared,
    store::Store,
    telemetry::chain,
};

/// Backends on their way up or down may take so long to get there.
const CALM: Duration = Duration::from_secs(60);

/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What a new process takes over.
#[derive(Debug)]
pub(super) struct Estate {
    pub(super) control: Control,
    pub(super) store: Store,
    pub(super) state_dir: PathBuf,
    pub(super) nodes: Arc<Nodes>,
    pub(super) shared: Arc<Shared>,
    /// When the run began that its events are counted in.
    pub(super) run: Timestamp,
    /// Copies of the listeners of HTTP and of the management interface.
    pub(super) listeners: Vec<OwnedFd>,
}

impl Estate {
    /// Has a new process take over when it is ordered or signalled, and again until one has.
    pub(super) async fn until_taken(&self, mut orders: mpsc::Receiver<UpgradeOrder>) -> Heir {
        let mut signals = match signal(SignalKind::user_defined2()) {
            Ok(signals) => Some(signals),
            Err(error) => {
                tracing::error!(%error, "SIGUSR2 can not be waited for");
                None
            }
        };
        loop {
            let order = tokio::select! {
                Some(order) = orders.recv() => Some(order),
                () = signalled(signals.as_mut()) => None,
            };
            let done = self.hand_over().await.map_err(|why| format!("not upgraded, and all is as before: {why}"));
            match &done {
                Ok(heir) => {
                    tracing::info!(pid = heir.pid, "a new process has taken over; what is in use here may finish")
                }
                Err(why) => tracing::error!("{why}"),
            }
            if let Some(order) = order {
                let _ = order.send(done.as_ref().map(|heir| heir.pid).map_err(Clone::clone));
            }
            if let Ok(heir) = done {
                tokio::spawn(refuse(orders, heir.pid));
                return heir;
            }
        }
    }

    async fn hand_over(&self) -> Result<Heir, String> {
        if std::process::id() == 1 {
            return Err("process 1 of a container can not be replaced: start a new container instead".to_owned());
        }
        let sockets = self.sockets().map_err(|error| format!("copy the sockets: {error}"))?;
        let mut candidate = Candidate::start(&sockets).await.map_err(|error| chain(error.as_ref()))?;
        candidate.must_be_ready().await?;
        let (mut lent, backends) = self.lend(&mut candidate).await?;
        self.nodes.give_away(true);
        remember_all(&self.control, &self.store).await;
        self.store.close().await;
        let legacy = Legacy::of(&backends, Events::of(self.run, &self.control.journal().since(0).0));
        let in_use = backends.iter().filter(|lent| lent.in_use).map(|lent| lent.id.to_string()).collect();
        match candidate.must_serve(ToNew::Go { in_use, legacy }).await {
            Ok(()) => {
                lent.for_good = true;
                lent.kept.cancel();
                let asks = std::mem::replace(&mut lent.asks, mpsc::unbounded_channel().1);
                Heir::new(candidate, asks, sockets)
            }
            Err(why) => {
                candidate.end().await;
                lent.take_back().await;
                Err(why)
            }
        }
    }

    /// Copies of all sockets.
    fn sockets(&self) -> io::Result<Sockets> {
        let mut made = self.shared.copies_of_ports()?;
        for listener in &self.listeners {
            made.push(listener.as_fd().try_clone_to_owned()?);
        }
        Ok(Sockets::new(net::copies_of_kept()?, made))
    }

    /// Gives all backends up at a moment when none is on its way up or down, and returns what is known of them.
    async fn lend(&self, candidate: &mut Candidate) -> Result<(Lent<'_>, Vec<LentBackend>), String> {
        let until = Instant::now() + CALM;
        loop {
            tokio::select! {
                why = candidate.breaks_off() => return Err(why),
                () = calm(&self.control, until) => {}
            }
            let (sender, asks) = mpsc::unbounded_channel();
            let back = CancellationToken::new();
            let kept = CancellationToken::new();
            let lender = Lender { asks: sender, back: back.clone(), kept: kept.clone() };
            let lent = Lent { estate: self, back, kept, asks, for_good: false };
            match self.control.lend(lender).await.map_err(|error| error.to_string())? {
                Lending::Done(backends) => return Ok((lent, backends)),
                Lending::Busy(names) if Instant::now() >= until => {
                    let names: Vec<_> = names.iter().map(|id| format!("`{id}`")).collect();
                    return Err(format!("on its way up or down for too long: {}; try again later", names.join(", ")));
                }
                Lending::Busy(_) => sleep(LOOK).await,
            }
        }
    }
}

/// Tells whoever orders an upgrade now, or has ordered one meanwhile, that there has been one.
async fn refuse(mut orders: mpsc::Receiver<UpgradeOrder>, pid: u32) {
    while let Some(order) = orders.recv().await {
        let why =
            format!("not upgraded again: process {pid} has just taken over; order it once more if that is wanted");
        let _ = order.send(Err(why));
    }
}

async fn signalled(signals: Option<&mut Signal>) {
    match signals {
        Some(signals) => drop(signals.recv().await),
        None => std::future::pending().await,
    }
}

/// Resolves when no backend is on its way up or down, or then.
async fn calm(control: &Control, until: Instant) {
    let is_moving = |state| matches!(state, StatusState::Waking | StatusState::Draining | StatusState::Stopping);
    let moves = || control.backends().iter().any(|backend| is_moving(backend.status().borrow().state));
    while Instant::now() < until && moves() {
        sleep(LOOK).await;
    }
}

/// Backends that are in other hands, and come back unless it is for good.
struct Lent<'a> {
    estate: &'a Estate,
    back: CancellationToken,
    kept: CancellationToken,
    asks: mpsc::UnboundedReceiver<Ask>,
    for_good: bool,
}

impl Lent<'_> {
    async fn take_back(self) {
        let Estate { control, store, state_dir, .. } = self.estate;
        if let Err(problem) = store.reopen(state_dir).await {
            tracing::error!("{problem:#}");
        }
        drop(self);
        remember_all(control, store).await;
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.for_good {
            self.estate.nodes.give_away(false);
            self.back.cancel();
        }
    }
}
