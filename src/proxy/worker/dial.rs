//! Connecting to upstreams, and the addresses of named ones.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpStream, lookup_host},
    time::Instant,
};

use crate::{model::Spot, net};

/// How long a looked-up address is used.
const KEPT: Duration = Duration::from_secs(10);

/// Looked-up addresses of one worker. The operating system's resolver knows no lifetimes, so ours is short.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Names(RefCell<HashMap<String, (IpAddr, Instant)>>);

impl Names {
    /// The address of a host: itself, or the first that the resolver gives.
    pub(in crate::proxy) async fn resolve(&self, host: &str, port: u16) -> io::Result<SocketAddr> {
        let address = match self.known(host) {
            Some(address) => address,
            None => Box::pin(self.look_up(host)).await?,
        };
        Ok(SocketAddr::new(address, port))
    }

    fn known(&self, host: &str) -> Option<IpAddr> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(address);
        }
        self.0.borrow().get(host).filter(|(_, since)| since.elapsed() < KEPT).map(|(address, _)| *address)
    }

    async fn look_up(&self, host: &str) -> io::Result<IpAddr> {
        let found: Vec<IpAddr> = lookup_host((host, 0)).await?.map(|address| address.ip()).collect();
        // IPv4 first: a container that listens on `0.0.0.0` alone is the common case.
        let address = found.iter().find(|address| address.is_ipv4()).or(found.first()).copied();
        let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        self.0.borrow_mut().insert(host.to_owned(), (address, Instant::now()));
        Ok(address)
    }

    /// The address did not answer: look it up again.
    pub(in crate::proxy) fn forget(&self) {
        self.0.borrow_mut().clear();
    }
}

/// Connects, within a time.
pub(in crate::proxy) async fn connect(to: Spot, patience: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(patience, net::connect_tcp(to))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
