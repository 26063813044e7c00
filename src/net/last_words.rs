//! The last that is said on a connection.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Says this to a client and ends the connection, but stays until it has read that: so long, and so many bytes that it
/// still sends.
pub async fn say_last(mut stream: TcpStream, words: &[u8], (time, most): (Duration, usize)) {
    let tell = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        // What it sends is read away: closed before, the answer might not reach it.
        let mut rest = stream.take(most as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // It has left, or is not worth a longer wait.
    let _ = tokio::time::timeout(time, tell).await;
}
