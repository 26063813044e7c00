//! The load: so many connections, each sending its next request when the answer to the last one is complete.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream as Blocking},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{
    http2,
    upstream::{FRAME_IN, FRAME_OUT},
    wire::{Front, Ports, Wire},
};

/// What one measurement sends.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) front: Front,
    pub(crate) connections: usize,
    /// Sent in turn.
    pub(crate) requests: Vec<Vec<u8>>,
    pub(crate) manner: Manner,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    KeepAlive,
    /// A new connection for each request.
    Fresh,
    /// After the handshake, 64-byte messages to and fro.
    WebSocket,
    /// Several requests at a time on each connection, over HTTP/2.
    Http2 {
        streams: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Elapsed(Duration),
    Requests(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) done: u64,
    /// Answers other than the expected one, and connections that broke.
    pub(crate) failed: u64,
}

enum Expect {
    Head,
    /// Bytes of a body still to come.
    Body(usize),
    /// A chunked body, up to its end mark.
    Chunked,
    /// The peer's end of the connection.
    End,
    /// Bytes of a WebSocket message.
    Message(usize),
}

struct Client {
    stream: Wire<TcpStream>,
    request: Vec<u8>,
    sent: usize,
    expect: Expect,
    head: Vec<u8>,
    tail: [u8; 5],
}

/// A whole head of a response, as far as the load needs it.
enum Head {
    Sized(usize),
    Chunked,
    Upgraded,
    Wrong,
}

/// Sends by the plan until it is time.
pub(crate) fn drive(ports: Ports, plan: &Plan, until: Until) -> io::Result<Outcome> {
    let port = ports.of(plan.front);
    if let Manner::Http2 { streams } = plan.manner {
        return http2::drive(port, plan.connections, streams, until);
    }
    let mut driver = Driver {
        port,
        plan,
        poll: Poll::new()?,
        next: 0,
        outcome: Outcome { done: 0, failed: 0 },
        scratch: vec![0; 256 * 1024],
    };
    let mut clients = Vec::with_capacity(plan.connections);
    for slot in 0..plan.connections {
        clients.push(driver.client(slot)?);
    }
    let started = Instant::now();
    let give_up = started + Duration::from_secs(120);
    let mut events = Events::with_capacity(1024);
    loop {
        match driver.poll.poll(&mut events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let slot = event.token().0;
            if !driver.turn(&mut clients[slot]) {
                clients[slot] = driver.client(slot)?;
            }
        }
        let over = match until {
            Until::Elapsed(time) => started.elapsed() >= time,
            Until::Requests(count) => driver.outcome.done + driver.outcome.failed >= count,
        };
        if over {
            return Ok(driver.outcome);
        }
        if Instant::now() > give_up {
            return Err(io::Error::other(format!("only {} answers in two minutes", driver.outcome.done)));
        }
    }
}

struct Driver<'a> {
    port: u16,
    plan: &'a Plan,
    poll: Poll,
    next: usize,
    outcome: Outcome,
    scratch: Vec<u8>,
}

impl Driver<'_> {
    fn client(&mut self, slot: usize) -> io::Result<Client> {
        let stream = Blocking::connect(SocketAddr::from(([127, 0, 0, 1], self.port)))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
        let stream = Wire::new(self.plan.front, stream)?;
        let request = self.next_request();
        Ok(Client { stream, request, sent: 0, expect: Expect::Head, head: Vec::new(), tail: [0; 5] })
    }

    fn next_request(&mut self) -> Vec<u8> {
        self.next += 1;
        self.plan.requests[self.next % self.plan.requests.len()].clone()
    }

    /// Moves what can be moved; false when this connection is over and a new one is wanted.
    fn turn(&mut self, client: &mut Client) -> bool {
        loop {
            while client.sent < client.request.len() {
                match client.stream.write(&client.request[client.sent..]) {
                    Ok(count) => client.sent += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return self.broken(),
                }
            }
            match client.stream.read(&mut self.scratch) {
                Ok(0) => {
                    return if matches!(client.expect, Expect::End) {
                        self.answered_and_closed()
                    } else {
                        self.broken()
                    };
                }
                Ok(count) => {
                    let bytes = std::mem::take(&mut self.scratch);
                    let sound = client.take(&bytes[..count], self);
                    self.scratch = bytes;
                    if !sound {
                        return self.broken();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return self.broken(),
            }
        }
    }

    fn answered_and_closed(&mut self) -> bool {
        self.outcome.done += 1;
        false
    }

    fn broken(&mut self) -> bool {
        self.outcome.failed += 1;
        false
    }
}

impl Client {
    /// Takes what arrived; false when it is not what was expected.
    fn take(&mut self, mut bytes: &[u8], driver: &mut Driver<'_>) -> bool {
        while !bytes.is_empty() {
            match &mut self.expect {
                Expect::Head => {
                    self.head.extend_from_slice(bytes);
                    let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else { return true };
                    let body = self.head.split_off(end + 4);
                    let head = read_head(&self.head);
                    self.head.clear();
                    bytes = &bytes[bytes.len() - body.len()..];
                    self.expect = match head {
                        Head::Sized(0) => return self.answered(driver) && bytes.is_empty(),
                        Head::Sized(length) => Expect::Body(length),
                        Head::Chunked => Expect::Chunked,
                        Head::Upgraded => {
                            self.next_message();
                            return bytes.is_empty();
                        }
                        Head::Wrong => return false,
                    };
                }
                Expect::Body(left) => {
                    if bytes.len() > *left {
                        return false;
                    }
                    *left -= bytes.len();
                    return *left > 0 || self.answered(driver);
                }
                Expect::Chunked => {
                    for byte in &bytes[bytes.len().saturating_sub(5)..] {
                        self.tail.rotate_left(1);
                        self.tail[4] = *byte;
                    }
                    return self.tail != *b"0\r\n\r\n" || self.answered(driver);
                }
                Expect::Message(left) => {
                    if bytes.len() > *left {
                        return false;
                    }
                    *left -= bytes.len();
                    if *left == 0 {
                        driver.outcome.done += 1;
                        self.next_message();
                    }
                    return true;
                }
                Expect::End => return false,
            }
        }
        true
    }

    fn answered(&mut self, driver: &mut Driver<'_>) -> bool {
        self.tail = [0; 5];
        if driver.plan.manner == Manner::Fresh {
            // Counted when the peer has closed too.
            self.expect = Expect::End;
            return true;
        }
        driver.outcome.done += 1;
        self.request = driver.next_request();
        self.sent = 0;
        self.expect = Expect::Head;
        true
    }

    fn next_message(&mut self) {
        self.request = vec![b'x'; FRAME_IN];
        self.request[..2].copy_from_slice(&[0x82, 0x80 | 64]);
        self.sent = 0;
        self.expect = Expect::Message(FRAME_OUT);
    }
}

fn read_head(head: &[u8]) -> Head {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    match text.get(9..12) {
        Some("200") => {}
        Some("101") => return Head::Upgraded,
        _ => return Head::Wrong,
    }
    if text.contains("\r\ntransfer-encoding: chunked\r\n") {
        return Head::Chunked;
    }
    text.split("\r\ncontent-length:")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.trim().parse().ok())
        .map_or(Head::Wrong, Head::Sized)
}

/// Opens connections that have had one answer and are kept.
pub(crate) fn idle_connections(
    ports: Ports,
    front: Front,
    count: usize,
    request: &[u8],
) -> io::Result<Vec<Wire<Blocking>>> {
    (0..count)
        .map(|_| {
            let mut wire = connect(ports, front)?;
            ask(&mut wire, request)?;
            Ok(wire)
        })
        .collect()
}

/// A connection that is waited for, ten seconds at most each time.
pub(crate) fn connect(ports: Ports, front: Front) -> io::Result<Wire<Blocking>> {
    let stream = Blocking::connect(SocketAddr::from(([127, 0, 0, 1], ports.of(front))))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    Wire::new(front, stream)
}

/// Asks, and waits for the whole answer.
pub(crate) fn ask(wire: &mut Wire<Blocking>, request: &[u8]) -> io::Result<()> {
    wire.write_all(request)?;
    read_answer(wire)
}

fn read_answer(stream: &mut impl Read) -> io::Result<()> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..count]);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        };
        match read_head(&answer[..end + 4]) {
            Head::Sized(length) if answer.len() >= end + 4 + length => return Ok(()),
            Head::Sized(_) if count > 0 => {}
            Head::Sized(_) | Head::Chunked | Head::Upgraded | Head::Wrong => {
                return Err(io::Error::other("not the expected answer"));
            }
        }
    }
}

/// Does a proxy answer there?
pub(crate) fn answers(ports: Ports, request: &[u8]) -> bool {
    idle_connections(ports, Front::Plain, 1, request).is_ok()
}
