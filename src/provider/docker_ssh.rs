//! An engine behind an SSH server: the `ssh` program runs `docker system dial-stdio` there, whose input and output are a
//! connection to that machine's own engine.
//!
//! Keys, known hosts and everything else are those of the `ssh` program's own configuration; it is never asked a
//! question. Its `ControlMaster` makes further connections cheap.

use std::{
    fmt, io,
    net::IpAddr,
    pin::Pin,
    process::Stdio,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::lookup_host,
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Where the SSH server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SshPlace {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

/// A connection through a process, which ends with it.
#[derive(Debug)]
pub(super) struct Piped {
    output: ChildStdout,
    input: ChildStdin,
    _child: Child,
}

impl SshPlace {
    /// Reads what follows `ssh://`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let (user, rest) = match text.split_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, text),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port.parse().ok()?)),
            None => (rest.to_owned(), None),
        };
        // Nothing that the program would take for an option, or the shell beyond it for more than a word.
        let plain = |word: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !word.is_empty() && !word.starts_with('-') && word.bytes().all(is_plain)
        };
        (plain(&host) && user.as_deref().is_none_or(plain)).then_some(Self { user, host, port })
    }

    /// Connects, and tells the address of the machine.
    pub(super) async fn connect(&self) -> io::Result<(Piped, IpAddr)> {
        let machine = lookup_host((self.host.as_str(), self.port.unwrap_or(22))).await?.next();
        let machine = machine.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.ip();
        let mut command = Command::new("ssh");
        command.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-T"]);
        command.args(self.port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
        command.args(self.user.iter().flat_map(|user| ["-l", user.as_str()]));
        command.args(["--", self.host.as_str(), "docker", "system", "dial-stdio"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| io::Error::new(error.kind(), format!("run `ssh`: {error}")))?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        };
        let engine = self.to_string();
        tokio::spawn(async move {
            let mut lines = BufReader::new(errors).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::warn!(engine, "ssh says: {line}");
            }
        });
        Ok((Piped { output, input, _child: child }, machine))
    }
}

impl fmt::Display for SshPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        write!(f, "ssh://{user}{}{port}", self.host)
    }
}

impl AsyncRead for Piped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

impl AsyncWrite for Piped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}
