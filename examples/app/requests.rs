//! What is asked over HTTP, and what is answered.

use std::{
    io::{self, BufReader, Write},
    net::{Shutdown, TcpStream},
    process,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use crate::{
    App,
    http::{Body, Head},
    journal::{InHand, note, now},
    options::number,
    websocket::web_socket,
};

/// One connection: requests one after the other.
pub(crate) fn converse(app: &App, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while let Some(request) = Head::read(&mut input)? {
        let count = app.requests.fetch_add(1, Ordering::SeqCst) + 1;
        note(&app.options, &format!("begin {} {}", request.method, request.target));
        let in_hand = InHand::take();
        if app.options.contains_key("hang") {
            thread::park();
        }
        if count == number(&app.options, "crash-after", 0) {
            process::exit(70);
        }
        if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if request.path == "/ws" && request.header("upgrade").is_some() {
            return web_socket(&request, &mut input, &mut output);
        }
        let body = request.body(&mut input)?;
        let answered_whole = !matches!(request.path.as_str(), "/slow" | "/stream" | "/download");
        let in_hand = (!answered_whole).then_some(in_hand);
        if Instant::now() < app.ready {
            plain(&mut output, &request, 503, "not ready yet\n")?;
        } else {
            answer(app, &request, &body, &mut output)?;
        }
        drop(in_hand);
        if request.closes() {
            break;
        }
    }
    output.shutdown(Shutdown::Write)
}

fn answer(app: &App, request: &Head, body: &Body, output: &mut TcpStream) -> io::Result<()> {
    let query = |name: &str, default: u64| request.query(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    match request.path.as_str() {
        "/echo" => plain(output, request, 200, &echo(request, body)),
        "/slow" => {
            thread::sleep(Duration::from_millis(query("ms", 1000)));
            plain(output, request, 200, "slow\n")
        }
        "/stream" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            output.write_all(head.as_bytes())?;
            for index in 0..query("n", 10) {
                let event = format!("id: {index}\ndata: {}\n\n", now());
                output.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
                thread::sleep(Duration::from_millis(query("ms", 1000)));
            }
            output.write_all(b"0\r\n\r\n")
        }
        "/download" => download(output, query("bytes", 1 << 20), query("rate", 0)),
        path => match path.strip_prefix("/status/").and_then(|status| status.parse().ok()) {
            Some(status) => plain(output, request, status, "as you wish\n"),
            None => {
                let who =
                    format!("hello from pid {} started {} listened {}\n", process::id(), app.started, app.listened);
                plain(output, request, 200, &who)
            }
        },
    }
}

fn plain(output: &mut TcpStream, request: &Head, status: u16, text: &str) -> io::Result<()> {
    let close = if request.closes() { "Connection: close\r\n" } else { "" };
    let location = if (301..304).contains(&status) { "Location: /landed\r\n" } else { "" };
    let has_body = status >= 200 && status != 204 && status != 304;
    let length = if has_body { format!("Content-Length: {}\r\n", text.len()) } else { String::new() };
    let text = if has_body && request.method != "HEAD" { text } else { "" };
    let answer = format!("HTTP/1.1 {status} Answer\r\nContent-Type: text/plain\r\n{length}{location}{close}\r\n{text}");
    output.write_all(answer.as_bytes())
}

/// At `rate` bytes a second, or as fast as it goes.
fn download(output: &mut TcpStream, bytes: u64, rate: u64) -> io::Result<()> {
    output.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").as_bytes())?;
    let piece = vec![b'd'; 16 << 10];
    let at_once = if rate == 0 { piece.len() as u64 } else { (rate / 20).clamp(1, piece.len() as u64) };
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left.min(at_once)).unwrap_or(piece.len());
        output.write_all(piece.get(..now).unwrap_or_default())?;
        left -= now as u64;
        if rate > 0 {
            thread::sleep(Duration::from_secs_f64(now as f64 / rate as f64));
        }
    }
    Ok(())
}

fn echo(request: &Head, body: &Body) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let headers: Vec<_> =
        request.headers.iter().map(|(name, value)| format!("[{},{}]", quoted(name), quoted(value))).collect();
    format!(
        "{{\"method\":{},\"target\":{},\"headers\":[{}],\"length\":{},\"sha256\":\"{}\"}}\n",
        quoted(&request.method),
        quoted(&request.target),
        headers.join(","),
        body.length,
        body.sha256,
    )
}
