//! Sockets inside the network namespaces of other processes.
//!
//! A socket stays in the network that it was made in, whoever uses it later. So one thread goes into a namespace, makes
//! the socket, and goes home again. What always holds:
//! - That thread does nothing else, and ends should it not find home: nobody else ever runs in a foreign namespace.
//! - Nothing is kept of a namespace between two sockets: it goes when its container does.
//! - What is entered is that of the very process that was meant, never of one that has got its number since.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;

use crate::model::Process;

/// Why there is no way in.
#[derive(Debug, thiserror::Error)]
enum NoWay {
    /// There is nobody any more.
    #[error("the process whose network it is in has ended")]
    Ended,
    /// We lack the rights.
    #[error("its network namespace can not be entered: {0}")]
    Barred(io::Error),
    /// Something else, as a lack of descriptors.
    #[error(transparent)]
    Other(#[from] io::Error),
}

impl From<NoWay> for io::Error {
    fn from(no_way: NoWay) -> Self {
        match no_way {
            NoWay::Ended => Self::new(io::ErrorKind::ConnectionRefused, no_way),
            NoWay::Barred(_) => Self::new(io::ErrorKind::PermissionDenied, no_way),
            NoWay::Other(error) => error,
        }
    }
}

/// A socket that somebody waits for.
struct Wish {
    process: Process,
    kind: Type,
    made: oneshot::Sender<Result<Socket, NoWay>>,
}

/// The way to the thread, once somebody has needed it: one for all of the program, since a dial may come from anywhere
/// in it and the thread waits for nobody.
static THREAD: Mutex<Option<mpsc::Sender<Wish>>> = Mutex::new(None);

/// A socket inside the network namespace of a process, which does not block.
pub(super) async fn socket(process: Process, kind: Type) -> io::Result<Socket> {
    Ok(wish(process, kind).await?)
}

/// Whether the network namespace of a process may be entered at all; an error says why not, and what to do. A process that
/// has ended is no matter of that.
pub async fn may_enter(process: Process) -> Result<(), String> {
    match wish(process, Type::STREAM).await {
        Err(barred @ NoWay::Barred(_)) => Err(format!(
            "it is on no network, and {barred} (hint: give Dormouse the capabilities CAP_SYS_ADMIN and CAP_SYS_PTRACE, or \
             put it on a network, or name a `host`)"
        )),
        Ok(_) | Err(NoWay::Ended | NoWay::Other(_)) => Ok(()),
    }
}

async fn wish(process: Process, kind: Type) -> Result<Socket, NoWay> {
    let (made, socket) = oneshot::channel();
    send(Wish { process, kind, made })?;
    socket.await.unwrap_or_else(|_| Err(NoWay::Other(io::Error::other("the thread for it has ended"))))
}

/// Gives it to the thread, which is begun where there is none.
fn send(wish: Wish) -> io::Result<()> {
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    let unsent = match &*thread {
        Some(sender) => match sender.send(wish) {
            Ok(()) => return Ok(()),
            Err(mpsc::SendError(wish)) => wish,
        },
        None => wish,
    };
    let (sender, wishes) = mpsc::channel();
    thread::Builder::new().name("inside".to_owned()).stack_size(128 << 10).spawn(move || serve(&wishes))?;
    // It listens until it is dropped.
    let _ = sender.send(unsent);
    *thread = Some(sender);
    Ok(())
}

fn serve(wishes: &mpsc::Receiver<Wish>) {
    // Where it can not be known how to come home, nobody leaves.
    let Ok(home) = File::open("/proc/thread-self/ns/net") else { return };
    while let Ok(Wish { process, kind, made }) = wishes.recv() {
        // Who has given up keeps nobody waiting.
        if made.is_closed() {
            continue;
        }
        let (socket, is_home) = match leave_for(process) {
            Ok(()) => (make(kind), setns(&home, CloneFlags::CLONE_NEWNET).is_ok()),
            Err(no_way) => (Err(no_way), true),
        };
        // Nobody waits any more, or all is well.
        let _ = made.send(socket);
        if !is_home {
            return;
        }
    }
}

fn leave_for(process: Process) -> Result<(), NoWay> {
    setns(open(process)?, CloneFlags::CLONE_NEWNET).map_err(|error| barred(error.into()))
}

fn make(kind: Type) -> Result<Socket, NoWay> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The network namespace of the very process. All is read through one handle, which leads nowhere once it has ended.
fn open(process: Process) -> Result<File, NoWay> {
    let handle = File::open(format!("/proc/{}", process.pid)).map_err(ended)?;
    let file = |name| format!("/proc/self/fd/{}/{name}", handle.as_raw_fd());
    let stat = fs::read_to_string(file("stat")).map_err(ended)?;
    if !is_of(&stat, process) {
        return Err(NoWay::Ended);
    }
    File::open(file("ns/net")).map_err(ended)
}

/// Whether it lives, and was started when the process was that is meant.
fn is_of(stat: &str, process: Process) -> bool {
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let mut fields = fields.split_ascii_whitespace();
    let lives = !matches!(fields.next(), None | Some("Z" | "X"));
    lives && fields.nth(18).and_then(|started| started.parse().ok()) == Some(process.started)
}

/// What an error means at something of a process.
fn ended(error: io::Error) -> NoWay {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => NoWay::Ended,
        Some(_) | None => barred(error),
    }
}

fn barred(error: io::Error) -> NoWay {
    if error.kind() == io::ErrorKind::PermissionDenied { NoWay::Barred(error) } else { NoWay::Other(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This one, as `/proc` tells of it.
    fn ourselves() -> Process {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let started = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
        Process { pid: std::process::id(), started }
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let process = Process { pid: 7, started: 42 };
        let stat =
            |state, started| format!("7 (a) b (c) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {started} 9");
        assert!(is_of(&stat('S', 42), process));
        assert!(!is_of(&stat('S', 43), process), "another one has its number");
        assert!(!is_of(&stat('Z', 42), process), "it has ended");
        assert!(!is_of("7 (a", process));
    }

    #[tokio::test]
    async fn a_process_that_has_ended_refuses_connections() {
        let gone = Process { started: 0, ..ourselves() };
        let refused = socket(gone, Type::STREAM).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(refused.to_string().contains("has ended"), "{refused}");
        assert_eq!(may_enter(gone).await, Ok(()), "that is no lack of rights");
    }

    #[test]
    fn a_lack_of_rights_is_no_end() {
        assert!(matches!(ended(io::Error::from_raw_os_error(libc::EACCES)), NoWay::Barred(_)));
        assert!(matches!(ended(io::Error::from_raw_os_error(libc::EMFILE)), NoWay::Other(_)));
        assert!(matches!(ended(io::Error::from_raw_os_error(libc::ESRCH)), NoWay::Ended));
    }
}
