//! What is known of the connection that a request came on.

use tokio_util::sync::CancellationToken;

/// Goes with each request as an extension. A request without one is treated as a stranger's over TCP.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Who is at the other end, for the journal.
    pub person: String,
    /// It came over TCP, where a web page may be behind it.
    pub over_tcp: bool,
    /// Streams of events end then.
    pub end: CancellationToken,
}

impl Connection {
    /// A connection over TCP: anybody on this machine.
    pub fn tcp(end: CancellationToken) -> Self {
        Self { person: "the API".to_owned(), over_tcp: true, end }
    }

    /// A connection over the Unix socket, by a user of this machine.
    pub fn unix(uid: Option<u32>, end: CancellationToken) -> Self {
        let name = |uid: u32| {
            let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| format!("user {uid}"), |user| user.name)
        };
        Self { person: uid.map_or_else(|| "the command line".to_owned(), name), over_tcp: false, end }
    }
}
