//! The one upstream of all contenders: answers from memory, so that it is never what is measured.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    process::{Child, Command},
    time::Duration,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

use crate::{
    contender::{self, LOAD_CORE, request},
    load,
    wire::Ports,
};

/// Length of a client's WebSocket frame in the echo scenario: head, mask, 64 bytes.
pub(crate) const FRAME_IN: usize = 2 + 4 + 64;
/// Length of the answer to it: head and 64 bytes, unmasked.
pub(crate) const FRAME_OUT: usize = 2 + 64;

const LISTENER: Token = Token(usize::MAX);
const READ_SIZE: usize = 256 * 1024;

/// The process of it; ended when dropped.
pub(crate) struct Upstream {
    child: Child,
    pub(crate) port: u16,
}

impl Upstream {
    pub(crate) fn start() -> io::Result<Self> {
        let port = contender::free_port()?;
        let own = std::env::current_exe()?;
        let child =
            Command::new("taskset").args(["-c", LOAD_CORE]).arg(own).args(["upstream", &port.to_string()]).spawn()?;
        let upstream = Self { child, port };
        for _ in 0..500 {
            if load::answers(Ports { http: port, https: 0, tcp: 0 }, &request("/1k", "up", "")) {
                return Ok(upstream);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other("the upstream does not answer"))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Answers {
    small: Vec<u8>,
    kib64: Vec<u8>,
    mib: Vec<u8>,
    mib16: Vec<u8>,
    chunked: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        Self {
            small: sized(1024),
            kib64: sized(64 * 1024),
            mib: sized(1024 * 1024),
            mib16: sized(16 * 1024 * 1024),
            chunked: {
                let mut answer = head("Transfer-Encoding: chunked");
                for _ in 0..8 {
                    answer.extend_from_slice(b"2000\r\n");
                    answer.resize(answer.len() + 8192, b'x');
                    answer.extend_from_slice(b"\r\n");
                }
                answer.extend_from_slice(b"0\r\n\r\n");
                answer
            },
        }
    }

    fn to(&self, path: &[u8]) -> &[u8] {
        match path {
            b"/64k" => &self.kib64,
            b"/1m" => &self.mib,
            b"/16m" => &self.mib16,
            b"/chunked" => &self.chunked,
            _ => &self.small,
        }
    }
}

fn head(framing: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\nCache-Control: no-cache\r\n\
         ETag: \"5f3-62a\"\r\nVary: Accept-Encoding\r\n{framing}\r\n\r\n"
    )
    .into_bytes()
}

fn sized(length: usize) -> Vec<u8> {
    let mut answer = head(&format!("Content-Length: {length}"));
    answer.resize(answer.len() + length, b'x');
    answer
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// Bytes of a request body that are still to come.
    body: usize,
    echo: bool,
}

/// Serves until it is killed.
pub(crate) fn serve(port: u16) -> io::Result<()> {
    let answers = Answers::new();
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut scratch = vec![0; READ_SIZE];
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let slot = free.pop().unwrap_or(connections.len());
                    poll.registry().register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
                    let connection =
                        Connection { stream, input: Vec::new(), output: Vec::new(), written: 0, body: 0, echo: false };
                    if slot == connections.len() {
                        connections.push(Some(connection));
                    } else {
                        connections[slot] = Some(connection);
                    }
                }
                continue;
            }
            let slot = event.token().0;
            if let Some(connection) = &mut connections[slot]
                && !connection.turn(&answers, &mut scratch)
            {
                connections[slot] = None;
                free.push(slot);
            }
        }
    }
}

impl Connection {
    /// Moves what can be moved; false when the connection is over.
    fn turn(&mut self, answers: &Answers, scratch: &mut [u8]) -> bool {
        loop {
            if !self.flush() {
                return false;
            }
            match self.stream.read(scratch) {
                Ok(0) => return false,
                Ok(count) => {
                    self.take(&scratch[..count], answers);
                    // A short read has emptied the socket; the next bytes bring a new event.
                    if count < scratch.len() {
                        return self.flush();
                    }
                }
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn flush(&mut self) -> bool {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        self.output.clear();
        self.written = 0;
        true
    }

    fn take(&mut self, bytes: &[u8], answers: &Answers) {
        self.input.extend_from_slice(bytes);
        loop {
            if self.echo {
                let frames = self.input.len() / FRAME_IN;
                self.input.drain(..frames * FRAME_IN);
                for _ in 0..frames {
                    self.output.extend_from_slice(&[0x82, 64]);
                    self.output.resize(self.output.len() + 64, b'x');
                }
                return;
            }
            let skipped = self.body.min(self.input.len());
            self.input.drain(..skipped);
            self.body -= skipped;
            if self.body > 0 {
                return;
            }
            let Some(end) = self.input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return };
            let head: Vec<u8> = self.input.drain(..end + 4).collect();
            self.answer(&head, answers);
        }
    }

    fn answer(&mut self, head: &[u8], answers: &Answers) {
        if field(head, b"upgrade").is_some() {
            self.echo = true;
            self.output.extend_from_slice(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            );
            return;
        }
        self.body = field(head, b"content-length")
            .and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok())
            .unwrap_or(0);
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        self.output.extend_from_slice(answers.to(path));
    }
}

/// The value of a header field, whose name is given in lower case.
fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(name).then(|| line[colon + 1..].trim_ascii())
    })
}
