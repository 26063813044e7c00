//! An upstream that answers with exactly the bytes it is told to.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::wire;

/// The upstream, for as long as the test runs.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

/// What to answer to any request but the honest ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) bytes: Vec<u8>,
    /// It closes after them.
    pub(crate) close: bool,
    /// It resets after them.
    pub(crate) reset: bool,
    /// It sends them one by one.
    pub(crate) slow: bool,
}

#[derive(Debug, Default)]
struct Shared {
    script: Script,
    /// Connections of the scripted requests, one for each time that one arrived.
    asked: Vec<usize>,
    wrong: Vec<String>,
}

impl Upstream {
    /// Starts it on a port of its own.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the upstream");
        let address = listener.local_addr().expect("the upstream's address");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let of_threads = Arc::clone(&shared);
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let shared = Arc::clone(&of_threads);
                thread::spawn(move || stream.map(|stream| serve(stream, connection, &shared)));
            }
        });
        Self { address, shared }
    }

    /// Sets what comes next.
    pub(crate) fn set(&self, script: Script) {
        *self.shared.lock().expect("the script") = Shared { script, ..Shared::default() };
    }

    /// On which connections the scripted request arrived; what arrived that is no request.
    pub(crate) fn asked(&self) -> (Vec<usize>, Vec<String>) {
        let shared = self.shared.lock().expect("the script");
        (shared.asked.clone(), shared.wrong.clone())
    }
}

fn serve(mut stream: TcpStream, connection: usize, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let mut block = vec![0; 65_536];
    stream.set_nodelay(true)?;
    loop {
        match wire::request(&buffer) {
            Err(why) => {
                shared.lock().expect("the script").wrong.push(why);
                return Ok(());
            }
            Ok(Some(message)) if message.whole => {
                buffer.drain(..message.taken);
                let target = message.head.words()[1].to_owned();
                if target.starts_with("/honest") {
                    let body = format!("GET {target} 0\n");
                    let length = body.len();
                    let head =
                        format!("HTTP/1.1 200 OK\r\nx-connection: {connection}\r\nContent-Length: {length}\r\n\r\n");
                    stream.write_all(format!("{head}{body}").as_bytes())?;
                } else if !scripted(&mut stream, connection, shared)? {
                    return Ok(());
                }
                continue;
            }
            Ok(_) => {}
        }
        let count = stream.read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&block[..count]);
    }
}

/// Plays the script; says whether the connection goes on.
fn scripted(stream: &mut TcpStream, connection: usize, shared: &Mutex<Shared>) -> std::io::Result<bool> {
    let script = {
        let mut shared = shared.lock().expect("the script");
        shared.asked.push(connection);
        shared.script.clone()
    };
    if script.slow {
        script.bytes.iter().try_for_each(|byte| stream.write_all(&[*byte]))?;
    } else {
        stream.write_all(&script.bytes)?;
    }
    if script.reset {
        // Closing with a linger of zero sends a reset.
        let socket = socket2::SockRef::from(&*stream);
        socket.set_linger(Some(std::time::Duration::ZERO))?;
        return Ok(false);
    }
    if script.close {
        stream.shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        return Ok(false);
    }
    Ok(true)
}
