//! The waiting page.

use std::time::Duration;

use super::{
    FRAME_PATH, Language, Phase, Progress,
    escape::escape,
    template::fill_template,
    words::{Words, fill},
};

/// What the page shows.
#[derive(Debug, Clone)]
pub struct WaitingView<'a> {
    /// The route's title.
    pub title: &'a str,
    /// The path of the request, as it was sent, without the query.
    pub path: &'a str,
    /// The language.
    pub language: Language,
    /// Light, dark, or as the browser prefers.
    pub theme: Theme,
    /// How far the wake is, how long it took so far and usually takes, and what is woken before it.
    pub progress: Progress<'a>,
    /// An own template.
    pub template: Option<&'a str>,
}

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Theme {
    /// As the browser prefers.
    #[default]
    Auto,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// A backend that is woken before the one that is wanted, by the title of its own route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyView {
    /// The public title.
    pub title: String,
    /// Whether it is awake already.
    pub ready: bool,
}

/// Why a wake failed, as far as a stranger may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyFailed {
    /// It was not ready in time.
    TimedOut,
    /// The engine could not start it, or it ended at once, or it cools down after that.
    StartFailed,
    /// Too many are held already.
    TooMany,
    /// Its engine does not answer.
    EngineAway,
    /// It was stopped by hand and is to stay so.
    StaysDown,
    /// Dormouse itself is ending.
    ShuttingDown,
}

/// A failed wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub why: WhyFailed,
    /// When the next try is allowed.
    pub retry_after: Option<Duration>,
}

/// Fields of a response: all but those of its framing.
pub type Headers = Vec<(&'static str, String)>;

/// A rendered page whose body is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholePage {
    /// The fields.
    pub headers: Headers,
    /// The body.
    pub body: String,
}

/// A rendered page: a response with these fields, the head at once, and a tail when the wake has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPage {
    /// The fields. The status is 503.
    pub headers: Headers,
    /// Sent at once; the response then stays open.
    pub head: String,
    title: String,
    language: Language,
}

const STYLE: &str = include_str!("assets/waiting.css");
const MOUSE: &str = include_str!("assets/mouse.svg");
const SCRIPT: &str = include_str!("assets/waiting.js");
const HIDE: &str = "#waiting{display:none}";

// Hashes rather than nonces: the texts are constants. A test compares them with the texts.
const STYLE_HASH: &str = "sha256-Cm+SfTeAtmDzKKnYIijMO5HYAT1CwJ7ICvhW6SH8H84=";
const HIDE_HASH: &str = "sha256-kuXKjfIwnbwAa2JyMZOBUpERC/aOE40sOvJ25R7Pd7A=";
const SCRIPT_HASH: &str = "sha256-XV3pR+2vGl/+EpF8cwKAM1DSQi9JDN0rvVMZPUFNe7c=";

/// An icon, so that the browser does not ask the sleeping app for one.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cg fill='%23c7935f'%3E%3Ccircle cx='8' cy='9.500' r='6'/%3E%3Ccircle cx='3.500' cy='4' r='3'/%3E%3Ccircle cx='12.500' cy='4' r='3'/%3E%3C/g%3E%3Cpath d='M4.500 9q1.200 1.200 2.500 0M9 9q1.200 1.200 2.500 0' stroke='%234a3526' fill='none'/%3E%3C/svg%3E";

/// Renders the page. The response stays open after its head.
pub fn waiting_page(view: &WaitingView<'_>) -> WaitingPage {
    let refresh = without_scripts(view);
    let head = match view.template {
        Some(template) => own_page(&with_head(template, &refresh), view),
        None => built_in_page(view, &refresh),
    };
    WaitingPage { headers: headers(view), head, title: view.title.to_owned(), language: view.language }
}

/// Renders the inner page that a browser without scripts shows; a whole body, for [`super::FRAME_PATH`].
pub fn framed_page(view: &WaitingView<'_>) -> WholePage {
    let body = match view.template {
        Some(template) => own_page(template, view),
        None => built_in_page(view, ""),
    };
    WholePage { headers: headers(view), body }
}

/// Renders what a page load gets while a failed wake cools down, and what a browser without scripts comes to when
/// the wake it waited for has failed.
pub fn failed_page(title: &str, language: Language, failure: &Failure) -> WholePage {
    let words = language.words();
    let seconds = failure.retry_after.map_or(30, |wait| wait.as_secs_f64().ceil() as u64).max(1);
    let heading = escape(&fill(words.failed_heading, title));
    let head = document_head(language, Theme::Auto, &heading, "");
    let failed = failed_section(title, language, failure);
    WholePage {
        headers: fields(language, false, seconds),
        body: format!("{head}<body><main>{MOUSE}{failed}</main><script>{SCRIPT}</script>\n"),
    }
}

impl WaitingPage {
    /// Sent every 15 s or so while the wake goes on: white space that keeps the connection from looking dead.
    pub const HEARTBEAT: &'static str = "\n";

    /// The last bytes when the backend is ready. A browser with scripts sees the mark; for one without them the end
    /// of the response is what counts.
    pub const READY_TAIL: &'static str = "<i id=\"ready\"></i>\n";

    /// The last bytes when the wake failed.
    pub fn failed_tail(&self, failure: &Failure) -> String {
        format!("<style>{HIDE}</style>{}\n", failed_section(&self.title, self.language, failure))
    }
}

/// What brings a browser without scripts to the app, for the head of the document. With scripts all of it is dead
/// text.
///
/// A refresh without an address reloads the page's own one, and browsers count its seconds from the end of the
/// response. But when the address has a fragment, they take a refresh for a jump inside the page and ask nothing at
/// all; only documents made of frames are exempt from that. So the page that is seen then is a frame.
fn without_scripts(view: &WaitingView<'_>) -> String {
    format!(
        "<noscript><meta http-equiv=\"refresh\" content=\"0\">\
         <frameset rows=\"*\"><frame src=\"{FRAME_PATH}?path={path}\" frameborder=\"0\"></frameset></noscript>",
        path = percent_encode(view.path),
    )
}

/// Puts the text where the head of an own document begins.
fn with_head(template: &str, text: &str) -> String {
    let lower = template.to_ascii_lowercase();
    let after = |tag: &str| lower.find(tag).and_then(|at| lower[at..].find('>').map(|end| at + end + 1));
    let at = after("<head>").or_else(|| after("<html")).or_else(|| after("<!doctype")).unwrap_or(0);
    format!("{}{text}{}", &template[..at], &template[at..])
}

fn percent_encode(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b'/');
    let encode = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    path.bytes().map(encode).collect()
}

fn failed_section(title: &str, language: Language, failure: &Failure) -> String {
    let words = language.words();
    format!(
        "<section id=\"failed\" role=\"alert\"><h1>{heading}</h1><p>{text}</p>{again}</section>",
        heading = escape(&fill(words.failed_heading, title)),
        text = escape(&failure.text(language)),
        again = again(words),
    )
}

impl Failure {
    /// The plain reason, and when to come back.
    pub fn text(&self, language: Language) -> String {
        let words = language.words();
        let why = match self.why {
            WhyFailed::TimedOut => words.timed_out,
            WhyFailed::StartFailed => words.start_failed,
            WhyFailed::TooMany => words.too_many,
            WhyFailed::EngineAway => words.engine_away,
            WhyFailed::StaysDown => words.stays_down,
            WhyFailed::ShuttingDown => words.shutting_down,
        };
        match self.retry_after {
            None => why.to_owned(),
            Some(wait) => {
                let seconds = wait.as_secs_f64().ceil().max(1.0).to_string();
                format!("{why} {}", fill(words.retry_in, &seconds))
            }
        }
    }
}

fn headers(view: &WaitingView<'_>) -> Headers {
    fields(view.language, view.template.is_some(), retry_after(&view.progress))
}

fn fields(language: Language, own_template: bool, retry_after: u64) -> Headers {
    let (style, images) = if own_template {
        // An own page is the administrator's word: its styles may be inline. Scripts stay ours.
        ("'unsafe-inline'".to_owned(), "img-src data: https:; font-src data: https:")
    } else {
        (format!("'{STYLE_HASH}' '{HIDE_HASH}'"), "img-src data:")
    };
    // No `frame-ancestors`: dashboards show apps in frames, and there is nothing here to trick anyone into.
    let policy = format!(
        "default-src 'none'; style-src {style}; {images}; script-src '{SCRIPT_HASH}'; connect-src 'self'; \
         frame-src 'self'; base-uri 'none'; form-action 'none'"
    );
    vec![
        ("Content-Type", "text/html; charset=utf-8".to_owned()),
        ("Content-Language", language.tag().to_owned()),
        ("Cache-Control", "no-store".to_owned()),
        ("Retry-After", retry_after.to_string()),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff".to_owned()),
        ("Referrer-Policy", "same-origin".to_owned()),
        ("X-Robots-Tag", "noindex".to_owned()),
        // Other proxies in front must not gather the page before they pass it on.
        ("X-Accel-Buffering", "no".to_owned()),
    ]
}

/// In seconds: what is left of the usual time, within reason.
fn retry_after(progress: &Progress<'_>) -> u64 {
    let left = progress.expected.map(|expected| expected.saturating_sub(progress.elapsed));
    left.map_or(5, |left| left.as_secs_f64().ceil() as u64).clamp(1, 60)
}

fn document_head(language: Language, theme: Theme, heading: &str, more: &str) -> String {
    let class = match theme {
        Theme::Auto => "",
        Theme::Light => " class=\"light\"",
        Theme::Dark => " class=\"dark\"",
    };
    format!(
        "<!doctype html><html lang=\"{lang}\"{class}><head><meta charset=\"utf-8\"><title>{heading}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"icon\" href=\"{ICON}\">{more}\
         <style>{STYLE}</style></head>",
        lang = language.tag(),
    )
}

fn built_in_page(view: &WaitingView<'_>, refresh: &str) -> String {
    let words = view.language.words();
    let heading = escape(&fill(words.heading, view.title));
    // `main` stays open: the tail of a failed wake belongs into it.
    format!(
        "{head}<body><main>{MOUSE}<div id=\"waiting\"><h1>{heading}</h1>\
         <p id=\"status\" role=\"status\">{status}</p>{bar}<ul id=\"dependencies\">{dependencies}</ul>\
         <div id=\"retry\" hidden>{again}</div></div><script>{SCRIPT}</script>\n",
        head = document_head(view.language, view.theme, &heading, refresh),
        status = escape(&view.progress.status(view.language)),
        bar = bar(&view.progress),
        dependencies = dependencies(view),
        again = again(words),
    )
}

fn own_page(template: &str, view: &WaitingView<'_>) -> String {
    let words = view.language.words();
    let value = |name: &str| match name {
        "title" => Some(escape(view.title)),
        "heading" => Some(escape(&fill(words.heading, view.title))),
        "status" => Some(escape(&view.progress.status(view.language))),
        "dependencies" => Some(dependencies(view)),
        "language" => Some(words.tag.to_owned()),
        "expected_seconds" => {
            Some(view.progress.expected.map_or(String::new(), |time| time.as_secs_f64().ceil().to_string()))
        }
        _ => None,
    };
    format!("{}<script>{SCRIPT}</script>\n", fill_template(template, value))
}

fn dependencies(view: &WaitingView<'_>) -> String {
    let lines = view.progress.dependencies.iter().map(|one| one.line(view.language));
    lines.map(|line| format!("<li>{}</li>", escape(&line))).collect()
}

/// The way to try again. The empty address is the page's own one.
fn again(words: &Words) -> String {
    format!("<a id=\"again\" href=\"\">{}</a>", words.retry)
}

/// The usual times, in seconds, that the style sheet knows as classes.
const BAR_TIMES: [u64; 18] = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 30, 45, 60, 90, 120, 180, 300];

/// A bar that needs no script: to 85 % in the usual time, and slower and slower after that. It is moved by classes,
/// since the policy allows no style made to measure.
fn bar(progress: &Progress<'_>) -> String {
    let class = match progress.expected {
        None => "open".to_owned(),
        Some(expected) => {
            let expected = expected.as_secs_f64().max(0.2);
            let time = BAR_TIMES.into_iter().find(|time| *time as f64 >= expected).unwrap_or(300);
            let tenths = (progress.elapsed.as_secs_f64() / expected * 10.0).min(10.0) as u64;
            format!("t{time} e{tenths}")
        }
    };
    format!("<div class=\"bar\" aria-hidden=\"true\"><i class=\"{class}\"></i></div>")
}

/// Where a wake is when nothing is known of it yet.
impl Default for Progress<'_> {
    fn default() -> Self {
        Self { phase: Phase::Starting, elapsed: Duration::ZERO, expected: None, dependencies: &[] }
    }
}

/// Base 64, for the tests of hashes in policies.
#[cfg(test)]
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[((bits >> (18 - 6 * place)) & 63) as usize] as char;
            out.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn view<'a>() -> WaitingView<'a> {
        WaitingView {
            title: "Photos",
            path: "/a b/ü",
            language: Language::English,
            theme: Theme::Auto,
            progress: Progress { expected: Some(Duration::from_secs(4)), ..Progress::default() },
            template: None,
        }
    }

    fn header<'a>(page: &'a WaitingPage, name: &str) -> &'a str {
        &page.headers.iter().find(|(field, _)| *field == name).unwrap().1
    }

    /// The source expression of a content security policy for an inline text.
    fn hash(text: &str) -> String {
        format!("sha256-{}", base64(&Sha256::digest(text.as_bytes())))
    }

    /// The contents of all elements of this name.
    fn contents<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        html.split(&open).skip(1).map(|tail| tail.split(&close).next().unwrap()).collect()
    }

    #[test]
    fn the_policy_allows_the_page_its_own_texts_and_nothing_else() {
        let page = waiting_page(&view());
        let policy = header(&page, "Content-Security-Policy");
        let failure = Failure { why: WhyFailed::TimedOut, retry_after: None };
        let whole = format!("{}{}", page.head, page.failed_tail(&failure));
        let (styles, scripts) = (contents(&whole, "style"), contents(&whole, "script"));
        assert_eq!((styles.len(), scripts.len()), (2, 1));
        for text in styles.into_iter().chain(scripts) {
            assert!(policy.contains(&format!("'{}'", hash(text))), "{} for {text:.60}", hash(text));
        }
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert!(!whole.contains(" style=") && !whole.contains(" onclick="));
    }

    #[test]
    fn the_response_says_come_back_and_is_never_kept() {
        let page = waiting_page(&view());
        assert_eq!(header(&page, "Retry-After"), "4");
        assert_eq!(header(&page, "Cache-Control"), "no-store");
        assert!(page.headers.iter().all(|(name, value)| *name != "Set-Cookie" && !value.contains('\n')));
        let late = Progress { elapsed: Duration::from_secs(9), ..view().progress };
        assert_eq!(header(&waiting_page(&WaitingView { progress: late, ..view() }), "Retry-After"), "1");
        let unknown = WaitingView { progress: Progress::default(), ..view() };
        assert_eq!(header(&waiting_page(&unknown), "Retry-After"), "5");
    }

    #[test]
    fn whatever_comes_from_outside_is_escaped() {
        let evil = "</title><script>alert('x')</script>\"";
        let dependencies = [DependencyView { title: evil.into(), ready: false }];
        let progress = Progress { dependencies: &dependencies, ..view().progress };
        let failure = Failure { why: WhyFailed::StartFailed, retry_after: None };
        for template in [None, Some("{{title}}{{heading}}{{status}}<ul>{{dependencies}}</ul>")] {
            let page = waiting_page(&WaitingView { title: evil, progress: progress.clone(), template, ..view() });
            let whole = format!("{}{}", page.head, page.failed_tail(&failure));
            assert!(whole.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{whole}");
            assert!(!whole.contains("alert('x')") && !whole.contains("<script>alert"), "{whole}");
        }
    }

    #[test]
    fn the_page_is_small_in_every_language_and_says_it_there() {
        for language in Language::ALL {
            let page = waiting_page(&WaitingView { language, ..view() });
            assert!(page.head.len() < 8 * 1024, "{} bytes", page.head.len());
            assert!(page.head.contains(&format!("<html lang=\"{}\">", language.tag())));
            assert_eq!(header(&page, "Content-Language"), language.tag());
        }
        let dark = waiting_page(&WaitingView { theme: Theme::Dark, ..view() });
        assert!(dark.head.contains("<html lang=\"en\" class=\"dark\">"));
    }

    #[test]
    fn the_expected_time_moves_the_bar_without_scripts() {
        for (expected, elapsed, class) in [(4000, 0, "t4 e0"), (4100, 1500, "t5 e3"), (100, 900, "t1 e10")] {
            let progress = Progress {
                expected: Some(Duration::from_millis(expected)),
                elapsed: Duration::from_millis(elapsed),
                ..Progress::default()
            };
            let page = waiting_page(&WaitingView { progress, ..view() });
            assert!(page.head.contains(&format!("<i class=\"{class}\">")), "{}", page.head);
        }
        let unknown = waiting_page(&WaitingView { progress: Progress::default(), ..view() });
        assert!(unknown.head.contains("<i class=\"open\">"));
        for time in BAR_TIMES {
            assert!(STYLE.contains(&format!(".t{time}{{--t:{time}}}")));
        }
    }

    #[test]
    fn an_own_template_is_filled_and_keeps_our_script() {
        let template = "<!doctype html><html lang={{language}}><p id=status>{{status}}</p>{{expected_seconds}}</html>";
        let page = waiting_page(&WaitingView { template: Some(template), ..view() });
        assert!(page.head.contains("</noscript><p id=status>Starting. Usually"), "{}", page.head);
        assert!(page.head.contains("</p>4</html><script>"));
        let policy = header(&page, "Content-Security-Policy");
        assert!(policy.contains("style-src 'unsafe-inline'") && policy.contains(SCRIPT_HASH));
        assert!(!policy.contains("script-src 'unsafe"));
    }

    #[test]
    fn a_failure_replaces_the_waiting_part_and_offers_a_retry() {
        let page = waiting_page(&view());
        let failure = Failure { why: WhyFailed::TimedOut, retry_after: Some(Duration::from_secs(10)) };
        let tail = page.failed_tail(&failure);
        assert!(tail.contains("Photos did not wake up"));
        assert!(tail.contains("not ready in time. The next try is possible in 10 s."), "{tail}");
        assert!(tail.contains("<a id=\"again\" href=\"\">Try again</a>"));
        let whole = failed_page("Photos", Language::English, &failure);
        assert!(whole.body.contains("Photos did not wake up") && !whole.body.contains("http-equiv"));
        assert_eq!(whole.headers.iter().find(|(name, _)| *name == "Retry-After").unwrap().1, "10");
    }

    #[test]
    fn without_scripts_the_end_of_the_response_reloads_the_page() {
        let refresh = "<noscript><meta http-equiv=\"refresh\" content=\"0\"><frameset rows=\"*\"><frame \
                       src=\"/.dormouse/page?path=/a%20b/%C3%BC\" frameborder=\"0\"></frameset></noscript>";
        let head = waiting_page(&view()).head;
        assert!(head.find(refresh).unwrap() < head.find("<body>").unwrap());
        assert!(!framed_page(&view()).body.contains("noscript"));
        for (template, start) in [
            ("<!DOCTYPE html><html><head><title>x</title>", "<!DOCTYPE html><html><head><noscript>"),
            ("<!doctype html><html lang=en><header>x", "<!doctype html><html lang=en><noscript>"),
            ("<!doctype html>x", "<!doctype html><noscript>"),
            ("x", "<noscript>"),
        ] {
            let own = waiting_page(&WaitingView { template: Some(template), ..view() });
            assert!(own.head.starts_with(start) && own.head.contains(refresh), "{}", own.head);
        }
    }
}
