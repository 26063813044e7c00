//! `forward_auth`: a service decides who is let in.
//!
//! It is asked with what the client sent, without the body. When it agrees, the fields that the route names go on with
//! the request; otherwise its answer is the client's. When it can not be asked nobody is let in.

use std::borrow::Cow;

use http_body_util::Empty;
use hyper::{
    HeaderMap, Request, Response,
    body::Bytes,
    header::{HeaderName, HeaderValue},
};

use crate::{model::ForwardAuth, proxy::worker::SessionKey};

use super::{
    super::{
        answer::Answer,
        field::{HOP_MARK, Known, reads_like},
        rewrite::{foreign_crumbs, holds_ours},
    },
    asker::Asker,
    auth_server::{self, away},
    chain::Refusal,
};

/// Fields of its answer that are the client's when it does not agree.
const PASSED: [&str; 6] = ["location", "set-cookie", "www-authenticate", "content-type", "content-language", "refresh"];

/// Fields of the client that it is not told: they are about the body, about what is kept, or about one connection, or
/// would say in the client's words what it is asked about.
const KEPT_BACK: [&str; 18] = [
    "accept-encoding",
    "content-encoding",
    "content-type",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "x-auth-request-redirect",
    "x-http-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// Asks. What is returned are the fields that go on with the request.
pub(super) async fn ask(asker: &Asker<'_>, auth: &ForwardAuth) -> Result<Vec<(String, String)>, Refusal> {
    let question = question(asker, auth).map_err(|error| away(&auth.at, error))?;
    let (head, body) = auth_server::answer(asker, auth, &question).await?;
    if (200..300).contains(&head.status().as_u16()) {
        return Ok(agreed(auth, head.headers()));
    }
    Err(refused(&head, &body).unwrap_or_else(|| away(&auth.at, format!("status {}", head.status()))))
}

fn question(asker: &Asker<'_>, auth: &ForwardAuth) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let (head, who) = (asker.head, asker.address().to_string());
    let scheme = if asker.is_secure() { "https" } else { "http" };
    let mut request = Request::get(&auth.path)
        .header("Host", auth_server::name(&auth.at))
        .header(HOP_MARK, asker.client.worker.shared.mark.as_str())
        .header("X-Forwarded-Method", head.method())
        .header("X-Forwarded-Proto", scheme)
        .header("X-Forwarded-Host", head.authority())
        .header("X-Forwarded-Uri", head.target())
        .header("X-Forwarded-For", who.as_str())
        .header("X-Real-IP", who.as_str());
    for field in head.fields().iter().filter(|field| field.known == Known::Other) {
        let name = head.part(&field.name);
        let own = auth.headers.iter().map(String::as_str);
        if !own.chain(KEPT_BACK).any(|kept| reads_like(name, kept.as_bytes())) {
            let value = head.part(&field.value);
            let is_ours = name.eq_ignore_ascii_case(b"cookie") && holds_ours(value);
            let key = asker.client.worker.shared.drawn_session_key();
            let value = if is_ours { Cow::Owned(without_ours(value, key)) } else { Cow::Borrowed(value) };
            request = request.header(HeaderName::from_bytes(name)?, HeaderValue::from_bytes(&value)?);
        }
    }
    request.body(Empty::new())
}

/// A `Cookie` field without the cookies of our own.
fn without_ours(field: &[u8], key: Option<&SessionKey>) -> Vec<u8> {
    foreign_crumbs(field, key).collect::<Vec<_>>().join(&b"; "[..])
}

/// The fields that go on with the request.
fn agreed(auth: &ForwardAuth, fields: &HeaderMap) -> Vec<(String, String)> {
    let found = |name: &String| {
        let values: Vec<&str> = fields.get_all(name.as_str()).iter().filter_map(text).collect();
        (!values.is_empty()).then(|| (name.clone(), values.join(", ")))
    };
    auth.headers.iter().filter_map(found).collect()
}

fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// What the client gets when it does not agree; nothing when that is no answer to a request of the client's.
fn refused(head: &Response<()>, body: &Bytes) -> Option<Refusal> {
    let status = head.status().as_u16();
    if status < 300 || status == 304 {
        return None;
    }
    let fields = head.headers().iter().filter(|(name, _)| PASSED.contains(&name.as_str()));
    let fields = fields.filter_map(|(name, value)| Some((name.to_string(), text(value)?.to_owned())));
    let body = Some(String::from_utf8_lossy(body).into_owned()).filter(|body| !body.is_empty());
    let answer = Answer { fields: fields.collect(), body, ..Answer::new(status, "The service does not let you in.") };
    Some(Refusal::new("the one who decides does not agree", answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AuthServer;

    #[test]
    fn only_what_the_route_names_goes_on() {
        let auth = ForwardAuth {
            at: AuthServer::Address { host: "a".to_owned(), port: 80 },
            path: "/".to_owned(),
            headers: vec!["Remote-User".to_owned(), "Remote-Groups".to_owned(), "Remote-Name".to_owned()],
            timeout: std::time::Duration::from_secs(1),
        };
        let mut fields = HeaderMap::new();
        for (name, value) in
            [("remote-user", "mia"), ("remote-groups", "a"), ("remote-groups", "b"), ("x-secret", "no")]
        {
            fields.append(name, HeaderValue::from_static(value));
        }
        let expected = [("Remote-User", "mia"), ("Remote-Groups", "a, b")];
        assert_eq!(agreed(&auth, &fields), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn it_is_not_shown_who_is_logged_in_here() {
        let key = SessionKey::random().unwrap();
        let (clear, with_tls) = (key.names(false), key.names(true));
        let field = format!("a=1; {clear}0=x;{with_tls}1_2=y; dormouse_oidc_others=z; b={clear}");
        assert!(holds_ours(field.as_bytes()) && !holds_ours(b"a=1; b=2"));
        let left = without_ours(field.as_bytes(), Some(&key));
        assert_eq!(String::from_utf8(left).unwrap(), format!("a=1; dormouse_oidc_others=z; b={clear}"));
        assert_eq!(without_ours(b"a=1; dormouse_oidc_others=z", None), b"a=1; dormouse_oidc_others=z");
    }

    #[test]
    fn its_answer_is_the_clients() {
        let head = |status: u16| {
            let fields = Response::builder().status(status).header("Location", "/login").header("Set-Cookie", "a=1");
            fields.header("X-Internal", "no").header("Set-Cookie", "b=2").body(()).unwrap()
        };
        let answer = refused(&head(302), &Bytes::from_static(b"go")).unwrap().answer;
        assert_eq!((answer.status, answer.body.as_deref()), (302, Some("go")));
        let fields: Vec<_> = answer.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(fields, [("location", "/login"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]);
        assert!(refused(&head(304), &Bytes::new()).is_none());
        assert!(refused(&head(101), &Bytes::new()).is_none());
    }
}
