//! Raw responses: what the client sees of them, and that the next request gets its own answer.

use crate::{
    case::{self, Case},
    client::{Client, Reply},
    relay::Relay,
    requests::honest,
    script::{Script, Upstream},
    wire::Message,
};

/// What must follow a case's bytes.
#[derive(Debug, Default)]
struct Want {
    ask: Ask,
    /// Statuses of a whole response; empty: none may come.
    whole: Vec<u16>,
    /// Statuses of a response that ends before its time.
    cut: Vec<u16>,
    /// The connection may also end without any response.
    or_closed: bool,
    body: Option<Vec<u8>>,
    fields: Vec<(String, Vec<String>)>,
    lacks: Vec<String>,
    trailers: Vec<(String, String)>,
    interim: Option<Vec<u16>>,
    /// The upstream's connection serves the next request (or must not).
    reused: Option<bool>,
    /// How often the upstream is asked.
    times: Option<usize>,
    /// The client's connection closes after the answer.
    closes: bool,
    tunnel: Option<Vec<u8>>,
}

/// What the client asks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    #[default]
    Get,
    Head,
    Post,
    /// GET with HTTP/1.0.
    Old,
    /// An upgrade.
    Upgrade,
}

/// Runs all cases of a text against one relay, and hands back what went wrong.
pub(crate) fn run(text: &str) -> Vec<String> {
    let upstream = Upstream::start();
    let relay = Relay::start(upstream.address);
    let mut faults = Vec::new();
    for case in case::parse(text) {
        if let Err(why) = check(&case, &relay, &upstream) {
            faults.push(format!("case `{}`\n  answered: {}\n  {why}", case.name, case::escape(&case.bytes)));
        }
    }
    faults
}

/// Changed responses: whatever the upstream sends, the client sees a good response, whole or cut, and the next request
/// gets its own answer.
#[derive(Debug)]
pub(crate) struct Changed {
    upstream: Upstream,
    relay: Relay,
    /// Responses that reached the client whole.
    pub(crate) passed: usize,
}

impl Changed {
    /// Starts the upstream and the relay.
    pub(crate) fn start() -> Self {
        let upstream = Upstream::start();
        let relay = Relay::start(upstream.address);
        Self { upstream, relay, passed: 0 }
    }

    /// Answers a request with these bytes and then closes.
    pub(crate) fn check(&mut self, bytes: &[u8], ask: Ask) -> Result<(), String> {
        self.upstream.set(Script { bytes: bytes.to_vec(), close: true, ..Script::default() });
        let mut client = Client::connect(self.relay.address);
        client.send(ask.bytes());
        let sent = format!("{ask:?} was answered: {}", case::escape(bytes));
        match client.reply(if ask == Ask::Head { "HEAD" } else { "GET" }) {
            Reply::Whole(message, _) => {
                self.passed += usize::from(message.head.status() != 502);
                if message.head.status() == 101 && ask != Ask::Upgrade {
                    return Err(format!("{sent}\n  101 unasked"));
                }
            }
            Reply::Cut(_) | Reply::Closed => {}
            Reply::Wrong(why) => return Err(format!("{sent}\n  the client got nonsense: {why}")),
        }
        honest(&mut Client::connect(self.relay.address), "/honest/after").map_err(|why| format!("{sent}\n  {why}"))?;
        let (_, wrong) = self.upstream.asked();
        wrong.first().map_or(Ok(()), |why| Err(format!("{sent}\n  the upstream was sent no request: {why}")))
    }
}

fn check(case: &Case, relay: &Relay, upstream: &Upstream) -> Result<(), String> {
    let (want, script) = want(case);
    upstream.set(Script { bytes: case.bytes.clone(), ..script });
    let mut client = Client::connect(relay.address);
    client.send(want.ask.bytes());
    let outcome = answered(&mut client, &want);
    let mut next = Client::connect(relay.address);
    next.send(b"GET /honest/after HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let reply = next.reply("GET");
    outcome?;
    let Reply::Whole(message, _) = reply else { return Err(format!("honest got {reply:?}")) };
    if message.body != b"GET /honest/after 0\n" {
        return Err(format!("honest got another's answer: {}", case::escape(&message.body)));
    }
    behind(&message, &want, upstream)
}

/// What happened at the upstream.
fn behind(honest: &Message, want: &Want, upstream: &Upstream) -> Result<(), String> {
    let (asked, wrong) = upstream.asked();
    if let Some(wrong) = wrong.first() {
        return Err(format!("the upstream was sent no request: {wrong}"));
    }
    if want.times.is_some_and(|times| times != asked.len()) {
        return Err(format!("the upstream was asked {} times, not {:?}", asked.len(), want.times));
    }
    let same = honest.head.all("x-connection") == [asked.last().map_or(String::new(), ToString::to_string).as_str()];
    match want.reused {
        Some(true) if !same => Err("the upstream's connection was not used again".to_owned()),
        Some(false) if same => Err("the upstream's connection was used again".to_owned()),
        _ => Ok(()),
    }
}

fn answered(client: &mut Client, want: &Want) -> Result<(), String> {
    match client.reply(if want.ask == Ask::Head { "HEAD" } else { "GET" }) {
        Reply::Whole(message, interim) if want.whole.contains(&message.head.status()) => {
            seen(&message, &interim, want)?;
            afterwards(client, want)
        }
        Reply::Cut(message) if want.cut.contains(&message.head.status()) => Ok(()),
        Reply::Closed if want.or_closed => Ok(()),
        other => Err(format!("expected {:?} or a cut {:?}, got {other:?}", want.whole, want.cut)),
    }
}

fn seen(message: &Message, interim: &[u16], want: &Want) -> Result<(), String> {
    let Message { head, body, trailers, .. } = message;
    if want.interim.as_ref().is_some_and(|expected| expected != interim) {
        return Err(format!("expected interim {:?}, got {interim:?}", want.interim));
    }
    if want.body.as_ref().is_some_and(|expected| expected != body) {
        return Err(format!("the body was {}", case::escape(body)));
    }
    if let Some((name, values)) = want.fields.iter().find(|(name, values)| head.all(name) != *values) {
        return Err(format!("expected `{name}` to be {values:?}, the client saw {:?}", head.all(name)));
    }
    if let Some(name) = want.lacks.iter().find(|name| !head.all(name).is_empty()) {
        return Err(format!("`{name}` reached the client: {:?}", head.all(name)));
    }
    let same = |one: &(String, String), two: &(String, String)| one.0.eq_ignore_ascii_case(&two.0) && one.1 == two.1;
    match want.trailers.iter().find(|trailer| !trailers.iter().any(|seen| same(seen, trailer))) {
        Some(trailer) => Err(format!("expected the trailer {trailer:?}, got {trailers:?}")),
        None => Ok(()),
    }
}

/// The client's connection serves the next request, or closes in order.
fn afterwards(client: &mut Client, want: &Want) -> Result<(), String> {
    if let Some(bytes) = &want.tunnel {
        let back = client.take(bytes.len());
        return if back == *bytes { Ok(()) } else { Err(format!("the tunnel gave: {}", case::escape(&back))) };
    }
    if want.closes || want.ask == Ask::Old {
        return client.closes().map_err(|more| format!("more after the answer: {more}"));
    }
    match honest(client, "/honest/same") {
        Err(why) if !why.contains("Closed") => Err(why),
        _ => Ok(()),
    }
}

impl Ask {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Get, Self::Head, Self::Post, Self::Old, Self::Upgrade];

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Get => b"GET /case HTTP/1.1\r\nHost: app.test\r\n\r\n",
            Self::Head => b"HEAD /case HTTP/1.1\r\nHost: app.test\r\n\r\n",
            Self::Post => b"POST /case HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello",
            Self::Old => b"GET /case HTTP/1.0\r\nHost: app.test\r\n\r\n",
            Self::Upgrade => {
                b"GET /case HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            }
        }
    }
}

fn want(case: &Case) -> (Want, Script) {
    let mut want = Want::default();
    let mut script = Script::default();
    for (verb, rest) in &case.verdicts {
        let codes = || rest.split_whitespace().map(|code| code.parse().expect("a status")).collect::<Vec<u16>>();
        let pair = || {
            let (name, value) = rest.split_once(':').expect("a name and a value");
            let value: String = case::unescape(value.trim()).into_iter().map(char::from).collect();
            (name.to_owned(), value)
        };
        match verb.as_str() {
            "ask" => {
                want.ask = match rest.as_str() {
                    "HEAD" => Ask::Head,
                    "POST" => Ask::Post,
                    "1.0" => Ask::Old,
                    "upgrade" => Ask::Upgrade,
                    other => panic!("case `{}`: nobody asks `{other}`", case.name),
                }
            }
            "close" => script.close = true,
            "reset" => script.reset = true,
            "slow" => script.slow = true,
            "whole" => want.whole = codes(),
            "cut" => want.cut = codes(),
            "or-closed" => want.or_closed = true,
            "body" => want.body = Some(case::unescape(rest)),
            "field" => want.fields.push((pair().0, vec![pair().1])),
            "both" => want.fields.push((pair().0, pair().1.split(", ").map(str::to_owned).collect())),
            "lacks" => want.lacks.push(rest.clone()),
            "trailer" => want.trailers.push(pair()),
            "interim" => want.interim = Some(codes()),
            "reused" => want.reused = Some(true),
            "dropped" => want.reused = Some(false),
            "times" => want.times = Some(rest.parse().expect("a number")),
            "closes" => want.closes = true,
            "tunnel" => want.tunnel = Some(case::unescape(rest)),
            other => panic!("case `{}`: no such verdict: {other}", case.name),
        }
    }
    assert!(!want.whole.is_empty() || !want.cut.is_empty(), "case `{}` expects nothing", case.name);
    (want, script)
}
