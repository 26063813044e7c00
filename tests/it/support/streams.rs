//! Clients of stream routes.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    dormouse::Dormouse,
    wait::{must, until},
};

/// Connects as soon as somebody listens.
pub(crate) async fn connect(to: SocketAddr) -> TcpStream {
    until("a listening port", async || TcpStream::connect(to).await, |stream| stream.is_ok()).await.unwrap()
}

/// Says this and no more, and returns all that comes back.
pub(crate) async fn talk(to: SocketAddr, text: &[u8]) -> std::io::Result<Vec<u8>> {
    let (mut read, mut write) = connect(to).await.into_split();
    let said = text.to_vec();
    let writing = tokio::spawn(async move {
        write.write_all(&said).await?;
        write.shutdown().await
    });
    let mut got = Vec::new();
    must("all that comes back", read.read_to_end(&mut got)).await?;
    must("all that is said", writing).await.unwrap()?;
    Ok(got)
}

/// What an echoing app answers to a client that says this and no more.
pub(crate) fn echoed(text: &[u8]) -> Vec<u8> {
    [text, format!("end {}", text.len()).as_bytes()].concat()
}

/// Connects, and is closed before any number of connections is open to serve this one.
pub(crate) async fn ends_at_once(dormouse: &Dormouse, to: SocketAddr) {
    let takes_no_more = async || loop {
        let open = std::fs::read_dir(format!("/proc/{}/fd", dormouse.pid())).unwrap().count();
        assert!(open < 200, "{open} descriptors are open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut stream = connect(to).await;
    let mut room = [0; 9];
    let end = tokio::select! {
        end = must("the end", stream.read(&mut room)) => end,
        () = takes_no_more() => unreachable!("it watches for ever"),
    };
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

/// A hello of TLS 1.2 without anything but a name.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let vector = |bytes: usize, content: &[u8]| {
        let length = content.len().to_be_bytes();
        [&length[length.len() - bytes..], content].concat()
    };
    let entry = [&[0][..], &vector(2, name.as_bytes())].concat();
    let extension = [&[0, 0][..], &vector(2, &vector(2, &entry))].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &vector(2, &[0x13, 1]), &[1, 0], &vector(2, &extension)].concat();
    let message = [&[1][..], &vector(3, &body)].concat();
    [&[22, 3, 1][..], &vector(2, &message)].concat()
}
