//! Who may ask at all: no web page of another origin, under no name but loopback's.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Code, Connection, Failure};

/// Refuses what a web page of another origin could send, reads included (DNS rebinding).
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let over_tcp = request.extensions().get::<Connection>().is_none_or(|connection| connection.over_tcp);
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    match judge(request.method(), request.headers(), authority.as_deref(), over_tcp) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

fn judge(method: &Method, headers: &HeaderMap, authority: Option<&str>, over_tcp: bool) -> Result<(), Failure> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let one_host = hosts.next().is_none() && authority.is_none_or(|authority| Some(authority) == host);
    if over_tcp && !(one_host && host.is_some_and(is_loopback)) {
        let failure = Failure::new(Code::HostNotAllowed, "the `Host` of the request is no name of this interface");
        return Err(failure.with_hint("ask for `localhost`, `127.0.0.1` or `[::1]`"));
    }
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let strange_site = match site {
        Some(b"cross-site") => true,
        Some(b"same-site") => !reads,
        _ => false,
    };
    let own = host.map(|host| format!("http://{host}"));
    let own_origin = |origin: &[u8]| own.as_ref().is_some_and(|own| origin.eq_ignore_ascii_case(own.as_bytes()));
    let strange_origin = headers.get_all(header::ORIGIN).iter().any(|origin| !own_origin(origin.as_bytes()));
    if strange_site || strange_origin {
        let detail = "the request was made by a web page of another origin";
        return Err(Failure::new(Code::OriginNotAllowed, detail));
    }
    Ok(())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a `Host` names this machine by loopback, with whatever port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if port.is_empty() || port.strip_prefix(':').is_some_and(is_port) => name,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if is_port(port) => name,
            Some(_) => return false,
            None => host,
        },
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(method: &Method, over_tcp: bool, fields: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, axum::http::HeaderValue::from_static(value));
        }
        judge(method, &headers, None, over_tcp).is_ok()
    }

    #[test]
    fn only_loopback_names_are_hosts() {
        for host in ["localhost", "LocalHost:8000", "127.0.0.1:8000", "127.8.9.1", "[::1]:8000", "[::1]", "localhost."]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "10.0.0.1:8000", "[::2]", "[::1]x", "0.0.0.0", "[::1"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_strange_host_is_refused_on_tcp_on_reads_too() {
        assert!(!verdict(&Method::GET, true, &[("host", "evil.example:8000")]));
        assert!(!verdict(&Method::GET, true, &[]));
        assert!(!verdict(&Method::GET, true, &[("host", "localhost"), ("host", "localhost")]));
        assert!(verdict(&Method::GET, false, &[("host", "dormouse")]));
        assert!(verdict(&Method::POST, true, &[("host", "localhost:8000")]));
    }

    #[test]
    fn another_origin_is_refused() {
        let host = ("host", "localhost:8000");
        for method in [Method::GET, Method::POST, Method::DELETE] {
            assert!(verdict(&method, true, &[host, ("origin", "http://localhost:8000")]));
            assert!(!verdict(&method, true, &[host, ("origin", "http://localhost:3000")]));
            assert!(!verdict(&method, true, &[host, ("origin", "https://localhost:8000")]));
            assert!(!verdict(&method, true, &[host, ("origin", "null")]));
            assert!(!verdict(&method, false, &[("host", "dormouse"), ("origin", "https://evil.example")]));
            assert!(!verdict(&method, true, &[host, ("sec-fetch-site", "cross-site")]));
        }
        assert!(!verdict(&Method::POST, true, &[host, ("sec-fetch-site", "same-site")]));
        assert!(verdict(&Method::GET, true, &[host, ("sec-fetch-site", "same-site")]));
        assert!(verdict(&Method::POST, true, &[host, ("sec-fetch-site", "same-origin")]));
        assert!(verdict(&Method::GET, true, &[host, ("sec-fetch-site", "none")]));
    }
}
