//! The one after: takes over from the process that started it.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    time::Duration,
};

use anyhow::{Context, bail};
use futures_util::future::join_all;
use tokio::{sync::oneshot, task::JoinSet, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    legacy::Legacy,
    upgrade_line::{Line, ToNew, ToOld, take_sockets},
};
use crate::{
    backend::{Backend, Pass, Refused, Waiter},
    control::Control,
    model::{BackendId, BackendSpec, Cause},
    net,
};

/// Says that the standard input is the line to the process that is taken over from.
pub(super) const VARIABLE: &str = "DORMOUSE_TAKES_OVER";

/// So long what needs a backend may take to find out what it does, where its engine does not answer.
const SETTLING: Duration = Duration::from_secs(30);

/// The process that is taken over from.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// Takes its sockets, where there is one. To be called before there are other threads.
    pub fn find() -> anyhow::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        forget_variable();
        let line = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().context("take the line")?);
        let nothing = File::open("/dev/null").context("open `/dev/null`")?;
        nix::unistd::dup2_stdin(&nothing).context("let the standard input go")?;
        let take = || take_sockets(&line).context("take the sockets of the process before");
        net::take_over_sockets(take()?, take()?);
        Ok(Some(Self(line)))
    }

    /// The same, to be told of a failure.
    pub fn try_clone(&self) -> anyhow::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Tells it why nothing comes of it.
    pub fn failed(&self, why: &str) {
        let Ok(mut text) = serde_json::to_vec(&ToOld::Failed { why: why.to_owned() }) else { return };
        text.push(b'\n');
        // It may have ended, or may not care any more.
        let _ = (&self.0).write_all(&text);
    }
}

#[allow(unsafe_code, reason = "the environment belongs to all threads")]
fn forget_variable() {
    // SAFETY: there is one thread only, so that nobody reads it meanwhile.
    unsafe { std::env::remove_var(VARIABLE) };
}

/// What it is told in time.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Cancelled when another process has taken over from this one.
    pub(super) handed_on: CancellationToken,
    /// Cancelled when clients have no more time than the program has.
    pub(super) ending: CancellationToken,
}

/// The line to it, once it waits for us.
#[derive(Debug)]
pub(super) struct Before {
    line: Line,
    in_use: Vec<String>,
    /// Passes of those in use there, as soon as they are awake here.
    entering: HashMap<BackendId, oneshot::Receiver<Result<Pass, Refused>>>,
    /// What it leaves.
    pub(super) legacy: Legacy,
}

impl Before {
    /// Says that all is ready, and waits for the state and the backends.
    pub(super) async fn is_ready(predecessor: Predecessor) -> anyhow::Result<Self> {
        let mut line = Line::new(predecessor.0)?;
        line.send(&ToOld::Ready).await.context("tell the process before")?;
        match line.next().await.context("hear from the process before")? {
            Some(ToNew::Go { in_use, legacy }) => Ok(Self { line, in_use, entering: HashMap::new(), legacy }),
            Some(word) => bail!("the process before said {word:?}"),
            None => bail!("the process before goes on by itself, or has ended"),
        }
    }

    /// Those that are in use there must not be let down here, not even in their first moment: who waits for them.
    pub(super) fn wait_for_those_in_use(&mut self) -> HashMap<BackendId, Waiter> {
        let ids = self.in_use.drain(..).filter_map(|name| name.parse::<BackendId>().ok());
        let (mut waiters, entering) = (HashMap::new(), &mut self.entering);
        for id in ids {
            let (waiter, pass) = oneshot::channel();
            entering.insert(id.clone(), pass);
            waiters.insert(id, waiter);
        }
        waiters
    }

    /// Says that whoever comes is served, and on which of its sockets nobody listens any more; and helps until that
    /// process has ended: what is in use there is kept awake.
    pub(super) async fn help(self, control: Control, unwanted: Vec<u64>, told: Told) {
        let Self { line, entering, .. } = self;
        let mut helper = Helper { line, control, holds: JoinSet::new(), first: HashMap::new(), passes: HashMap::new() };
        for (id, pass) in entering {
            let freed = CancellationToken::new();
            helper.first.insert(id.to_string(), freed.clone().drop_guard());
            tokio::spawn(keep_awake(helper.control.clone(), id, pass, freed));
        }
        if let Err(error) = helper.run(unwanted, &told).await {
            tracing::warn!(%error, "the line to the process before broke");
        }
        tracing::info!("the process before has ended");
    }
}

/// What came of keeping a backend awake.
struct Held {
    /// Under which number it was asked for.
    number: u64,
    backend: String,
    outcome: Result<Pass, String>,
}

struct Helper {
    line: Line,
    control: Control,
    holds: JoinSet<Held>,
    /// Those that were in use from the beginning: dropped when nobody there uses them.
    first: HashMap<String, DropGuard>,
    passes: HashMap<String, Vec<Pass>>,
}

impl Helper {
    async fn run(&mut self, unwanted: Vec<u64>, told: &Told) -> io::Result<()> {
        self.line.send(&ToOld::Taken).await?;
        self.line.send(&ToOld::Unwanted { sockets: unwanted }).await?;
        let (mut handed_on, mut ending) = (false, false);
        loop {
            tokio::select! {
                () = told.handed_on.cancelled(), if !handed_on => {
                    handed_on = true;
                    self.line.send(&ToOld::HandedOn).await?;
                }
                () = told.ending.cancelled(), if !ending => {
                    ending = true;
                    self.line.send(&ToOld::Ending).await?;
                }
                word = self.line.next_understood() => match word? {
                    Some(ToNew::Hold { number, backend }) => self.hold(number, backend),
                    Some(ToNew::Free { backend }) => {
                        self.first.remove(&backend);
                        // The idle time counts from here.
                        self.passes.remove(&backend);
                    }
                    Some(ToNew::Go { .. }) => {}
                    None => return Ok(()),
                },
                Some(held) = self.holds.join_next() => {
                    if let Ok(held) = held {
                        self.held(held).await?;
                    }
                }
            }
        }
    }

    fn hold(&mut self, number: u64, backend: String) {
        let control = self.control.clone();
        self.holds.spawn(async move {
            let outcome = enter(&control, &backend).await;
            Held { number, backend, outcome }
        });
    }

    async fn held(&mut self, Held { number, backend, outcome }: Held) -> io::Result<()> {
        let refused = match outcome {
            Ok(pass) => {
                self.passes.entry(backend).or_default().push(pass);
                None
            }
            Err(why) => {
                tracing::debug!(backend, why, "it is not kept awake for the process before");
                Some(why)
            }
        };
        self.line.send(&ToOld::Held { number, refused }).await
    }
}

/// Keeps what the process before has in use awake until it is freed, and all that need it here have settled: the one
/// before frees a backend, too, because those that need it are here now.
async fn keep_awake(
    control: Control,
    id: BackendId,
    pass: oneshot::Receiver<Result<Pass, Refused>>,
    freed: CancellationToken,
) {
    freed.cancelled().await;
    let needs_it = |spec: &&BackendSpec| spec.depends_on.iter().any(|dependency| dependency.on == id);
    let view = control.view();
    let dependants = view.catalog.backends.values().filter(needs_it).filter_map(|spec| control.backend(&spec.id));
    let settled = join_all(dependants.map(async |backend: Backend| backend.has_settled().await));
    if timeout(SETTLING, settled).await.is_err() {
        tracing::debug!(backend = %id, "what needs it has not settled");
    }
    // From here on it is kept by those inside. Whether or not it has been entered: nobody waits for it here any more.
    drop(pass);
}

async fn enter(control: &Control, name: &str) -> Result<Pass, String> {
    let id = name.parse().ok();
    let backend = id.and_then(|id| control.backend(&id)).ok_or("there is no such backend any more")?;
    let entered =
        backend.enter(Cause::Dormouse("requests to the process before".into()), backend.policy().patience()).await;
    entered.map_err(|refused| refused.to_string())
}
