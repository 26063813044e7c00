//! The checked words of the program: names, addresses, policies, specifications.
//!
//! Everything here is plain data that cannot be wrong once it exists. No I/O, no async, no serde: the
//! rooms at the border (`config`, `provider`, `api`) translate from and to text.

mod access_log;
mod address;
mod backend_spec;
mod balance;
mod cause;
mod container;
mod dns;
mod dns_server;
mod duration;
mod endpoint;
mod engine;
mod field_value;
mod idle;
mod ignore;
mod middleware;
mod name;
mod oidc;
mod problem;
mod route_spec;
mod schedule;
mod settings;
mod spot;
mod text;
mod tls;

pub use access_log::{
    AccessFate, AccessFields, AccessFile, AccessFilter, AccessFilters, AccessFormat, AccessKeep, AccessLog,
    AccessOutput, AccessRules, RouteLog,
};
pub use address::{arrives, literal_address, overlap};
pub use backend_spec::{BackendSpec, Command, Condition, Dependency, Provenance, Readiness, Unit};
pub use balance::{BalanceMode, Group, Link, Member};
pub use cause::{Cause, RequestFacts};
pub use container::{Container, ContainerPort, ContainerState, Health, Network, Running, Transport};
pub use dns::{DNS_PROVIDERS, DnsAccess, DnsHook, DnsOption, DnsProvider, DnsProviderKind, DnsValue, TSIG_ALGORITHMS};
pub use dns_server::{DnsServer, NoDnsServer};
pub use duration::{BadDuration, format_duration, parse_duration};
pub use endpoint::{BadScheme, Endpoint, Scheme};
pub use engine::{DockerAddress, EngineAddress, EngineTls, NodeSpec, Pem};
pub use field_value::{FieldValue, NoVariable, Piece, Variable, variable_names};
pub use idle::{IdlePolicy, OnWakeTimeout, SleepMethod, StopSignal, Waiting};
pub use ignore::{AsleepResponse, Ignore, IgnoreCase};
pub use middleware::{
    AuthServer, BasicAuth, ClientList, Coding, Compress, Cors, ErrorPages, ForwardAuth, HeaderEdits, InFlightLimit,
    Middleware, MiddlewareSet, Middlewares, RateLimit, RealIp, Replacement, Retry,
};
pub use name::{Alias, BackendId, BadName, HostPattern, NodeName, Served};
pub use oidc::{Identity, Oidc};
pub use problem::{Place, Problem, Problems, Severity};
pub use route_spec::{
    Audience, BadOpening, HeaderMatch, HealthCheck, Opening, PathPattern, RouteMatch, RouteOptions, RouteSpec,
    RouteTarget, Upstream, WakeOn,
};
pub use schedule::{BadWindow, Schedule, Window};
pub use settings::{Discover, Listen, OnExit, Settings};
pub use spot::{Namespace, Process, Spot};
pub use text::{escaped_byte, is_token, without_escapes};
pub use tls::{
    AcmeChallenge, AcmeSettings, CertificateFiles, CertificateFolder, ClientProfile, ExternalAccount, Hsts,
    HttpsRedirect, OcspStapling, Secret, TlsSettings, UpstreamTls,
};
