//! The loads whose cost is compared.

use crate::{
    contender::{host, request},
    load::{Manner, Plan},
    wire::Front,
};

/// A load whose cost in processor time is compared, with the ratios to HAProxy that Dormouse must and would like to keep.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) must: f64,
    pub(crate) goal: f64,
    pub(crate) plan: Plan,
    /// Requests of one count of instructions or system calls; 0: these are not counted.
    pub(crate) counted: u64,
}

/// All of them, in the order of the table.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let keep = Manner::KeepAlive;
    let get = |path: &str, extra: &str| vec![request(path, &host(0), extra)];
    let plan = |connections, requests, manner| Plan { front: Front::Plain, connections, requests, manner };
    let over = |front, plan: Plan| Plan { front, ..plan };
    let line = |name, (must, goal), counted, plan| Scenario { name, must, goal, plan, counted };
    let once = || plan(32, get("/1k", "Connection: close\r\n"), Manner::Fresh);
    let messages = |connections| plan(connections, get("/ws", HANDSHAKE), Manner::WebSocket);
    vec![
        line("keep-alive", (0.85, 0.70), 2_000, plan(64, get("/1k", ""), keep)),
        line("new", (1.05, 0.95), 1_000, once()),
        line("64k", (0.90, 0.65), 500, plan(32, get("/64k", ""), keep)),
        line("1m", (0.75, 0.60), 100, plan(8, get("/1m", ""), keep)),
        line("chunked", (1.00, 0.85), 500, plan(32, get("/chunked", ""), keep)),
        line("post", (0.70, 0.50), 500, plan(64, vec![post()], keep)),
        line("websocket", (1.05, 0.90), 0, messages(32)),
        line("tls", (0.85, 0.70), 0, over(Front::Tls, plan(64, get("/1k", ""), keep))),
        line("handshake", (0.75, 0.58), 0, over(Front::Tls, once())),
        line("http2", (1.20, 1.00), 0, over(Front::Tls, plan(8, Vec::new(), Manner::Http2 { streams: 16 }))),
        line("tcp", (0.55, 0.35), 0, over(Front::Tcp, plan(8, get("/16m", ""), keep))),
        line("ping-pong", (1.10, 0.95), 0, over(Front::Tcp, messages(32))),
    ]
}

/// The head of a WebSocket handshake, beside what every request has.
const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A request with a body of 16 KiB.
fn post() -> Vec<u8> {
    let get = String::from_utf8_lossy(&request("/post", &host(0), "Content-Length: 16384\r\n")).into_owned();
    let mut post = get.replacen("GET", "POST", 1).into_bytes();
    post.resize(post.len() + 16_384, b'x');
    post
}

/// The first line of the table, and how many requests are counted of it.
pub(crate) fn keep_alive() -> Option<(Plan, u64)> {
    scenarios().into_iter().next().map(|scenario| (scenario.plan, scenario.counted))
}
