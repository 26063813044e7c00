//! Groups: several routes that share one public name, and how requests are spread over them.

use std::{fmt, sync::Arc, time::Duration};

use super::{Alias, RouteSpec};

/// How a member is chosen for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BalanceMode {
    /// One after the other, each as often as its weight says.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way for its weight.
    LeastConn,
    /// By the client's address: a client stays with its member.
    IpHash,
    /// Of two that are drawn, the one with fewer requests under way for its weight.
    RandomTwo,
}

/// What a route says of the group that it is a member of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The public name that all members share.
    pub name: Alias,
    /// The share of this member; 0: it gets no requests.
    pub weight: u16,
    /// How members are chosen; absent: not said.
    pub mode: Option<BalanceMode>,
    /// Whether a client stays with its member; absent: not said.
    pub sticky: Option<bool>,
    /// For how long; absent: not said.
    pub sticky_max_age: Option<Duration>,
    /// The requests for each awake member from which on another one is woken; absent: not said.
    pub wake_more_at: Option<u32>,
}

/// A group, as all of its members together say.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// How members are chosen.
    pub mode: BalanceMode,
    /// For how long a client stays with its member; absent: it does not.
    pub sticky: Option<Duration>,
    /// The requests for each awake member from which on another one is woken.
    pub wake_more_at: u32,
    /// The members; at least one, and at most [`Group::MOST_MEMBERS`].
    pub members: Vec<Member>,
}

/// One of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its share; 0: it gets no requests.
    pub weight: u16,
    /// The route to it, under the name of the group.
    pub route: Arc<RouteSpec>,
}

impl BalanceMode {
    /// Every mode with the word for it; GoDoxy's spellings too.
    pub const WORDS: [(&'static str, Self); 7] = [
        ("round_robin", Self::RoundRobin),
        ("least_conn", Self::LeastConn),
        ("ip_hash", Self::IpHash),
        ("random_two", Self::RandomTwo),
        ("roundrobin", Self::RoundRobin),
        ("leastconn", Self::LeastConn),
        ("iphash", Self::IpHash),
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConn => "least_conn",
            Self::IpHash => "ip_hash",
            Self::RandomTwo => "random_two",
        }
    }
}

impl fmt::Display for BalanceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Link {
    /// The largest weight.
    pub const MOST_WEIGHT: u16 = 1000;

    /// A member of the group of this name that says nothing else.
    pub fn to(name: Alias) -> Self {
        Self { name, weight: 1, mode: None, sticky: None, sticky_max_age: None, wake_more_at: None }
    }
}

impl Group {
    /// More members than this are refused.
    pub const MOST_MEMBERS: usize = 64;
    /// How long a client stays with its member where that is not said.
    pub const STICKY_MAX_AGE: Duration = Duration::from_secs(3600);
    /// When another member is woken where that is not said.
    pub const WAKE_MORE_AT: u32 = 20;
}
