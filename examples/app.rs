//! A small app to put behind a proxy and to misbehave on demand. Only the standard library, so that it also builds in
//! seconds without anything else, as a static binary for an image:
//! `rustc --edition 2024 -O -C target-feature=+crt-static examples/app.rs`.
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

use std::{
    collections::HashMap,
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream, UdpSocket},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

struct App {
    options: HashMap<String, String>,
    started: u128,
    listened: u128,
    ready: Instant,
    requests: AtomicU64,
}

fn main() {
    let started = now();
    let options = options();
    watch_signals(&options);
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

fn serve(options: HashMap<String, String>, started: u128) -> io::Result<()> {
    let port = u16::try_from(number(&options, "port", 80)).unwrap_or(80);
    let address = options.get("address").map_or("0.0.0.0", String::as_str).to_owned();
    let listener = TcpListener::bind((address.as_str(), port))?;
    system::set_backlog(&listener, i32::try_from(number(&options, "backlog", 1024)).unwrap_or(1024));
    let echo = options.contains_key("echo");
    if echo {
        let socket = UdpSocket::bind((address.as_str(), port))?;
        let noted = options.clone();
        thread::spawn(move || echo_datagrams(&noted, &socket));
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
            let talk = if echo { echo_stream(&app, stream) } else { converse(&app, stream) };
            if let Err(error) = talk {
                say(&format!("connection: {error}"));
            }
        })?;
    }
}

/// Every byte comes back, and at the end how many there were.
fn echo_stream(app: &App, mut stream: TcpStream) -> io::Result<()> {
    let _in_hand = InHand::take();
    note(&app.options, "open");
    stream.set_nodelay(true)?;
    if let Some(text) = app.options.get("greet") {
        stream.write_all(text.as_bytes())?;
    }
    let mut bytes = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => {
                total += count;
                stream.write_all(bytes.get(..count).unwrap_or_default())?;
            }
            Err(error) => {
                note(&app.options, &format!("cut {total}"));
                return Err(error);
            }
        }
    }
    stream.write_all(format!("end {total}").as_bytes())?;
    note(&app.options, &format!("end {total}"));
    Ok(())
}

fn echo_datagrams(options: &HashMap<String, String>, socket: &UdpSocket) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok((count, client)) = socket.recv_from(&mut bytes) {
        if bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            note(options, "datagram with a header");
        }
        let greeting = options.get("greet").map(String::as_bytes).unwrap_or_default();
        let _ = socket.send_to(&[greeting, bytes.get(..count).unwrap_or_default()].concat(), client);
    }
}

/// One connection: requests one after the other.
fn converse(app: &App, stream: TcpStream) -> io::Result<()> {
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

/// What stands before the body of a request.
struct Head {
    method: String,
    target: String,
    path: String,
    is_old: bool,
    headers: Vec<(String, String)>,
}

struct Body {
    length: u64,
    sha256: String,
}

impl Head {
    fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let first = line(input)?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut words = first.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, target, version) = (word(), word(), word());
        let mut headers = Vec::new();
        loop {
            let line = line(input)?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => break,
            }
        }
        let path = target.split('?').next().unwrap_or_default().to_owned();
        Ok(Some(Self { method, path, is_old: version == "HTTP/1.0", target, headers }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn query(&self, name: &str) -> Option<&str> {
        let pairs = self.target.split_once('?')?.1.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn closes(&self) -> bool {
        let connection = self.header("connection").unwrap_or_default().to_ascii_lowercase();
        connection.contains("close") || (self.is_old && !connection.contains("keep-alive"))
    }

    fn body(&self, input: &mut impl BufRead) -> io::Result<Body> {
        let mut hash = digest::Sha256::new();
        let mut length = 0;
        if self.header("transfer-encoding").is_some() {
            loop {
                let size = line(input)?;
                let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
                let size = size.map_err(|_| io::Error::other("a chunk without a size"))?;
                length += copy(input, size, &mut hash)?;
                if size == 0 {
                    while !line(input)?.is_empty() {}
                    break;
                }
                line(input)?;
            }
        } else {
            let size = self.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            length = copy(input, size, &mut hash)?;
        }
        Ok(Body { length, sha256: hash.finish() })
    }
}

fn copy(input: &mut impl BufRead, size: u64, hash: &mut digest::Sha256) -> io::Result<u64> {
    let mut piece = [0; 16 << 10];
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(piece.len()).min(piece.len());
        let length = input.read(piece.get_mut(..most).unwrap_or_default())?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.add(piece.get(..length).unwrap_or_default());
        left -= length as u64;
    }
    Ok(size)
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    input.by_ref().take(64 << 10).read_until(b'\n', &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned())
}

/// Sends every message back, answers pings and the closing handshake.
fn web_socket(request: &Head, input: &mut impl Read, output: &mut TcpStream) -> io::Result<()> {
    let key = request.header("sec-websocket-key").unwrap_or_default();
    let accept = digest::accept_key(key);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    output.write_all(head.as_bytes())?;
    loop {
        let mut start = [0; 2];
        input.read_exact(&mut start)?;
        let [first, second] = start;
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(take(input)?)),
            127 => u64::from_be_bytes(take(input)?),
            short => u64::from(short),
        };
        let mask: [u8; 4] = if second & 0x80 == 0 { [0; 4] } else { take(input)? };
        let mut payload = vec![0; usize::try_from(length).unwrap_or(0)];
        input.read_exact(&mut payload)?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        let first = if first & 0x0f == 9 { 0x8a } else { first };
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(u8::try_from(short).unwrap_or(0)),
            middle @ 126..65536 => {
                frame.push(126);
                frame.extend(u16::try_from(middle).unwrap_or(0).to_be_bytes());
            }
            long => {
                frame.push(127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        output.write_all(&frame)?;
        if first & 0x0f == 8 {
            return output.shutdown(Shutdown::Write);
        }
    }
}

fn take<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Requests in hand. What is answered in one piece is put down before it is answered: the client may know the answer
/// before this program runs on.
static IN_HAND: AtomicU64 = AtomicU64::new(0);

struct InHand;

impl InHand {
    fn take() -> Self {
        IN_HAND.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        IN_HAND.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A line in the journal, if one is kept.
fn note(options: &HashMap<String, String>, what: &str) {
    let Some(path) = options.get("journal") else { return };
    let line = format!("{} {} {what}\n", now(), process::id());
    let file = fs::File::options().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("app: {path}: {error}");
    }
}

fn watch_signals(options: &HashMap<String, String>) {
    let ignore = options.contains_key("ignore-term");
    let delay = time(options, "term-delay");
    let file = options.get("term-file").cloned();
    let options = options.clone();
    system::hold_back_signals();
    thread::spawn(move || {
        loop {
            let signal = system::next_signal();
            let name = match signal {
                system::SIGTERM => "TERM",
                system::SIGINT => "INT",
                _ => "HUP",
            };
            say(&format!("got {name}"));
            if signal == system::SIGTERM {
                note(&options, &format!("term {}", IN_HAND.load(Ordering::SeqCst)));
            }
            if signal == system::SIGHUP || (ignore && signal == system::SIGTERM) {
                continue;
            }
            if let Some(file) = &file
                && let Err(error) = fs::write(file, format!("got {name}\n"))
            {
                eprintln!("app: {file}: {error}");
            }
            thread::sleep(delay);
            process::exit(0);
        }
    });
}

fn options() -> HashMap<String, String> {
    let mut options = HashMap::new();
    let mut words = env::args().skip(1).peekable();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--") else { continue };
        let value = match name.split_once('=') {
            Some((name, value)) => {
                options.insert(name.to_owned(), value.to_owned());
                continue;
            }
            None => words.next_if(|next| !next.starts_with("--")).unwrap_or_default(),
        };
        options.insert(name.to_owned(), value);
    }
    options
}

fn number(options: &HashMap<String, String>, name: &str, default: u64) -> u64 {
    options.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn time(options: &HashMap<String, String>, name: &str) -> Duration {
    let text = options.get(name).map_or("0", String::as_str);
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let amount: f64 = digits.parse().unwrap_or(0.0);
    Duration::from_secs_f64(if unit == "s" { amount } else { amount / 1000.0 })
}

/// Nanoseconds since the Unix epoch.
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

fn say(text: &str) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// The two hashes that HTTP tests and WebSocket handshakes need.
mod digest {
    const ROUNDS: [u32; 64] = rounds();

    /// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
    const fn rounds() -> [u32; 64] {
        let mut constants = [0; 64];
        let (mut found, mut candidate) = (0, 2_u128);
        while found < 64 {
            if is_prime(candidate) {
                constants[found] = fraction_of_root(candidate, true);
                found += 1;
            }
            candidate += 1;
        }
        constants
    }

    const fn is_prime(number: u128) -> bool {
        let mut divisor = 2;
        while divisor * divisor <= number {
            if number.is_multiple_of(divisor) {
                return false;
            }
            divisor += 1;
        }
        true
    }

    /// By bisection over whole numbers scaled by 2^32.
    #[allow(clippy::cast_possible_truncation, reason = "the low 32 bits are the fraction")]
    const fn fraction_of_root(number: u128, is_cube: bool) -> u32 {
        let (mut low, mut high) = (0_u128, 1 << 38);
        while high - low > 1 {
            let middle = (low + high) / 2;
            let (power, bound) =
                if is_cube { (middle * middle * middle, number << 96) } else { (middle * middle, number << 64) };
            if power <= bound { low = middle } else { high = middle }
        }
        low as u32
    }

    pub(super) struct Sha256 {
        state: [u32; 8],
        waiting: Vec<u8>,
        length: u64,
    }

    impl Sha256 {
        pub(super) fn new() -> Self {
            let primes = [2, 3, 5, 7, 11, 13, 17, 19];
            Self { state: primes.map(|prime| fraction_of_root(prime, false)), waiting: Vec::new(), length: 0 }
        }

        pub(super) fn add(&mut self, bytes: &[u8]) {
            self.length += bytes.len() as u64;
            self.waiting.extend_from_slice(bytes);
            let whole = self.waiting.len() / 64 * 64;
            let rest = self.waiting.split_off(whole);
            for block in self.waiting.as_chunks::<64>().0 {
                mix256(&mut self.state, block);
            }
            self.waiting = rest;
        }

        pub(super) fn finish(mut self) -> String {
            let bits = self.length * 8;
            let zeros = (119 - usize::try_from(self.length % 64).unwrap_or(0)) % 64;
            let mut end = vec![0x80];
            end.resize(1 + zeros, 0);
            end.extend(bits.to_be_bytes());
            self.add(&end);
            self.state.iter().map(|word| format!("{word:08x}")).collect()
        }
    }

    fn words(block: &[u8; 64]) -> impl Iterator<Item = u32> {
        block.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word))
    }

    fn mix256(state: &mut [u32; 8], block: &[u8; 64]) {
        let mut w = [0_u32; 64];
        w.iter_mut().zip(words(block)).for_each(|(to, from)| *to = from);
        for i in 16..64 {
            let small0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
            let small1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
            w[i] = w[i - 16].wrapping_add(small0).wrapping_add(w[i - 7]).wrapping_add(small1);
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        for (constant, word) in ROUNDS.iter().zip(w) {
            let big1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let choice = (e & f) ^ (!e & g);
            let one = h.wrapping_add(big1).wrapping_add(choice).wrapping_add(*constant).wrapping_add(word);
            let big0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let two = big0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(one), c, b, a, one.wrapping_add(two));
        }
        state.iter_mut().zip([a, b, c, d, e, f, g, h]).for_each(|(to, from)| *to = to.wrapping_add(from));
    }

    /// The answer to a WebSocket handshake: SHA-1 of the key and a fixed text, in base 64.
    pub(super) fn accept_key(key: &str) -> String {
        base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()))
    }

    fn sha1(text: &[u8]) -> Vec<u8> {
        let mut padded = text.to_vec();
        padded.push(0x80);
        padded.resize((padded.len() + 8).div_ceil(64) * 64 - 8, 0);
        padded.extend((text.len() as u64 * 8).to_be_bytes());
        let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
        for block in padded.as_chunks::<64>().0 {
            let mut w = [0_u32; 80];
            w.iter_mut().zip(words(block)).for_each(|(to, from)| *to = from);
            for i in 16..80 {
                w[i] = (w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16]).rotate_left(1);
            }
            let [mut a, mut b, mut c, mut d, mut e] = state;
            for (i, word) in w.into_iter().enumerate() {
                let (mixed, constant) = match i {
                    0..20 => ((b & c) | (!b & d), 0x5a82_7999_u32),
                    20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                    40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                    _ => (b ^ c ^ d, 0xca62_c1d6),
                };
                let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant);
                (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next.wrapping_add(word));
            }
            state.iter_mut().zip([a, b, c, d, e]).for_each(|(to, from)| *to = to.wrapping_add(from));
        }
        state.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn base64(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let bits = (0..3).fold(0_usize, |bits, i| bits << 8 | usize::from(group.get(i).copied().unwrap_or(0)));
            for i in 0..4 {
                let letter = char::from(LETTERS[bits >> (18 - 6 * i) & 63]);
                text.push(if i <= group.len() { letter } else { '=' });
            }
        }
        text
    }
}

/// What the standard library lacks: signals and the length of the listen queue.
#[allow(unsafe_code)]
mod system {
    use std::{net::TcpListener, os::fd::AsRawFd};

    pub(super) const SIGHUP: i32 = 1;
    pub(super) const SIGINT: i32 = 2;
    pub(super) const SIGTERM: i32 = 15;
    const SIG_BLOCK: i32 = 0;

    /// At least as large and as aligned as any C library's signal set.
    #[repr(C, align(16))]
    struct SignalSet([u64; 16]);

    unsafe extern "C" {
        fn listen(socket: i32, backlog: i32) -> i32;
        fn sigemptyset(set: *mut SignalSet) -> i32;
        fn sigaddset(set: *mut SignalSet, signal: i32) -> i32;
        fn pthread_sigmask(how: i32, set: *const SignalSet, old: *mut SignalSet) -> i32;
        fn sigwait(set: *const SignalSet, signal: *mut i32) -> i32;
    }

    fn ours() -> SignalSet {
        let mut set = SignalSet([0; 16]);
        // SAFETY: the set is ours and large enough.
        unsafe {
            sigemptyset(&mut set);
            for signal in [SIGHUP, SIGINT, SIGTERM] {
                sigaddset(&mut set, signal);
            }
        }
        set
    }

    /// For this thread and those that it starts. Signals that are held back also reach the first process of a
    /// container, which gets no others that it does not handle.
    pub(super) fn hold_back_signals() {
        // SAFETY: the set is valid, and no old set is asked for.
        unsafe { pthread_sigmask(SIG_BLOCK, &ours(), std::ptr::null_mut()) };
    }

    pub(super) fn next_signal() -> i32 {
        let mut signal = 0;
        // SAFETY: both are valid, and the signals are held back.
        unsafe { sigwait(&ours(), &mut signal) };
        signal
    }

    pub(super) fn set_backlog(listener: &TcpListener, backlog: i32) {
        // SAFETY: the socket is open and listens already; listening again only changes the length of its queue.
        unsafe { listen(listener.as_raw_fd(), backlog) };
    }
}
