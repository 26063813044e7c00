//! What hangs on TLS: the handshake, who is sent to TLS, and what browsers are told to remember.

use std::{pin::Pin, sync::Arc};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::{
    control::LiveRoute,
    model::{RouteSpec, RouteTarget, Spot},
    net::{NoTls, NoUpstreamTls, Offer, Secured, TlsServer, TlsStream, TlsTarget},
    proxy::{
        listening::Beside,
        ports::{self, Caller, First},
        worker::Shared,
    },
    routing::Host,
};

use super::{
    answer::Answer,
    front::{Client, FIRST_WORDS},
    request_head::RequestHead,
};

/// A client that is served.
pub(in crate::proxy) type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// What a listener of HTTPS has.
pub(in crate::proxy) struct Https {
    pub(in crate::proxy) tls: Arc<TlsServer>,
    /// The stream routes on its port.
    pub(in crate::proxy) beside: Arc<Beside>,
    /// Serves a client of one of those to its end.
    pub(in crate::proxy) streams: Box<dyn Fn(ports::Met) -> Serving>,
}

/// Who came to a listener of HTTPS.
pub(super) enum Met {
    /// A client of ours, its handshake done.
    Secured(Box<TlsStream>, Box<Secured>),
    /// One that speaks something else than TLS, and what it has said so far.
    Clear(TcpStream, Vec<u8>),
    /// One that wants a stream route, and what was read of it.
    Stream(TcpStream, First, Arc<LiveRoute>),
    /// Nobody is left.
    Nobody,
}

/// Finds out who came, and does the handshake; `begun` is told when its first bytes are there.
pub(super) async fn meet(
    https: &Https,
    tcp: TcpStream,
    caller: Caller,
    shutdown: &CancellationToken,
    begun: impl FnOnce(),
) -> Met {
    // Who has just been let in is about to ask, here too.
    let shutdown = async {
        shutdown.cancelled().await;
        tokio::time::sleep(FIRST_WORDS).await;
    };
    let accept = async {
        if !matches!(tokio::time::timeout(TlsServer::PATIENCE, tcp.peek(&mut [0])).await, Ok(Ok(1))) {
            return Err(NoTls::Failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        begun();
        let mut first = First::default();
        if !https.beside.has_none() {
            let hello = first.hello(&tcp, TlsServer::PATIENCE).await;
            let hello = hello.ok_or_else(|| NoTls::Failed(std::io::ErrorKind::UnexpectedEof.into()))?;
            if let Some(route) = https.beside.route(&hello, &https.tls).filter(|route| caller.may_use(route)) {
                return Ok(Met::Stream(tcp, first, route));
            }
        }
        let (stream, secured) = https.tls.accept(tcp, first.take()).await?;
        Ok(Met::Secured(stream, Box::new(secured)))
    };
    let accepted = tokio::select! {
        biased;
        accepted = accept => accepted,
        () = shutdown => return Met::Nobody,
    };
    accepted.unwrap_or_else(|error| match error {
        NoTls::Other(tcp, begun) => Met::Clear(tcp, begun),
        NoTls::Done => Met::Nobody,
        NoTls::Failed(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            Met::Nobody
        }
    })
}

/// What one is told who speaks HTTP where TLS is spoken.
pub(super) fn speaks_tls() -> Answer {
    Answer::new(400, "This port speaks HTTPS; the request came as plain HTTP.")
}

/// Where an authority looks for the answer to its challenge (RFC 8555, 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The answer to an authority that wants to see that a host is ours. Other tokens are those of the services.
pub(super) fn challenge(client: &Client, head: &RequestHead) -> Option<Answer> {
    let token = head.path().strip_prefix(CHALLENGES)?;
    let body = client.worker.shared.tls.as_ref()?.certificates().challenges().answer(token)?;
    Some(Answer { body: Some(body), ..Answer::new(200, "") })
}

/// Sends those to TLS who came in clear to a host that has a certificate, and lets those in who may come to this
/// route over this connection.
pub(super) fn check(client: &Client, head: &RequestHead, route: &LiveRoute) -> Result<(), Answer> {
    let wanted = route.spec.options.client_profile.as_deref();
    match &client.secured {
        Some(secured) => admit(secured, wanted, head),
        None => {
            redirect(client, head)?;
            if wanted.is_some() { Err(no_certificate()) } else { Ok(()) }
        }
    }
}

/// What was agreed for one host does not hold for another that asks for something else.
fn admit(secured: &Secured, wanted: Option<&str>, head: &RequestHead) -> Result<(), Answer> {
    if wanted.is_none() && secured.profile.is_none() {
        return Ok(());
    }
    let same_host = secured.server_name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(head.host()));
    if !same_host && secured.profile.as_deref() != wanted {
        return Err(Answer::new(421, "This connection was made for another host."));
    }
    match wanted {
        Some(wanted) if !secured.verified || secured.profile.as_deref() != Some(wanted) => Err(no_certificate()),
        Some(_) | None => Ok(()),
    }
}

fn no_certificate() -> Answer {
    Answer::new(403, "The service asks for a client certificate.")
}

fn redirect(client: &Client, head: &RequestHead) -> Result<(), Answer> {
    let Some(tls) = &client.worker.shared.tls else { return Ok(()) };
    let (certificates, port) = (tls.certificates(), client.settings.https_redirect);
    // Where nothing comes of it, the name is not read.
    let idle = port.is_none() && !certificates.come_on_demand();
    if idle || head.target() == "*" || client.peer.came_by_tls(head) {
        return Ok(());
    }
    let Some(host) = Host::read(head.host()) else { return Ok(()) };
    if !certificates.certify(host.as_str()) {
        if client.worker.shared.ports.has_https() {
            certificates.wish_for(host.as_str());
        }
        return Ok(());
    }
    port.map_or(Ok(()), |port| Err(over_tls(head, port)))
}

/// What one is told who is to ask the same of this port, through TLS.
pub(super) fn over_tls(head: &RequestHead, port: u16) -> Answer {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let location = format!("https://{}{port}{}", head.host(), head.target());
    Answer { location: Some(location), ..Answer::new(308, "The service is reached through HTTPS.") }
}

/// Whom TLS is spoken to at an endpoint.
pub(super) fn target(route: &RouteSpec, at: Spot) -> Result<TlsTarget, Answer> {
    TlsTarget::new(&server_name(route, at), &route.options.upstream.tls).map_err(|error| {
        tracing::warn!(route = %route.alias, %error, "no TLS to the service");
        Answer::new(502, "The service can not be reached safely.")
    })
}

/// The name that the certificate of an endpoint must bear, where the route does not say another.
fn server_name(route: &RouteSpec, at: Spot) -> String {
    match &route.target {
        RouteTarget::Address { host, .. } => host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        RouteTarget::Backend { .. } | RouteTarget::Down { .. } | RouteTarget::Group(_) => at.address().ip().to_string(),
    }
}

/// Speaks TLS to an endpoint, for a question of our own.
pub(in crate::proxy) async fn tls_to(
    shared: &Shared,
    route: &RouteSpec,
    at: Spot,
    tcp: TcpStream,
) -> Result<Box<TlsStream>, NoUpstreamTls> {
    let settings = &route.options.upstream.tls;
    let target = TlsTarget::new(&server_name(route, at), settings);
    let target = target.map_err(|error| NoUpstreamTls::Settings(error.to_string()))?;
    Ok(shared.tls_clients.connect(tcp, &target, settings, Offer::Http1).await?.0)
}

/// What this client is told to remember of the host that it asked for.
pub(super) fn hsts<'a>(client: &'a Client, head: &RequestHead) -> Option<&'a str> {
    let (secured, hsts) = (client.secured.as_ref()?, client.settings.hsts.as_deref()?);
    (secured.certified && secured.server_name.as_deref()?.eq_ignore_ascii_case(head.host())).then_some(hsts)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        model::{Served, Transport, UpstreamTls},
        net::{Certificates, Ends, TlsClients},
    };

    async fn ends() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn at_a_shutdown_a_handshake_under_way_is_ended_only_when_it_does_not_go_on() {
        let serves = Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None));
        let tls = Arc::new(TlsServer::new(Arc::new(serves)).unwrap());
        let https = Https { tls, beside: Arc::default(), streams: Box::new(|_| Box::pin(async {})) };
        let source = "192.0.2.7:4711".parse().unwrap();
        let caller = Caller { transport: Transport::Tcp, ends: Ends { source, destination: source } };
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let (near, far) = ends().await;
        let settings = UpstreamTls { verify: false, ..UpstreamTls::default() };
        let (clients, target) = (TlsClients::default(), TlsTarget::new("app.test", &settings).unwrap());
        let connect = clients.connect(near, &target, &settings, Offer::Http1);
        let mut begun = 0;
        let (accepted, connected) = tokio::join!(meet(&https, far, caller, &shutdown, || begun += 1), connect);
        assert!(matches!(accepted, Met::Secured(..)) && connected.is_ok() && begun == 1);
        let (_silent, far) = ends().await;
        assert!(matches!(meet(&https, far, caller, &shutdown, || begun += 1).await, Met::Nobody));
        assert_eq!(begun, 1, "who says nothing begins nothing");
    }
}
