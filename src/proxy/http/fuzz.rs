//! Doors for the fuzz targets, there only under `--cfg fuzzing`: bytes and plain values cross them, so that the
//! types of the relay stay inside.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use crate::{
    model::{Endpoint, HostPattern, Place, RouteMatch, RouteOptions, RouteSpec, RouteTarget, Scheme, Upstream},
    proxy::{
        carry::{Buf, Buffers},
        worker::Limits,
    },
};

use super::{
    bad_request::BadRequest,
    field::Known,
    forwarded::Peer,
    request_head::{self, Framing},
    response_head::{self, BadResponse},
    rewrite::{self, Ending},
};

/// A head has at most so many fields.
pub const MAX_FIELDS: usize = request_head::MAX_FIELDS;

/// A field as it passes.
pub type Field = (Vec<u8>, Vec<u8>);

/// What was understood of a request head, and how it is written for the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// Bytes that are left behind it.
    pub left: usize,
    /// Its method.
    pub method: String,
    /// Its target.
    pub target: String,
    /// Host and port.
    pub authority: String,
    /// How its body is delimited.
    pub framing: Framing,
    /// The protocol it asks for.
    pub upgrade: Option<Vec<u8>>,
    /// It waits for a 100.
    pub expects: bool,
    /// It takes trailers.
    pub trailers: bool,
    /// The fields that mean nothing to us and pass.
    pub fields: Vec<Field>,
    /// The head for the upstream.
    pub written: Vec<u8>,
}

/// What was understood of a response head, and how it is written for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadResponse {
    /// Bytes of the head.
    pub length: usize,
    /// Its status.
    pub status: u16,
    /// How its body is delimited.
    pub framing: Framing,
    /// The fields that mean nothing to us and pass.
    pub fields: Vec<Field>,
    /// The head for a client of HTTP/1.1.
    pub written: Vec<u8>,
}

/// Reads a request head and writes it anew.
pub fn request(bytes: &[u8]) -> Result<Option<ReadRequest>, BadRequest> {
    let limits = Limits::default();
    let buffers = Rc::new(Buffers::default());
    let mut input = holding(&buffers, bytes);
    let Some(head) = request_head::take(&mut input, &Rc::default(), limits.request_line, limits.head)? else {
        return Ok(None);
    };
    let peer = Peer::new(SocketAddr::from(([192, 0, 2, 1], 1)), 80, false, &[]);
    let mut out = buffers.lend();
    rewrite::request(
        &head,
        &spec(),
        None,
        (&peer, &[]),
        "mark",
        (SocketAddr::from(([192, 0, 2, 2], 80)).into(), None, None),
        &mut out,
    );
    let passing = head.fields().iter().filter(|field| field.known == Known::Other);
    Ok(Some(ReadRequest {
        left: input.len(),
        method: head.method().to_owned(),
        target: head.target().to_owned(),
        authority: head.authority().to_owned(),
        framing: head.framing,
        upgrade: head.upgrade.as_ref().map(|at| head.part(at).to_vec()),
        expects: head.expects_continue,
        trailers: head.te_trailers,
        fields: passing.map(|field| (head.part(&field.name).to_vec(), head.part(&field.value).to_vec())).collect(),
        written: out.filled().to_vec(),
    }))
}

/// Reads a response head and writes it anew.
pub fn response(bytes: &[u8], to_head: bool) -> Result<Option<ReadResponse>, BadResponse> {
    let buffers = Rc::new(Buffers::default());
    let input = holding(&buffers, bytes);
    let Some(head) = response_head::read(&input, &Rc::default(), to_head, Limits::default().head)? else {
        return Ok(None);
    };
    let mut out = buffers.lend();
    rewrite::response(&head, input.filled(), Ending::none(&[]), &mut out);
    let part = |at: &std::ops::Range<usize>| bytes.get(at.clone()).unwrap_or_default().to_vec();
    let passing = head.fields().iter().filter(|field| field.known == Known::Other);
    Ok(Some(ReadResponse {
        length: head.length,
        status: head.status,
        framing: head.framing,
        fields: passing.map(|field| (part(&field.name), part(&field.value))).collect(),
        written: out.filled().to_vec(),
    }))
}

fn holding(buffers: &Rc<Buffers>, bytes: &[u8]) -> Buf {
    let mut buf = buffers.lend();
    buf.push(bytes);
    buf
}

fn spec() -> RouteSpec {
    let alias = "app".parse().unwrap_or_else(|_| unreachable!());
    let matches = RouteMatch { hosts: [HostPattern::Any].into(), ..RouteMatch::default() };
    let endpoint = Endpoint { scheme: Scheme::Http, port: 80 };
    let target = RouteTarget::Address { host: "192.0.2.2".into(), endpoint };
    let upstream = Upstream { connect_timeout: Duration::from_secs(1), ..Upstream::default() };
    let options = RouteOptions { upstream, ..RouteOptions::default() };
    RouteSpec { options: options.shared(), ..RouteSpec::new(alias, Place::Body("fuzz".into()), matches, target) }
}
