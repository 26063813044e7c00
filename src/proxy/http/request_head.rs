//! Request heads: parsed in place, checked strictly (RFC 9110, 9112), kept as offsets into the bytes that came.
//!
//! What is ambiguous is refused: a head that is accepted has one host, one framing, and one meaning for every reader.

use std::{mem::MaybeUninit, ops::Range};

use httparse::{Header, ParserConfig};

use super::{
    bad_request::BadRequest,
    buffer::Buf,
    field::{self, Known},
    request_facts::Facts,
};

/// Fields of one head at most.
pub(super) const MAX_FIELDS: usize = 120;

/// Room for the method, host and target of most requests.
const USUAL_TEXT: usize = 192;

/// How a message body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Until the connection ends; responses only.
    UntilClose,
}

/// A field as offsets into the head.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
    pub(super) known: Known,
}

/// A request head that was accepted.
#[derive(Debug)]
pub(super) struct RequestHead {
    /// A copy, so that a request that waits or streams holds no buffer.
    bytes: Box<[u8]>,
    pub(super) fields: Vec<Field>,
    /// The authority, the method and the target, one behind the other. The authority is the host with its port, lower
    /// case, no trailing dot; what is routed by and what is passed on. Empty: none.
    text: String,
    host_end: usize,
    authority_end: usize,
    method_end: usize,
    /// Where the query begins.
    path_end: usize,
    /// HTTP/1.1 rather than 1.0.
    pub(super) is_11: bool,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    /// The protocol that an `Upgrade` asks for.
    pub(super) upgrade: Option<Range<usize>>,
    pub(super) expects_continue: bool,
    pub(super) te_trailers: bool,
}

/// Tries to take a head from the front of `input`. `None`: more bytes are needed. What follows the head is left.
pub(super) fn take(input: &mut Buf, max_line: usize, max_head: usize) -> Result<Option<RequestHead>, BadRequest> {
    skip_leading_line(input)?;
    let bytes = input.filled();
    let base = bytes.as_ptr() as usize;
    let mut slots: [MaybeUninit<Header<'_>>; MAX_FIELDS] = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let status = ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, bytes, &mut slots);
    let length = match status {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return partial(bytes, max_line, max_head),
        Err(httparse::Error::TooManyHeaders) => return Err(BadRequest::HeadTooLarge),
        Err(error) => return Err(unparsed(bytes, error)),
    };
    let head = bytes.get(..length).unwrap_or_default();
    check_size(head, max_line, max_head)?;
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(BadRequest::Malformed("no request line"));
    };
    if !field::lines_end_in_crlf(head) {
        return Err(BadRequest::Malformed("a line does not end in CR LF"));
    }
    let at = |part: &[u8]| {
        let start = (part.as_ptr() as usize).wrapping_sub(base);
        start..start + part.len()
    };
    let mut facts = Facts::default();
    let mut fields = Vec::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        let known = field::classify(header.name.as_bytes());
        facts.note(known, header.value)?;
        fields.push(Field { name: at(header.name.as_bytes()), value: at(header.value), known });
    }
    let is_11 = version == 1;
    let framing = facts.framing(method, is_11)?;
    let upgrade = if is_11 && framing_is_empty(framing) && facts.upgrades { facts.upgrade } else { None };
    let upgrade = upgrade.filter(|protocol| !protocol.is_empty()).map(&at);
    let line = Line { method, target, is_11 };
    let head = assemble(Box::from(head), fields, &facts, line, framing, upgrade)?;
    input.consume(length);
    Ok(Some(head))
}

/// The request line, or what stands for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) is_11: bool,
}

/// A head of fields that were classified and noted. `bytes` is what the fields are offsets into.
pub(super) fn assemble(
    bytes: Box<[u8]>,
    fields: Vec<Field>,
    facts: &Facts<'_>,
    line: Line<'_>,
    framing: Framing,
    upgrade: Option<Range<usize>>,
) -> Result<RequestHead, BadRequest> {
    let Line { method, target, is_11 } = line;
    let mut text = String::with_capacity(bytes.len().min(USUAL_TEXT));
    let target = facts.authority(method, target, is_11, &mut text)?;
    let keep_alive = if is_11 { !facts.closes } else { facts.keeps && !facts.closes };
    let (expects_continue, te_trailers) = (facts.expects && is_11, facts.te_trailers && is_11);
    let named: Vec<Vec<u8>> = facts.named.iter().map(|name| name.to_vec()).collect();
    let (host_end, authority_end) = (host_length(&text), text.len());
    text.push_str(method);
    let method_end = text.len();
    text.push_str(target);
    let path_end = memchr::memchr(b'?', target.as_bytes()).map_or(text.len(), |at| method_end + at);
    let mut head = RequestHead {
        bytes,
        fields,
        text,
        host_end,
        authority_end,
        method_end,
        path_end,
        is_11,
        framing,
        keep_alive,
        upgrade,
        expects_continue,
        te_trailers,
    };
    head.drop_named(&named);
    Ok(head)
}

fn framing_is_empty(framing: Framing) -> bool {
    matches!(framing, Framing::Empty | Framing::Length(0))
}

/// One empty line before a request is tolerated (RFC 9112, 2.2).
fn skip_leading_line(input: &mut Buf) -> Result<(), BadRequest> {
    if input.filled().starts_with(b"\r\n") {
        input.consume(2);
    }
    match input.filled().first() {
        Some(b'\n') => Err(BadRequest::Malformed("empty line before the request")),
        Some(b'\r') if input.len() > 1 => Err(BadRequest::Malformed("empty lines before the request")),
        Some(_) | None => Ok(()),
    }
}

fn partial(bytes: &[u8], max_line: usize, max_head: usize) -> Result<Option<RequestHead>, BadRequest> {
    check_size(bytes, max_line, max_head).map(|()| None)
}

fn check_size(bytes: &[u8], max_line: usize, max_head: usize) -> Result<(), BadRequest> {
    let line = if bytes.len() > max_line { memchr::memchr(b'\n', bytes).unwrap_or(bytes.len()) } else { 0 };
    if line > max_line {
        return Err(BadRequest::TargetTooLong);
    }
    if bytes.len() >= max_head { Err(BadRequest::HeadTooLarge) } else { Ok(()) }
}

fn unparsed(bytes: &[u8], error: httparse::Error) -> BadRequest {
    if error != httparse::Error::Version {
        return BadRequest::Malformed("not the grammar of HTTP/1.1");
    }
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii_end();
    let version = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
    match version {
        b"HTTP/1.0" | b"HTTP/1.1" => BadRequest::Malformed("more than a method, a target and a version"),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            BadRequest::Version
        }
        _ => BadRequest::Malformed("no HTTP version"),
    }
}

fn host_length(authority: &str) -> usize {
    match authority.rfind(':') {
        Some(at) if !authority.ends_with(']') => at,
        Some(_) | None => authority.len(),
    }
}

impl RequestHead {
    /// The bytes of a part of the head.
    pub(super) fn part(&self, at: &Range<usize>) -> &[u8] {
        self.bytes.get(at.clone()).unwrap_or_default()
    }

    /// The method.
    pub(super) fn method(&self) -> &str {
        self.text.get(self.authority_end..self.method_end).unwrap_or_default()
    }

    /// Whether the answer has no body whatever it says.
    pub(super) fn is_head(&self) -> bool {
        self.method() == "HEAD"
    }

    /// Path and query, as they came.
    pub(super) fn target(&self) -> &str {
        self.text.get(self.method_end..).unwrap_or_default()
    }

    /// The path without query.
    pub(super) fn path(&self) -> &str {
        self.text.get(self.method_end..self.path_end).unwrap_or_default()
    }

    /// Host and port as they are passed on.
    pub(super) fn authority(&self) -> &str {
        self.text.get(..self.authority_end).unwrap_or_default()
    }

    /// The host without port.
    pub(super) fn host(&self) -> &str {
        self.text.get(..self.host_end).unwrap_or_default()
    }

    /// The port that the client named.
    pub(super) fn port(&self) -> Option<&str> {
        self.text.get(self.host_end + 1..self.authority_end)
    }

    /// Bytes of the head.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The first value of a field, by name in any case; text only.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a field.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |field| {
                field.name.len() == name.len() && self.part(&field.name).eq_ignore_ascii_case(name.as_bytes())
            })
            .filter_map(|field| std::str::from_utf8(self.part(&field.value)).ok())
    }

    /// Whether there is a body to come.
    pub(super) fn has_body(&self) -> bool {
        !framing_is_empty(self.framing)
    }

    /// Whether sending it twice does what sending it once does (RFC 9110, 9.2.2), and it can be sent twice.
    pub(super) fn may_be_repeated(&self) -> bool {
        !self.has_body()
            && self.upgrade.is_none()
            && matches!(self.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// Fields that `Connection` names belong to this connection alone; but none that means something to us can be
    /// named away.
    fn drop_named(&mut self, named: &[Vec<u8>]) {
        if named.is_empty() {
            return;
        }
        let bytes = &self.bytes;
        for field in &mut self.fields {
            let name = bytes.get(field.name.clone()).unwrap_or_default();
            if field.known == Known::Other && named.iter().any(|option| option.eq_ignore_ascii_case(name)) {
                field.known = Known::Hop;
            }
        }
    }
}
