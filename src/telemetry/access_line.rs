//! One line of the access log. Nothing that a client sent can end a line, or begin another.

use std::{
    fmt::{self, Write},
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use jiff::{Timestamp, tz::TimeZone};

use super::access_values::{REDACTED, millis, object, quoted, string, target, word};
use crate::model::{AccessFate, AccessFormat, AccessLog, BackendId};

/// The header fields of a request, looked at where they are: most filters and lines want none of them.
pub trait AccessHeaders: fmt::Debug {
    /// Name and value of the field at this place, from 0; none behind the last.
    fn at(&self, place: usize) -> Option<(&str, &[u8])>;
}

/// Of what has no header.
impl AccessHeaders for () {
    fn at(&self, _: usize) -> Option<(&str, &[u8])> {
        None
    }
}

/// The end of a request or stream, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// That of the world.
    pub wall: SystemTime,
    /// The one that never goes back.
    pub steady: Instant,
}

impl Now {
    /// This moment.
    pub fn get() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }
}

/// When a request or stream began, and how long it took.
#[derive(Debug, Clone, Copy)]
struct Span {
    began: Timestamp,
    took: Duration,
}

/// What is known of a request, or of a stream, at its end.
#[derive(Debug, Clone)]
pub struct AccessRecord<'a> {
    /// When it began: the time until [`Now`] is how long it took.
    pub began: Instant,
    /// Who asked, behind the proxies that are believed.
    pub client: IpAddr,
    /// The method; `TCP` or `UDP` of a stream; empty when it could not be read.
    pub method: &'a str,
    /// Path and query; of a stream the address that it came to.
    pub target: &'a str,
    /// The host that was asked for, without its port.
    pub host: &'a str,
    /// What was spoken with the client, as `HTTP/2.0`; empty when it could not be read.
    pub protocol: &'a str,
    /// It came through TLS.
    pub secure: bool,
    /// The status of the answer; 499 when the client left before it.
    pub status: u16,
    /// Who ended it early, where somebody did: `client`, `upstream`, `idle` (nothing moved for too long), or `shutdown`
    /// of Dormouse.
    pub cut: Option<&'static str>,
    /// Bytes taken from the client.
    pub bytes_in: u64,
    /// Bytes sent to it.
    pub bytes_out: u64,
    /// How long it waited for a wake.
    pub waited: Duration,
    /// From where the upstream was asked to its answer; absent: it gave none.
    pub upstream: Option<Duration>,
    /// The alias of its route.
    pub route: Option<&'a str>,
    /// The backend of that.
    pub backend: Option<&'a BackendId>,
    /// The header fields of the request.
    pub headers: &'a dyn AccessHeaders,
}

impl AccessRecord<'_> {
    /// The line, with its end; none when the filters keep it out. No clock is asked for those.
    pub fn line(&self, log: &AccessLog, now: impl FnOnce() -> Now) -> Option<Vec<u8>> {
        if !self.passes(log) {
            return None;
        }
        let span = self.span(now());
        let mut line = match log.format {
            AccessFormat::Common => self.text(log, span, false),
            AccessFormat::Combined => self.text(log, span, true),
            AccessFormat::Json => self.json(log, span),
        };
        line.push('\n');
        Some(line.into_bytes())
    }

    fn passes(&self, log: &AccessLog) -> bool {
        let filters = &log.filters;
        filters.has_status(self.status)
            && filters.method.passes(|method| method == self.method)
            && filters.host.passes(|host| host.matches(self.host))
            && filters.networks.passes(|network| network.contains(&self.client))
            && filters.headers.passes(|wanted| {
                self.headers()
                    .filter(|(name, _)| name.eq_ignore_ascii_case(&wanted.name))
                    .any(|(_, value)| wanted.value.as_ref().is_none_or(|expected| value == expected.as_bytes()))
            })
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        (0..).map_while(|place| self.headers.at(place))
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn span(&self, now: Now) -> Span {
        let took = now.steady.saturating_duration_since(self.began);
        let began = now.wall.checked_sub(took).and_then(|began| Timestamp::try_from(began).ok());
        Span { began: began.unwrap_or_default(), took }
    }

    /// `client - - [time] "request" status bytes`, and what Dormouse knows as `name=value` behind it.
    fn text(&self, log: &AccessLog, span: Span, combined: bool) -> String {
        let mut out = String::with_capacity(320);
        let time = span.began.to_zoned(TimeZone::UTC).strftime("%d/%b/%Y:%H:%M:%S +0000");
        let _ = write!(out, "{} - - [{time}] \"", self.client);
        if self.method.is_empty() {
            out.push('-');
        } else {
            quoted(&mut out, self.method.as_bytes());
            for known in [&*target(self.target, &log.fields.query), self.protocol] {
                out.push(' ');
                quoted(&mut out, if known.is_empty() { b"-" } else { known.as_bytes() });
            }
        }
        let _ = write!(out, "\" {} {}", self.status, self.bytes_out);
        if combined {
            for name in ["referer", "user-agent"] {
                out.push_str(" \"");
                match self.seen(name, log) {
                    Some(value) => quoted(&mut out, value.as_bytes()),
                    None => out.push('-'),
                }
                out.push('"');
            }
        }
        out.push_str(" host=");
        word(&mut out, self.host);
        out.push_str(" route=");
        word(&mut out, self.route.unwrap_or_default());
        out.push_str(" backend=");
        word(&mut out, &self.backend.map(BackendId::to_string).unwrap_or_default());
        let _ = write!(out, " in={} took={} wake={}", self.bytes_in, millis(span.took), millis(self.waited));
        match self.upstream {
            Some(time) => {
                let _ = write!(out, " upstream={}", millis(time));
            }
            None => out.push_str(" upstream=-"),
        }
        if let Some(cut) = self.cut {
            let _ = write!(out, " cut={cut}");
        }
        out
    }

    /// Referer and user agent, which have a place of their own: there unless a rule for them says otherwise.
    fn seen(&self, name: &str, log: &AccessLog) -> Option<String> {
        let value = self.header(name)?;
        match log.fields.headers.of(name).unwrap_or(AccessFate::Keep) {
            AccessFate::Keep => {}
            AccessFate::Drop => return None,
            AccessFate::Redact => return Some(REDACTED.to_owned()),
        }
        let text = String::from_utf8_lossy(value);
        Some(if name == "referer" { target(&text, &log.fields.query) } else { text.into_owned() })
    }

    fn scheme(&self) -> &'static str {
        match (self.protocol, self.secure) {
            ("UDP", _) => "udp",
            ("TCP", false) => "tcp",
            ("TCP", true) => "tls",
            (_, false) => "http",
            (_, true) => "https",
        }
    }

    fn json(&self, log: &AccessLog, span: Span) -> String {
        let mut out = String::with_capacity(512);
        let _ = write!(out, "{{\"time\":\"{:.3}\"", span.began);
        let mut text = |key: &str, value: &str| {
            let _ = write!(out, ",\"{key}\":");
            string(&mut out, value);
        };
        text("client", &self.client.to_string());
        text("method", self.method);
        text("scheme", self.scheme());
        text("host", self.host);
        text("path", &target(self.target, &log.fields.query));
        text("protocol", self.protocol);
        text("route", self.route.unwrap_or_default());
        text("backend", &self.backend.map(BackendId::to_string).unwrap_or_default());
        for (key, name) in [("referer", "referer"), ("user_agent", "user-agent")] {
            if let Some(value) = self.seen(name, log) {
                text(key, &value);
            }
        }
        if let Some(cut) = self.cut {
            text("cut", cut);
        }
        let _ =
            write!(out, ",\"status\":{},\"bytes_in\":{},\"bytes_out\":{}", self.status, self.bytes_in, self.bytes_out);
        let _ = write!(out, ",\"took_ms\":{},\"wake_ms\":{}", millis(span.took), millis(self.waited));
        if let Some(time) = self.upstream {
            let _ = write!(out, ",\"upstream_ms\":{}", millis(time));
        }
        let headers = self.headers().map(|(name, value)| {
            let text = String::from_utf8_lossy(value);
            // The page that led here may have secrets in its address, too.
            let of_page = name.eq_ignore_ascii_case("referer");
            (name, if of_page { target(&text, &log.fields.query).into() } else { text })
        });
        object(&mut out, "headers", headers, &log.fields.headers);
        let cookies = self.headers().filter(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        let pairs = cookies.flat_map(|(_, value)| value.split(|byte| *byte == b';')).filter_map(|pair| {
            let (name, value) = std::str::from_utf8(pair).ok()?.trim().split_once('=')?;
            Some((name, value.into()))
        });
        object(&mut out, "cookies", pairs, &log.fields.cookies);
        out.push('}');
        out
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::{super::access_values::LONGEST, *};
    use crate::model::{AccessFilter, HeaderMatch, HostPattern};

    #[derive(Debug)]
    struct Fields(&'static [(&'static str, &'static [u8])]);

    impl AccessHeaders for Fields {
        fn at(&self, place: usize) -> Option<(&str, &[u8])> {
            self.0.get(place).copied()
        }
    }

    const FIELDS: Fields = Fields(&[
        ("Referer", b"https://x.test/a?token=geheim&b=2#id_token=geheim"),
        ("User-Agent", b"curl \"8\"\n"),
        ("Authorization", b"Basic geheim"),
        ("Cookie", b"sid=geheim; theme=dark"),
        ("Accept", b"*/*"),
    ]);

    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    static BACKEND: LazyLock<BackendId> = LazyLock::new(|| "local/app".parse().unwrap());

    fn record() -> AccessRecord<'static> {
        AccessRecord {
            began: *BEGAN,
            client: "192.0.2.7".parse().unwrap(),
            method: "GET",
            target: "/a b?x=1&%74oken=geheim&flag",
            host: "app.test",
            protocol: "HTTP/1.1",
            secure: true,
            status: 200,
            cut: None,
            bytes_in: 90,
            bytes_out: 1024,
            waited: Duration::from_millis(1200),
            upstream: Some(Duration::from_micros(900)),
            route: Some("app"),
            backend: Some(&BACKEND),
            headers: &FIELDS,
        }
    }

    /// 1,234,567 µs after it began.
    fn end() -> Now {
        let took = Duration::from_micros(1_234_567);
        let began: SystemTime = "2026-11-22T09:15:00.123456Z".parse::<Timestamp>().unwrap().into();
        Now { wall: began + took, steady: *BEGAN + took }
    }

    fn line(record: &AccessRecord<'_>, log: &AccessLog) -> String {
        String::from_utf8(record.line(log, end).unwrap()).unwrap()
    }

    fn log(format: AccessFormat) -> AccessLog {
        AccessLog { format, ..AccessLog::default() }
    }

    #[test]
    fn lines_of_each_format() {
        const BEHIND: &str =
            " host=app.test route=app backend=local/app in=90 took=1234.567 wake=1200.000 upstream=0.900\n";
        const COMMON: &str = "192.0.2.7 - - [22/Nov/2026:09:15:00 +0000] \
                              \"GET /a b?x=1&%74oken=REDACTED&flag HTTP/1.1\" 200 1024";
        assert_eq!(line(&record(), &log(AccessFormat::Common)), format!("{COMMON}{BEHIND}"));
        let of_client = " \"https://x.test/a?token=REDACTED&b=2#\" \"curl \\x228\\x22\\x0A\"";
        assert_eq!(line(&record(), &log(AccessFormat::Combined)), format!("{COMMON}{of_client}{BEHIND}"));
        let unread = AccessRecord {
            method: "",
            host: "",
            route: None,
            backend: None,
            upstream: None,
            cut: Some("client"),
            status: 400,
            ..record()
        };
        assert_eq!(
            line(&unread, &log(AccessFormat::Common)),
            "192.0.2.7 - - [22/Nov/2026:09:15:00 +0000] \"-\" 400 1024 host=- route=- backend=- in=90 took=1234.567 \
             wake=1200.000 upstream=- cut=client\n"
        );
        let long = AccessRecord { target: "/lon", protocol: "", status: 414, ..record() };
        assert!(line(&long, &log(AccessFormat::Common)).contains("] \"GET /lon -\" 414 "));
        let silent = AccessRecord { target: "", protocol: "", status: 408, ..record() };
        assert!(line(&silent, &log(AccessFormat::Common)).contains("] \"GET - -\" 408 "));
    }

    #[test]
    fn json_is_an_object_in_one_line() {
        let mut log = log(AccessFormat::Json);
        let text = line(&record(), &log);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["time"], "2026-11-22T09:15:00.123Z");
        assert_eq!(value["path"], "/a b?x=1&%74oken=REDACTED&flag");
        assert_eq!(value["user_agent"], "curl \"8\"\n");
        assert_eq!(
            (&value["status"], &value["bytes_in"], &value["wake_ms"], &value["upstream_ms"]),
            (&200.into(), &90.into(), &1200.0.into(), &0.9.into())
        );
        assert_eq!((&value["route"], &value["backend"]), (&"app".into(), &"local/app".into()));
        assert!(value.get("headers").is_none() && value.get("cookies").is_none());
        assert_eq!(text.matches('\n').count(), 1);
        log.fields.headers.default = AccessFate::Keep;
        log.fields.cookies.default = AccessFate::Redact;
        log.fields.cookies.named.push(("theme".into(), AccessFate::Keep));
        let text = line(&record(), &log);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["headers"]["authorization"], REDACTED);
        assert_eq!(value["headers"]["accept"], "*/*");
        assert_eq!((&value["cookies"]["sid"], &value["cookies"]["theme"]), (&REDACTED.into(), &"dark".into()));
        assert!(!text.contains("geheim"), "{text}");
    }

    #[test]
    fn what_clients_send_forges_no_line() {
        let evil = "/\r\n1.2.3.4 - - \u{1b}[2J\u{9b}2J\u{202e}\u{2028}\"";
        let evil_record = AccessRecord {
            target: evil,
            host: "a b=c",
            method: "G\nT",
            headers: &Fields(&[("user-agent", b"\xff\x00\n\"}\n{"), ("x\n\"", b"y\r")]),
            ..record()
        };
        for format in [AccessFormat::Common, AccessFormat::Combined, AccessFormat::Json] {
            let mut log = log(format);
            log.fields.headers.default = AccessFate::Keep;
            let text = line(&evil_record, &log);
            assert!(text.trim_end_matches('\n').bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
            assert_eq!(text.lines().count(), 1);
            if format == AccessFormat::Json {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(value["path"], evil);
            }
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = format!("/{}", "x".repeat(3 * LONGEST));
        for format in [AccessFormat::Common, AccessFormat::Json] {
            let text = line(&AccessRecord { target: &long, ..record() }, &log(format));
            assert!(text.len() < LONGEST + 600 && text.contains("xxx..."), "{}", text.len());
        }
    }

    #[test]
    fn filters_must_all_pass() {
        fn only<T>(value: T) -> AccessFilter<T> {
            AccessFilter { values: vec![value], negative: false }
        }
        type Set = fn(&mut AccessLog);
        let cases: [(Set, bool); 10] = [
            (|log| log.filters.status = only((200, 299)), true),
            (|log| log.filters.status = only((400, 599)), false),
            (|log| log.filters.method = only("POST".to_owned()), false),
            (|log| log.filters.host = only(HostPattern::Wildcard("test".into())), true),
            (|log| log.filters.host = only(HostPattern::Wildcard("app.test".into())), false),
            (|log| log.filters.networks = only("192.0.2.0/24".parse().unwrap()), true),
            (
                |log| {
                    log.filters.networks = AccessFilter { negative: true, ..only("192.0.2.0/24".parse().unwrap()) };
                },
                false,
            ),
            (|log| log.filters.headers = only(HeaderMatch { name: "accept".into(), value: None }), true),
            (|log| log.filters.headers = only(HeaderMatch { name: "accept".into(), value: Some("x".into()) }), false),
            (|log| log.filters.headers = only(HeaderMatch { name: "x-none".into(), value: None }), false),
        ];
        for (at, (set, passes)) in cases.into_iter().enumerate() {
            let mut log = log(AccessFormat::Common);
            set(&mut log);
            assert_eq!(record().line(&log, end).is_some(), passes, "{at}");
        }
    }
}
