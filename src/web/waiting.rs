//! The waiting page.

use std::time::Duration;

use super::{
    FRAME_PATH, Failure, Headers, Language, Phase, Progress, Theme, WholePage,
    document::{HIDE, MOUSE, SCRIPT, again, document_head, fields},
    escape::escape,
    failure::failed_section,
    template::fill_template,
    words::fill,
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

/// A backend that is woken before the one that is wanted, by the title of its own route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyView {
    /// The public title.
    pub title: String,
    /// Whether it is awake already.
    pub ready: bool,
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

/// Puts the text into the head of an own document, as late as the document shows where its head ends.
fn with_head(template: &str, text: &str) -> String {
    let lower = template.to_ascii_lowercase();
    let before = |tag: &str| lower.find(tag);
    let after = |tag: &str| before(tag).and_then(|at| lower[at..].find('>').map(|end| at + end + 1));
    let at = before("</head>").or_else(|| before("<body")).or_else(|| after("<html")).or_else(|| after("<!doctype"));
    let (start, end) = template.split_at(at.unwrap_or(0));
    format!("{start}{text}{end}")
}

fn percent_encode(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b'/');
    let encode = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    path.bytes().map(encode).collect()
}

fn headers(view: &WaitingView<'_>) -> Headers {
    fields(view.language, view.template.is_some(), retry_after(&view.progress))
}

/// In seconds: what is left of the usual time, within reason.
fn retry_after(progress: &Progress<'_>) -> u64 {
    let left = progress.expected.map(|expected| expected.saturating_sub(progress.elapsed));
    left.map_or(5, |left| left.as_secs_f64().ceil() as u64).clamp(1, 60)
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

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::web::{
        WhyFailed,
        document::{SCRIPT_HASH, STYLE, base64},
        failed_page,
    };

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
    fn the_policy_allows_each_page_its_own_texts_and_nothing_else() {
        let failure = Failure { why: WhyFailed::TimedOut, retry_after: None };
        let (page, frame) = (waiting_page(&view()), framed_page(&view()));
        let failed = failed_page("Photos", Language::English, &failure);
        let whole = format!("{}{}", page.head, page.failed_tail(&failure));
        for (headers, html, styles) in
            [(page.headers, whole, 2), (frame.headers, frame.body, 1), (failed.headers, failed.body, 1)]
        {
            let policy = &headers.iter().find(|(field, _)| *field == "Content-Security-Policy").unwrap().1;
            assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
            let (found, scripts) = (contents(&html, "style"), contents(&html, "script"));
            assert_eq!((found.len(), scripts.len()), (styles, 1));
            for text in found.into_iter().chain(scripts) {
                assert!(policy.contains(&format!("'{}'", hash(text))), "{} for {text:.60}", hash(text));
            }
            assert!(!html.contains(" style=") && !html.contains(" onclick="));
        }
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
        assert!(tail.contains("<a class=\"again\" href=\"\">Try again</a>"));
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
            ("<!DOCTYPE html><head>x</HEAD><body>", "<!DOCTYPE html><head>x<noscript>"),
            ("<!doctype html><title>x</title><body>", "<!doctype html><title>x</title><noscript>"),
            ("<!doctype html><html lang=en><header>x", "<!doctype html><html lang=en><noscript>"),
            ("<!doctype html>x", "<!doctype html><noscript>"),
            ("x", "<noscript>"),
        ] {
            let own = waiting_page(&WaitingView { template: Some(template), ..view() });
            assert!(own.head.starts_with(start) && own.head.contains(refresh), "{}", own.head);
        }
    }
}
