//! One process as a unit: up with an identity, or down with how it ended.

use std::{
    io,
    path::PathBuf,
    process::ExitStatus,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    Changed, ProviderError, StopOrder, deadlines,
    process::{ENGINE, reached},
    process_child, process_log, process_memory,
    process_os::{Activity, Identity},
    process_ports::{Listeners, is_taken, listeners},
    process_surroundings::{Surroundings, remove_if_there},
};
use crate::model::{Command, ContainerState, SleepMethod};

/// How often the kernel is asked whether a signal has taken effect.
const EFFECT_PAUSE: Duration = Duration::from_millis(2);

/// How long a frozen group may take to show it, before it is tried again.
const FREEZE_TRY: Duration = Duration::from_millis(100);

/// How long the end of a process that the kernel calls ended may take to be noted.
const NOTED: Duration = Duration::from_secs(1);

/// How often the length of a running unit's log is looked at.
const LOG_CARE: Duration = Duration::from_secs(10);

/// Whether it runs.
#[derive(Debug, Clone)]
enum Life {
    Up(Identity),
    Down { exit_code: Option<i64>, error: Option<String> },
}

/// One unit.
#[derive(Debug)]
pub(super) struct ProcessUnit {
    name: String,
    surroundings: Arc<Surroundings>,
    life: watch::Sender<Life>,
    /// Orders are carried out one after the other.
    turn: tokio::sync::Mutex<()>,
    /// We are ending it: its group has the rest of the grace time after its leader.
    ending: AtomicBool,
    log_begin: AtomicU64,
    /// A std mutex: held while the kernel is asked who listens, which takes microseconds.
    before: Mutex<Before>,
}

/// The machine as it was before the present run.
#[derive(Debug, Default)]
struct Before {
    listeners: Listeners,
    /// That one of them has the unit's port is told once.
    told: bool,
}

impl ProcessUnit {
    pub(super) fn new(name: &str, surroundings: Arc<Surroundings>) -> Self {
        Self {
            name: name.to_owned(),
            surroundings,
            life: watch::Sender::new(Life::Down { exit_code: None, error: None }),
            turn: tokio::sync::Mutex::default(),
            ending: AtomicBool::new(false),
            log_begin: AtomicU64::new(0),
            before: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.life.borrow(), Life::Up(_))
    }

    /// Whether it runs as this process.
    pub(super) fn is(&self, identity: Identity) -> bool {
        matches!(*self.life.borrow(), Life::Up(own) if own == identity)
    }

    /// Notes an end that nobody has noted.
    pub(super) fn check(&self) {
        self.life.send_if_modified(|life| {
            let ended = matches!(life, Life::Up(identity) if identity.activity() == Activity::Ended);
            if ended {
                *life = Life::Down { exit_code: None, error: None };
            }
            ended
        });
    }

    /// Where in the log the present run begins.
    pub(super) fn log_begin(&self) -> u64 {
        self.log_begin.load(Ordering::Acquire)
    }

    /// The memory of its whole group.
    pub(super) async fn memory(&self) -> Option<u64> {
        let Life::Up(identity) = self.life.borrow().clone() else { return None };
        // Every process of the machine is looked at: some milliseconds where there are many.
        tokio::task::spawn_blocking(move || process_memory::of_group(identity.pid)).await.ok()?
    }

    /// Whether who listens on this port may be this unit: true unless all who do were there before it.
    pub(super) fn may_own(&self, port: u16) -> bool {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        // What can not be told is believed.
        let Ok(now) = listeners() else { return true };
        let taken = is_taken(port, &before.listeners, &now);
        if taken && !std::mem::replace(&mut before.told, true) {
            tracing::warn!(
                unit = self.name,
                port,
                "another program listens on the port of a process since before its start: the process is not ready"
            );
        }
        !taken
    }

    /// What it does now, read from the kernel.
    pub(super) async fn state(&self) -> ContainerState {
        let life = self.life.borrow().clone();
        if let Life::Up(identity) = life {
            match identity.activity() {
                Activity::Running => return ContainerState::Running(reached()),
                Activity::Frozen => return ContainerState::Paused(reached()),
                Activity::Ended => {}
            }
        }
        match self.down(NOTED).await {
            Life::Down { exit_code, error } => ContainerState::Stopped { exit_code, error },
            Life::Up(_) => ContainerState::Changing,
        }
    }

    /// Waits until it is down, and so long at most.
    async fn down(&self, patience: Duration) -> Life {
        let mut life = self.life.subscribe();
        let _ = timeout(patience, life.wait_for(|life| matches!(life, Life::Down { .. }))).await;
        let life = life.borrow();
        life.clone()
    }

    /// As [`Self::down`]; an error when it is not down by then.
    async fn must_be_down(&self, patience: Duration) -> Result<(), ProviderError> {
        match self.down(patience).await {
            Life::Down { .. } => Ok(()),
            Life::Up(_) => Err(late(patience)),
        }
    }

    /// Takes over a process that an earlier Dormouse started.
    pub(super) fn adopt(self: &Arc<Self>, identity: Identity) -> io::Result<()> {
        self.surroundings.record(&self.name, identity)?;
        self.life.send_replace(Life::Up(identity));
        let unit = Arc::clone(self);
        tokio::spawn(async move {
            unit.while_caring_for_the_log(identity.ended()).await;
            unit.has_ended(identity, None);
        });
        Ok(())
    }

    /// Starts or thaws it.
    pub(super) async fn bring_up(self: &Arc<Self>, command: Option<Command>) -> Result<Changed, ProviderError> {
        let _turn = self.turn.lock().await;
        let life = self.life.borrow().clone();
        if let Life::Up(identity) = life {
            match identity.activity() {
                Activity::Running => return Ok(Changed::Already),
                Activity::Frozen => return self.thaw(identity).await,
                Activity::Ended => self.must_be_down(deadlines::FREEZE).await?,
            }
        }
        let command = command.ok_or_else(|| ProviderError::NoSuchUnit { unit: self.name.clone() })?;
        match self.give_birth(command).await {
            Ok(()) => Ok(Changed::Done),
            Err(error) => {
                let reason = error.to_string();
                self.life.send_replace(Life::Down { exit_code: None, error: Some(reason.clone()) });
                Err(self.refused("start", reason))
            }
        }
    }

    async fn give_birth(self: &Arc<Self>, command: Command) -> io::Result<()> {
        let note = self.surroundings.note(&self.name);
        let (log, begin) = process_log::open(&self.log_path())?;
        let listeners = listeners().unwrap_or_default();
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Before { listeners, told: false };
        let born = {
            let note = note.clone();
            tokio::task::spawn_blocking(move || process_child::give_birth(&command, log, &note))
        };
        let mut child = born.await.map_err(io::Error::other)??;
        let Some(identity) = identify(&child) else {
            // It could neither be told from others nor be found again: it must not live on unknown.
            process_child::undo_birth(&mut child).await;
            remove_if_there(&note)?;
            return Err(io::Error::other("what the kernel tells of it could not be read; it was ended"));
        };
        self.ending.store(false, Ordering::Release);
        self.log_begin.store(begin, Ordering::Release);
        self.life.send_replace(Life::Up(identity));
        // The note stays where the record cannot be written; either one suffices to know the process again.
        match self.surroundings.record(&self.name, identity) {
            Ok(()) => {}
            Err(error) => tracing::warn!(unit = self.name, %error, "the record of a process could not be written"),
        }
        let unit = Arc::clone(self);
        self.surroundings.hints.unit(&self.name, "start");
        tokio::spawn(async move {
            let status = unit.while_caring_for_the_log(child.wait()).await;
            unit.has_ended(identity, status.ok().and_then(exit_code));
        });
        Ok(())
    }

    /// Stops, freezes or kills it, and waits for the effect.
    pub(super) async fn let_down(&self, order: StopOrder) -> Result<Changed, ProviderError> {
        let _turn = self.turn.lock().await;
        let life = self.life.borrow().clone();
        let Life::Up(identity) = life else { return Ok(Changed::Already) };
        let activity = identity.activity();
        match (order.method, activity) {
            (_, Activity::Ended) => {
                self.must_be_down(deadlines::FREEZE).await?;
                return Ok(Changed::Already);
            }
            (SleepMethod::Pause, Activity::Frozen) => return Ok(Changed::Already),
            (SleepMethod::Pause, Activity::Running) => return self.freeze(identity).await,
            (SleepMethod::Kill, Activity::Running | Activity::Frozen) => {}
            (SleepMethod::Stop, Activity::Frozen) => {
                self.thaw(identity).await?;
                self.ask_to_end(identity, order).await?;
            }
            (SleepMethod::Stop, Activity::Running) => self.ask_to_end(identity, order).await?,
        }
        self.signal(identity, libc::SIGKILL, "kill")?;
        self.must_be_down(deadlines::FREEZE).await?;
        Ok(Changed::Done)
    }

    /// Sends the stop signal and waits for the grace time at most, until the whole group has ended.
    async fn ask_to_end(&self, identity: Identity, order: StopOrder) -> Result<(), ProviderError> {
        let until = Instant::now() + order.grace;
        self.ending.store(true, Ordering::Release);
        self.signal(identity, order.signal.map_or(libc::SIGTERM, |signal| signal.number()), "stop")?;
        if let Life::Down { .. } = self.down(order.grace).await {
            while identity.group_lives() && Instant::now() < until {
                sleep(EFFECT_PAUSE).await;
            }
        }
        Ok(())
    }

    /// A leader that is just forking may wait for a child that is frozen before it, and so never freezes itself: the
    /// group is let on for a moment, and frozen again.
    async fn freeze(&self, identity: Identity) -> Result<Changed, ProviderError> {
        let until = Instant::now() + deadlines::FREEZE;
        loop {
            self.signal(identity, libc::SIGSTOP, "pause")?;
            if self.until(identity, FREEZE_TRY, |activity| activity != Activity::Running).await {
                break;
            }
            self.signal(identity, libc::SIGCONT, "pause")?;
            if Instant::now() > until {
                return Err(late(deadlines::FREEZE));
            }
            sleep(EFFECT_PAUSE).await;
        }
        self.surroundings.hints.unit(&self.name, "pause");
        Ok(Changed::Done)
    }

    async fn thaw(&self, identity: Identity) -> Result<Changed, ProviderError> {
        self.signal(identity, libc::SIGCONT, "thaw")?;
        if !self.until(identity, deadlines::FREEZE, |activity| activity != Activity::Frozen).await {
            return Err(late(deadlines::FREEZE));
        }
        self.surroundings.hints.unit(&self.name, "unpause");
        Ok(Changed::Done)
    }

    /// Whether it got there in time.
    async fn until(&self, identity: Identity, patience: Duration, there: impl Fn(Activity) -> bool) -> bool {
        let until = Instant::now() + patience;
        while !there(identity.activity()) {
            if Instant::now() > until {
                return false;
            }
            sleep(EFFECT_PAUSE).await;
        }
        true
    }

    fn signal(&self, identity: Identity, number: i32, verb: &'static str) -> Result<(), ProviderError> {
        identity.signal_group(number).map_err(|error| self.refused(verb, error.to_string()))
    }

    fn refused(&self, verb: &'static str, reason: String) -> ProviderError {
        ProviderError::Refused { verb, unit: self.name.clone(), reason }
    }

    /// Its leader has ended, by whoever's hand.
    fn has_ended(&self, identity: Identity, exit_code: Option<i64>) {
        if self.surroundings.given.load(Ordering::Acquire) {
            return;
        }
        if !self.ending.load(Ordering::Acquire)
            && let Err(error) = identity.signal_group(libc::SIGKILL)
        {
            tracing::warn!(unit = self.name, %error, "the rest of a process group could not be killed");
        }
        if let Err(error) = self.surroundings.forget(&self.name) {
            tracing::warn!(unit = self.name, %error, "the record of a process could not be removed");
        }
        self.life.send_replace(Life::Down { exit_code, error: None });
        self.surroundings.hints.unit(&self.name, "die");
    }

    async fn while_caring_for_the_log<T>(&self, end: impl Future<Output = T>) -> T {
        let mut end = std::pin::pin!(end);
        let mut care = interval(LOG_CARE);
        care.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = &mut end => return ended,
                _ = care.tick() => {
                    if let Err(error) = process_log::cut_if_long(&self.log_path()) {
                        tracing::debug!(unit = self.name, %error, "the log of a process could not be cut");
                    }
                }
            }
        }
    }

    fn log_path(&self) -> PathBuf {
        process_log::path(&self.surroundings.directory, &self.name)
    }
}

fn late(after: Duration) -> ProviderError {
    ProviderError::TimedOut { engine: ENGINE.to_owned(), after }
}

fn identify(child: &tokio::process::Child) -> Option<Identity> {
    Identity::of(i32::try_from(child.id()?).ok()?)
}

/// As shells and engines count: a process that a signal ended has 128 and the signal's number.
fn exit_code(status: ExitStatus) -> Option<i64> {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).map(i64::from)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::provider::{FileBook, hints::Hints};

    fn unit(directory: &std::path::Path) -> Arc<ProcessUnit> {
        let book = Arc::new(FileBook::open(directory).unwrap());
        let around = Surroundings::new(directory.to_owned(), book, Hints::new()).unwrap();
        Arc::new(ProcessUnit::new("app", Arc::new(around)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_not_noted_is_neither_waited_for_without_end_nor_called_a_success() {
        let directory = tempfile::tempdir().unwrap();
        let unit = unit(directory.path());
        // No kernel gives such a number, and nobody watches it: its end is never noted.
        unit.life.send_replace(Life::Up(Identity { pid: i32::MAX, start_time: 1 }));
        assert_eq!(unit.state().await, ContainerState::Changing);
        let order = StopOrder { method: SleepMethod::Stop, signal: None, grace: Duration::from_secs(5) };
        assert!(matches!(unit.let_down(order).await, Err(ProviderError::TimedOut { .. })));
        assert!(matches!(unit.bring_up(None).await, Err(ProviderError::TimedOut { .. })));
    }

    #[tokio::test]
    async fn a_child_that_can_not_be_known_is_ended_with_its_group() {
        let directory = tempfile::tempdir().unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let argv = ["sh", "-c", "sleep 1000 & wait"].map(str::to_owned).to_vec();
        let command = Command { argv, env: Default::default(), directory: None, user: None };
        let mut child = process_child::give_birth(&command, log, &directory.path().join("note")).unwrap();
        let identity = identify(&child).unwrap();
        process_child::undo_birth(&mut child).await;
        let since = Instant::now();
        while identity.group_lives() {
            assert!(since.elapsed() < Duration::from_secs(60), "its group lives on");
            sleep(EFFECT_PAUSE).await;
        }
    }
}
