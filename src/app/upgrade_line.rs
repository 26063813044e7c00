//! What the process before and the one after say to each other: sockets first, then a line of JSON for each word.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{legacy::Legacy, legacy_words::understood};

/// Said to the one after.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToNew {
    /// The state and the backends are yours. These are in use here: keep them awake. All that is known of them.
    Go {
        in_use: Vec<String>,
        #[serde(default, deserialize_with = "understood")]
        legacy: Legacy,
    },
    /// Wake this one and keep it awake.
    Hold { number: u64, backend: String },
    /// Nobody uses it here any more.
    Free { backend: String },
}

/// Said to the one before.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToOld {
    /// The configuration is well, and all sockets are open.
    Ready,
    /// It is not, or something else went wrong.
    Failed { why: String },
    /// Whoever comes is served.
    Taken,
    /// It is kept awake, or not, and why.
    Held { number: u64, refused: Option<String> },
    /// Nobody listens on these sockets of yours any more: let go of them, too. They are told by their inodes.
    Unwanted { sockets: Vec<u64> },
    /// Another one has taken over from this one: what is in use may go on, and nobody is to take this one's place.
    HandedOn,
    /// The program ends: end, too.
    Ending,
}

/// So many sockets go at once: the kernel passes no more than 253.
const AT_ONCE: usize = 200;

/// Marks that more sockets come, and that these were the last.
const MORE: u8 = b'+';
const LAST: u8 = b'.';

/// Sends sockets. Blocks until they are taken, or at least on their way.
pub(super) fn send_sockets(to: &StdUnixStream, sockets: &[impl AsRawFd]) -> io::Result<()> {
    let descriptors: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    for some in descriptors.chunks(AT_ONCE) {
        send(to, MORE, &[ControlMessage::ScmRights(some)])?;
    }
    send(to, LAST, &[])
}

fn send(to: &StdUnixStream, mark: u8, messages: &[ControlMessage<'_>]) -> io::Result<()> {
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&[mark])], messages, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Takes what [`send_sockets`] sends.
pub(super) fn take_sockets(from: &StdUnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    loop {
        let mut mark = [0];
        let mut slices = [IoSliceMut::new(&mut mark)];
        let mut space = cmsg_space!([i32; AT_ONCE]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let got = recvmsg::<()>(from.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        for message in got.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = message {
                sockets.extend(descriptors.into_iter().map(own));
            }
        }
        match (got.bytes, mark) {
            (1, [MORE]) => {}
            (1, [LAST]) => return Ok(sockets),
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[allow(unsafe_code, reason = "descriptors come as numbers")]
fn own(descriptor: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it for us, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// One end of the line.
#[derive(Debug)]
pub(super) struct Line {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Line {
    /// Must be called within a runtime.
    pub(super) fn new(stream: StdUnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        Ok(Self { lines: BufReader::new(read).lines(), write })
    }

    pub(super) async fn send(&mut self, word: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(word)?;
        text.push(b'\n');
        self.write.write_all(&text).await
    }

    /// The next word that is understood: the other side may be of another version, and say more.
    pub(super) async fn next_understood<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            match self.next().await {
                Err(error) if is_not_understood(&error) => {
                    tracing::debug!(%error, "a word of the other process is not understood");
                }
                understood => return understood,
            }
        }
    }

    /// The next word; `None` when the other side has ended. Nothing is lost when it is not waited for to the end.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        match self.lines.next_line().await? {
            Some(text) => Ok(Some(serde_json::from_str(&text)?)),
            None => Ok(None),
        }
    }
}

/// Whether it is a word that was read, and not a fault of the line.
fn is_not_understood(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<serde_json::Error>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_arrive_however_many() {
        let (here, there) = StdUnixStream::pair().unwrap();
        let sockets: Vec<OwnedFd> =
            (0..2 * AT_ONCE + 1).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()).collect();
        let taking = std::thread::spawn(move || take_sockets(&there).unwrap());
        send_sockets(&here, &sockets).unwrap();
        let taken = taking.join().unwrap();
        let inode = |socket: &OwnedFd| nix::sys::stat::fstat(socket).unwrap().st_ino;
        assert_eq!(taken.iter().map(inode).collect::<Vec<_>>(), sockets.iter().map(inode).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn words_that_are_not_understood_are_passed_over() {
        let (here, there) = StdUnixStream::pair().unwrap();
        let (mut here, mut there) = (Line::new(here).unwrap(), Line::new(there).unwrap());
        for word in [serde_json::json!({ "Later": 1 }), serde_json::json!("{"), serde_json::json!("Ready")] {
            here.send(&word).await.unwrap();
        }
        assert!(matches!(there.next_understood().await, Ok(Some(ToOld::Ready))));
        drop(here);
        assert!(matches!(there.next_understood::<ToOld>().await, Ok(None)));
    }

    #[test]
    fn what_is_not_understood_of_what_is_left_does_not_end_the_upgrade() {
        let text = r#"{"Go":{"in_use":["jobs/app"],"legacy":{"backends":7,"events":[],"more":{}}}}"#;
        assert!(matches!(serde_json::from_str(text), Ok(ToNew::Go { .. })));
        let text = r#"{"Go":{"in_use":["jobs/app"],"legacy":7}}"#;
        assert!(matches!(serde_json::from_str(text), Ok(ToNew::Go { .. })));
    }

    #[test]
    fn who_ends_before_the_last_socket_is_not_waited_for() {
        let (here, there) = StdUnixStream::pair().unwrap();
        send(&here, MORE, &[]).unwrap();
        drop(here);
        assert!(take_sockets(&there).is_err());
    }
}
