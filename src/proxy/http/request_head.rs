//! Request heads: parsed in place, checked strictly (RFC 9110, 9112), kept as offsets into the bytes that came.
//!
//! What is ambiguous is refused: a head that is accepted has one host, one framing, and one meaning for every reader.

use std::{mem::MaybeUninit, ops::Range, rc::Rc};

use httparse::{Header, ParserConfig};

use crate::proxy::carry::Buf;

use super::{
    bad_request::BadRequest,
    field::{self, Known},
    request_facts::Facts,
    shelf::{Lent, Parts, Shelf},
};

/// Fields of one head at most.
pub(super) const MAX_FIELDS: usize = 120;

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
    /// The head as it came, copied, so that a request that waits or streams holds no buffer; its fields; and as text
    /// the authority, the method and the target, one behind the other. The authority is the host with its port, lower
    /// case, no trailing dot; what is routed by and what is passed on. Empty: none.
    parts: Lent,
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
pub(super) fn take(
    input: &mut Buf,
    shelf: &Rc<Shelf>,
    max_line: usize,
    max_head: usize,
) -> Result<Option<RequestHead>, BadRequest> {
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
        Err(error) => {
            let refused = unparsed(bytes, error);
            let Some(minor) = newer_minor(bytes).filter(|_| refused == BadRequest::Version) else {
                return Err(refused);
            };
            // Its sender speaks a newer HTTP/1, which is 1.1 for those who know no more (RFC 9110, 2.5).
            if let Some(minor) = input.filled_mut().get_mut(minor) {
                *minor = b'1';
            }
            return take(input, shelf, max_line, max_head);
        }
    };
    let head = bytes.get(..length).unwrap_or_default();
    check_size(head, max_line, max_head)?;
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(BadRequest::Malformed("no request line"));
    };
    let at = |part: &[u8]| {
        let start = (part.as_ptr() as usize).wrapping_sub(base);
        start..start + part.len()
    };
    let mut facts = Facts::default();
    let mut parts = shelf.lend();
    let Parts { bytes: copy, text, fields } = &mut *parts;
    for header in parsed.headers.iter() {
        let known = field::classify(header.name.as_bytes());
        facts.note(known, header.value)?;
        fields.push(Field { name: at(header.name.as_bytes()), value: at(header.value), known });
    }
    if !lines_are_whole(head, fields) {
        return Err(BadRequest::Malformed("a line does not end in CR LF"));
    }
    copy.extend_from_slice(head);
    let is_11 = version == 1;
    let (target, host_end) = facts.authority(method, target, is_11, text)?;
    let framing = facts.framing(method, is_11)?;
    let upgrade = if is_11 && framing_is_empty(framing) && facts.upgrades { facts.upgrade } else { None };
    let upgrade = upgrade.filter(|protocol| !protocol.is_empty()).map(&at);
    let head = assemble(parts, &facts, Line { method, target, host_end, is_11 }, framing, upgrade);
    input.consume(length);
    Ok(Some(head))
}

/// A request line that was understood, or what stands for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) host_end: usize,
    pub(super) is_11: bool,
}

/// A head whose fields were classified and noted. `parts` has the bytes, the fields, and the authority as text.
pub(super) fn assemble(
    mut parts: Lent,
    facts: &Facts<'_>,
    line: Line<'_>,
    framing: Framing,
    upgrade: Option<Range<usize>>,
) -> RequestHead {
    let Line { method, target, host_end, is_11 } = line;
    let keep_alive = if is_11 { !facts.closes } else { facts.keeps && !facts.closes };
    let (expects_continue, te_trailers) = (facts.expects && is_11, facts.te_trailers && is_11);
    let named: Vec<Vec<u8>> = facts.named.iter().map(|name| name.to_vec()).collect();
    let text = &mut parts.text;
    let authority_end = text.len();
    text.push_str(method);
    let method_end = text.len();
    text.push_str(target);
    let path_end = memchr::memchr(b'?', target.as_bytes()).map_or(text.len(), |at| method_end + at);
    let mut head = RequestHead {
        parts,
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
    head
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

/// Whether each line ends in CR LF; a lone LF is read differently by different readers. The parser takes no folded
/// lines, so that each line but the first begins with a field, and there and at the end it is enough to look.
pub(super) fn lines_are_whole(head: &[u8], fields: &[Field]) -> bool {
    let ends = |end: usize| head.get(..end).is_some_and(|before| before.ends_with(b"\r\n"));
    head.ends_with(b"\r\n\r\n") && fields.iter().all(|field| ends(field.name.start))
}

/// Where the minor version of a request line stands that names an HTTP/1 after 1.1. The line's end may be still to come.
fn newer_minor(bytes: &[u8]) -> Option<usize> {
    let line = bytes.get(..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len()))?.trim_ascii_end();
    let (before, minor) = line.split_at_checked(line.len().checked_sub(1)?)?;
    (before.ends_with(b" HTTP/1.") && matches!(minor, [b'2'..=b'9'])).then_some(before.len())
}

impl RequestHead {
    /// The head as it came.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.parts.bytes
    }

    /// Its fields.
    pub(super) fn fields(&self) -> &[Field] {
        &self.parts.fields
    }

    /// The bytes of a part of the head.
    pub(super) fn part(&self, at: &Range<usize>) -> &[u8] {
        self.bytes().get(at.clone()).unwrap_or_default()
    }

    /// The method.
    pub(super) fn method(&self) -> &str {
        self.parts.text.get(self.authority_end..self.method_end).unwrap_or_default()
    }

    /// Whether the answer has no body whatever it says.
    pub(super) fn is_head(&self) -> bool {
        self.method() == "HEAD"
    }

    /// Path and query, as they came.
    pub(super) fn target(&self) -> &str {
        self.parts.text.get(self.method_end..).unwrap_or_default()
    }

    /// The path without query.
    pub(super) fn path(&self) -> &str {
        self.parts.text.get(self.method_end..self.path_end).unwrap_or_default()
    }

    /// Host and port as they are passed on.
    pub(super) fn authority(&self) -> &str {
        self.parts.text.get(..self.authority_end).unwrap_or_default()
    }

    /// The host without port.
    pub(super) fn host(&self) -> &str {
        self.parts.text.get(..self.host_end).unwrap_or_default()
    }

    /// The port that the client named.
    pub(super) fn port(&self) -> Option<&str> {
        self.parts.text.get(self.host_end + 1..self.authority_end)
    }

    /// Bytes of the head.
    pub(super) fn len(&self) -> usize {
        self.parts.bytes.len()
    }

    /// The first value of a field, by name in any case; text only.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a field; text only.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.values(name).filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// All values of a field, whatever is in them.
    pub(super) fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields()
            .iter()
            .filter(move |field| {
                field.name.len() == name.len() && self.part(&field.name).eq_ignore_ascii_case(name.as_bytes())
            })
            .map(|field| self.part(&field.value))
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
        let Parts { bytes, fields, .. } = &mut *self.parts;
        for field in fields {
            let name = bytes.get(field.name.clone()).unwrap_or_default();
            if field.known == Known::Other && named.iter().any(|option| option.eq_ignore_ascii_case(name)) {
                field.known = Known::Hop;
            }
        }
    }
}
