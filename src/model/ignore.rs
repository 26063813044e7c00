//! Requests that neither wake a backend nor keep it awake: monitors, bots, icons.

use std::net::IpAddr;

use ipnet::IpNet;
use regex::Regex;

/// A request as far as `ignore` looks at it.
#[derive(Debug, Clone, Copy)]
pub struct IgnoreCase<'a> {
    /// The method.
    pub method: &'a str,
    /// The path without query.
    pub path: &'a str,
    /// The user agent, empty when there is none.
    pub agent: &'a str,
    /// The client's address.
    pub client: IpAddr,
}

/// The rules; a request that meets any of them is ignored.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    /// Exact paths, or prefixes that end in `*`.
    pub paths: Vec<String>,
    /// Methods, upper case.
    pub methods: Vec<String>,
    /// Patterns of user agents, without regard to case.
    pub agents: Vec<Regex>,
    /// Networks of clients.
    pub clients: Vec<IpNet>,
}

/// What an ignored request gets while the backend sleeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsleepResponse {
    /// The status, 200 to 599.
    pub status: u16,
    /// The body; absent: Dormouse's own words for that status.
    pub body: Option<String>,
}

impl Default for AsleepResponse {
    fn default() -> Self {
        Self { status: 503, body: None }
    }
}

impl PartialEq for Ignore {
    fn eq(&self, other: &Self) -> bool {
        let texts = |ignore: &Self| ignore.agents.iter().map(|a| a.as_str().to_owned()).collect::<Vec<_>>();
        self.paths == other.paths
            && self.methods == other.methods
            && self.clients == other.clients
            && texts(self) == texts(other)
    }
}

impl Ignore {
    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.methods.is_empty() && self.agents.is_empty() && self.clients.is_empty()
    }

    /// Whether the request is to be ignored.
    pub fn matches(&self, case: IgnoreCase<'_>) -> bool {
        self.methods.iter().any(|method| method == case.method)
            || self.paths.iter().any(|pattern| path_matches(pattern, case.path))
            || self.clients.iter().any(|net| net.contains(&case.client))
            || (!case.agent.is_empty() && self.agents.iter().any(|agent| agent.is_match(case.agent)))
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_rule_suffices() {
        let ignore = Ignore {
            paths: vec!["/favicon.ico".into(), "/health*".into()],
            methods: vec!["HEAD".into()],
            agents: vec![Regex::new("(?i)uptime-kuma").unwrap()],
            clients: vec!["10.9.0.0/16".parse().unwrap()],
        };
        let case = |method, path, agent, client: &str| {
            ignore.matches(IgnoreCase { method, path, agent, client: client.parse().unwrap() })
        };
        assert!(case("GET", "/favicon.ico", "", "127.0.0.1"));
        assert!(case("GET", "/healthz", "", "127.0.0.1"));
        assert!(case("HEAD", "/", "", "127.0.0.1"));
        assert!(case("GET", "/", "Uptime-Kuma/1.23", "127.0.0.1"));
        assert!(case("GET", "/", "", "10.9.1.1"));
        assert!(!case("GET", "/favicon.ico/x", "curl/8", "127.0.0.1"));
    }
}
