//! The children of this program: who was started by it, and who came to it as an orphan.
//!
//! In a container of its own Dormouse is the first process, to which the kernel gives every process whose parent has
//! ended. Nobody else asks how those ended, and until somebody does each keeps its number. Dormouse asks, except for those
//! that it has started itself: their ends are awaited by whoever started them. So that it can tell, each start goes
//! through here.

use std::{
    collections::BTreeSet,
    env, fs, io,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::kill,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::process_os::{Identity, parse_stat};

/// In the place of the start of a child of which it is not known; no process has it but the first of the machine.
const UNSEEN: u64 = 0;

/// Several ends in a row are answered by one look.
const SETTLE: Duration = Duration::from_millis(100);

/// Those that were started here, and may live. A std mutex, held from before a start until it is noted, and for a look at
/// the dead; never across an await. Of the whole process, as its children are.
static STARTED: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

fn started() -> MutexGuard<'static, Vec<Identity>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Variables of the environment that hold secrets of ours.
#[derive(Debug)]
struct Kept {
    /// A std mutex, held while the set is changed or read; never across an await.
    names: Mutex<BTreeSet<&'static str>>,
}

impl Kept {
    const fn new() -> Self {
        Self { names: Mutex::new(BTreeSet::new()) }
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of one, which is kept from now on.
    fn read(&self, name: &'static str) -> Option<String> {
        let value = env::var(name).ok().filter(|value| !value.is_empty())?;
        self.names().insert(name);
        Some(value)
    }

    /// Keeps no others than these any more.
    fn only(&self, names: &BTreeSet<&'static str>) {
        self.names().retain(|name| names.contains(name));
    }

    /// Has a child not given those that it is not told to have.
    fn keep_from(&self, command: &mut Command) {
        for name in self.names().iter() {
            if !command.as_std().get_envs().any(|(set, _)| set == *name) {
                command.env_remove(name);
            }
        }
    }
}

/// Of the whole process, as its environment is.
static KEPT: Kept = Kept::new();

/// A variable of the environment with a secret in it. From now on no child is given it that is not told to have it.
pub fn secret_variable(name: &'static str) -> Option<String> {
    KEPT.read(name)
}

/// Of the variables with secrets only these are used from now on: children are given the others like any variable, as
/// they would be after a restart.
pub fn still_secret(names: &BTreeSet<&'static str>) {
    KEPT.only(names);
}

/// Starts a child, whose end is awaited by whoever has it.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    KEPT.keep_from(command);
    spawn_heir(command)
}

/// The same for a child that takes over from this process, and so needs all that it was given.
pub fn spawn_heir(command: &mut Command) -> io::Result<Child> {
    if !adopts() {
        return command.spawn();
    }
    let mut started = started();
    let child = command.spawn()?;
    // Also one that has ended is there until it is asked how. Where no descriptor is free to look when it was started,
    // whoever has its number is taken for it.
    let known = child.id().and_then(|pid| i32::try_from(pid).ok());
    started.extend(known.map(|pid| Identity::of(pid).unwrap_or(Identity { pid, start_time: UNSEEN })));
    Ok(child)
}

/// Asks the orphans how they ended, until the token ends it; at once where none can come.
pub async fn reap_orphans(end: CancellationToken) {
    if !adopts() {
        return;
    }
    let mut ends = match signal(SignalKind::child()) {
        Ok(ends) => ends,
        Err(error) => return tracing::warn!("orphans are not reaped: {error}"),
    };
    loop {
        let reaped = reap();
        if reaped > 0 {
            tracing::debug!(reaped, "orphans have ended");
        }
        tokio::select! {
            () = end.cancelled() => return,
            _ = ends.recv() => tokio::time::sleep(SETTLE).await,
        }
    }
}

/// Whether the kernel gives orphans to this process: to the first of a container, and to who wants them.
fn adopts() -> bool {
    static ADOPTS: OnceLock<bool> = OnceLock::new();
    *ADOPTS.get_or_init(|| std::process::id() == 1 || nix::sys::prctl::get_child_subreaper().unwrap_or(false))
}

/// Asks all orphans that have ended. Meanwhile nobody is started, so that no number gets another owner.
fn reap() -> usize {
    let mut started = started();
    started.retain(|child| if child.start_time == UNSEEN { has_owner(child.pid) } else { child.is_there() });
    let is_ours = |dead: &Identity| {
        started.iter().any(|child| child == dead || (child.start_time == UNSEEN && child.pid == dead.pid))
    };
    let orphans = dead_children().filter(|dead| !is_ours(dead));
    orphans.filter(|orphan| ask(orphan.pid).is_ok()).count()
}

/// Whether a number is somebody's.
fn has_owner(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

fn ask(pid: i32) -> Result<(), Errno> {
    waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).map(|_| ())
}

/// Our children that have ended and wait to be asked how.
fn dead_children() -> impl Iterator<Item = Identity> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(move |entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&stat);
        let (pid, state, start_time) = parse_stat(&text)?;
        // After the name in parentheses: state, parent.
        let parent = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().nth(1)?;
        (state == 'Z' && parent.parse() == Ok(own)).then_some(Identity { pid, start_time })
    })
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[tokio::test]
    async fn a_secret_is_kept_from_children_for_as_long_as_it_is_used() {
        // One that every test has.
        let name = "CARGO_PKG_NAME";
        let kept = Kept::new();
        let is_given = async |more: &[(&str, &str)]| {
            let mut command = Command::new("env");
            command.envs(more.iter().copied()).stdout(Stdio::piped());
            kept.keep_from(&mut command);
            let child = spawn_heir(&mut command).unwrap();
            let said = child.wait_with_output().await.unwrap().stdout;
            String::from_utf8_lossy(&said).contains("CARGO_PKG_NAME=")
        };
        assert!(is_given(&[]).await);
        assert_eq!(kept.read(name).as_deref(), Some("dormouse"));
        kept.only(&BTreeSet::from([name]));
        assert!(!is_given(&[]).await);
        assert!(is_given(&[(name, "for this child")]).await);
        kept.only(&BTreeSet::new());
        assert!(is_given(&[]).await);
    }
}
