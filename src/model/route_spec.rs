//! What a route is meant to be: a match that leads to an endpoint.

use std::{
    fmt,
    net::SocketAddr,
    str::FromStr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use thin_vec::ThinVec;

use super::{
    Alias, AsleepResponse, BackendId, Endpoint, Group, HostPattern, Ignore, Link, Middlewares, Place, RouteLog,
    UpstreamTls, Waiting,
};

/// A route as configured and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSpec {
    /// Its name, unique among all routes.
    pub alias: Alias,
    /// Where it was written.
    pub place: Place,
    /// What it answers to.
    pub matches: RouteMatch,
    /// Where it leads.
    pub target: RouteTarget,
    /// Who may use it.
    pub audience: Audience,
    /// How it is served.
    pub options: Arc<RouteOptions>,
}

/// How a route is served: all that most routes leave as it is, and then share.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteOptions {
    /// How the endpoint is spoken to.
    pub upstream: Upstream,
    /// Only clients with a certificate of this profile are let in.
    pub client_profile: Option<String>,
    /// Header fields set on the request before it is forwarded.
    pub set_request_headers: Vec<(String, String)>,
    /// Header fields set on the response.
    pub set_response_headers: Vec<(String, String)>,
    /// Header fields of the client that are not forwarded.
    pub hide_request_headers: Vec<String>,
    /// Header fields of the endpoint that are not passed back.
    pub hide_response_headers: Vec<String>,
    /// Its other middlewares; absent: none.
    pub middlewares: Option<Arc<Middlewares>>,
    /// What a page load gets while the backend wakes; absent: the backend's policy.
    pub waiting: Option<Waiting>,
    /// An own waiting page: the text of the template.
    pub waiting_page: Option<String>,
    /// The title shown on the waiting page; absent: the alias.
    pub title: Option<String>,
    /// Requests that neither wake nor keep awake, beside the backend's own rules.
    pub ignore: Ignore,
    /// What those get while it sleeps; absent: the backend's policy.
    pub asleep_response: Option<AsleepResponse>,
    /// Health checks of the endpoint.
    pub health: Option<HealthCheck>,
    /// What of a stream wakes a sleeping backend.
    pub wake_on: WakeOn,
    /// TLS ends here: what is within goes to the endpoint of this stream in clear.
    pub tls_termination: bool,
    /// What is written down of its requests.
    pub access_log: RouteLog,
    /// The group that it is a member of; absent: none.
    pub link: Option<Box<Link>>,
}

/// What of a stream wakes a sleeping backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WakeOn {
    /// The connection: what the server has to say comes first, perhaps.
    #[default]
    Connect,
    /// The first bytes of the client. With openings named, only such as begin with one of them.
    Data(Vec<Opening>),
}

/// How clients of a protocol begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opening {
    /// The hello of TLS.
    Tls,
    /// The head of an HTTP request.
    Http,
    /// The start of a session of PostgreSQL.
    Postgres,
    /// The login of a player of Minecraft; the pings of server lists are answered instead.
    Minecraft,
}

/// A text that names no opening.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no way in which clients begin: use `tls`, `http`, `postgres` or `minecraft`")]
pub struct BadOpening(String);

impl Opening {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Tls, Self::Http, Self::Postgres, Self::Minecraft];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Postgres => "postgres",
            Self::Minecraft => "minecraft",
        }
    }
}

impl FromStr for Opening {
    type Err = BadOpening;

    fn from_str(text: &str) -> Result<Self, BadOpening> {
        let word = text.trim().to_ascii_lowercase();
        Self::ALL.into_iter().find(|opening| opening.as_str() == word).ok_or_else(|| BadOpening(text.to_owned()))
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl RouteOptions {
    /// These options, which are kept once where nothing was said.
    pub fn shared(self) -> Arc<Self> {
        static USUAL: LazyLock<Arc<RouteOptions>> = LazyLock::new(Arc::default);
        if self == **USUAL { Arc::clone(&USUAL) } else { Arc::new(self) }
    }
}

/// What a route answers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RouteMatch {
    /// Hosts; any of them.
    pub hosts: ThinVec<HostPattern>,
    /// Paths; any of them. Empty: every path.
    pub paths: ThinVec<PathPattern>,
    /// Methods, upper case; any of them. Empty: every method.
    pub methods: ThinVec<String>,
    /// Header conditions; all of them.
    pub headers: ThinVec<HeaderMatch>,
    /// Cut from the path before it is forwarded.
    pub strip_prefix: Option<String>,
    /// The listening addresses of a stream route; empty: it is no stream route.
    pub listen: ThinVec<SocketAddr>,
    /// Names in the TLS hello that lead to this stream route, where several share a port; empty: whatever comes.
    pub sni: ThinVec<HostPattern>,
}

/// A path pattern. Matching is on whole segments: `/api` also matches `/api/x` but not `/apiary`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path and all below it.
    Prefix(String),
    /// This path alone (written with a leading `=`).
    Exact(String),
}

/// A condition on a request header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// The field's name, lower case.
    pub name: String,
    /// The whole value; absent: the field must only be there.
    pub value: Option<String>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteTarget {
    /// A backend that may sleep.
    Backend {
        /// Which.
        id: BackendId,
        /// Which of its ports, and what is spoken there.
        endpoint: Endpoint,
    },
    /// An address that is never slept.
    Address {
        /// A host name or address.
        host: Arc<str>,
        /// The port and what is spoken there.
        endpoint: Endpoint,
    },
    /// A backend that is known but can not be reached: stopped, with a port and without an idle policy.
    Down {
        /// Which.
        id: BackendId,
    },
    /// Several that share the route's name.
    Group(Arc<Group>),
}

/// How the endpoint is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// How long a connect may take.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the response.
    pub response_header_timeout: Duration,
    /// Connections to the endpoint at once, of HTTP for each worker; absent: no bound.
    pub max_conns: Option<usize>,
    /// Connections and flows begin with a header of the PROXY protocol.
    pub proxy_header: bool,
    /// How TLS is spoken to it, where it is.
    pub tls: UpstreamTls,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            response_header_timeout: Duration::from_secs(60),
            max_conns: None,
            proxy_header: false,
            tls: UpstreamTls::default(),
        }
    }
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everyone who can reach the listener.
    Everyone,
    /// Clients of loopback, private and link-local networks only; others get 404 as if the route were not there.
    PrivateNetworks,
}

/// Health checks of an endpoint; they never wake and never run against a sleeping backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path that is asked for.
    pub path: String,
    /// GET rather than HEAD.
    pub use_get: bool,
    /// The pause between checks.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Failures in a row before it is called unhealthy.
    pub retries: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            use_get: false,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            retries: 3,
        }
    }
}

impl RouteSpec {
    /// A route for everyone, with everything that is not said here left at its default.
    pub fn new(alias: Alias, place: Place, matches: RouteMatch, target: RouteTarget) -> Self {
        Self { alias, place, matches, target, audience: Audience::Everyone, options: RouteOptions::default().shared() }
    }

    /// The endpoint it leads to, unless it is known to be down, or there are several.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self.target {
            RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. } => Some(endpoint),
            RouteTarget::Down { .. } | RouteTarget::Group(_) => None,
        }
    }

    /// The backend it leads to, when it leads to one, and to that alone.
    pub fn backend(&self) -> Option<&BackendId> {
        match &self.target {
            RouteTarget::Backend { id, .. } | RouteTarget::Down { id } => Some(id),
            RouteTarget::Address { .. } | RouteTarget::Group(_) => None,
        }
    }

    /// Where it leads, in short: `node/name:port` or `host:port`; a group leads to several such.
    pub fn leads_to(&self) -> String {
        match &self.target {
            RouteTarget::Backend { id, endpoint } => format!("{id}:{}", endpoint.port),
            RouteTarget::Address { host, endpoint } => format!("{host}:{}", endpoint.port),
            RouteTarget::Down { id } => id.to_string(),
            RouteTarget::Group(group) => {
                let all: Vec<String> = group.members.iter().map(|member| member.route.leads_to()).collect();
                all.join(" ")
            }
        }
    }

    /// The group, when several share its name.
    pub fn group(&self) -> Option<&Arc<Group>> {
        match &self.target {
            RouteTarget::Group(group) => Some(group),
            RouteTarget::Backend { .. } | RouteTarget::Address { .. } | RouteTarget::Down { .. } => None,
        }
    }

    /// Each place that it leads to: itself, or the members of its group.
    pub fn ways(&self) -> impl Iterator<Item = &Self> {
        let members = self.group().map_or(&[][..], |group| group.members.as_slice());
        let itself = self.group().is_none().then_some(self);
        itself.into_iter().chain(members.iter().map(|member| &*member.route))
    }

    /// Every backend that it leads to.
    pub fn backends(&self) -> impl Iterator<Item = &BackendId> {
        self.ways().filter_map(Self::backend)
    }
}
