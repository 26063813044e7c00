//! Raw requests: what is refused, what passes, and what the backend sees of it.

use crate::{
    case::{self, Case},
    client::{Client, Reply},
    echo::{Echo, Log, Seen},
    relay::Relay,
    ways::{Front, Way},
    wire::Message,
};

/// What must follow a case's bytes.
#[derive(Debug, Default)]
struct Want {
    steps: Vec<Step>,
    /// This refusal, of which the backend sees nothing, is as good as the steps.
    or_refused: Option<Vec<u16>>,
    /// This refusal, of which the backend sees a part at most, is as good as the steps.
    or_cut: Option<Vec<u16>>,
    /// This refusal is as good as the last step.
    or_last: Option<Vec<u16>>,
    /// The client ends its input after its bytes.
    end: bool,
    /// The client sends byte by byte.
    slow: bool,
    /// What becomes of the connection after the last answer.
    after: After,
    /// Bytes that come back through a tunnel after the last answer.
    tunnel: Option<Vec<u8>>,
}

/// What becomes of the connection after the last answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It serves the next request.
    #[default]
    Stays,
    Closes,
    /// Either.
    Any,
    /// The client leaves.
    Left,
}

/// How a case ended, of those ends it allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    AsWritten,
    /// Refused, and the backend saw nothing.
    Refused,
    /// Refused, and the backend saw no whole request.
    Cut,
    /// As written but for the last step, which was refused or left without an answer.
    LastRefused,
}

/// What becomes of one request.
#[derive(Debug)]
enum Step {
    /// The backend sees it and answers it.
    Pass(Pass),
    /// The relay answers one of these, closes, and the backend sees no byte.
    Refuse(Vec<u16>),
    /// The relay answers one of these or nothing, closes, and the backend never sees a whole request.
    Cut(Vec<u16>),
    /// The relay answers one of these itself and goes on.
    Answer(Vec<u16>),
}

#[derive(Debug, Default)]
struct Pass {
    method: String,
    targets: Vec<String>,
    /// Absent: any.
    body: Option<Vec<u8>>,
    fields: Vec<(String, Vec<String>)>,
    lacks: Vec<String>,
    not: Vec<(String, String)>,
    trailers: Vec<(String, String)>,
    no_trailers: bool,
    /// Zero: any.
    status: u16,
    no_interim: bool,
    /// That it is neither answered nor seen is as good.
    unanswered: bool,
}

/// Runs all cases of a text against one relay, and hands back what went wrong.
pub(crate) fn run(text: &str) -> Vec<String> {
    run_on(Way::Clear, text)
}

/// As [`run`], through TLS, and the backend is told so.
pub(crate) fn run_secure(text: &str) -> Vec<String> {
    run_on(Way::Secure, &text.replace("--- field x-forwarded-proto: http\n", "--- field x-forwarded-proto: https\n"))
}

/// As [`run`]. Each case finds the backend asleep.
pub(crate) fn run_asleep(text: &str) -> Vec<String> {
    run_on(Way::Asleep, text)
}

fn run_on(way: Way, text: &str) -> Vec<String> {
    let echo = Echo::start();
    let front = Front::start(way, echo.address);
    let (mut faults, mut late) = (Vec::new(), None);
    for case in case::parse(text) {
        front.sleep();
        if let Err(why) = check(&case, &front, &echo, &mut late) {
            faults.push(format!("case `{}`\n  sent: {}\n  {why}", case.name, case::escape(&case.bytes)));
        }
    }
    faults
}

/// Sends each request in two pieces, cut at each byte, and hands back what went wrong.
pub(crate) fn cut_everywhere(requests: &[&[u8]]) -> Vec<String> {
    let echo = Echo::start();
    let relay = Relay::start(echo.address);
    let mut faults = Vec::new();
    for (request, at) in requests.iter().flat_map(|request| (1..request.len()).map(move |at| (*request, at))) {
        let mut client = Client::connect(relay.address);
        client.send(&request[..at]);
        // Gives the relay time to see the first piece alone; nothing depends on whether it did.
        std::thread::sleep(std::time::Duration::from_micros(300));
        client.send(&request[at..]);
        let reply = client.reply("GET");
        let log = echo.take();
        let body: &[u8] = if request.starts_with(b"GET") { b"" } else { b"hello" };
        let arrived =
            log.wrong.is_empty() && log.parts.is_empty() && log.whole.len() == 1 && log.whole[0].message.body == body;
        if !arrived || !matches!(reply, Reply::Whole(ref message, _) if message.head.status() == 200) {
            let (first, second) = (case::escape(&request[..at]), case::escape(&request[at..]));
            faults.push(format!("`{first}` and `{second}`: {reply:?}\n  backend saw: {}", shown(&log)));
        }
    }
    faults
}

/// `late` is the beginning of a request that was cut in the last case, and that the backend may get to see only now.
fn check(case: &Case, front: &Front, echo: &Echo, late: &mut Option<Vec<u8>>) -> Result<(), String> {
    let want = want(case);
    let wakes = front.wakes();
    let mut client = front.connect();
    if want.slow {
        case.bytes.iter().for_each(|byte| client.send(&[*byte]));
    } else {
        client.send(&case.bytes);
    }
    if want.end {
        client.end();
    }
    let end = converse(&mut client, &want);
    let refused = want.steps.iter().all(|step| matches!(step, Step::Refuse(_))) || matches!(end, Ok(End::Refused));
    let woken = front.wakes() - wakes;
    let honest = honest(&mut front.connect(), "/honest/after");
    let mut log = echo.take();
    if let Some(late) = late.take() {
        log.parts.retain(|_, part| !part.starts_with(&late));
    }
    let may_be_cut = want.or_cut.is_some() || want.steps.iter().any(|step| matches!(step, Step::Cut(_)));
    if may_be_cut && log.parts.is_empty() {
        let words = case.bytes.split_inclusive(|byte| *byte == b' ').take(2);
        *late = Some(words.collect::<Vec<_>>().concat());
    }
    let outcome = end.and_then(|end| {
        honest?;
        if refused && woken > 0 {
            return Err("refused, and yet the backend was woken".to_owned());
        }
        forget_honest(&mut log)?;
        let all = want.steps.len();
        match end {
            End::AsWritten => seen(&want.steps, &log, want.steps.iter().any(|step| matches!(step, Step::Cut(_)))),
            End::Refused => seen(&[], &log, false),
            End::Cut => seen(&[], &log, true),
            End::LastRefused => seen(&want.steps[..all - 1], &log, false),
        }
    });
    outcome.map_err(|why| format!("{why}\n  backend saw: {}", shown(&log)))
}

/// Reads the answers.
fn converse(client: &mut Client, want: &Want) -> Result<End, String> {
    let last = want.steps.len() - 1;
    for (number, step) in want.steps.iter().enumerate() {
        let method = if let Step::Pass(pass) = step { pass.method.as_str() } else { "GET" };
        let reply = client.reply(method);
        if let Some((codes, end)) = other_end(want, number, last)
            && let Reply::Whole(message, _) = &reply
            && message.head.all("x-echo").is_empty()
        {
            own(message, codes)?;
            client.closes().map_err(|more| format!("more after the refusal: {more}"))?;
            return Ok(end);
        }
        if let (Step::Pass(Pass { unanswered: true, .. }), Reply::Closed) = (step, &reply) {
            return Ok(End::LastRefused);
        }
        answered(step, reply, client)?;
    }
    if let Some(bytes) = &want.tunnel {
        let back = client.take(bytes.len());
        return if back == *bytes {
            Ok(End::AsWritten)
        } else {
            Err(format!("the tunnel gave: {}", case::escape(&back)))
        };
    }
    if !matches!(want.steps[last], Step::Refuse(_) | Step::Cut(_)) {
        afterwards(client, want)?;
    }
    Ok(End::AsWritten)
}

fn other_end(want: &Want, number: usize, last: usize) -> Option<(&Vec<u16>, End)> {
    let first = if number == 0 { want.or_refused.as_ref().map(|codes| (codes, End::Refused)) } else { None };
    let cut = if number == 0 { want.or_cut.as_ref().map(|codes| (codes, End::Cut)) } else { None };
    let at_last = if number == last { want.or_last.as_ref().map(|codes| (codes, End::LastRefused)) } else { None };
    first.or(cut).or(at_last)
}

fn afterwards(client: &mut Client, want: &Want) -> Result<(), String> {
    let closes = |client: &mut Client| client.closes().map_err(|more| format!("more after the answers: {more}"));
    match want.after {
        _ if want.end => closes(client),
        After::Closes => closes(client),
        After::Stays => honest(client, "/honest/same"),
        After::Left => Ok(()),
        After::Any => {
            client.send(b"GET /honest/same HTTP/1.1\r\nHost: app.test\r\n\r\n");
            match client.reply("GET") {
                Reply::Closed => Ok(()),
                Reply::Whole(message, _) if message.body == b"GET /honest/same 0\n" => Ok(()),
                other => Err(format!("honest `/honest/same` got {other:?}")),
            }
        }
    }
}

fn answered(step: &Step, reply: Reply, client: &mut Client) -> Result<(), String> {
    match (step, reply) {
        (Step::Pass(pass), Reply::Whole(message, interim)) => answer_of(pass, &message, &interim),
        (Step::Answer(codes), Reply::Whole(message, _)) => own(&message, codes),
        (Step::Refuse(codes) | Step::Cut(codes), Reply::Whole(message, _)) => {
            own(&message, codes)?;
            client.closes().map_err(|more| format!("more after the refusal: {more}"))
        }
        (Step::Cut(_), Reply::Closed) => Ok(()),
        (step, Reply::Wrong(why)) => Err(format!("expected {step:?}, got nonsense: {why}")),
        (step, reply) => Err(format!("expected {step:?}, got {reply:?}")),
    }
}

fn answer_of(pass: &Pass, message: &Message, interim: &[u16]) -> Result<(), String> {
    let status = message.head.status();
    if message.head.all("x-echo").is_empty() || pass.status != 0 && status != pass.status {
        return Err(format!("expected the backend's {}, got {:?}", pass.status, message.head));
    }
    if pass.no_interim && !interim.is_empty() {
        return Err(format!("expected no interim response, got {interim:?}"));
    }
    let body = String::from_utf8_lossy(&message.body);
    let empty = pass.method == "HEAD" || status == 101;
    if !empty && !pass.targets.iter().any(|target| body.starts_with(&format!("{} {target} ", pass.method))) {
        return Err(format!("expected the answer to `{} {:?}`, got: {body}", pass.method, pass.targets));
    }
    Ok(())
}

fn own(message: &Message, codes: &[u16]) -> Result<(), String> {
    match codes.contains(&message.head.status()) && message.head.all("x-echo").is_empty() {
        true => Ok(()),
        false => Err(format!("expected the relay's own {codes:?}, got {:?}", message.head)),
    }
}

/// An honest request, which must get its own answer whatever was sent before it.
pub(crate) fn honest(client: &mut Client, target: &str) -> Result<(), String> {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n\r\n").as_bytes());
    match client.reply("GET") {
        Reply::Whole(message, _) if message.body == format!("GET {target} 0\n").as_bytes() => Ok(()),
        other => Err(format!("honest `{target}` got {other:?}")),
    }
}

fn forget_honest(log: &mut Log) -> Result<(), String> {
    let last = log.whole.pop().map(|seen| seen.message.head.words()[1].to_owned());
    if last.as_deref() != Some("/honest/after") {
        return Err(format!("the last request was {last:?}, not the honest one"));
    }
    log.whole.retain(|seen| seen.message.head.words()[1] != "/honest/same");
    Ok(())
}

fn seen(steps: &[Step], log: &Log, parts: bool) -> Result<(), String> {
    if let Some(wrong) = log.wrong.first() {
        return Err(wrong.clone());
    }
    if !log.parts.is_empty() && !parts {
        return Err("the backend saw part of a request".to_owned());
    }
    let passes = steps.iter().filter_map(|step| if let Step::Pass(pass) = step { Some(pass) } else { None });
    let passes: Vec<_> = passes.collect();
    if passes.len() != log.whole.len() {
        return Err(format!("expected {} requests at the backend, it saw {}", passes.len(), log.whole.len()));
    }
    passes.iter().zip(&log.whole).try_for_each(|(pass, seen)| {
        matches_pass(pass, &seen.message)?;
        invariants(seen)
    })
}

fn matches_pass(pass: &Pass, message: &Message) -> Result<(), String> {
    let Message { head, body, trailers, .. } = message;
    let words = head.words();
    if words[0] != pass.method || !pass.targets.iter().any(|target| target == words[1]) {
        return Err(format!("expected `{} {:?}` at the backend, it saw `{}`", pass.method, pass.targets, head.start));
    }
    if let Some(expected) = pass.body.as_ref().filter(|expected| *expected != body) {
        return Err(format!("expected the body {}, it was {}", case::escape(expected), case::escape(body)));
    }
    if let Some((name, values)) = pass.fields.iter().find(|(name, values)| head.all(name) != *values) {
        return Err(format!("expected `{name}` to be {values:?}, the backend saw {:?}", head.all(name)));
    }
    if let Some(name) = pass.lacks.iter().find(|name| !head.all(name).is_empty()) {
        return Err(format!("`{name}` reached the backend: {:?}", head.all(name)));
    }
    if let Some((name, value)) = pass.not.iter().find(|(name, value)| head.all(name).contains(&value.as_str())) {
        return Err(format!("`{name}: {value}` reached the backend"));
    }
    let same = |one: &(String, String), two: &(String, String)| one.0.eq_ignore_ascii_case(&two.0) && one.1 == two.1;
    let wrong = |trailer: &(String, String)| !trailers.iter().any(|seen| same(seen, trailer));
    if pass.no_trailers && !trailers.is_empty() || pass.trailers.iter().any(wrong) {
        return Err(format!("expected the trailers {:?}, the backend saw {trailers:?}", pass.trailers));
    }
    Ok(())
}

/// What holds of every request that reaches a backend.
pub(crate) fn invariants(seen: &Seen) -> Result<(), String> {
    let head = &seen.message.head;
    for name in ["x-forwarded-for", "x-real-ip"] {
        if head.all(name) != ["127.0.0.1"] {
            return Err(format!("`{name}` is {:?}, not the client's address", head.all(name)));
        }
    }
    for name in ["x-forwarded-proto", "x-forwarded-host"] {
        if head.all(name).len() != 1 {
            return Err(format!("`{name}` is {:?}, not one value", head.all(name)));
        }
    }
    for name in ["proxy", "proxy-connection", "proxy-authorization", "keep-alive", "http2-settings"] {
        if !head.all(name).is_empty() {
            return Err(format!("`{name}` reached the backend"));
        }
    }
    if head.all("te").iter().any(|value| !value.eq_ignore_ascii_case("trailers")) {
        return Err(format!("`te` is {:?}", head.all("te")));
    }
    let disguised = |name: &str| {
        let plain = name.to_ascii_lowercase().replace('_', "-");
        name.contains('_')
            && (plain.starts_with("x-forwarded-")
                || matches!(plain.as_str(), "x-real-ip" | "content-length" | "transfer-encoding"))
    };
    if let Some((name, _)) = head.fields.iter().find(|(name, _)| disguised(name)) {
        return Err(format!("`{name}` reached the backend, which may read it as the field with dashes"));
    }
    Ok(())
}

fn shown(log: &Log) -> String {
    let whole = log.whole.iter().map(|seen| format!("whole: {}", case::escape(&seen.raw)));
    let parts = log.parts.values().map(|part| format!("part: {}", case::escape(part)));
    let all: Vec<_> = whole.chain(parts).chain(log.wrong.iter().map(|wrong| format!("wrong: {wrong}"))).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join("\n    ") }
}

fn want(case: &Case) -> Want {
    let mut want = Want::default();
    for (verb, rest) in &case.verdicts {
        let codes = || rest.split(' ').map(|code| code.parse().expect("a status")).collect::<Vec<u16>>();
        match verb.as_str() {
            "refuse" => want.steps.push(Step::Refuse(codes())),
            "cut" => want.steps.push(Step::Cut(codes())),
            "answer" => want.steps.push(Step::Answer(codes())),
            "or-refuse" => want.or_refused = Some(codes()),
            "or-cut" => want.or_cut = Some(codes()),
            "or-refuse-last" => want.or_last = Some(codes()),
            "end" => want.end = true,
            "slow" => want.slow = true,
            "closes" => want.after = After::Closes,
            "closes-or-stays" => want.after = After::Any,
            "hang-up" => want.after = After::Left,
            "tunnel" => want.tunnel = Some(case::unescape(rest)),
            "pass" => {
                let (method, target) = rest.split_once(' ').expect("a method and a target");
                let pass = Pass { method: method.into(), targets: vec![target.into()], status: 200, ..Pass::default() };
                want.steps.push(Step::Pass(Pass { body: Some(Vec::new()), ..pass }));
            }
            detail => {
                let Some(Step::Pass(pass)) = want.steps.last_mut() else {
                    panic!("case `{}`: `{detail}` without a `pass` before it", case.name)
                };
                of_pass(pass, detail, rest);
            }
        }
    }
    assert!(!want.steps.is_empty(), "case `{}` expects nothing", case.name);
    want
}

fn of_pass(pass: &mut Pass, detail: &str, rest: &str) {
    let pair = || {
        let (name, value) = rest.split_once(':').expect("a name and a value");
        let value: String = case::unescape(value.trim()).into_iter().map(char::from).collect();
        (name.to_owned(), value)
    };
    match detail {
        "body" => pass.body = Some(case::unescape(rest)),
        "body-any" => pass.body = None,
        "field" => pass.fields.push((pair().0, vec![pair().1])),
        "both" => pass.fields.push((pair().0, pair().1.split(", ").map(str::to_owned).collect())),
        "lacks" => pass.lacks.push(rest.to_owned()),
        "lacks-trailers" => pass.no_trailers = true,
        "not" => pass.not.push(pair()),
        "no-interim" => pass.no_interim = true,
        "or-target" => pass.targets.push(rest.to_owned()),
        "status" => pass.status = rest.parse().expect("a status"),
        "status-any" => pass.status = 0,
        "trailer" => pass.trailers.push(pair()),
        "unanswered" => pass.unanswered = true,
        other => panic!("no such verdict: {other}"),
    }
}
