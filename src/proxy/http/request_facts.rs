//! What the fields of a request say together: one host, one framing, or a refusal.

use super::{
    bad_request::BadRequest,
    field::{self, Known},
    request_head::Framing,
    request_target::{authority, check_path},
};
use crate::model::is_token;

/// What the fields say together.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    pub(super) closes: bool,
    pub(super) keeps: bool,
    pub(super) upgrades: bool,
    pub(super) upgrade: Option<&'a [u8]>,
    pub(super) expects: bool,
    pub(super) te_trailers: bool,
    pub(super) named: Vec<&'a [u8]>,
}

impl<'a> Facts<'a> {
    pub(super) fn note(&mut self, known: Known, value: &'a [u8]) -> Result<(), BadRequest> {
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
            if !is_token(option) {
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

    /// Puts the one authority into `out`, which is empty. Returns the target as it is passed on (origin form or `*`),
    /// and where in `out` the host ends.
    pub(super) fn authority<'b>(
        &self,
        method: &str,
        target: &'b str,
        is_11: bool,
        out: &mut String,
    ) -> Result<(&'b str, usize), BadRequest> {
        if matches!(method, "CONNECT" | "TRACE") {
            return Err(BadRequest::Method);
        }
        let host_end = match self.host {
            Some(host) => authority(host, out)?,
            None if is_11 => return Err(BadRequest::Malformed("no Host")),
            None => 0,
        };
        if !target.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'<' | b'>' | b'`')) {
            return Err(BadRequest::Malformed("bad request target"));
        }
        if target.starts_with('/') {
            check_path(target)?;
            return Ok((target, host_end));
        }
        if target == "*" && method == "OPTIONS" {
            return Ok((target, host_end));
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
        out.clear();
        let host_end = authority(named.as_bytes(), out)?;
        Ok((path, host_end))
    }

    pub(super) fn framing(&self, method: &str, is_11: bool) -> Result<Framing, BadRequest> {
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
    is_token(name) && !["h2c", "h2", "http", "tls"].iter().any(|not| name.eq_ignore_ascii_case(not.as_bytes()))
}
