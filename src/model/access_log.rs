//! What is written down of each request: in which form, where to, of which requests, and which of their fields.

use std::{
    hash::{Hash, Hasher},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{HeaderMatch, HostPattern, Oidc, Place};

/// An access log.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AccessLog {
    /// The form of its lines.
    pub format: AccessFormat,
    /// Where they go; absent: where those of the whole program go, or to standard output.
    pub output: Option<Arc<AccessOutput>>,
    /// Which requests have a line.
    pub filters: AccessFilters,
    /// What of their fields is in it.
    pub fields: AccessFields,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessFormat {
    /// That of NCSA servers, with what Dormouse knows behind it.
    Common,
    /// The same with referer and user agent.
    #[default]
    Combined,
    /// An object.
    Json,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct AccessOutput {
    /// To standard output.
    pub stdout: bool,
    /// To a file.
    pub file: Option<AccessFile>,
}

/// A file of lines, begun anew when it is full or old.
#[derive(Debug, Clone, Eq)]
pub struct AccessFile {
    /// Its path, an absolute one.
    pub path: PathBuf,
    /// Begun anew at this size.
    pub rotate_size: Option<u64>,
    /// Begun anew at this age.
    pub rotate_interval: Option<Duration>,
    /// Which of the full ones are kept; absent: all.
    pub keep: Option<AccessKeep>,
    /// Where its path was written; absent: nowhere.
    pub place: Option<Place>,
}

impl AccessFile {
    /// A file that is never begun anew, and that nobody wrote of.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rotate_size: None, rotate_interval: None, keep: None, place: None }
    }

    /// What it is, wherever it is written.
    fn itself(&self) -> (&PathBuf, Option<u64>, Option<Duration>, Option<AccessKeep>) {
        (&self.path, self.rotate_size, self.rotate_interval, self.keep)
    }
}

impl PartialEq for AccessFile {
    /// A file stays the same wherever it is written.
    fn eq(&self, other: &Self) -> bool {
        self.itself() == other.itself()
    }
}

impl Hash for AccessFile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.itself().hash(state);
    }
}

/// Which of the full files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessKeep {
    /// So many.
    Count(usize),
    /// Those that were ended within this time.
    Age(Duration),
    /// So many bytes of them.
    Bytes(u64),
}

/// A condition: any of the values, or none of them.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessFilter<T> {
    /// The values; empty: everything passes.
    pub values: Vec<T>,
    /// What has one of the values does not pass, and all else does.
    pub negative: bool,
}

impl<T> Default for AccessFilter<T> {
    fn default() -> Self {
        Self { values: Vec::new(), negative: false }
    }
}

impl<T> AccessFilter<T> {
    /// Whether something passes of which this tells if it has a value.
    pub fn passes(&self, has: impl Fn(&T) -> bool) -> bool {
        self.values.is_empty() || self.values.iter().any(has) != self.negative
    }
}

/// Which requests have a line; all conditions must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AccessFilters {
    /// Statuses, each from the first to the second.
    pub status: AccessFilter<(u16, u16)>,
    /// Methods, upper case.
    pub method: AccessFilter<String>,
    /// Hosts.
    pub host: AccessFilter<HostPattern>,
    /// Header fields of the request.
    pub headers: AccessFilter<HeaderMatch>,
    /// Networks of clients.
    pub networks: AccessFilter<IpNet>,
}

impl AccessFilters {
    /// Whether what was answered with this status may have a line.
    pub fn has_status(&self, status: u16) -> bool {
        self.status.passes(|(first, last)| (*first..=*last).contains(&status))
    }
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFate {
    /// It is written down.
    Keep,
    /// It is left out.
    Drop,
    /// Its name is written down, its value is not.
    Redact,
}

/// What becomes of fields of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRules {
    /// Of those without a rule of their own; of those that hold secrets by their names only where it says less than `Redact`.
    pub default: AccessFate,
    /// Of these, names in lower case.
    pub named: Vec<(String, AccessFate)>,
}

/// What of the fields is in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessFields {
    /// Header fields of the request.
    pub headers: AccessRules,
    /// Parameters of the query.
    pub query: AccessRules,
    /// Cookies.
    pub cookies: AccessRules,
}

impl Default for AccessFields {
    fn default() -> Self {
        let all = |default| AccessRules { default, named: Vec::new() };
        Self { headers: all(AccessFate::Drop), query: all(AccessFate::Keep), cookies: all(AccessFate::Drop) }
    }
}

/// The whole names of header fields, and of parameters, whose values let somebody in.
const SECRETS: [&str; 33] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "token",
    "access_token",
    "auth_token",
    "id_token",
    "refresh_token",
    "password",
    "passwd",
    "secret",
    "client_secret",
    "api_key",
    "apikey",
    "auth",
    "signature",
    "sig",
    "x-amz-signature",
    "x-amz-security-token",
    "x-goog-signature",
    "code",
    "jwt",
    "api-key",
    "key",
    "session",
    "sessionid",
    "ticket",
];

impl AccessRules {
    /// What the rule for this field alone says, if there is one.
    pub fn of(&self, name: &str) -> Option<AccessFate> {
        self.named.iter().find(|(named, _)| named.eq_ignore_ascii_case(name)).map(|(_, fate)| *fate)
    }

    /// What becomes of a field. A secret is never kept by a rule for all.
    pub fn fate(&self, name: &str) -> AccessFate {
        if let Some(fate) = self.of(name) {
            return fate;
        }
        let ours = || Oidc::COOKIES.iter().any(|own| name.starts_with(own));
        let secret = || SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(name)) || ours();
        if self.default == AccessFate::Keep && secret() { AccessFate::Redact } else { self.default }
    }
}

/// The access log of a route.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RouteLog {
    /// That of the whole program.
    #[default]
    Usual,
    /// None.
    Off,
    /// Its own.
    Own(Arc<AccessLog>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_kept_only_by_name() {
        let mut rules = AccessRules { default: AccessFate::Keep, named: vec![("x".into(), AccessFate::Drop)] };
        assert_eq!(rules.fate("Accept"), AccessFate::Keep);
        assert_eq!(rules.fate("X"), AccessFate::Drop);
        assert_eq!(rules.fate("Authorization"), AccessFate::Redact);
        for name in [
            "__Host-dormouse_oidc_01234567",
            "code",
            "X-Amz-Security-Token",
            "X-Goog-Signature",
            "jwt",
            "api-key",
            "key",
            "session",
            "ticket",
        ] {
            assert_eq!(rules.fate(name), AccessFate::Redact, "{name}");
        }
        rules.named.push(("authorization".into(), AccessFate::Keep));
        assert_eq!(rules.fate("Authorization"), AccessFate::Keep);
        rules.default = AccessFate::Drop;
        assert_eq!(rules.fate("Cookie"), AccessFate::Drop);
    }

    #[test]
    fn a_filter_passes_all_any_or_none() {
        let filter = |values: &[u8], negative| AccessFilter { values: values.to_vec(), negative };
        assert!(filter(&[], false).passes(|_| false) && filter(&[], true).passes(|_| true));
        assert!(filter(&[1, 2], false).passes(|v| *v == 2) && !filter(&[1, 2], false).passes(|v| *v == 3));
        assert!(!filter(&[1, 2], true).passes(|v| *v == 2) && filter(&[1, 2], true).passes(|v| *v == 3));
    }
}
