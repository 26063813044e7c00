//! `forward_auth`: a service decides who is let in.
//!
//! It is asked with what the client sent, without the body. When it agrees, the fields that the route names go on with
//! the request; otherwise its answer is the client's. When it can not be asked nobody is let in.

use std::{io, net::SocketAddr};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;

use crate::{
    backend::{Backend, Pass},
    control::LiveRoute,
    model::{AuthServer, ForwardAuth, RouteTarget, Scheme},
    net::{Offer, Stream},
};

use super::{
    super::{
        answer::Answer,
        dial,
        field::{HOP_MARK, Known, reads_like},
        secure, wake,
    },
    asker::Asker,
    chain::Refusal,
};

/// So much of its answer is passed on.
const LONGEST: usize = 64 * 1024;

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
    let server = server(asker, auth).await?;
    let away = |why: &dyn std::fmt::Display| {
        tracing::warn!(at = %server.name, "`forward_auth` can not be asked: {why}");
        Refusal::new("the one who decides is away", Answer::new(502, "The service that lets in can not be reached."))
    };
    let asked = request(asker, auth, &server).map_err(|error| away(&error))?;
    let answered = tokio::time::timeout(auth.timeout, exchange(asker, &server, asked)).await;
    let (head, body) = match answered {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => return Err(away(&error)),
        Err(_) => {
            let answer = Answer::new(504, "The service that lets in did not answer in time.");
            return Err(Refusal::new("the one who decides takes too long", answer));
        }
    };
    if (200..300).contains(&head.status().as_u16()) {
        return Ok(agreed(auth, head.headers()));
    }
    Err(refused(&head, &body).unwrap_or_else(|| away(&format!("status {}", head.status()))))
}

/// Where it is.
struct Server {
    name: String,
    at: SocketAddr,
    /// Its route, where TLS is spoken to it.
    secure: Option<std::sync::Arc<LiveRoute>>,
    /// Keeps it awake meanwhile.
    _pass: Option<Pass>,
}

async fn server(asker: &Asker<'_>, auth: &ForwardAuth) -> Result<Server, Refusal> {
    let worker = &asker.client.worker;
    let away = |name: &str, why: &str| {
        tracing::warn!(at = name, "`forward_auth` can not be asked: {why}");
        Refusal::new("the one who decides is away", Answer::new(502, "The service that lets in can not be reached."))
    };
    let resolved = async |host: &str, port: u16| {
        worker.names.resolve(host, port).await.map_err(|error| away(host, &error.to_string()))
    };
    let alias = match &auth.at {
        AuthServer::Address { host, port } => {
            let bare = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            return Ok(Server {
                name: format!("{bare}:{port}"),
                at: resolved(&bare, *port).await?,
                secure: None,
                _pass: None,
            });
        }
        AuthServer::Route(alias) => alias,
    };
    let table = worker.shared.table.load_full();
    let Some(route) = table.targets().find(|route| route.spec.alias == *alias).cloned() else {
        return Err(away(alias.as_str(), "there is no such route"));
    };
    let secure = |endpoint: crate::model::Endpoint| match endpoint.scheme {
        Scheme::Http => Ok(None),
        Scheme::Https => Ok(Some(std::sync::Arc::clone(&route))),
        Scheme::H2c | Scheme::Tcp | Scheme::Udp | Scheme::TcpUdp => {
            Err(away(alias.as_str(), "it does not speak HTTP/1.1"))
        }
    };
    let name = alias.to_string();
    match (&route.spec.target, &route.backend) {
        (RouteTarget::Address { host, endpoint }, _) => {
            Ok(Server { name, at: resolved(host, endpoint.port).await?, secure: secure(*endpoint)?, _pass: None })
        }
        (RouteTarget::Backend { endpoint, .. }, Some(backend)) => {
            let pass = match backend.try_enter() {
                Some(pass) => pass,
                None => woken(asker, backend).await?,
            };
            let (at, _) = pass.dial(endpoint.port).ok_or_else(|| away(alias.as_str(), "it has no address"))?;
            Ok(Server { name, at, secure: secure(*endpoint)?, _pass: Some(pass) })
        }
        (RouteTarget::Backend { .. } | RouteTarget::Down { .. }, _) => Err(away(alias.as_str(), "it is down")),
    }
}

/// Its backend, awake; what it is told whose wake is refused is what it would be told of a service of its own.
async fn woken(asker: &Asker<'_>, backend: &Backend) -> Result<Pass, Refusal> {
    let shared = &asker.client.worker.shared;
    let held = wake::hold(shared, asker.head, asker.address(), backend, backend.policy().patience()).await;
    held.map_err(|answer| Refusal::new("the one who decides is not woken", answer))
}

fn request(
    asker: &Asker<'_>,
    auth: &ForwardAuth,
    server: &Server,
) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let (head, who) = (asker.head, asker.address().to_string());
    let scheme = if asker.is_secure() { "https" } else { "http" };
    let mut request = Request::get(&auth.path)
        .header("Host", server.name.as_str())
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
            request = request.header(HeaderName::from_bytes(name)?, HeaderValue::from_bytes(head.part(&field.value))?);
        }
    }
    request.body(Empty::new())
}

/// One request on a connection of its own: nobody else's answer can be taken for it.
async fn exchange(
    asker: &Asker<'_>,
    server: &Server,
    request: Request<Empty<Bytes>>,
) -> io::Result<(Response<()>, Bytes)> {
    let tcp = dial::connect(server.at, std::time::Duration::from_secs(5)).await?;
    let stream = match &server.secure {
        None => Stream::Plain(tcp),
        Some(route) => {
            let target = secure::target(&route.spec, server.at).map_err(|_| io::Error::other("no name for TLS"))?;
            let clients = &asker.client.worker.shared.tls_clients;
            let tls = clients.connect(tcp, &target, &route.spec.options.upstream.tls, Offer::Http1).await;
            let (tls, _) = tls.map_err(|error| io::Error::other(error.to_string()))?;
            Stream::Tls(tls)
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let work = async {
        let response: Response<Incoming> = sender.send_request(request).await.map_err(io::Error::other)?;
        let (parts, body) = response.into_parts();
        let body = match Limited::new(body, LONGEST).collect().await {
            Ok(body) => body.to_bytes(),
            // An answer that is too long is passed on without its body; one that is cut is none.
            Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
            Err(error) => return Err(io::Error::other(error)),
        };
        Ok((Response::from_parts(parts, ()), body))
    };
    let mut connection = std::pin::pin!(connection);
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        _ = &mut connection => {}
    }
    work.await
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
