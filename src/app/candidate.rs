//! A new process that is to take over: started, given the sockets, and heard until it serves.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{
    predecessor::VARIABLE,
    upgrade_line::{Line, ToNew, ToOld, send_sockets},
};
use crate::{net, provider};

/// It may take so long until it is ready, and again until it serves.
const PATIENCE: Duration = Duration::from_secs(30);

/// So long one that has broken off may take to end, and to say how.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Copies of the sockets that it takes over.
#[derive(Debug, Clone)]
pub(super) struct Sockets {
    /// Those that outlive this program.
    kept: Vec<Arc<OwnedFd>>,
    /// Those that it made.
    made: Vec<Arc<OwnedFd>>,
}

impl Sockets {
    pub(super) fn new(kept: Vec<OwnedFd>, made: Vec<OwnedFd>) -> Self {
        let shared = |sockets: Vec<OwnedFd>| sockets.into_iter().map(Arc::new).collect();
        Self { kept: shared(kept), made: shared(made) }
    }

    /// Closes those with these inodes. Those that outlive this program are not for it to let go.
    pub(super) fn let_go(&mut self, inodes: &[u64]) {
        self.made.retain(|socket| !inodes.contains(&net::inode_of(socket)));
    }
}

/// A process that has not shown yet that it can take over. Killed where it never does.
pub(super) struct Candidate {
    pub(super) pid: u32,
    child: Option<Child>,
    /// Absent when it ended before it had taken the sockets.
    line: Option<Line>,
}

impl Candidate {
    /// Starts the same program as this was started, with all sockets.
    pub(super) async fn start(sockets: &Sockets) -> anyhow::Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("make the line to the new process")?;
        ours.set_write_timeout(Some(PATIENCE)).context("make the line to the new process")?;
        let child = run_again(theirs)?;
        let mut candidate = Self { pid: child.id().unwrap_or_default(), child: Some(child), line: None };
        let sockets = sockets.clone();
        let send = move || {
            send_sockets(&ours, &sockets.kept)?;
            send_sockets(&ours, &sockets.made).map(|()| ours)
        };
        match tokio::task::spawn_blocking(send).await? {
            Ok(ours) => candidate.line = Some(Line::new(ours)?),
            // It has ended, and says why when it is asked.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error).context("hand the sockets over"),
        }
        tracing::info!(pid = candidate.pid, "a new process has been started, to take over");
        Ok(candidate)
    }

    pub(super) async fn must_be_ready(&mut self) -> Result<(), String> {
        match timeout(PATIENCE, self.hear()).await {
            Ok(Ok(ToOld::Ready)) => Ok(()),
            Ok(Ok(word)) => Err(nonsense(&word)),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("the new process was not ready within {} s", PATIENCE.as_secs())),
        }
    }

    pub(super) async fn must_serve(&mut self, go: ToNew) -> Result<(), String> {
        let told_and_heard = async {
            if let Some(line) = &mut self.line
                && let Err(error) = line.send(&go).await
            {
                tracing::debug!(%error, "the new process can not be told to go on");
            }
            self.hear().await
        };
        match timeout(PATIENCE, told_and_heard).await {
            Ok(Ok(ToOld::Taken)) => Ok(()),
            Ok(Ok(word)) => Err(nonsense(&word)),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("the new process did not serve within {} s", PATIENCE.as_secs())),
        }
    }

    /// Resolves when it says anything, while it should wait.
    pub(super) async fn breaks_off(&mut self) -> String {
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
    pub(super) async fn end(&mut self) -> Option<String> {
        let mut child = self.child.take()?;
        let by_itself = timeout(LAST_WORDS, child.wait()).await;
        let _ = child.start_kill();
        let _ = child.wait().await;
        by_itself.ok()?.ok().map(|status| status.to_string())
    }

    /// It has taken over.
    pub(super) fn parts(mut self) -> Result<(Child, Line), String> {
        self.child.take().zip(self.line.take()).ok_or_else(|| "the new process has ended".to_owned())
    }
}

/// Runs the program as this was run, with this as its standard input.
fn run_again(line: UnixStream) -> anyhow::Result<Child> {
    let mut words = std::env::args_os();
    let program = words.next().context("the name of this program is not known")?;
    let mut command = Command::new(&program);
    command
        .args(words)
        .env(VARIABLE, "1")
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .stdin(Stdio::from(OwnedFd::from(line)));
    provider::spawn_heir(&mut command).with_context(|| format!("`{}` can not be started", program.display()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::legacy::Legacy;

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_nothing_is_not_waited_for_without_end() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut candidate = Candidate { pid: 0, child: None, line: Some(Line::new(ours).unwrap()) };
        // More than the line has room for.
        let go = ToNew::Go { in_use: vec!["x".repeat(8 << 20)], legacy: Legacy::default() };
        let why = timeout(10 * PATIENCE, candidate.must_serve(go)).await.expect("an end").unwrap_err();
        assert!(why.contains("did not serve within 30 s"), "{why}");
    }
}
