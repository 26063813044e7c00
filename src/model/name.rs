//! Names: one canonical lower-case spelling each, so that two spellings never mean two things.

use std::{fmt, str::FromStr, sync::Arc};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{text}` {why}")]
pub struct BadName {
    what: &'static str,
    text: String,
    why: &'static str,
}

/// The id of a node, such as `local` or `pve-1`: letters, digits, `-`, `_`, `.`; 1 to 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Box<str>);

/// The short name of a route: `app` is reached as `app.<any domain>`. May also be a whole host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Alias(Arc<str>);

/// The name of a backend: `node/name`, such as `local/jellyfin`.
///
/// The name is the engine's own (container name, process name); engines know letter case, so it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    node: NodeName,
    name: Box<str>,
}

/// A host name that a route answers to: exact, or with one leading `*.` that stands for one or more labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This host and no other; lower case, no trailing dot.
    Exact(Arc<str>),
    /// Any host that ends in `.` and this suffix; stored without the `*.`.
    Wildcard(Arc<str>),
    /// Any host whose first label is this one; what an alias means where no domain is configured.
    FirstLabel(Arc<str>),
    /// Every host.
    Any,
}

/// How a host is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It is not.
    No,
    /// By a pattern that takes any number of hosts.
    ByPattern,
    /// By its own name.
    ByName,
}

fn canonical(text: &str) -> String {
    text.trim().trim_end_matches('.').to_ascii_lowercase()
}

fn host_text_is_sound(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        })
}

impl FromStr for NodeName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let name = text.trim().to_ascii_lowercase();
        let sound = !name.is_empty()
            && name.len() <= 63
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if sound {
            Ok(Self(name.into()))
        } else {
            Err(BadName {
                what: "node name",
                text: text.to_owned(),
                why: "must be 1 to 63 letters, digits, `-`, `_` or `.`",
            })
        }
    }
}

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Alias {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let name = canonical(text);
        if host_text_is_sound(&name) {
            Ok(Self(name.into()))
        } else {
            Err(BadName {
                what: "alias",
                text: text.to_owned(),
                why: "must be a host name: labels of 1 to 63 letters, digits, `-` or `_`, joined by dots",
            })
        }
    }
}

impl Alias {
    /// The alias as text, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the alias is a whole host name rather than a short name.
    pub fn is_full_host(&self) -> bool {
        self.0.contains('.')
    }
}

impl FromStr for BackendId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = |why| BadName { what: "backend", text: text.to_owned(), why };
        let (node, name) = text.trim().split_once('/').ok_or_else(|| bad("must be `node/name`"))?;
        Self::new(node.parse()?, name)
    }
}

impl BackendId {
    /// Joins a node and the engine's own name of the unit: letters, digits, `_`, `.`, `-`; 1 to 128 characters.
    pub fn new(node: NodeName, name: &str) -> Result<Self, BadName> {
        let sound = !name.is_empty()
            && name.len() <= 128
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if sound {
            Ok(Self { node, name: name.into() })
        } else {
            Err(BadName {
                what: "backend name",
                text: name.to_owned(),
                why: "must be 1 to 128 letters, digits, `-`, `_` or `.`",
            })
        }
    }

    /// The node that runs it.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The engine's own name of it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for HostPattern {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let name = canonical(text);
        if name == "*" {
            return Ok(Self::Any);
        }
        let (wild, rest) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name.as_str()),
        };
        if !host_text_is_sound(rest) {
            return Err(BadName {
                what: "host pattern",
                text: text.to_owned(),
                why: "must be a host name, or `*.` and a host name, or `*`",
            });
        }
        Ok(if wild { Self::Wildcard(rest.into()) } else { Self::Exact(rest.into()) })
    }
}

impl HostPattern {
    /// Whether it means this host, in whatever case that is written.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Wildcard(suffix) => {
                let host = host.to_ascii_lowercase();
                host.strip_suffix(&**suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Self::FirstLabel(label) => host.split('.').next().is_some_and(|first| first.eq_ignore_ascii_case(label)),
            Self::Any => true,
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.name)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::FirstLabel(label) => write!(f, "{label}.*"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_canonical_spelling() {
        assert_eq!("Jelly.Example.COM.".parse::<Alias>().unwrap().as_str(), "jelly.example.com");
        assert_eq!("*.Shop.Example.org".parse::<HostPattern>().unwrap().to_string(), "*.shop.example.org");
        assert_eq!("Local/My_App".parse::<BackendId>().unwrap().to_string(), "local/My_App");
    }

    #[test]
    fn a_pattern_matches_whole_labels_in_any_case() {
        let first = HostPattern::FirstLabel("app".into());
        let pattern = |text: &str| text.parse::<HostPattern>().unwrap();
        for (pattern, host, matches) in [
            (pattern("app.test"), "App.Test", true),
            (pattern("app.test"), "x.app.test", false),
            (pattern("*.app.test"), "X.app.TEST", true),
            (pattern("*.app.test"), "a.b.app.test", true),
            (pattern("*.app.test"), "app.test", false),
            (pattern("*.app.test"), ".app.test", false),
            (pattern("*.app.test"), "myapp.test", false),
            (first.clone(), "APP.anywhere", true),
            (first.clone(), "app", true),
            (first, "apps.anywhere", false),
            (pattern("*"), "", true),
        ] {
            assert_eq!(pattern.matches(host), matches, "{pattern} {host}");
        }
    }

    #[test]
    fn unsound_names_are_refused() {
        for text in ["", "a..b", "#4", "a/b", "ä"] {
            assert!(text.parse::<Alias>().is_err(), "{text}");
        }
        for text in ["*", "*."] {
            assert!(text.parse::<Alias>().is_err(), "{text}");
        }
        assert!("a.*.b".parse::<HostPattern>().is_err());
        assert!("noslash".parse::<BackendId>().is_err());
        assert!("a/b/c".parse::<BackendId>().is_err());
    }
}
