//! The first bytes of a client, read before it is known where they go.

use std::{io, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    model::Opening,
    net::{Hello, Judgement, LONGEST_HELLO, client_hello, judge},
};

/// What was read of a client so far, and goes to its endpoint first.
#[derive(Debug, Default)]
pub(super) struct First(Vec<u8>);

impl First {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    /// So many bytes were ours.
    pub(super) fn consume(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len()));
    }

    /// The name in the client's TLS hello: `Some(None)` where it names none, or what it says is no hello; `None` when
    /// it left or said too little in time.
    pub(super) async fn name(&mut self, stream: &TcpStream, patience: Duration) -> Option<Option<String>> {
        let read = async {
            loop {
                match client_hello(&self.0) {
                    Hello::Whole { name } => return Some(name),
                    Hello::Not => return Some(None),
                    Hello::More => self.read(stream).await.ok()?,
                }
            }
        };
        timeout(patience, read).await.ok().flatten()
    }

    /// Whether the client begins with one of these openings, in time.
    pub(super) async fn opens(&mut self, stream: &TcpStream, openings: &[Opening], patience: Duration) -> bool {
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
    pub(super) async fn read(&mut self, stream: &TcpStream) -> io::Result<()> {
        let room = LONGEST_HELLO.saturating_sub(self.0.len());
        if room == 0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        loop {
            stream.readable().await?;
            // Reserved only once there is something: a client that is silent costs nothing.
            self.0.reserve(room.min(2048));
            match stream.try_read_buf(&mut self.0) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
