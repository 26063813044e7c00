//! An engine behind an SSH server: the `ssh` program runs `docker system dial-stdio` there, whose input and output are a
//! connection to that machine's own engine.
//!
//! Keys, known hosts, aliases and everything else are those of the `ssh` program's own configuration; it is never asked
//! a question. One login serves many connections where a directory is given for its socket.

use std::{
    ffi::OsString,
    fmt,
    fs::DirBuilder,
    io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt,
    path::Path,
    pin::Pin,
    process::Stdio,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::lookup_host,
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::children;

/// Where the SSH server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SshPlace {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// What the program is told so that connections share a login.
    sharing: Vec<OsString>,
}

/// Longer paths of sockets than 107 bytes can not be: the program appends 58 to the directory.
const LONGEST_DIRECTORY: usize = 49;

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
        (plain(&host) && user.as_deref().is_none_or(plain)).then_some(Self { user, host, port, sharing: Vec::new() })
    }

    /// From now on one login serves all connections, until a minute after the last: its socket is in this directory,
    /// which is made for nobody else. Where that can not be, each connection logs in by itself.
    pub(super) fn share_in(&mut self, directory: &Path) {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./".contains(byte);
        let bytes = directory.as_os_str().as_encoded_bytes();
        if bytes.len() > LONGEST_DIRECTORY || !bytes.iter().all(plain) {
            tracing::debug!(directory = %directory.display(), "no place for the socket of a shared login");
            return;
        }
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(directory) {
            tracing::debug!(directory = %directory.display(), %error, "no place for the socket of a shared login");
            return;
        }
        let mut path = OsString::from("ControlPath=");
        path.push(directory);
        path.push("/%C");
        // A login that is dead must not take those after it with it: it is asked whether it lives.
        let rest = ["ControlMaster=auto", "ControlPersist=60", "ServerAliveInterval=5", "ServerAliveCountMax=2"];
        let options = rest.map(OsString::from).into_iter().chain([path]);
        self.sharing = options.flat_map(|option| [OsString::from("-o"), option]).collect();
    }

    /// Connects, and tells the address of the machine.
    pub(super) async fn connect(&self) -> io::Result<(Piped, IpAddr)> {
        let mut command = self.program(&["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-T"]);
        command.args(["docker", "system", "dial-stdio"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = children::spawn(&mut command)
            .map_err(|error| io::Error::new(error.kind(), format!("run `ssh`: {error}")))?;
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
        Ok((Piped { output, input, _child: child }, self.machine().await?))
    }

    /// The address of the machine that the program goes to: the host may be an alias that only its configuration knows.
    async fn machine(&self) -> io::Result<IpAddr> {
        let mut program = self.program(&["-G"]);
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let told = children::spawn(&mut program)?.wait_with_output().await?;
        let told = String::from_utf8_lossy(&told.stdout);
        let host = hostname(&told).unwrap_or(&self.host);
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("look up `{host}`: {error}"));
        let mut addresses = lookup_host((host, 22)).await.map_err(failed)?;
        Ok(addresses.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?.ip())
    }

    /// The program with these options, for this place. It ends with who runs it.
    fn program(&self, options: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(options).args(&self.sharing);
        command.args(self.port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
        command.args(self.user.iter().flat_map(|user| ["-l", user.as_str()]));
        command.args(["--", self.host.as_str()]).kill_on_drop(true);
        command
    }
}

/// Where the program goes to, by what it says of its configuration: a key and a value on each line.
fn hostname(told: &str) -> Option<&str> {
    told.lines().find_map(|line| line.strip_prefix("hostname ")).map(str::trim).filter(|host| !host.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_goes_is_taken_from_what_it_tells() {
        let told = "host lab\nuser me\nhostname 10.0.0.7\nport 22\ncanonicalizehostname false\n";
        assert_eq!(hostname(told), Some("10.0.0.7"));
        assert_eq!(hostname("user me\nhostname \n"), None);
        assert_eq!(hostname(""), None);
    }

    #[test]
    fn a_login_is_shared_where_its_socket_can_be() {
        let home = tempfile::tempdir().unwrap();
        let shared = |directory: &Path| {
            let mut place = SshPlace::parse("me@lab").unwrap();
            place.share_in(directory);
            !place.sharing.is_empty()
        };
        assert!(shared(&home.path().join("ssh")));
        let long = home.path().join("a".repeat(LONGEST_DIRECTORY - home.path().as_os_str().len()));
        assert!(!shared(&long), "one too long with its slash");
        for name in ["a b", "a%h", "a\"b", "a$HOME"] {
            assert!(!shared(&home.path().join(name)), "{name}");
        }
        assert!(!shared(Path::new("/proc/nowhere")));
    }
}
