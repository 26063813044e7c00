//! Where a Docker-compatible engine listens.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use super::docker_ssh::SshPlace;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// Why an address of an engine cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("engine address `{address}` {why}")]
pub struct BadPlace {
    address: String,
    why: &'static str,
}

/// Where it listens. Connecting comes later, and again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The first of these sockets that exists.
    Unix(Vec<PathBuf>),
    /// A host and port.
    Tcp { host: String, port: u16 },
    /// Another machine's own engine, through its SSH server.
    Ssh(SshPlace),
}

/// A connection to an engine.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Place {
    /// `unix://`, `tcp://` and `ssh://` are understood; absent: `DOCKER_HOST`, else Docker's usual sockets, else Podman's.
    pub(super) fn find(address: Option<&str>, insecure: bool) -> Result<Self, BadPlace> {
        let from_environment = || std::env::var("DOCKER_HOST").ok().filter(|address| !address.is_empty());
        match address.map(str::to_owned).or_else(from_environment) {
            Some(address) => Self::parse(&address, insecure),
            None => Ok(Self::Unix(usual_sockets(std::env::var_os("XDG_RUNTIME_DIR").as_deref().map(Path::new)))),
        }
    }

    fn parse(address: &str, insecure: bool) -> Result<Self, BadPlace> {
        let bad = |why| BadPlace { address: address.to_owned(), why };
        if let Some(path) = address.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(vec![PathBuf::from(path)]))
            } else {
                Err(bad("must name an absolute path, such as `unix:///var/run/docker.sock`"))
            };
        }
        if let Some(rest) = address.strip_prefix("tcp://").or_else(|| address.strip_prefix("http://")) {
            let (host, port) = rest
                .trim_end_matches('/')
                .rsplit_once(':')
                .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
                .filter(|(host, _)| !host.is_empty())
                .ok_or_else(|| bad("must be `tcp://host:port`"))?;
            if !insecure && !is_loopback(host) {
                return Err(bad("is another machine without TLS, where anybody in between rules the engine: \
                     set `insecure: true` to use it all the same"));
            }
            return Ok(Self::Tcp { host: host.to_owned(), port });
        }
        if let Some(rest) = address.strip_prefix("ssh://") {
            let place = SshPlace::parse(rest);
            return place.map(Self::Ssh).ok_or_else(|| bad("must be `ssh://user@host` or `ssh://user@host:port`"));
        }
        if address.starts_with("https://") {
            return Err(bad("asks for TLS, which is not in this version yet: use `unix://`, `tcp://` or `ssh://`"));
        }
        Err(bad("is neither `unix:///path` nor `tcp://host:port` nor `ssh://user@host`"))
    }

    /// Connects, and tells the address under which ports published on the engine's machine are reached.
    pub(super) async fn connect(&self) -> io::Result<(Box<dyn Connection>, IpAddr)> {
        match self {
            Self::Unix(paths) => {
                let path = paths.iter().find(|path| path.exists()).or(paths.first());
                let path = path.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no socket is named"))?;
                let stream = UnixStream::connect(path).await?;
                Ok((Box::new(stream), IpAddr::V4(Ipv4Addr::LOCALHOST)))
            }
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let machine = stream.peer_addr()?.ip();
                Ok((Box::new(stream), machine))
            }
            Self::Ssh(place) => {
                let (stream, machine) = place.connect().await?;
                Ok((Box::new(stream), machine))
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(paths) => {
                let path = paths.iter().find(|path| path.exists()).or(paths.first());
                write!(f, "unix://{}", path.map(|path| path.display().to_string()).unwrap_or_default())
            }
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ssh(place) => write!(f, "{place}"),
        }
    }
}

fn usual_sockets(own_directory: Option<&Path>) -> Vec<PathBuf> {
    let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
    sockets.extend(own_directory.map(|directory| directory.join("docker.sock")));
    sockets.push(PathBuf::from("/run/podman/podman.sock"));
    sockets.extend(own_directory.map(|directory| directory.join("podman/podman.sock")));
    sockets
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Place::find(Some(text), false).unwrap().to_string(), expected);
        };
        check("unix:///run/x.sock", "unix:///run/x.sock");
        check("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375");
        check("tcp://localhost:2375/", "tcp://localhost:2375");
        check("tcp://[::1]:2375", "tcp://[::1]:2375");
        check("ssh://me@host:2222/", "ssh://me@host:2222");
    }

    #[test]
    fn other_machines_need_a_word() {
        let error = Place::find(Some("tcp://10.0.0.7:2375"), false).unwrap_err().to_string();
        assert!(error.contains("`insecure: true`"), "{error}");
        assert!(Place::find(Some("tcp://10.0.0.7:2375"), true).is_ok());
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (text, words) in [
            ("ssh://me@host/run/docker.sock", "ssh://user@host"),
            ("ssh://-oProxyCommand=x", "ssh://user@host"),
            ("https://host:2376", "not in this version yet"),
            ("unix://relative", "absolute"),
            ("tcp://host", "tcp://host:port"),
            ("npipe://x", "neither"),
        ] {
            let error = Place::find(Some(text), true).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
