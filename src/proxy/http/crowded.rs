//! What those are told for whom there is no place.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::answer::Answer;

/// When it is worth trying again: somebody may have left by then.
const FULL_FOR: Duration = Duration::from_secs(5);

/// Tells a client that there is no place for it, and stays until it has read that, within bounds.
pub(super) async fn turn_away(mut stream: TcpStream, is_secure: bool, (time, most): (Duration, usize)) {
    let tell = async {
        stream.write_all(&crowded(is_secure)).await?;
        stream.shutdown().await?;
        // What it sends is read away: closed before, the answer might not reach it.
        let mut rest = stream.take(most as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // It has left, or is not worth a longer wait.
    let _ = tokio::time::timeout(time, tell).await;
}

/// The same without staying: who has not sent its request yet may only see the end.
pub(super) fn turn_away_at_once(stream: TcpStream, is_secure: bool) {
    // A fresh socket takes a short answer, and what has come is read, so that closing is no reset.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write(&crowded(is_secure));
        let _ = stream.shutdown(Shutdown::Write);
    }
}

/// A fatal alert of TLS: an internal error (RFC 8446, 6.2). No handshake is spent on those who are turned away.
const CROWDED: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

fn crowded(is_secure: bool) -> Vec<u8> {
    if is_secure {
        return CROWDED.to_vec();
    }
    Answer::new(503, "Too many connections are open.").retry_after(FULL_FOR).write(None, false)
}

#[cfg(test)]
mod tests {
    use std::{io, net};

    use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore};

    use super::*;

    /// What a client of TLS makes of it.
    fn handshake(address: net::SocketAddr) -> io::Error {
        let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let mut session = ClientConnection::new(config.into(), "app.test".try_into().unwrap()).unwrap();
        let mut tcp = net::TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        session.complete_io(&mut tcp).unwrap_err()
    }

    #[tokio::test]
    async fn a_client_of_tls_is_told_in_its_own_words() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = tokio::task::spawn_blocking(move || handshake(address));
        let (stream, _) = listener.accept().await.unwrap();
        turn_away(stream, true, (Duration::from_secs(60), 1 << 20)).await;
        let error = client.await.unwrap();
        let told = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
        assert_eq!(told, Some(&Error::AlertReceived(AlertDescription::InternalError)), "{error}");
    }
}
