//! Middlewares of a route: who is let in, and what is changed on the way.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use regex::Regex;

use super::{Alias, FieldValue, Oidc, Place, Secret};

/// The middlewares of a route, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Middlewares {
    /// Those that look at each request before anything is woken for it.
    pub steps: Vec<Middleware>,
    /// Header fields added to the request.
    pub add_request_headers: Vec<(String, String)>,
    /// Header fields added to the response.
    pub add_response_headers: Vec<(String, String)>,
    /// Header fields of the request with variables in their values, added after these.
    pub vary_request_headers: Vec<(String, FieldValue)>,
    /// The same of the response.
    pub vary_response_headers: Vec<(String, FieldValue)>,
}

/// One that looks at each request.
#[derive(Debug, Clone, PartialEq)]
pub enum Middleware {
    /// Who asked is what a proxy in front says.
    RealIp(RealIp),
    /// Who comes in clear is sent to HTTPS.
    RedirectHttp,
    /// Only clients of some networks are let in.
    Clients(ClientList),
    /// So many requests of each client in a time.
    RateLimit(RateLimit),
    /// So many requests at once.
    InFlightLimit(InFlightLimit),
    /// A name and a password are asked for.
    BasicAuth(BasicAuth),
    /// A service decides who is let in.
    ForwardAuth(ForwardAuth),
    /// A provider of OpenID Connect says who somebody is.
    Oidc(Arc<Oidc>),
    /// Pages of other origins may use the service.
    Cors(Cors),
    /// No body is larger than so many bytes.
    MaxBody(u64),
    /// The first of these prefixes that the path has is taken from it.
    StripPrefix(Vec<String>),
    /// This is put in front of the path.
    AddPrefix(String),
    /// The path is rewritten.
    Rewrite(Replacement),
    /// The client is sent elsewhere.
    Redirect {
        /// From what path, and where.
        to: Replacement,
        /// The status: 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// A request that failed is tried again where that is safe.
    Retry(Retry),
    /// Errors are shown as pages of our own.
    ErrorPages(Arc<ErrorPages>),
    /// Answers are compressed.
    Compress(Compress),
}

/// How often and how long a request that failed is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// So often beyond the first try.
    pub attempts: u32,
    /// Answers with these statuses count as failures.
    pub statuses: Vec<u16>,
    /// How long until it is tried again; twice as long each time.
    pub pause: Duration,
    /// No try begins later than that after the first failure.
    pub timeout: Duration,
}

/// Pages of our own, by the status that they are for (`404`), or by the class of statuses (`5xx`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorPages(pub BTreeMap<String, String>);

/// Which answers are compressed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// The codings; of those that a client likes best the first one is taken.
    pub codings: Vec<Coding>,
    /// Types of bodies, lower case: `text/html`, `text/*`, or `+json` for all whose name ends so.
    pub types: Vec<String>,
    /// A body of less bytes is left as it is.
    pub min_size: u64,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// GZIP (RFC 1952).
    Gzip,
}

impl Coding {
    /// Every one of them, the best first.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its name in header fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Where the true address of a client stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealIp {
    /// The header field.
    pub header: String,
    /// The networks of proxies whose word counts.
    pub from: Vec<IpNet>,
    /// Addresses of those networks are passed over, from the last one on.
    pub recursive: bool,
}

/// Which clients are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientList {
    /// The networks.
    pub networks: Vec<IpNet>,
    /// Whether those in the networks are the ones that are let in, or the ones that are not.
    pub allows: bool,
    /// The status for all others.
    pub status: u16,
    /// What they are told.
    pub message: String,
}

/// So many requests of each client in a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// How long until one more is allowed.
    pub each: Duration,
    /// So many at once.
    pub burst: u32,
}

/// So many requests at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlightLimit {
    /// How many.
    pub amount: u32,
    /// Of each client, rather than of all together.
    pub per_client: bool,
}

/// Who is let in by name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// Names, and bcrypt hashes of their passwords.
    pub users: Vec<(String, Secret)>,
    /// What the browser shows.
    pub realm: String,
    /// The service is not told the password.
    pub remove_header: bool,
}

/// A service that decides who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// Where it is.
    pub at: AuthServer,
    /// The path that it is asked under.
    pub path: String,
    /// Header fields of its answer that the service gets.
    pub headers: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Where the service is that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthServer {
    /// Behind a route of ours, and woken when it sleeps.
    Route(Alias),
    /// At an address.
    Address {
        /// A host name or address.
        host: String,
        /// Its port, in clear.
        port: u16,
    },
}

/// What pages of other origins may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The origins, lower case; `*` for any.
    pub origins: Vec<String>,
    /// The answer to what a browser asks before a request.
    pub preflight: Vec<(String, String)>,
}

/// A pattern, and what stands for it then.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The pattern.
    pub from: Regex,
    /// The text, in which `$1` and `$name` stand for parts of what was found.
    pub to: String,
}

impl PartialEq for Replacement {
    fn eq(&self, other: &Self) -> bool {
        self.from.as_str() == other.from.as_str() && self.to == other.to
    }
}

impl Middleware {
    /// Header fields of which it says itself what they are, or whether they pass: what a client sends under these names
    /// reaches no service.
    pub fn answers_for(&self) -> Vec<&str> {
        match self {
            Self::ForwardAuth(auth) => auth.headers.iter().map(String::as_str).collect(),
            Self::BasicAuth(auth) if auth.remove_header => vec!["Authorization"],
            Self::Oidc(_) => Oidc::FIELDS.to_vec(),
            Self::RealIp(_)
            | Self::RedirectHttp
            | Self::Clients(_)
            | Self::RateLimit(_)
            | Self::InFlightLimit(_)
            | Self::BasicAuth(_)
            | Self::Cors(_)
            | Self::MaxBody(_)
            | Self::StripPrefix(_)
            | Self::AddPrefix(_)
            | Self::Rewrite(_)
            | Self::Redirect { .. }
            | Self::Retry(_)
            | Self::ErrorPages(_)
            | Self::Compress(_) => Vec::new(),
        }
    }
}

impl Middlewares {
    /// What is allowed to pages of other origins.
    pub fn cors(&self) -> Option<&Cors> {
        self.steps.iter().find_map(|step| if let Middleware::Cors(cors) = step { Some(cors) } else { None })
    }

    /// When a request that failed is tried again.
    pub fn retry(&self) -> Option<&Retry> {
        self.steps.iter().find_map(|step| if let Middleware::Retry(retry) = step { Some(retry) } else { None })
    }

    /// Pages that are shown for errors.
    pub fn error_pages(&self) -> Option<&ErrorPages> {
        // Those of the route itself stand behind those of the sets that it names.
        let mut own = self.steps.iter().rev();
        own.find_map(|step| if let Middleware::ErrorPages(pages) = step { Some(pages.as_ref()) } else { None })
    }

    /// Which answers are compressed.
    pub fn compress(&self) -> Option<&Compress> {
        self.steps.iter().find_map(|step| if let Middleware::Compress(rule) = step { Some(rule) } else { None })
    }

    /// How many bytes a body may have.
    pub fn max_body(&self) -> Option<u64> {
        self.steps.iter().filter_map(|step| if let Middleware::MaxBody(most) = step { Some(*most) } else { None }).min()
    }
}

impl ErrorPages {
    /// The page of a status, or of its class.
    pub fn of(&self, status: u16) -> Option<&str> {
        let class = format!("{}xx", status / 100);
        self.0.get(&status.to_string()).or_else(|| self.0.get(&class)).map(String::as_str)
    }

    /// The page for an error of a service: as GoDoxy has it, that of 404 where there is no better one.
    pub fn of_service(&self, status: u16) -> Option<&str> {
        self.of(status).or_else(|| self.0.get("404").map(String::as_str))
    }
}

impl ClientList {
    /// Whether a client is let in.
    pub fn admits(&self, client: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&client)) == self.allows
    }
}

impl Cors {
    /// How the origin is named in the answer; absent: it may nothing.
    pub fn allowed<'a>(&'a self, origin: &str) -> Option<&'a str> {
        let known = self.origins.iter().find(|known| *known == "*" || known.eq_ignore_ascii_case(origin));
        known.map(String::as_str)
    }
}

/// Middlewares under a name, or those of a route before they are put together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MiddlewareSet {
    /// Those that look at each request, in order.
    pub steps: Vec<Middleware>,
    /// What becomes of the header fields of requests.
    pub request: HeaderEdits,
    /// What becomes of the header fields of responses.
    pub response: HeaderEdits,
    /// The folder of pages for errors, and where it is named, until they are read.
    pub error_pages: Option<(PathBuf, Place)>,
}

/// What becomes of header fields: those that came are hidden first, the others written then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Written in place of those that came under these names.
    pub set: Vec<(String, String)>,
    /// Written besides those that came.
    pub add: Vec<(String, String)>,
    /// Those that came under these names are not passed on.
    pub hide: Vec<String>,
    /// Written besides those that came, with variables in their values.
    pub vary: Vec<(String, FieldValue)>,
}

impl HeaderEdits {
    /// From here on the field has this one value.
    pub fn set(&mut self, name: &str, value: &str) {
        self.forget(name);
        self.set.push((name.to_owned(), value.to_owned()));
    }

    /// From here on the field has this value, too.
    pub fn add(&mut self, name: &str, value: &str) {
        self.add.push((name.to_owned(), value.to_owned()));
    }

    /// From here on the field has this one value, which is made for each message.
    pub fn set_varied(&mut self, name: &str, value: FieldValue) {
        self.hide(name);
        self.vary.push((name.to_owned(), value));
    }

    /// From here on the field has this value, too, which is made for each message.
    pub fn add_varied(&mut self, name: &str, value: FieldValue) {
        self.vary.push((name.to_owned(), value));
    }

    /// From here on the field has no value.
    pub fn hide(&mut self, name: &str) {
        self.forget(name);
        if !self.hide.iter().any(|hidden| hidden.eq_ignore_ascii_case(name)) {
            self.hide.push(name.to_owned());
        }
    }

    fn forget(&mut self, name: &str) {
        self.set.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self.add.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self.vary.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
    }

    /// These edits, and then those.
    pub fn then(&mut self, next: &Self) {
        next.hide.iter().for_each(|name| self.hide(name));
        next.set.iter().for_each(|(name, value)| self.set(name, value));
        next.add.iter().for_each(|(name, value)| self.add(name, value));
        // What they set is among what they hide.
        self.vary.extend(next.vary.iter().cloned());
    }
}

impl MiddlewareSet {
    /// These middlewares, and then those.
    pub fn then(&mut self, next: &Self) {
        self.steps.extend(next.steps.iter().cloned());
        self.request.then(&next.request);
        self.response.then(&next.response);
        self.error_pages = next.error_pages.clone().or_else(|| self.error_pages.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_edits_the_last_one_counts() {
        let mut edits = HeaderEdits::default();
        edits.add("Vary", "A");
        edits.set("X-A", "1");
        let mut next = HeaderEdits::default();
        next.hide("x-a");
        next.set("vary", "B");
        next.add("X-A", "2");
        edits.then(&next);
        assert_eq!(edits.set, [("vary".to_owned(), "B".to_owned())]);
        assert_eq!(edits.add, [("X-A".to_owned(), "2".to_owned())]);
        assert_eq!(edits.hide, ["x-a"]);
    }

    #[test]
    fn lists_let_in_or_keep_out() {
        let mut list = ClientList {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            allows: true,
            status: 403,
            message: String::new(),
        };
        let admits = |list: &ClientList| ["10.1.2.3", "192.0.2.1"].map(|client| list.admits(client.parse().unwrap()));
        assert_eq!(admits(&list), [true, false]);
        list.allows = false;
        assert_eq!(admits(&list), [false, true]);
    }
}
