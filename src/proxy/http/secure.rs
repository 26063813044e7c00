//! What hangs on TLS: the handshake, who is sent to TLS, and what browsers are told to remember.

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::{
    net::{NoTls, Secured, TlsServer, TlsStream},
    routing::Host,
};

use super::{answer::Answer, front::Client, request_head::RequestHead};

/// Does the handshake. An error with a connection is one that speaks something else than TLS.
pub(super) async fn handshake(
    tls: &TlsServer,
    tcp: TcpStream,
    shutdown: &CancellationToken,
) -> Result<(Box<TlsStream>, Secured), Option<TcpStream>> {
    let accepted = tokio::select! {
        biased;
        accepted = tls.accept(tcp) => accepted,
        () = shutdown.cancelled() => return Err(None),
    };
    accepted.map_err(|error| match error {
        NoTls::Other(tcp) => Some(tcp),
        NoTls::Failed(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
    })
}

/// What one is told who speaks HTTP where TLS is spoken.
pub(super) fn speaks_tls() -> Answer {
    Answer::new(400, "This port speaks HTTPS; the request came as plain HTTP.")
}

/// Sends those to TLS who came in clear to a host that has a certificate.
pub(super) fn check(client: &Client, head: &RequestHead) -> Result<(), Answer> {
    let (Some(tls), Some(port)) = (&client.worker.shared.tls, client.settings.https_redirect) else { return Ok(()) };
    let certified = || Host::read(head.host()).is_some_and(|host| tls.certificates().certify(host.as_str()));
    if client.secured.is_some() || head.target() == "*" || client.peer.came_by_tls(head) || !certified() {
        return Ok(());
    }
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let location = format!("https://{}{port}{}", head.host(), head.target());
    Err(Answer { location: Some(location), ..Answer::new(308, "The service is reached through HTTPS.") })
}

/// What this client is told to remember of the host that it asked for.
pub(super) fn hsts<'a>(client: &'a Client, head: &RequestHead) -> Option<&'a str> {
    let (secured, hsts) = (client.secured.as_ref()?, client.settings.hsts.as_deref()?);
    (secured.certified && secured.server_name.as_deref()?.eq_ignore_ascii_case(head.host())).then_some(hsts)
}
