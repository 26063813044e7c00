//! What the variables in values of header fields stand for, in one message. What would not pass to the service as it
//! came does not pass by way of them either.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;

use crate::{
    control::Cookie,
    model::{FieldValue, Middleware, Middlewares, Piece, RouteSpec, RouteTarget, Spot, Variable, without_escapes},
    proxy::worker::SessionKey,
};

use super::{
    field::{Known, reads_like},
    forwarded::Peer,
    middleware::Edits,
    request_head::{Field, RequestHead},
    response_head::ResponseHead,
    rewrite::foreign_crumbs,
};

/// The status of an answer, and its head with the bytes that it was read from where it is not ours.
pub(super) type Answered<'a> = (u16, Option<(&'a ResponseHead, &'a [u8])>);

/// A message whose fields are written.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) peer: &'a Peer,
    pub(super) trusted: &'a [IpNet],
    pub(super) route: &'a RouteSpec,
    /// What middlewares found out of the request.
    pub(super) edits: Option<&'a Edits>,
    /// By which clients stay with their member, and by which sessions are sealed, if any was: what is ours of cookies.
    pub(super) ours: (Option<&'a Cookie>, Option<&'a SessionKey>),
    /// Where a request goes.
    pub(super) upstream: Option<Spot>,
    /// Absent: it is a request.
    pub(super) answer: Option<Answered<'a>>,
}

impl Message<'_> {
    /// The fields with variables that the route wants in its requests.
    pub(super) fn of_request(&self, all: &Middlewares) -> Vec<(String, Vec<u8>)> {
        self.fields(&all.vary_request_headers)
    }

    /// The same of its answers.
    pub(super) fn of_answer(&self, all: &Middlewares) -> Vec<(String, Vec<u8>)> {
        self.fields(&all.vary_response_headers)
    }

    fn fields(&self, fields: &[(String, FieldValue)]) -> Vec<(String, Vec<u8>)> {
        fields.iter().map(|(name, value)| (name.clone(), self.value(value))).collect()
    }

    fn value(&self, value: &FieldValue) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in value.pieces() {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Variable(variable) => out.extend_from_slice(&self.of(variable)),
            }
        }
        // HTTP/2 takes no value that begins or ends with white space (RFC 9113, 8.2.1).
        out.trim_ascii().to_vec()
    }

    fn of(&self, variable: &Variable) -> Cow<'_, [u8]> {
        let head = self.head;
        match variable {
            Variable::RequestMethod => text(head.method()),
            Variable::RequestScheme => text(self.scheme()),
            Variable::RequestHost => text(head.host()),
            Variable::RequestPort => text(head.port().unwrap_or_default()),
            Variable::RequestAddress => text(head.authority()),
            Variable::RequestPath => text(head.path()),
            Variable::RequestQuery => text(query(head)),
            Variable::RequestUri => text(head.target()),
            Variable::RequestUrl => made(format!("{}://{}{}", self.scheme(), head.authority(), head.target())),
            Variable::RemoteHost => made(self.client().to_string()),
            Variable::RemotePort => made(self.client_port().map(|port| port.to_string()).unwrap_or_default()),
            Variable::RemoteAddress => made(with_port(self.client(), self.client_port())),
            Variable::UpstreamName => text(self.route.alias.as_str()),
            Variable::UpstreamScheme => made(self.upstream_scheme()),
            Variable::UpstreamHost => made(self.at(|at| at.ip().to_string())),
            Variable::UpstreamPort => made(self.at(|at| at.port().to_string())),
            Variable::UpstreamAddress => made(self.at(|at| at.to_string())),
            Variable::UpstreamUrl => made(self.at(|at| format!("{}://{at}", self.upstream_scheme()))),
            Variable::Status => made(self.answer.map(|(status, _)| status.to_string()).unwrap_or_default()),
            Variable::Header(name) => self.asked(name),
            Variable::ResponseHeader(name) => self.answered(name),
            Variable::Argument(name) => argument(query(head), name),
        }
    }

    fn scheme(&self) -> &'static str {
        if self.peer.is_secure(self.head) { "https" } else { "http" }
    }

    fn client(&self) -> IpAddr {
        self.peer.client(self.head, self.trusted)
    }

    /// Of a client behind a proxy it is not told.
    fn client_port(&self) -> Option<u16> {
        self.peer.port_of_client().filter(|_| self.client() == self.peer.address)
    }

    fn upstream_scheme(&self) -> String {
        match &self.route.target {
            RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. } => {
                endpoint.scheme.to_string()
            }
            RouteTarget::Down { .. } | RouteTarget::Group(_) => String::new(),
        }
    }

    fn at(&self, tell: impl FnOnce(std::net::SocketAddr) -> String) -> String {
        self.upstream.map(|spot| tell(spot.address())).unwrap_or_default()
    }

    /// A field of the request as it came, or as a login middleware says it. What a stranger says of who asked, what is about one connection,
    /// and what a middleware has its own word about, is none.
    fn asked(&self, name: &str) -> Cow<'_, [u8]> {
        let is_it = |own: &str| reads_like(own.as_bytes(), name.as_bytes());
        let mut found = self.edits.iter().flat_map(|edits| &edits.fields);
        if let Some((_, value)) = found.find(|(own, _)| is_it(own)) {
            return text(value);
        }
        let steps = self.route.options.middlewares.iter().flat_map(|all| &all.steps);
        if steps.flat_map(Middleware::answers_for).any(is_it) {
            return Cow::default();
        }
        let named = |field: &&Field| self.head.part(&field.name).eq_ignore_ascii_case(name.as_bytes());
        let Some(field) = self.head.fields().iter().find(named) else { return Cow::default() };
        let value = self.head.part(&field.value);
        match field.known {
            Known::Forwarding if !self.peer.is_trusted() => Cow::default(),
            Known::Hop | Known::HopMark | Known::Connection => Cow::default(),
            Known::Other if name.eq_ignore_ascii_case("cookie") => {
                let (stays, key) = self.ours;
                let foreign = foreign_crumbs(value, key).filter(|crumb| !stays.is_some_and(|own| own.has_set(crumb)));
                Cow::Owned(foreign.collect::<Vec<_>>().join(&b"; "[..]))
            }
            Known::Host
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::Te
            | Known::Upgrade
            | Known::Expect
            | Known::Forwarding
            | Known::Other => Cow::Borrowed(value),
        }
    }

    fn answered(&self, name: &str) -> Cow<'_, [u8]> {
        let Some((_, Some((head, bytes)))) = self.answer else { return Cow::default() };
        let part = |at: &std::ops::Range<usize>| bytes.get(at.clone()).unwrap_or_default();
        let mut fields = head.fields().iter().filter(|field| part(&field.name).eq_ignore_ascii_case(name.as_bytes()));
        fields.next().map(|field| Cow::Borrowed(part(&field.value))).unwrap_or_default()
    }
}

fn text(text: &str) -> Cow<'_, [u8]> {
    Cow::Borrowed(text.as_bytes())
}

fn made(text: String) -> Cow<'static, [u8]> {
    Cow::Owned(text.into_bytes())
}

fn query(head: &RequestHead) -> &str {
    head.target().split_once('?').map_or("", |(_, query)| query)
}

fn with_port(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// The first argument of this name, without its escapes. One that would end the field, or begin another, stays as it
/// was written.
fn argument<'a>(query: &'a str, name: &str) -> Cow<'a, [u8]> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let found = pairs.into_iter().find(|(own, _)| without_escapes(own).eq_ignore_ascii_case(name.as_bytes()));
    let Some((_, written)) = found else { return Cow::default() };
    let plain = without_escapes(&written.replace('+', " "));
    if plain.iter().any(u8::is_ascii_control) { text(written) } else { Cow::Owned(plain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_without_escapes_unless_they_would_end_the_field() {
        let of = |query: &'static str| String::from_utf8(argument(query, "a").into_owned()).unwrap();
        assert_eq!(of("a=1&a=2"), "1");
        assert_eq!(of("b=1&A=x%20y+z"), "x y z");
        assert_eq!(of("b=1&a"), "");
        assert_eq!(of("b=1"), "");
        assert_eq!(of("a=x%0d%0aSet-Cookie:%20b"), "x%0d%0aSet-Cookie:%20b");
        assert_eq!(of("%61=1"), "1");
        assert_eq!(of("a=%C3%A4+b%20c"), "ä b c");
    }
}
