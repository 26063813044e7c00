//! HTTP/1.1 messages as a strict reader sees them: CRLF alone, one framing, no leniency.
//!
//! This is a second reader, written apart from the relay's own, so that a mistake in one is seen by the other.

/// A start line and its fields, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// A message as far as it has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Bytes it took on the wire.
    pub(crate) taken: usize,
    /// The body is there to its end.
    pub(crate) whole: bool,
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Head {
    /// The values of a field, in order.
    pub(crate) fn all<'a>(&'a self, name: &str) -> Vec<&'a str> {
        let same = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that stands once at most.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>, String> {
        match self.all(name)[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(format!("`{name}` stands more than once")),
        }
    }

    /// Parts of the start line.
    pub(crate) fn words(&self) -> Vec<&str> {
        self.start.splitn(3, ' ').collect()
    }

    /// The status, of a response.
    pub(crate) fn status(&self) -> u16 {
        self.words().get(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    fn framing(&self) -> Result<Option<Framing>, String> {
        match (self.one("transfer-encoding")?, self.one("content-length")?) {
            (Some(_), Some(_)) => Err("two framings".to_owned()),
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            (Some(coding), None) => Err(format!("transfer coding `{coding}`")),
            (None, Some(digits)) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map(|length| Some(Framing::Length(length))).map_err(|_| "huge length".to_owned())
            }
            (None, Some(digits)) => Err(format!("length `{digits}`")),
            (None, None) => Ok(None),
        }
    }
}

/// Reads one request from the start of `bytes`. `Ok(None)`: the head is not all there yet.
pub(crate) fn request(bytes: &[u8]) -> Result<Option<Message>, String> {
    let Some((head, used)) = head(bytes)? else { return Ok(None) };
    let words = head.words();
    if words.len() != 3 || !is_token(words[0]) || words[1].is_empty() {
        return Err(format!("request line `{}`", head.start));
    }
    if !matches!(words[2], "HTTP/1.1" | "HTTP/1.0") {
        return Err(format!("version in `{}`", head.start));
    }
    if head.all("host").len() != 1 {
        return Err(format!("{} hosts", head.all("host").len()));
    }
    let framing = head.framing()?.unwrap_or(Framing::Length(0));
    body(bytes, head, used, framing).map(Some)
}

/// Reads one response to a request of `method`; `ended` says that no more bytes will come.
pub(crate) fn response(bytes: &[u8], method: &str, ended: bool) -> Result<Option<Message>, String> {
    let Some((head, used)) = head(bytes)? else { return Ok(None) };
    if !head.start.starts_with("HTTP/1.1 ") && !head.start.starts_with("HTTP/1.0 ") || head.words().len() != 3 {
        return Err(format!("status line `{}`", head.start));
    }
    let status = head.status();
    if !(100..600).contains(&status) {
        return Err(format!("status in `{}`", head.start));
    }
    let announced = head.framing()?;
    if status < 200 || status == 204 {
        if announced.is_some() {
            return Err(format!("a framing with status {status}"));
        }
        return body(bytes, head, used, Framing::Length(0)).map(Some);
    }
    let framing = match announced {
        _ if status == 304 || method == "HEAD" => Framing::Length(0),
        Some(framing) => framing,
        None => Framing::UntilClose,
    };
    let mut message = body(bytes, head, used, framing)?;
    if framing == Framing::UntilClose {
        message.whole = ended;
    }
    Ok(Some(message))
}

fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let mut lines = Vec::new();
    let mut at = 0;
    loop {
        let Some((line, next)) = line(bytes, at)? else { return Ok(None) };
        at = next;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let Some((start, fields)) = lines.split_first() else { return Err("an empty line before the head".to_owned()) };
    let fields = fields.iter().map(|line| field(line)).collect::<Result<_, _>>()?;
    Ok(Some((Head { start: text(start)?, fields }, at)))
}

/// One line without its end, and where the next begins.
fn line(bytes: &[u8], from: usize) -> Result<Option<(&[u8], usize)>, String> {
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'\n' => return Err(format!("bare line feed at {at}")),
            b'\r' => {
                return match bytes.get(at + 1) {
                    Some(b'\n') => Ok(Some((&bytes[from..at], at + 2))),
                    Some(_) => Err(format!("bare carriage return at {at}")),
                    None => Ok(None),
                };
            }
            0 => return Err(format!("zero byte at {at}")),
            _ => {}
        }
    }
    Ok(None)
}

fn field(line: &[u8]) -> Result<(String, String), String> {
    let line = text(line)?;
    let Some((name, value)) = line.split_once(':') else { return Err(format!("no colon in `{line}`")) };
    if !is_token(name) {
        return Err(format!("field name `{name}`"));
    }
    if value.chars().any(|symbol| symbol.is_control() && symbol != '\t' && (symbol as u32) < 0x80) {
        return Err(format!("control in the value of `{name}`"));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// Bytes as Latin-1, so that each keeps its own symbol.
#[allow(clippy::unnecessary_wraps)] // a face that can refuse keeps its callers the same
fn text(bytes: &[u8]) -> Result<String, String> {
    Ok(bytes.iter().map(|byte| char::from(*byte)).collect())
}

fn is_token(name: &str) -> bool {
    let odd = "!#$%&'*+-.^_`|~";
    !name.is_empty() && name.chars().all(|symbol| symbol.is_ascii_alphanumeric() || odd.contains(symbol))
}

fn body(bytes: &[u8], head: Head, used: usize, framing: Framing) -> Result<Message, String> {
    let rest = &bytes[used..];
    let mut message = Message { head, body: Vec::new(), trailers: Vec::new(), taken: bytes.len(), whole: false };
    match framing {
        Framing::Length(length) => {
            message.whole = rest.len() >= length;
            message.body = rest[..length.min(rest.len())].to_vec();
            message.taken = used + message.body.len();
        }
        Framing::UntilClose => message.body = rest.to_vec(),
        Framing::Chunked => chunks(bytes, used, &mut message)?,
    }
    Ok(message)
}

fn chunks(bytes: &[u8], mut at: usize, message: &mut Message) -> Result<(), String> {
    loop {
        let Some((size, next)) = line(bytes, at)? else { return Ok(()) };
        let digits = text(size)?;
        if digits.is_empty() || digits.len() > 16 || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(format!("chunk size `{digits}`"));
        }
        let size = i64::from_str_radix(&digits, 16).map_err(|error| error.to_string())?;
        let size = usize::try_from(size).map_err(|error| error.to_string())?;
        at = next;
        if size == 0 {
            break;
        }
        let rest = &bytes[at..];
        message.body.extend_from_slice(&rest[..size.min(rest.len())]);
        if rest.len() < size + 2 {
            return if b"\r\n".starts_with(&rest[size.min(rest.len())..]) { Ok(()) } else { Err(after(size)) };
        }
        if &rest[size..size + 2] != b"\r\n" {
            return Err(after(size));
        }
        at += size + 2;
    }
    loop {
        let Some((line, next)) = line(bytes, at)? else { return Ok(()) };
        at = next;
        if line.is_empty() {
            message.whole = true;
            message.taken = at;
            return Ok(());
        }
        message.trailers.push(field(line)?);
    }
}

fn after(size: usize) -> String {
    format!("a chunk of {size} bytes is not followed by a line end")
}
