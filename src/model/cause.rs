//! Why something happened: who or what caused a wake, a sleep, an order.

use std::{borrow::Cow, fmt, net::IpAddr};

use super::BackendId;

/// What the journal keeps of a request that woke a backend. Never the query: it may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// The method, such as `GET`.
    pub method: String,
    /// The host asked for.
    pub host: String,
    /// The path without query.
    pub path: String,
    /// The client's address.
    pub client: IpAddr,
    /// The user agent, cut at 200 characters.
    pub agent: Option<String>,
}

/// Who or what caused a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A client's request.
    Request(RequestFacts),
    /// A backend that needs this one.
    Dependant(BackendId),
    /// A schedule window.
    Schedule,
    /// A person, by the name the interface knows.
    Person(String),
    /// The engine, or somebody who works on it by hand.
    Engine(String),
    /// Nobody used it for its idle time.
    Idle,
    /// Dormouse itself, with the reason.
    Dormouse(Cow<'static, str>),
}

impl Cause {
    /// One word for metrics: a closed set.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Request(_) => "request",
            Self::Dependant(_) => "dependant",
            Self::Schedule => "schedule",
            Self::Person(_) => "person",
            Self::Engine(_) => "engine",
            Self::Idle => "idle",
            Self::Dormouse(_) => "dormouse",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(r) => write!(f, "{} {}{} from {}", r.method, r.host, r.path, r.client),
            Self::Dependant(id) => write!(f, "needed by {id}"),
            Self::Schedule => f.write_str("schedule"),
            Self::Person(name) => write!(f, "ordered by {name}"),
            Self::Engine(what) => write!(f, "engine: {what}"),
            Self::Idle => f.write_str("idle"),
            Self::Dormouse(why) => f.write_str(why),
        }
    }
}
