//! The one before: has a new process take over, and goes on with what is in use until the last of it has ended.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    legacy::Legacy,
    legacy_events::Events,
    nodes::Nodes,
    predecessor::VARIABLE,
    serve::remember_all,
    upgrade_line::{Line, ToNew, ToOld, send_sockets},
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

/// The new process may take so long until it is ready, and again until it serves.
const PATIENCE: Duration = Duration::from_secs(30);

/// Backends on their way up or down may take so long to get there.
const CALM: Duration = Duration::from_secs(60);

/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// So long one that has broken off may take to end, and to say how.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
            let done = self.hand_over().await;
            match &done {
                Ok(heir) => {
                    tracing::info!(pid = heir.pid, "a new process has taken over; what is in use here may finish")
                }
                Err(why) => tracing::error!("not upgraded, and all is as before: {why}"),
            }
            if let Some(order) = order {
                let _ = order.send(done.as_ref().map(|heir| heir.pid).map_err(Clone::clone));
            }
            if let Ok(heir) = done {
                return heir;
            }
        }
    }

    async fn hand_over(&self) -> Result<Heir, String> {
        if std::process::id() == 1 {
            return Err("process 1 of a container can not be replaced: start a new container instead".to_owned());
        }
        let mut candidate = self.start().await.map_err(|error| chain(error.as_ref()))?;
        tracing::info!(pid = candidate.pid, "a new process has been started, to take over");
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
                let asks = std::mem::replace(&mut lent.asks, mpsc::unbounded_channel().1);
                candidate.into_heir(asks)
            }
            Err(why) => {
                candidate.end().await;
                lent.take_back().await;
                Err(why)
            }
        }
    }

    /// Starts the same program as this was started, with all sockets.
    async fn start(&self) -> anyhow::Result<Candidate> {
        let mut words = std::env::args_os();
        let program = words.next().context("the name of this program is not known")?;
        let (ours, theirs) = UnixStream::pair().context("make the line to the new process")?;
        ours.set_write_timeout(Some(PATIENCE)).context("make the line to the new process")?;
        let child = Command::new(&program)
            .args(words)
            .env(VARIABLE, "1")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .with_context(|| format!("`{}` can not be started", program.display()))?;
        let kept = net::copies_of_kept().context("copy the sockets")?;
        let mut sockets = self.shared.copies_of_ports().context("copy the sockets")?;
        for listener in &self.listeners {
            sockets.push(listener.as_fd().try_clone_to_owned().context("copy the sockets")?);
        }
        let mut candidate = Candidate { pid: child.id().unwrap_or_default(), child: Some(child), line: None };
        let send = move || {
            send_sockets(&ours, &kept)?;
            send_sockets(&ours, &sockets).map(|()| ours)
        };
        let sent = tokio::task::spawn_blocking(send).await?;
        match sent {
            Ok(ours) => candidate.line = Some(Line::new(ours)?),
            // It has ended, and says why when it is asked.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error).context("hand the sockets over"),
        }
        Ok(candidate)
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
            let lender = Lender { asks: sender, back: back.clone() };
            let lent = Lent { estate: self, back, asks, for_good: false };
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

async fn signalled(signals: Option<&mut Signal>) {
    match signals {
        Some(signals) => drop(signals.recv().await),
        None => std::future::pending().await,
    }
}

/// Resolves when no backend is on its way up or down, or then.
async fn calm(control: &Control, until: Instant) {
    let moves = || {
        control
            .backends()
            .iter()
            .any(|backend| matches!(backend.status().borrow().state, StatusState::Waking | StatusState::Stopping))
    };
    while Instant::now() < until && moves() {
        sleep(LOOK).await;
    }
}

/// Backends that are in other hands, and come back unless it is for good.
struct Lent<'a> {
    estate: &'a Estate,
    back: CancellationToken,
    asks: mpsc::UnboundedReceiver<Ask>,
    for_good: bool,
}

impl Lent<'_> {
    async fn take_back(self) {
        let Estate { control, store, state_dir, .. } = self.estate;
        if let Err(problem) = store.reopen(state_dir).await {
            tracing::error!("{problem}");
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

/// A process that has not shown yet that it can take over. Killed where it never does.
struct Candidate {
    pid: u32,
    child: Option<Child>,
    /// Absent when it ended before it had taken the sockets.
    line: Option<Line>,
}

impl Candidate {
    async fn must_be_ready(&mut self) -> Result<(), String> {
        match timeout(PATIENCE, self.hear()).await {
            Ok(Ok(ToOld::Ready)) => Ok(()),
            Ok(Ok(word)) => Err(nonsense(&word)),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("the new process was not ready within {} s", PATIENCE.as_secs())),
        }
    }

    async fn must_serve(&mut self, go: ToNew) -> Result<(), String> {
        if let Some(line) = &mut self.line
            && let Err(error) = line.send(&go).await
        {
            tracing::debug!(%error, "the new process can not be told to go on");
        }
        match timeout(PATIENCE, self.hear()).await {
            Ok(Ok(ToOld::Taken)) => Ok(()),
            Ok(Ok(word)) => Err(nonsense(&word)),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("the new process did not serve within {} s", PATIENCE.as_secs())),
        }
    }

    /// Resolves when it says anything, while it should wait.
    async fn breaks_off(&mut self) -> String {
        match self.hear().await {
            Ok(word) => nonsense(&word),
            Err(why) => why,
        }
    }

    /// What it says next, unless it failed.
    async fn hear(&mut self) -> Result<ToOld, String> {
        let heard = match &mut self.line {
            Some(line) => line.next().await,
            None => Ok(None),
        };
        match heard {
            Ok(Some(ToOld::Failed { why })) => Err(format!("the new process failed: {why}")),
            Ok(Some(word)) => Ok(word),
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => {
                Err(format!("the new process is not understood: {error}"))
            }
            Ok(None) | Err(_) => {
                let how = self.end().await.map_or_else(String::new, |how| format!(" ({how})"));
                Err(format!("the new process ended before it served{how}; the log may say why"))
            }
        }
    }

    /// Has it ended, and says how it ended where it did so by itself.
    async fn end(&mut self) -> Option<String> {
        let mut child = self.child.take()?;
        let by_itself = timeout(LAST_WORDS, child.wait()).await;
        let _ = child.start_kill();
        let _ = child.wait().await;
        by_itself.ok()?.ok().map(|status| status.to_string())
    }

    fn into_heir(mut self, asks: mpsc::UnboundedReceiver<Ask>) -> Result<Heir, String> {
        let (child, line) = (self.child.take(), self.line.take());
        let (Some(child), Some(line)) = (child, line) else { return Err("the new process has ended".to_owned()) };
        Ok(Heir { pid: self.pid, child, line, asks })
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
        }
    }
}

fn nonsense(word: &ToOld) -> String {
    format!("the new process said {word:?}, which was not its turn")
}

/// A process that has taken over.
#[derive(Debug)]
pub(super) struct Heir {
    pub(super) pid: u32,
    child: Child,
    line: Line,
    asks: mpsc::UnboundedReceiver<Ask>,
}

impl Heir {
    /// Asks it for what is needed here, for as long as this process lives. Once it ends, clients have no time without
    /// end any more.
    pub(super) async fn stand_by(self, shared: Arc<Shared>) {
        let Self { mut child, mut line, mut asks, .. } = self;
        // Somebody must take note of its end, should this process live longer.
        tokio::spawn(async move { child.wait().await });
        let mut waiting = HashMap::new();
        let mut number = 0;
        let ended = loop {
            tokio::select! {
                Some(ask) = asks.recv() => {
                    number += 1;
                    let word = word_for(ask, number, &mut waiting);
                    if let Err(error) = line.send(&word).await {
                        break error.to_string();
                    }
                }
                word = line.next() => match word {
                    Ok(Some(ToOld::Held { number, refused })) => {
                        if let Some(reply) = waiting.remove(&number) {
                            let _ = reply.send(refused.map_or(Ok(()), |why| Err(why.into())));
                        }
                    }
                    Ok(Some(ToOld::Ending)) => drop(shared.at_leisure.send_replace(false)),
                    Ok(Some(word)) => tracing::debug!(?word, "a word of the new process that was not its turn"),
                    Ok(None) => break "it has ended".to_owned(),
                    Err(error) => break error.to_string(),
                }
            }
        };
        tracing::debug!(ended, "the line to the new process is closed");
        shared.at_leisure.send_replace(false);
    }
}

type Replies = HashMap<u64, oneshot::Sender<Result<(), Arc<str>>>>;

fn word_for(ask: Ask, number: u64, waiting: &mut Replies) -> ToNew {
    match ask {
        Ask::Hold(id, reply) => {
            waiting.insert(number, reply);
            ToNew::Hold { number, backend: id.to_string() }
        }
        Ask::Free(id) => ToNew::Free { backend: id.to_string() },
    }
}
