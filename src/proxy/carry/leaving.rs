//! Whether a client has left.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

use crate::net::{Beneath, Came};

/// Resolves when the client has left.
pub(in crate::proxy) async fn gone(client: Beneath<'_>, incomplete: bool) {
    let mut leaving = Leaving::new(client, incomplete);
    poll_fn(|cx| leaving.poll(cx)).await;
}

/// Watches for a client that leaves: its connection is reset, or ended before the request did (`incomplete`).
/// Half-closing after a whole request is not leaving; a reset after that is.
pub(in crate::proxy) struct Leaving<'a> {
    client: Beneath<'a>,
    incomplete: bool,
    /// What is left to see once something came: a reset.
    reset: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
}

impl<'a> Leaving<'a> {
    pub(in crate::proxy) fn new(client: Beneath<'a>, incomplete: bool) -> Self {
        Self { client, incomplete, reset: None }
    }

    /// Ready when the client has left.
    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(reset) = &mut self.reset {
            return reset.as_mut().poll(cx);
        }
        let (client, came) = match self.client {
            Beneath::Socket(client) => (client, std::task::ready!(poll_come(client, cx))),
            Beneath::Tls(tls) => (tls.socket(), std::task::ready!(tls.poll_come(cx))),
            Beneath::Within(within) => return within.poll_left(cx),
        };
        match came {
            Ok(Came::Data) => {}
            Ok(Came::End) if !self.incomplete => {}
            Ok(Came::End) | Err(_) => return Poll::Ready(()),
        }
        // It may have gone for good, behind data that nobody reads too: let the kernel find out.
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(5))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        let _ = socket2::SockRef::from(client).set_tcp_keepalive(&keepalive);
        let reset = self.reset.insert(Box::pin(async move {
            let _ = client.ready(Interest::ERROR).await;
        }));
        reset.as_mut().poll(cx)
    }
}

/// What came on a socket in clear, without taking it.
fn poll_come(client: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<Came>> {
    loop {
        match std::task::ready!(client.poll_peek(cx, &mut ReadBuf::new(&mut [0]))) {
            Ok(0) => return Poll::Ready(Ok(Came::End)),
            Ok(_) => return Poll::Ready(Ok(Came::Data)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}
