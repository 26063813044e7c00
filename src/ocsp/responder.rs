//! Asks a responder by HTTP. Its address comes from a certificate: nothing of it is trusted but what is signed.

use std::{io, time::Duration};

use http::Uri;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// A responder has so long, from its name's look-up to the last byte.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// A larger answer is none: it would be part of every handshake.
pub(super) const LARGEST: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoReply {
    #[error("the responder's address can not be used")]
    Address,
    #[error("the responder is not reached: {0}")]
    Unreachable(#[from] io::Error),
    #[error("the connection to the responder failed: {0}")]
    Cut(#[from] hyper::Error),
    #[error("the responder answers with status {0}")]
    Status(StatusCode),
    #[error("the responder's answer is larger than {LARGEST} bytes")]
    TooLarge,
    #[error("the responder's answer broke off")]
    Broken,
    #[error("the responder has not answered within {} s", .0.as_secs())]
    Late(Duration),
}

/// Asks, within a time. Nowhere else but there: an answer that sends elsewhere is none.
pub(super) async fn ask(responder: &Uri, request: Vec<u8>, patience: Duration) -> Result<Vec<u8>, NoReply> {
    tokio::time::timeout(patience, exchange(responder, request)).await.unwrap_or(Err(NoReply::Late(patience)))
}

async fn exchange(responder: &Uri, request: Vec<u8>) -> Result<Vec<u8>, NoReply> {
    let authority = responder.authority().ok_or(NoReply::Address)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this question, answered or not.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let path = responder.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/ocsp-request")
        .header(header::ACCEPT, "application/ocsp-response")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(request)))
        .map_err(|_| NoReply::Address)?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(NoReply::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| if error.is::<LengthLimitError>() { NoReply::TooLarge } else { NoReply::Broken });
    Ok(body?.to_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// What comes of a responder that reads the question, sends this and leaves the connection open or not.
    async fn asked(reply: Vec<u8>, stays: bool, patience: Duration) -> (Result<Vec<u8>, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Uri = format!("http://{}/a?b=c", listener.local_addr().unwrap()).parse().unwrap();
        let responder = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"question") {
                assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "{seen:?}");
            }
            let _ = stream.write_all(&reply).await;
            if stays {
                // Until the other side has had enough.
                let _ = stream.read(&mut [0]).await;
            }
            String::from_utf8(seen).unwrap()
        });
        let got = ask(&address, b"question".to_vec(), patience).await.map_err(|error| error.to_string());
        (got, responder.await.unwrap())
    }

    #[tokio::test]
    async fn what_is_answered_is_got_within_bounds() {
        let reply = |body: &[u8]| {
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
        };
        let (got, seen) = asked(reply(b"answer"), true, PATIENCE).await;
        assert_eq!(got.as_deref(), Ok(&b"answer"[..]));
        assert!(seen.starts_with("POST /a?b=c HTTP/1.1\r\nhost: 127.0.0.1:"), "{seen}");
        assert!(seen.contains("content-type: application/ocsp-request\r\n"), "{seen}");
        let check = async |reply: &[u8], stays: bool, expected: &str| {
            let (got, _) = asked(reply.to_vec(), stays, PATIENCE).await;
            let told = got.unwrap_err();
            assert!(told.contains(expected), "{expected}: {told}");
        };
        assert_eq!(asked(reply(&vec![1; LARGEST]), true, PATIENCE).await.0.unwrap().len(), LARGEST);
        check(&reply(&vec![1; LARGEST + 1]), true, "is larger than 16384 bytes").await;
        let mut endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        endless.extend(
            std::iter::repeat_n("400\r\n".to_owned() + &"x".repeat(0x400) + "\r\n", 20).flat_map(String::into_bytes),
        );
        check(&endless, true, "is larger than 16384 bytes").await;
        check(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", true, "status 302")
            .await;
        check(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", true, "status 500").await;
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", false, "broke off").await;
        check(b"SSH-2.0-x\r\n", false, "the connection to the responder failed").await;
    }

    #[tokio::test]
    async fn one_that_hangs_is_left() {
        for reply in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"] {
            let (got, _) = asked(reply.to_vec(), true, Duration::from_millis(200)).await;
            assert!(got.unwrap_err().contains("has not answered within"));
        }
    }

    #[tokio::test]
    async fn one_that_is_not_there_is_told() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = format!("http://{gone}/").parse().unwrap();
        let told = ask(&address, Vec::new(), PATIENCE).await.unwrap_err().to_string();
        assert!(told.starts_with("the responder is not reached: "), "{told}");
    }
}
