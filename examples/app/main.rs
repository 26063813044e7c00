//! A small app to put behind a proxy and to misbehave on demand. Only the standard library, so that it also builds in
//! seconds without anything else, as a static binary for an image:
//! `rustc --edition 2024 -O -C target-feature=+crt-static examples/app/main.rs`.
//!
//! Options (durations as `300ms`, `2s`, or plain milliseconds):
//! - `--port N` (80), `--address A` (0.0.0.0), `--backlog N` (1024)
//! - `--delay-start D`: does nothing for so long; `--exit-code N`: exits then
//! - `--delay-listen D`, `--never-listen`: listens late or not at all
//! - `--delay-ready D`: answers 503 for so long after it listens
//! - `--accept-then-close`, `--hang`, `--crash-after N`: closes, never answers, exits with 70 on the N-th request
//! - `--echo`: no HTTP, but every byte comes back, and at the end how many there were; datagrams come back too.
//!   With `--greet TEXT` it speaks first, and before each datagram
//! - `--ignore-term`, `--term-delay D`, `--term-file PATH`: what the signal TERM does; without them it writes
//!   `got TERM` and exits with 0
//! - `--journal PATH`: notes there what happens, a line each: `start`, `listen`, `begin` with method and target of a
//!   request, `open` and `end` or `cut` of a stream, `term` with the number of requests in hand; `--fail-starts N`: the first N starts in it end with code 1
//!
//! Paths: `/` (who it is), `/echo`, `/slow?ms=`, `/stream?ms=&n=` (events), `/download?bytes=&rate=`, `/ws` (echoes
//! messages), `/status/NNN` (a redirect leads to `/landed`); all others are as `/`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its log is its output")]

mod digest;
mod echoes;
mod http;
mod journal;
mod options;
mod requests;
mod system;
mod websocket;

use std::{
    fs, io,
    net::{TcpListener, UdpSocket},
    process,
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::Instant,
};

use journal::{note, now, say};
use options::{Options, number, time};

/// What all connections share.
pub(crate) struct App {
    pub(crate) options: Options,
    pub(crate) started: u128,
    pub(crate) listened: u128,
    pub(crate) ready: Instant,
    pub(crate) requests: AtomicU64,
}

fn main() {
    let started = now();
    let options = options::read();
    journal::watch_signals(&options);
    note(&options, "start");
    let notes = options.get("journal").and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let starts = notes.lines().filter(|line| line.ends_with(" start")).count() as u64;
    if starts > 0 && starts <= number(&options, "fail-starts", 0) {
        process::exit(1);
    }
    thread::sleep(time(&options, "delay-start"));
    if options.contains_key("exit-code") {
        say("ready");
        process::exit(i32::try_from(number(&options, "exit-code", 0)).unwrap_or(1));
    }
    thread::sleep(time(&options, "delay-listen"));
    if options.contains_key("never-listen") {
        say("ready to never listen");
        loop {
            thread::park();
        }
    }
    if let Err(error) = serve(options, started) {
        eprintln!("app: {error}");
        process::exit(1);
    }
}

fn serve(options: Options, started: u128) -> io::Result<()> {
    let port = u16::try_from(number(&options, "port", 80)).unwrap_or(80);
    let address = options.get("address").map_or("0.0.0.0", String::as_str).to_owned();
    let listener = TcpListener::bind((address.as_str(), port))?;
    system::set_backlog(&listener, i32::try_from(number(&options, "backlog", 1024)).unwrap_or(1024));
    let echo = options.contains_key("echo");
    if echo {
        let socket = UdpSocket::bind((address.as_str(), port))?;
        let noted = options.clone();
        thread::spawn(move || echoes::datagrams(&noted, &socket));
    }
    note(&options, "listen");
    let ready = Instant::now() + time(&options, "delay-ready");
    let app = Arc::new(App { options, started, listened: now(), ready, requests: AtomicU64::new(0) });
    say(&format!("ready on {} pid {}", listener.local_addr()?, process::id()));
    loop {
        let (stream, _) = listener.accept()?;
        if app.options.contains_key("accept-then-close") {
            continue;
        }
        let app = Arc::clone(&app);
        thread::Builder::new().stack_size(256 << 10).spawn(move || {
            let talk = if echo { echoes::stream(&app, stream) } else { requests::converse(&app, stream) };
            if let Err(error) = talk {
                say(&format!("connection: {error}"));
            }
        })?;
    }
}
