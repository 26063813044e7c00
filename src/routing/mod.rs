//! Find the target of a request.
use crate::model::{HostPattern, PathPattern, RouteMatch};

/// A request as far as routes look at it.
#[allow(missing_debug_implementations)]
pub struct Query<'a> {
    /// Host, canonical.
    pub host: &'a str,
    /// Path without query.
    pub path: &'a str,
    /// Method.
    pub method: &'a str,
    /// Field values by lower-case name.
    pub headers: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// Routes.
#[derive(Debug)]
pub struct RouteTable<T>(Vec<(RouteMatch, T)>);

impl<T> RouteTable<T> {
    /// Builds it.
    pub fn build(routes: impl IntoIterator<Item = (RouteMatch, T)>) -> Self {
        Self(routes.into_iter().collect())
    }
    /// Finds the route.
    pub fn find(&self, query: &Query<'_>) -> Option<&T> {
        self.0.iter().find(|(m, _)| host(m, query.host) && path(m, query.path)).map(|(_, t)| t)
    }
    /// Whether any route has the host.
    pub fn knows_host(&self, name: &str) -> bool {
        self.0.iter().any(|(m, _)| host(m, name))
    }
}

fn host(m: &RouteMatch, host: &str) -> bool {
    m.hosts.iter().any(|p| match p {
        HostPattern::Exact(h) => **h == *host,
        HostPattern::Wildcard(s) => host.strip_suffix(&**s).is_some_and(|rest| rest.ends_with('.')),
        HostPattern::FirstLabel(l) => host.split('.').next() == Some(&**l),
        HostPattern::Any => true,
    })
}

fn path(m: &RouteMatch, path: &str) -> bool {
    m.paths.is_empty()
        || m.paths.iter().any(|p| match p {
            PathPattern::Prefix(p) => {
                path.strip_prefix(p.trim_end_matches('/')).is_some_and(|r| r.is_empty() || r.starts_with('/'))
            }
            PathPattern::Exact(p) => p == path,
        })
}
