//! A backend that answers with what it was asked, and keeps what it saw.
//!
//! By the beginning of the path: `/switch` takes an upgrade and sends back what comes through it, `/decline` refuses
//! one with 426, `/early` answers 413 as soon as it has the head. Everything else is answered with 200 and
//! `METHOD TARGET LENGTH` once all of it is there; `Expect: 100-continue` is granted when the head is.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::wire::{self, Message};

/// The backend, for as long as the test runs.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

/// What the backend saw since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Whole requests, in the order of their ends.
    pub(crate) whole: Vec<Seen>,
    /// What a strict reader would not take, in words.
    pub(crate) wrong: Vec<String>,
    /// Bytes of requests that are not whole, by connection.
    pub(crate) parts: BTreeMap<usize, Vec<u8>>,
}

/// A whole request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) message: Message,
    pub(crate) raw: Vec<u8>,
}

impl Echo {
    /// Starts it on a port of its own.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the backend");
        let address = listener.local_addr().expect("the backend's address");
        let log = Arc::new(Mutex::new(Log::default()));
        let shared = Arc::clone(&log);
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let log = Arc::clone(&shared);
                thread::spawn(move || stream.map(|stream| serve(stream, connection, &log)));
            }
        });
        Self { address, log }
    }

    /// Hands out what was seen and forgets it.
    pub(crate) fn take(&self) -> Log {
        std::mem::take(&mut self.log.lock().expect("the log"))
    }
}

/// Serves one connection to its end. An error ends it like a close does.
fn serve(mut stream: TcpStream, connection: usize, log: &Mutex<Log>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let mut granted = false;
    let mut block = vec![0; 65_536];
    stream.set_nodelay(true)?;
    loop {
        let message = match wire::request(&buffer) {
            Ok(message) => message,
            Err(why) => {
                let shown = crate::case::escape(&buffer);
                log.lock().expect("the log").wrong.push(format!("{why} in: {shown}"));
                return stream.write_all(b"HTTP/1.1 400 Wrong\r\nx-echo: wrong\r\nContent-Length: 0\r\n\r\n");
            }
        };
        match message {
            Some(message) if message.whole || is(&message, "/early") => {
                granted = false;
                let rest = buffer.split_off(message.taken);
                note(log, connection, &message, &buffer, &rest);
                buffer = rest;
                if is(&message, "/switch") && !message.head.all("upgrade").is_empty() {
                    return tunnel(stream, &message);
                }
                answer(&mut stream, &message)?;
                if !message.whole {
                    // The connection is of no more use: what comes is read to its end, so that the answer is not lost.
                    while stream.read(&mut block)? > 0 {}
                    return Ok(());
                }
                continue;
            }
            Some(message) if !granted && !message.head.all("expect").is_empty() => {
                granted = true;
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            Some(_) | None => {}
        }
        let count = stream.read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&block[..count]);
        log.lock().expect("the log").parts.insert(connection, buffer.clone());
    }
}

fn is(message: &Message, path: &str) -> bool {
    message.head.words()[1].starts_with(path)
}

fn note(log: &Mutex<Log>, connection: usize, message: &Message, raw: &[u8], rest: &[u8]) {
    let mut log = log.lock().expect("the log");
    log.parts.remove(&connection);
    if !rest.is_empty() {
        log.wrong.push(format!("bytes before the answer: {}", crate::case::escape(rest)));
    }
    log.whole.push(Seen { message: message.clone(), raw: raw.to_vec() });
}

fn answer(stream: &mut TcpStream, message: &Message) -> std::io::Result<()> {
    let words = message.head.words();
    let body = format!("{} {} {}\n", words[0], words[1], message.body.len());
    let status = match message {
        early if is(early, "/early") => "413 Content Too Large",
        decline if is(decline, "/decline") => "426 Upgrade Required",
        _ => "200 OK",
    };
    let mut text = format!("HTTP/1.1 {status}\r\nx-echo: yes\r\nContent-Length: {}\r\n\r\n", body.len());
    if words[0] != "HEAD" {
        text.push_str(&body);
    }
    stream.write_all(text.as_bytes())
}

fn tunnel(mut stream: TcpStream, message: &Message) -> std::io::Result<()> {
    let protocol = message.head.all("upgrade").join(", ");
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"; // of the key that the cases use
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nx-echo: yes\r\n{accept}Connection: upgrade\r\nUpgrade: {protocol}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    let mut block = vec![0; 65_536];
    loop {
        let count = stream.read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&block[..count])?;
    }
}
