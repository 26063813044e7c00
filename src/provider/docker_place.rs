//! Where a Docker-compatible engine listens.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use super::{
    docker_ssh::SshPlace,
    docker_tls::{self, DockerTls},
};
use crate::model::{DockerAddress, EngineTls};

/// Why an engine cannot be spoken to, whether it is there or not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("engine address `{address}` {why}")]
pub struct BadPlace {
    address: String,
    why: String,
}

/// Where it listens. Connecting comes later, and again and again.
#[derive(Debug)]
pub(super) enum Place {
    /// The first of these sockets that exists.
    Unix(Vec<PathBuf>),
    /// A host and port.
    Tcp { host: String, port: u16, is_insecure: bool },
    /// A host and port, and TLS there.
    Tls { host: String, port: u16, tls: DockerTls },
    /// Another machine's own engine, through its SSH server.
    Ssh(SshPlace),
}

/// Whether an engine can be spoken to there, as far as this machine alone decides.
pub fn check_docker(at: &DockerAddress) -> Result<(), BadPlace> {
    Place::find(at).map(drop)
}

/// A connection to an engine.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Place {
    /// Without an address: `DOCKER_HOST`, else Docker's usual sockets, else Podman's. What TLS needs is read.
    pub(super) fn find(wanted: &DockerAddress) -> Result<Self, BadPlace> {
        Self::find_in(wanted, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn find_in(wanted: &DockerAddress, variable: &dyn Fn(&'static str) -> Option<String>) -> Result<Self, BadPlace> {
        if let Some(address) = &wanted.address {
            return Self::parse(address, wanted.tls.as_ref(), wanted.insecure);
        }
        match variable("DOCKER_HOST") {
            Some(address) => {
                // The variables of Docker's own client are for `tcp` alone; what the node says is for any address.
                let usual = || docker_tls::of_environment(variable).filter(|_| address.starts_with("tcp://"));
                let tls = wanted.tls.clone().or_else(usual);
                Self::parse(&address, tls.as_ref(), wanted.insecure)
            }
            None => Ok(Self::Unix(usual_sockets(std::env::var_os("XDG_RUNTIME_DIR").as_deref().map(Path::new)))),
        }
    }

    fn parse(address: &str, tls: Option<&EngineTls>, insecure: bool) -> Result<Self, BadPlace> {
        let bad = |why: String| BadPlace { address: address.to_owned(), why };
        let network = ["tcp://", "http://", "https://"].iter().find_map(|scheme| address.strip_prefix(scheme));
        if let Some(rest) = network {
            let (host, port) = host_and_port(rest).ok_or_else(|| bad("must be `tcp://host:port`".to_owned()))?;
            let is_secure = address.starts_with("https://") || (tls.is_some() && address.starts_with("tcp://"));
            return match tls {
                Some(_) if !is_secure => Err(bad("has `tls`, but says `http`: write `https` or `tcp`".to_owned())),
                _ if is_secure => {
                    let tls = DockerTls::open(&host, tls.cloned().unwrap_or_default())
                        .map_err(|why| bad(format!("has TLS that can not be used: {why}")))?;
                    Ok(Self::Tls { host, port, tls })
                }
                _ if insecure || is_loopback(&host) => {
                    let is_insecure = !is_loopback(&host);
                    Ok(Self::Tcp { host, port, is_insecure })
                }
                _ => Err(bad("is another machine without TLS, where anybody in between rules the engine: \
                     set `tls`, or `insecure: true` to use it all the same"
                    .to_owned())),
            };
        }
        if tls.is_some() {
            return Err(bad("has `tls`, which is for `tcp://host:port` and `https://host:port`".to_owned()));
        }
        if let Some(path) = address.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(vec![PathBuf::from(path)]))
            } else {
                Err(bad("must name an absolute path, such as `unix:///var/run/docker.sock`".to_owned()))
            };
        }
        if let Some(rest) = address.strip_prefix("ssh://") {
            let place = SshPlace::parse(rest).map(Self::Ssh);
            return place.ok_or_else(|| bad("must be `ssh://user@host` or `ssh://user@host:port`".to_owned()));
        }
        Err(bad("is neither `unix:///path` nor `tcp://host:port` nor `ssh://user@host`".to_owned()))
    }

    /// Whether anybody between us and another machine may read and change what is said.
    pub(super) fn is_insecure(&self) -> bool {
        matches!(self, Self::Tcp { is_insecure: true, .. })
    }

    /// One login serves many connections, where there is any: its socket is in this directory.
    pub(super) fn share_logins_in(&mut self, directory: &Path) {
        if let Self::Ssh(place) = self {
            place.share_in(directory);
        }
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
            Self::Tcp { host, port, .. } => {
                let (stream, machine) = connect(host, *port).await?;
                Ok((Box::new(stream), machine))
            }
            Self::Tls { host, port, tls } => {
                let (stream, machine) = connect(host, *port).await?;
                Ok((Box::new(tls.connect(stream).await?), machine))
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
            Self::Tcp { host, port, .. } | Self::Tls { host, port, .. } if host.contains(':') => {
                write!(f, "tcp://[{host}]:{port}")
            }
            Self::Tcp { host, port, .. } | Self::Tls { host, port, .. } => write!(f, "tcp://{host}:{port}"),
            Self::Ssh(place) => write!(f, "{place}"),
        }
    }
}

async fn connect(host: &str, port: u16) -> io::Result<(TcpStream, IpAddr)> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let machine = stream.peer_addr()?.ip();
    Ok((stream, machine))
}

/// `host:port`, `[::1]:port`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.trim_end_matches('/').rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    Some((host.to_owned(), port.parse().ok()?)).filter(|_| !host.is_empty())
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

    fn find(address: &str, tls: bool, insecure: bool) -> Result<Place, BadPlace> {
        let tls = tls.then(EngineTls::default);
        Place::find(&DockerAddress { address: Some(address.to_owned()), tls, insecure })
    }

    #[test]
    fn addresses_are_understood() {
        let check = |text: &str, expected: &str| {
            assert_eq!(find(text, false, false).unwrap().to_string(), expected);
        };
        check("unix:///run/x.sock", "unix:///run/x.sock");
        check("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375");
        check("tcp://localhost:2375/", "tcp://localhost:2375");
        check("tcp://[::1]:2375", "tcp://[::1]:2375");
        check("ssh://me@host:2222/", "ssh://me@host:2222");
    }

    #[test]
    fn other_machines_need_tls_or_a_word() {
        let error = find("tcp://10.0.0.7:2375", false, false).unwrap_err().to_string();
        assert!(error.contains("`insecure: true`"), "{error}");
        assert!(find("tcp://10.0.0.7:2375", false, true).unwrap().is_insecure());
        assert!(!find("tcp://127.0.0.1:2375", false, true).unwrap().is_insecure());
    }

    #[test]
    fn the_tls_of_a_node_holds_for_the_address_of_the_environment_too() {
        let find = |address: &'static str, tls: Option<EngineTls>| {
            let wanted = DockerAddress { address: None, tls, insecure: true };
            let variable = move |name| match name {
                "DOCKER_HOST" => Some(address.to_owned()),
                "DOCKER_TLS_VERIFY" => Some("1".to_owned()),
                "DOCKER_CERT_PATH" => Some("/absent/usual".to_owned()),
                _ => None,
            };
            Place::find_in(&wanted, &variable).map_err(|error| error.to_string())
        };
        let own = || Some(EngineTls::directory(Path::new("/absent/own")));
        for address in ["tcp://host:2376", "https://host:2376"] {
            let error = find(address, own()).unwrap_err();
            assert!(error.contains("/absent/own/"), "{error}");
        }
        assert!(find("tcp://host:2376", None).unwrap_err().contains("/absent/usual"));
        let error = find("unix:///run/x.sock", own()).unwrap_err();
        assert!(error.contains("has `tls`"), "{error}");
        assert!(find("unix:///run/x.sock", None).is_ok());
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (text, tls, words) in [
            ("ssh://me@host/run/docker.sock", false, "ssh://user@host"),
            ("ssh://-oProxyCommand=x", false, "ssh://user@host"),
            ("http://host:2376", true, "says `http`"),
            ("unix:///run/x.sock", true, "is for `tcp://host:port`"),
            ("unix://relative", false, "absolute"),
            ("tcp://host", false, "tcp://host:port"),
            ("npipe://x", false, "neither"),
        ] {
            let error = find(text, tls, true).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
