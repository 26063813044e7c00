//! What middlewares make of an answer: its body in another coding, or a page of ours in its place.

use memchr::memmem;

use crate::{
    model::{Coding, Compress, Middlewares},
    web::weighted,
};

use super::{
    coding::choose,
    field::{self, Known},
    request_head::{Framing, RequestHead},
    response_head::ResponseHead,
};

/// How types of gRPC and gRPC-web begin.
const GRPC: &str = "application/grpc";

/// What becomes of an answer. Its head is changed already, apart from these fields.
#[derive(Debug, Default)]
pub(super) struct Remade<'a> {
    /// More fields.
    pub(super) fields: Vec<(&'static str, Vec<u8>)>,
    pub(super) body: Body<'a>,
}

#[derive(Debug, Default)]
pub(super) enum Body<'a> {
    /// It passes as it is.
    #[default]
    AsIs,
    /// It is put into this coding.
    Coded(Coding),
    /// This stands in its place.
    Page(&'a str),
}

/// Fields that tell of a body that is not sent.
pub(super) const OF_BODY: [&str; 14] = [
    "accept-ranges",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-md5",
    "content-range",
    "content-security-policy",
    "content-type",
    "digest",
    "etag",
    "last-modified",
    "repr-digest",
];

/// Fields that hold for the body as it was alone.
const OF_CODED: [&str; 5] = ["accept-ranges", "content-digest", "content-md5", "digest", "repr-digest"];

/// What becomes of an answer; its fields are in `bytes`. Nothing, for all that is no answer to be changed.
pub(super) fn remake<'a>(
    all: &'a Middlewares,
    request: &RequestHead,
    head: &mut ResponseHead,
    bytes: &[u8],
) -> Remade<'a> {
    if head.status < 200 {
        return Remade::default();
    }
    if let Some(page) = page(all, request, head, bytes) {
        head.withhold(bytes, &OF_BODY);
        (head.told_chunked, head.told_length) = (false, Some(page.len() as u64));
        head.framing = if request.is_head() { Framing::Empty } else { Framing::Length(page.len() as u64) };
        let fields = vec![("Content-Type", b"text/html; charset=utf-8".to_vec())];
        return Remade { fields, body: Body::Page(page) };
    }
    all.compress().map(|rule| compress(rule, request, head, bytes)).unwrap_or_default()
}

/// The page in place of an error, where a person would read what the service says.
fn page<'a>(all: &'a Middlewares, request: &RequestHead, head: &ResponseHead, bytes: &[u8]) -> Option<&'a str> {
    let pages = all.error_pages()?;
    // An answer that tells of a range says more than its status.
    let is_call = request.values("content-type").any(|kind| kind.to_ascii_lowercase().starts_with(GRPC.as_bytes()));
    if head.status < 400 || head.status == 416 || request.upgrade.is_some() || is_call {
        return None;
    }
    let kind = kind(head, bytes)?;
    let shown = matches!(kind.as_str(), "text/html" | "text/plain" | "application/xhtml+xml");
    (shown && takes_html(request)).then(|| pages.of_service(head.status)).flatten()
}

fn takes_html(request: &RequestHead) -> bool {
    const NAMES: [&str; 4] = ["text/html", "application/xhtml+xml", "text/*", "*/*"];
    let mut asked = request.all("accept").peekable();
    let of = |name: &str| NAMES.iter().any(|known| known.eq_ignore_ascii_case(name));
    asked.peek().is_none() || asked.flat_map(weighted).any(|(name, weight)| weight > 0 && of(name))
}

/// The type of the body, without its parameters.
fn kind(head: &ResponseHead, bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(head.values(bytes, "content-type").next()?).ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn compress<'a>(rule: &Compress, request: &RequestHead, head: &mut ResponseHead, bytes: &[u8]) -> Remade<'a> {
    let accepted = request.all("accept-encoding").collect::<Vec<_>>().join(",");
    let coding = choose(&accepted, &rule.codings).filter(|_| request.is_11);
    if head.status == 304 {
        return of_known(request, head, bytes, coding.is_some());
    }
    if !may_be_coded(rule, request, head, bytes) {
        return Remade::default();
    }
    let mut remade = Remade { fields: varies(head, bytes), ..Remade::default() };
    let Some(coding) = coding else { return remade };
    // What is compressed is not the same byte for byte.
    if let Some(weak) = weakened(head, bytes) {
        head.withhold(bytes, &["etag"]);
        remade.fields.push(("ETag", weak));
    }
    head.withhold(bytes, &OF_CODED);
    head.withhold(bytes, &["content-encoding"]);
    (head.told_chunked, head.told_length) = (true, None);
    remade.fields.push(("Content-Encoding", coding.as_str().as_bytes().to_vec()));
    remade.body = Body::Coded(coding);
    remade
}

/// What becomes of a 304: it tells of what the client has, and of that alone its tag says whether it was compressed.
fn of_known<'a>(request: &RequestHead, head: &mut ResponseHead, bytes: &[u8], likes_coded: bool) -> Remade<'a> {
    let has = |tag: &[u8]| request.values("if-none-match").any(|value| memmem::find(value, tag).is_some());
    match weakened(head, bytes) {
        Some(weak) if has(&weak) => {
            let fields = varies(head, bytes);
            // The length is that of the body as the service has it.
            head.told_length = None;
            head.withhold(bytes, &["etag"]);
            Remade { fields: [fields, vec![("ETag", weak)]].concat(), ..Remade::default() }
        }
        strong => {
            // Without a tag nobody knows in what form the client has it.
            let is_plain = strong.is_some_and(|weak| has(weak.get(2..).unwrap_or_default()));
            if likes_coded && !is_plain {
                head.told_length = None;
            }
            Remade::default()
        }
    }
}

/// The weak form of an answer's tag, if that is strong.
fn weakened(head: &ResponseHead, bytes: &[u8]) -> Option<Vec<u8>> {
    let tag = head.values(bytes, "etag").next().filter(|tag| !tag.starts_with(b"W/"))?;
    Some([b"W/", tag].concat())
}

/// What says that the answer hangs on what the client likes, where it does not say so yet.
fn varies(head: &ResponseHead, bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let says = |value: &[u8]| field::list_has(value, "accept-encoding") || field::list_has(value, "*");
    let told = head.values(bytes, "vary").any(says);
    if told { Vec::new() } else { vec![("Vary", b"Accept-Encoding".to_vec())] }
}

/// Whether a body may be compressed at all, whoever asks.
fn may_be_coded(rule: &Compress, request: &RequestHead, head: &ResponseHead, bytes: &[u8]) -> bool {
    let is_whole = matches!(head.status, 200..=203 | 207..=299 | 400..=599);
    let is_plain = |value: &[u8]| value.eq_ignore_ascii_case(b"identity");
    is_whole
        && head.told_length.is_none_or(|length| length >= rule.min_size)
        && head.values(bytes, "content-encoding").all(is_plain)
        && head.values(bytes, "content-range").next().is_none()
        && !head.values(bytes, "cache-control").any(|value| field::list_has(value, "no-transform"))
        && !request.values("cache-control").any(|value| field::list_has(value, "no-transform"))
        && kind(head, bytes).is_some_and(|kind| is_of(rule, &kind))
}

/// Whether bodies of a type are compressed. Events are awaited one by one, and calls have a coding of their own.
fn is_of(rule: &Compress, kind: &str) -> bool {
    if kind == "text/event-stream" || kind.starts_with(GRPC) || kind.starts_with("multipart/") {
        return false;
    }
    rule.types.iter().any(|known| match (known.strip_suffix('*'), known.starts_with('+')) {
        (Some(family), _) => kind.starts_with(family),
        (None, true) => kind.ends_with(known.as_str()),
        (None, false) => kind == known,
    })
}

impl ResponseHead {
    /// All values of a field.
    fn values<'a>(&'a self, bytes: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
        let part = |at: &std::ops::Range<usize>| bytes.get(at.clone()).unwrap_or_default();
        let of = move |field: &&super::request_head::Field| {
            field.known == Known::Other && part(&field.name).eq_ignore_ascii_case(name.as_bytes())
        };
        self.fields().iter().filter(of).map(move |field| part(&field.value))
    }

    /// From here on, these fields are not passed on.
    fn withhold(&mut self, bytes: &[u8], names: &[&str]) {
        for field in self.fields_mut() {
            let own = bytes.get(field.name.clone()).unwrap_or_default();
            if names.iter().any(|name| own.eq_ignore_ascii_case(name.as_bytes())) {
                field.known = Known::Hop;
            }
        }
    }
}
