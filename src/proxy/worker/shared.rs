//! What all workers share.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use pingora_limits::rate::Rate;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    crowd::{self, Crowd},
    session_key::SessionKey,
    settings::ProxySettings,
};
use crate::{
    backend::{Backend, StatusState},
    control::LiveTable,
    net::{TlsClients, TlsServer},
    proxy::listening::PortPosts,
    telemetry::{AccessWriter, ConnectionCounters},
};

/// What all workers share.
pub struct Shared {
    /// The live routes.
    pub table: Arc<ArcSwap<LiveTable>>,
    /// The settings.
    pub settings: Arc<ArcSwap<ProxySettings>>,
    /// TLS, where there is any.
    pub(in crate::proxy) tls: Option<Arc<TlsServer>>,
    /// TLS towards endpoints.
    pub(in crate::proxy) tls_clients: TlsClients,
    /// Marks what passed through this very program, so that a loop is seen.
    pub(in crate::proxy) mark: String,
    /// Requests that caused a wake, by client.
    wakes: Rate,
    /// By which sessions are sealed.
    sessions: OnceLock<SessionKey>,
    /// Where workers are told of ports that were opened.
    pub(in crate::proxy) ports: PortPosts,
    /// Who writes the access log.
    pub access: AccessWriter,
    /// Who is connected.
    pub(super) crowd: Arc<Crowd>,
    /// Once cancelled, a shutdown waits for nobody any more.
    pub hurry: CancellationToken,
    /// Another process has taken over: clients have all the time they want, until this is said no longer.
    pub at_leisure: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Shared {
    /// Waits until the last of these has ended; no longer than a shutdown may take. Tells whether all have.
    pub(in crate::proxy) async fn ended_in_peace(&self, tasks: &TaskTracker) -> bool {
        let late = async {
            let mut at_leisure = self.at_leisure.subscribe();
            // The other side lives as long as this.
            let _ = at_leisure.wait_for(|at_leisure| !at_leisure).await;
            tokio::time::sleep(self.settings.load().shutdown_timeout).await;
        };
        tokio::select! {
            biased;
            () = tasks.wait() => true,
            () = self.hurry.cancelled() => false,
            () = late => false,
        }
    }

    /// Sessions are sealed by this key from now on, unless some were already.
    pub fn seal_sessions_by(&self, key: SessionKey) {
        let _ = self.sessions.set(key);
    }

    /// The key of sessions; one of this run alone where none was given.
    pub(in crate::proxy) fn session_key(&self) -> Option<&SessionKey> {
        match self.sessions.get() {
            Some(key) => Some(key),
            None => SessionKey::random().map(|key| self.sessions.get_or_init(|| key)),
        }
    }

    /// The same, if there is one already.
    pub(in crate::proxy) fn drawn_session_key(&self) -> Option<&SessionKey> {
        self.sessions.get()
    }

    /// Whether another process serves whoever comes.
    pub(in crate::proxy) fn is_succeeded(&self) -> bool {
        *self.at_leisure.borrow()
    }

    /// Copies of the sockets of all stream routes, for a process that takes over.
    pub fn copies_of_ports(&self) -> io::Result<Vec<OwnedFd>> {
        self.ports.copies()
    }

    /// Nothing is held open any more but by those who serve it.
    pub fn let_ports_go(&self) {
        self.ports.let_all_go();
    }

    /// Shares these, without TLS.
    pub fn new(table: Arc<ArcSwap<LiveTable>>, settings: Arc<ArcSwap<ProxySettings>>) -> Arc<Self> {
        Self::with_tls(table, settings, None)
    }

    /// Shares these.
    pub fn with_tls(
        table: Arc<ArcSwap<LiveTable>>,
        settings: Arc<ArcSwap<ProxySettings>>,
        tls: Option<Arc<TlsServer>>,
    ) -> Arc<Self> {
        // Seeded by the operating system: nobody outside can guess it.
        let mark = format!("{:016x}{:016x}", RandomState::new().hash_one(1), RandomState::new().hash_one(2));
        Arc::new(Self {
            table,
            settings,
            tls,
            tls_clients: TlsClients::default(),
            mark,
            wakes: Rate::new(Duration::from_secs(60)),
            sessions: OnceLock::new(),
            ports: PortPosts::default(),
            access: AccessWriter::default(),
            crowd: Arc::default(),
            hurry: CancellationToken::new(),
            at_leisure: watch::Sender::new(false),
        })
    }

    /// Numbers of the connections of clients.
    pub fn connections(&self) -> &Arc<ConnectionCounters> {
        &self.crowd.house.counters
    }

    /// TLS, as clients are spoken to by it.
    pub(in crate::proxy) fn tls(&self) -> Option<&TlsServer> {
        self.tls.as_deref()
    }

    /// Counts a request that would cause a wake; says whether this client may.
    pub(in crate::proxy) fn may_wake(&self, client: IpAddr) -> bool {
        let allowed = isize::try_from(self.settings.load().wakes_per_client).unwrap_or(isize::MAX);
        self.wakes.observe(&crowd::subscriber(client), 1) <= allowed
    }
}

/// Whether a request now would start something, rather than join others who wait.
pub(in crate::proxy) fn causes_wake(backend: &Backend) -> bool {
    if backend.held() > 0 {
        // Somebody who came before caused it; it is just not told yet.
        return false;
    }
    match backend.status().borrow().state {
        StatusState::Unknown
        | StatusState::Stopped
        | StatusState::Paused
        | StatusState::Stopping
        | StatusState::Failed
        | StatusState::Gone => true,
        StatusState::Waking | StatusState::Awake | StatusState::Draining => false,
    }
}
