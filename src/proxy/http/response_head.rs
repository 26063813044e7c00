//! Response heads: read with the same rigour as requests. A backend is trusted little: what it sends is understood
//! whole or not passed on.

use std::{mem::MaybeUninit, ops::Range, rc::Rc};

use httparse::{Header, ParserConfig};

use crate::proxy::carry::Buf;

use super::{
    field::{self, Known},
    request_head::{Field, Framing, MAX_FIELDS, lines_are_whole},
    shelf::{Lent, Parts, Shelf},
};

/// The backend's answer can not be understood in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed response: {0}")]
pub struct BadResponse(&'static str);

/// A response head that was accepted. Its bytes are the first [`ResponseHead::length`] of the buffer it was read from.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) length: usize,
    pub(super) status: u16,
    pub(super) reason: Range<usize>,
    /// Of these only the fields are used.
    parts: Lent,
    pub(super) framing: Framing,
    /// What `Content-Length` said, also where there is no body to come (HEAD, 304).
    pub(super) told_length: Option<u64>,
    /// Whether chunked coding was told, also where there is no body to come.
    pub(super) told_chunked: bool,
    /// The connection may be used again.
    pub(super) keep_alive: bool,
    /// The protocol of a 101.
    pub(super) upgrade: Option<Range<usize>>,
}

/// Tries to read a head at the front of `input`, the answer to a request that was HEAD or not. `None`: more is needed.
pub(super) fn read(
    input: &Buf,
    shelf: &Rc<Shelf>,
    to_head: bool,
    max_head: usize,
) -> Result<Option<ResponseHead>, BadResponse> {
    let bytes = input.filled();
    let base = bytes.as_ptr() as usize;
    if !bytes.starts_with(b"HTTP/1.".get(..bytes.len().min(7)).unwrap_or_default()) {
        return Err(BadResponse("not HTTP/1"));
    }
    let mut slots: [MaybeUninit<Header<'_>>; MAX_FIELDS] = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let length = match ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= max_head => return Err(BadResponse("head too large")),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(BadResponse("too many fields")),
        Err(_) => return Err(BadResponse("not the grammar of HTTP/1.1")),
    };
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err(BadResponse("no status line"));
    };
    if !(100..=599).contains(&status) {
        return Err(BadResponse("status out of range"));
    }
    let at = |part: &[u8]| {
        let start = (part.as_ptr() as usize).wrapping_sub(base);
        start..start + part.len()
    };
    let mut facts = Facts::default();
    let mut parts = shelf.lend();
    let Parts { fields, .. } = &mut *parts;
    for header in parsed.headers.iter() {
        let known = field::classify(header.name.as_bytes());
        facts.note(known, header.value)?;
        fields.push(Field { name: at(header.name.as_bytes()), value: at(header.value), known });
    }
    if !lines_are_whole(bytes.get(..length).unwrap_or_default(), fields) {
        return Err(BadResponse("a line does not end in CR LF"));
    }
    if !facts.named.is_empty() {
        for item in fields.iter_mut().filter(|item| item.known == Known::Other) {
            let name = bytes.get(item.name.clone()).unwrap_or_default();
            if facts.named.iter().any(|named| named.eq_ignore_ascii_case(name)) {
                item.known = Known::Hop;
            }
        }
    }
    let framing = facts.framing(status, version == 1, to_head)?;
    let keep_alive = if version == 1 { !facts.closes } else { facts.keeps && !facts.closes };
    let reason = parsed.reason.filter(|reason| !reason.is_empty()).map_or(0..0, |reason| at(reason.as_bytes()));
    Ok(Some(ResponseHead {
        length,
        status,
        reason,
        parts,
        framing,
        told_length: facts.length,
        told_chunked: facts.chunked,
        keep_alive: keep_alive && framing != Framing::UntilClose,
        upgrade: facts.upgrade.map(at),
    }))
}

impl ResponseHead {
    /// Its fields.
    pub(super) fn fields(&self) -> &[Field] {
        &self.parts.fields
    }

    /// Its fields, to be changed.
    pub(super) fn fields_mut(&mut self) -> &mut [Field] {
        &mut self.parts.fields
    }
}

#[derive(Debug, Default)]
struct Facts<'a> {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    keeps: bool,
    upgrade: Option<&'a [u8]>,
    named: Vec<&'a [u8]>,
}

impl<'a> Facts<'a> {
    fn note(&mut self, known: Known, value: &'a [u8]) -> Result<(), BadResponse> {
        match known {
            Known::ContentLength => {
                let length = field::content_length(value).ok_or(BadResponse("bad Content-Length"))?;
                if self.length.replace(length).is_some() {
                    return Err(BadResponse("more than one Content-Length"));
                }
            }
            Known::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadResponse("a Transfer-Encoding other than chunked"));
                }
                self.chunked = true;
            }
            Known::Connection => {
                for option in field::list(value) {
                    match option.len() {
                        5 if option.eq_ignore_ascii_case(b"close") => self.closes = true,
                        10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keeps = true,
                        7 if option.eq_ignore_ascii_case(b"upgrade") => {}
                        _ => self.named.push(option),
                    }
                }
            }
            Known::Upgrade => self.upgrade = Some(value),
            Known::Host
            | Known::Te
            | Known::Expect
            | Known::Hop
            | Known::Forwarding
            | Known::HopMark
            | Known::Other => {}
        }
        Ok(())
    }

    fn framing(&self, status: u16, is_11: bool, to_head: bool) -> Result<Framing, BadResponse> {
        if self.chunked && self.length.is_some() {
            return Err(BadResponse("both Content-Length and Transfer-Encoding"));
        }
        if self.chunked && !is_11 {
            return Err(BadResponse("Transfer-Encoding in HTTP/1.0"));
        }
        Ok(if to_head || status < 200 || status == 204 || status == 304 {
            Framing::Empty
        } else if self.chunked {
            Framing::Chunked
        } else {
            self.length.map_or(Framing::UntilClose, Framing::Length)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::carry::Buffers;

    fn parse(text: &str, to_head: bool) -> Result<Option<ResponseHead>, BadResponse> {
        let mut buf = Rc::new(Buffers::default()).lend();
        buf.push(text.as_bytes());
        read(&buf, &Rc::default(), to_head, 32 * 1024)
    }

    #[test]
    fn framing_follows_status_method_and_fields() {
        for (text, to_head, framing, keep) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false, Framing::Length(3), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true, Framing::Empty, true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false, Framing::Chunked, true),
            ("HTTP/1.1 200 OK\r\n\r\n", false, Framing::UntilClose, false),
            ("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", false, Framing::Empty, true),
            ("HTTP/1.1 304 \r\nContent-Length: 3\r\n\r\n", false, Framing::Empty, true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", false, Framing::Length(3), false),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n", false, Framing::Length(3), true),
            ("HTTP/1.1 200\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false, Framing::Length(0), false),
        ] {
            let head = parse(text, to_head).unwrap().unwrap();
            assert_eq!((head.framing, head.keep_alive), (framing, keep), "{text:?}");
        }
    }

    #[test]
    fn doubtful_answers_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "hello",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(parse(text, false).is_err(), "{text:?}");
        }
        assert!(parse("HTTP/1.1 200 OK\r\nA:", false).unwrap().is_none());
        assert!(parse("HT", false).unwrap().is_none());
    }
}
