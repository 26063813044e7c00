//! The first bytes of a client, read before it is known where they go.

use std::{future::poll_fn, io, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::{
    model::Opening,
    net::{Hello, Judgement, LONGEST_HELLO, Stream, client_hello, judge},
};

/// What was read of a client so far, and goes to its endpoint first.
#[derive(Debug, Default)]
pub(in crate::proxy) struct First(Vec<u8>);

impl First {
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::proxy) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(in crate::proxy) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    /// So many bytes were ours.
    pub(in crate::proxy) fn consume(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len()));
    }

    /// Reads until it is known what the client says first: a whole hello of TLS, or something else. None when it left
    /// or said too little in time.
    pub(in crate::proxy) async fn hello(&mut self, stream: &TcpStream, patience: Duration) -> Option<Hello> {
        let read = async {
            loop {
                match client_hello(&self.0) {
                    Hello::More => self.read_socket(stream).await.ok()?,
                    known @ (Hello::Whole { .. } | Hello::Not) => return Some(known),
                }
            }
        };
        timeout(patience, read).await.ok().flatten()
    }

    /// Whether the client begins with one of these openings, in time.
    pub(in crate::proxy) async fn opens(
        &mut self,
        stream: &mut Stream,
        openings: &[Opening],
        patience: Duration,
    ) -> bool {
        let read = async {
            loop {
                match judge(openings, &self.0) {
                    Judgement::Yes => return true,
                    Judgement::No => return false,
                    Judgement::More => {
                        if self.read(stream).await.is_err() {
                            return false;
                        }
                    }
                }
            }
        };
        timeout(patience, read).await.unwrap_or(false)
    }

    /// Reads more, within the bound.
    pub(in crate::proxy) async fn read(&mut self, stream: &mut Stream) -> io::Result<()> {
        if let Stream::Plain(stream) = stream {
            return self.read_socket(stream).await;
        }
        let room = self.room()?;
        poll_fn(|cx| stream.poll_read_ready(cx)).await?;
        self.0.reserve(room);
        match stream.read_buf(&mut self.0).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// What is reserved for the next bytes.
    fn room(&self) -> io::Result<usize> {
        match LONGEST_HELLO.saturating_sub(self.0.len()) {
            0 => Err(io::ErrorKind::OutOfMemory.into()),
            room => Ok(room.min(2048)),
        }
    }

    async fn read_socket(&mut self, stream: &TcpStream) -> io::Result<()> {
        let room = self.room()?;
        loop {
            stream.readable().await?;
            // Reserved only once there is something: a client that is silent costs nothing.
            self.0.reserve(room);
            match stream.try_read_buf(&mut self.0) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
