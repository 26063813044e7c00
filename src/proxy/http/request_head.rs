//! Request heads: parsed in place, checked strictly (RFC 9110, 9112), kept as offsets into the bytes that came.
//!
//! What is ambiguous is refused: a head that is accepted has one host, one framing, and one meaning for every reader.

use std::{mem::MaybeUninit, ops::Range};

use httparse::{Header, ParserConfig};

use super::{
    buffer::Buf,
    field::{self, Known},
};

/// Fields of one head at most.
pub(super) const MAX_FIELDS: usize = 120;

/// Why a request is refused before it goes anywhere; the connection is closed after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// It can be read in more than one way, or in none.
    #[error("The request is malformed: {0}.")]
    Malformed(&'static str),
    /// The request line is too long.
    #[error("The address asked for is too long.")]
    TargetTooLong,
    /// Too many fields, or too many bytes of them.
    #[error("The request has too many or too long header fields.")]
    HeadTooLarge,
    /// Not HTTP/1.0 or 1.1.
    #[error("This version of HTTP is not spoken here.")]
    Version,
    /// A body whose length nobody told.
    #[error("The request must tell the length of its body.")]
    LengthRequired,
    /// An expectation that nobody here knows.
    #[error("The request expects what is not known here.")]
    Expectation,
    /// `CONNECT`, which this is not for.
    #[error("This method is not allowed.")]
    Connect,
}

impl BadRequest {
    /// The status that tells it.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Connect => 405,
            Self::LengthRequired => 411,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge => 431,
            Self::Version => 505,
        }
    }
}

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
    method: Range<usize>,
    target: Range<usize>,
    /// The target up to its query.
    path: Range<usize>,
    /// The host with its port, lower case, no trailing dot; what is routed by and what is passed on. Empty: none.
    authority: String,
    host_length: usize,
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
    let (authority, target) = facts.authority(method, target, is_11)?;
    let framing = facts.framing(method, is_11)?;
    let upgrade = if is_11 && framing_is_empty(framing) && facts.upgrades { facts.upgrade } else { None };
    let upgrade = upgrade.filter(|protocol| !protocol.is_empty()).map(&at);
    let (method, target) = (at(method.as_bytes()), at(target));
    let keep_alive = if is_11 { !facts.closes } else { facts.keeps && !facts.closes };
    let (expects_continue, te_trailers) = (facts.expects && is_11, facts.te_trailers && is_11);
    let named: Vec<Vec<u8>> = facts.named.iter().map(|name| name.to_vec()).collect();
    let host_length = host_length(&authority);
    let path_end =
        memchr::memchr(b'?', head.get(target.clone()).unwrap_or_default()).map_or(target.end, |at| target.start + at);
    let path = target.start..path_end;
    let bytes = Box::from(head);
    input.consume(length);
    let mut head = RequestHead {
        bytes,
        fields,
        method,
        target,
        path,
        authority,
        host_length,
        is_11,
        framing,
        keep_alive,
        upgrade,
        expects_continue,
        te_trailers,
    };
    head.drop_named(&named);
    Ok(Some(head))
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

/// What the fields say together.
#[derive(Debug, Default)]
struct Facts<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    keeps: bool,
    upgrades: bool,
    upgrade: Option<&'a [u8]>,
    expects: bool,
    te_trailers: bool,
    named: Vec<&'a [u8]>,
}

impl<'a> Facts<'a> {
    fn note(&mut self, known: Known, value: &'a [u8]) -> Result<(), BadRequest> {
        match known {
            Known::Host => {
                if self.host.replace(value).is_some() {
                    return Err(BadRequest::Malformed("more than one Host"));
                }
            }
            Known::ContentLength => {
                let length = field::content_length(value).ok_or(BadRequest::Malformed("bad Content-Length"))?;
                if self.length.replace(length).is_some() {
                    return Err(BadRequest::Malformed("more than one Content-Length"));
                }
            }
            Known::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadRequest::Malformed("a Transfer-Encoding other than chunked"));
                }
                self.chunked = true;
            }
            Known::Connection => self.connection(value)?,
            Known::Te => self.te_trailers |= field::list_has(value, "trailers"),
            Known::Upgrade => {
                // Several protocols, or several fields: none of them is passed on.
                let single = self.upgrade.is_none() && field::list(value).count() == 1 && may_upgrade(value);
                self.upgrade = Some(if single { value } else { b"" });
            }
            Known::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(BadRequest::Expectation);
                }
                self.expects = true;
            }
            Known::Hop | Known::Forwarding | Known::HopMark | Known::Other => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &'a [u8]) -> Result<(), BadRequest> {
        for option in field::list(value) {
            if !field::is_token(option) {
                return Err(BadRequest::Malformed("bad Connection"));
            }
            match option.len() {
                5 if option.eq_ignore_ascii_case(b"close") => self.closes = true,
                10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keeps = true,
                7 if option.eq_ignore_ascii_case(b"upgrade") => self.upgrades = true,
                _ => self.named.push(option),
            }
        }
        Ok(())
    }

    /// The one authority, and the target as it is passed on (origin form or `*`).
    fn authority<'b>(&self, method: &str, target: &'b str, is_11: bool) -> Result<(String, &'b [u8]), BadRequest> {
        if method == "CONNECT" {
            return Err(BadRequest::Connect);
        }
        let host = match self.host {
            Some(host) => authority(host)?,
            None if is_11 => return Err(BadRequest::Malformed("no Host")),
            None => String::new(),
        };
        if !target.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'<' | b'>' | b'`')) {
            return Err(BadRequest::Malformed("bad request target"));
        }
        if target.starts_with('/') {
            check_path(target)?;
            return Ok((host, target.as_bytes()));
        }
        if target == "*" && method == "OPTIONS" {
            return Ok((host, target.as_bytes()));
        }
        let scheme_end = target.find("://").ok_or(BadRequest::Malformed("bad request target"))?;
        let (scheme, rest) = target.split_at(scheme_end);
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(BadRequest::Malformed("bad scheme in the request target"));
        }
        let rest = rest.get(3..).unwrap_or_default();
        let (named, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = match path {
            // A slash of the scheme's own stands in for the path that was left out.
            "" => target.get(scheme_end + 1..scheme_end + 2).unwrap_or_default(),
            path if path.starts_with('/') => path,
            _ => return Err(BadRequest::Malformed("no path in the request target")),
        };
        check_path(path)?;
        // The target wins over Host (RFC 9112, 3.2.2), and is what is passed on.
        Ok((authority(named.as_bytes())?, path.as_bytes()))
    }

    fn framing(&self, method: &str, is_11: bool) -> Result<Framing, BadRequest> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(BadRequest::Malformed("both Content-Length and Transfer-Encoding")),
            (true, None) if !is_11 => Err(BadRequest::Malformed("Transfer-Encoding in HTTP/1.0")),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) if !is_11 && matches!(method, "POST" | "PUT" | "PATCH") => Err(BadRequest::LengthRequired),
            (false, None) => Ok(Framing::Empty),
        }
    }
}

/// Any single protocol may be asked for, but none that would hide HTTP itself from us.
fn may_upgrade(value: &[u8]) -> bool {
    let name = value.split(|b| *b == b'/').next().unwrap_or_default();
    field::is_token(name) && !["h2c", "h2", "http", "tls"].iter().any(|not| name.eq_ignore_ascii_case(not.as_bytes()))
}

/// A path with dot segments, also written with `%2e`, or with a NUL means different things to different readers.
fn check_path(target: &str) -> Result<(), BadRequest> {
    let bytes = target.as_bytes();
    // Nearly every path has neither a `%` nor a `.`, and is not looked at further.
    if memchr::memchr2(b'%', b'.', bytes).is_none() {
        return Ok(());
    }
    let path = bytes.split(|b| *b == b'?').next().unwrap_or_default();
    if path.windows(3).any(|three| three == b"%00") {
        return Err(BadRequest::Malformed("NUL in the path"));
    }
    if path.split(|b| *b == b'/').any(is_dot_segment) {
        return Err(BadRequest::Malformed("dot segments in the path"));
    }
    Ok(())
}

fn is_dot_segment(segment: &[u8]) -> bool {
    if !matches!(segment.first(), Some(b'.' | b'%')) || segment.len() > 6 {
        return false;
    }
    let text = String::from_utf8_lossy(segment).to_ascii_lowercase().replace("%2e", ".");
    text == "." || text == ".."
}

/// A host with an optional port: lower case, no trailing dot, no user, no empty port.
fn authority(text: &[u8]) -> Result<String, BadRequest> {
    const BAD: BadRequest = BadRequest::Malformed("bad Host");
    let text = std::str::from_utf8(text).map_err(|_| BAD)?;
    let host_end =
        if text.starts_with('[') { text.find(']').ok_or(BAD)? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, port) = text.split_at(host_end);
    let mut clean = if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        inner.parse::<std::net::Ipv6Addr>().map_err(|_| BAD)?;
        host.to_ascii_lowercase()
    } else {
        let name = host.strip_suffix('.').unwrap_or(host);
        let sound = !name.is_empty()
            && name.len() <= 253
            && !name.starts_with('.')
            && !name.ends_with('.')
            && !name.contains("..")
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !sound {
            return Err(BAD);
        }
        name.to_ascii_lowercase()
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => {}
        None => return Err(BAD),
        Some("") => {}
        Some(digits) => {
            if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.parse::<u16>().is_err() {
                return Err(BAD);
            }
            clean.push(':');
            clean.push_str(digits);
        }
    }
    Ok(clean)
}

fn host_length(authority: &str) -> usize {
    match authority.rfind(':') {
        Some(at) if !authority.ends_with(']') => at,
        Some(_) | None => authority.len(),
    }
}

impl RequestHead {
    fn text(&self, at: &Range<usize>) -> &str {
        std::str::from_utf8(self.part(at)).unwrap_or_default()
    }

    /// The bytes of a part of the head.
    pub(super) fn part(&self, at: &Range<usize>) -> &[u8] {
        self.bytes.get(at.clone()).unwrap_or_default()
    }

    /// The method.
    pub(super) fn method(&self) -> &str {
        self.text(&self.method)
    }

    /// Whether the answer has no body whatever it says.
    pub(super) fn is_head(&self) -> bool {
        self.part(&self.method) == b"HEAD"
    }

    /// Path and query, as they came.
    pub(super) fn target(&self) -> &str {
        self.text(&self.target)
    }

    /// The path without query.
    pub(super) fn path(&self) -> &str {
        self.text(&self.path)
    }

    /// Host and port as they are passed on.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// The host without port.
    pub(super) fn host(&self) -> &str {
        self.authority.get(..self.host_length).unwrap_or_default()
    }

    /// The port that the client named.
    pub(super) fn port(&self) -> Option<&str> {
        self.authority.get(self.host_length + 1..)
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
