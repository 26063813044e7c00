//! What we say ourselves to a call of gRPC: its client looks at a status of its own, in fields that end the answer.

use std::{fmt::Write, time::Duration};

use super::{answer::Answer, field, request_head::RequestHead};

/// How a call is told what a request would be; absent: it is no call, or no error.
pub(super) fn told(head: &RequestHead, answer: &Answer, is_http2: bool) -> Option<Answer> {
    // Over HTTP/1 a refusal stays one of HTTP: who asks there whether somebody may come in takes any 200 for a yes, and
    // the clients of gRPC-web know what a status of HTTP means.
    let may_be_call = is_http2 && answer.status >= 400 && head.method() == "POST";
    let kind = head.get("content-type").filter(|_| may_be_call)?;
    (field::is_grpc(kind.as_bytes()) || is_grpc_web(kind)).then(|| as_call(answer, kind))
}

/// What browsers call by.
fn is_grpc_web(kind: &str) -> bool {
    const GRPC_WEB: &str = "application/grpc-web";
    const TEXT: &str = "-text";
    fn behind<'a>(kind: &'a str, start: &str) -> Option<&'a str> {
        let (found, rest) = kind.split_at_checked(start.len())?;
        found.eq_ignore_ascii_case(start).then_some(rest)
    }
    behind(kind, GRPC_WEB).is_some_and(|rest| {
        let rest = behind(rest, TEXT).unwrap_or(rest);
        matches!(rest.bytes().next(), None | Some(b'+' | b';'))
    })
}

fn as_call(answer: &Answer, kind: &str) -> Answer {
    let mut call = Answer { body: Some(String::new()), ..Answer::new(200, "") };
    let kind = if kind.is_ascii() { kind } else { "application/grpc" };
    let fields = [
        ("Content-Type", kind.to_owned()),
        ("grpc-status", code(answer.status).to_string()),
        ("grpc-message", escaped(&answer.detail)),
    ];
    call.fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
    // What somebody else says to it, as one that lets in does, goes along, but for what told of its body.
    let told_of_body = |name: &str| name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("content-"));
    call.fields.extend(answer.fields.iter().filter(|(name, _)| !told_of_body(name)).cloned());
    call.retry_after(answer.retry_after.filter(|after| *after > Duration::ZERO))
}

/// The status of gRPC for one of HTTP: what the client would make of that, and closer where we know more.
fn code(status: u16) -> u8 {
    const UNKNOWN: u8 = 2;
    const DEADLINE_EXCEEDED: u8 = 4;
    const PERMISSION_DENIED: u8 = 7;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    const UNAUTHENTICATED: u8 = 16;
    match status {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        408 | 504 => DEADLINE_EXCEEDED,
        413 | 429 => RESOURCE_EXHAUSTED,
        502 | 503 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// A message as it stands in its field: percent-encoded, but for what is visible and no percent sign.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..b' ' | 0x7f.. => {
                let _ = write!(out, "%{byte:02X}");
            }
            b' '..=b'~' => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::middleware::samples::head, *};

    #[test]
    fn errors_are_told_to_calls_in_their_own_words() {
        for (kind, status, is_http2, expected) in [
            ("application/grpc", 503, true, Some("14")),
            ("application/grpc+proto", 502, true, Some("14")),
            ("Application/gRPC; charset=utf-8", 504, true, Some("4")),
            ("application/grpc", 401, true, Some("16")),
            ("application/grpc", 403, true, Some("7")),
            ("application/grpc", 404, true, Some("12")),
            ("application/grpc", 413, true, Some("8")),
            ("application/grpc", 429, true, Some("8")),
            ("application/grpc", 400, true, Some("13")),
            ("application/grpc", 508, true, Some("2")),
            ("application/grpc", 308, true, None),
            ("application/grpc", 503, false, None),
            ("application/grpc-web+proto", 503, true, Some("14")),
            ("application/gRPC-Web; a=b", 503, true, Some("14")),
            ("application/grpc-web-text", 503, true, Some("14")),
            ("application/grpc-web-text+proto", 401, true, Some("16")),
            ("application/grpc-web+proto", 401, false, None),
            ("application/grpc-web-text", 403, false, None),
            ("application/grpc-website", 401, true, None),
            ("application/grpc-web-texts", 401, true, None),
            ("application/grpc-web-", 401, true, None),
            ("application/grpcx", 503, true, None),
            ("application/json", 503, true, None),
        ] {
            let head = head("POST", "/", &format!("Content-Type: {kind}\r\n"));
            let told = told(&head, &Answer::new(status, "No.").retry_after(Duration::from_secs(1)), is_http2);
            let found = told.as_ref().and_then(|call| call.fields.iter().find(|(name, _)| name == "grpc-status"));
            assert_eq!(found.map(|(_, code)| code.as_str()), expected, "{kind} {status}");
            if let Some(call) = told {
                assert_eq!((call.status, call.body.as_deref()), (200, Some("")));
                assert_eq!(call.fields[0].1, kind);
            }
        }
    }

    #[test]
    fn what_is_no_call_is_refused_in_the_words_of_http() {
        for kind in ["application/grpc", "application/grpc-web", "application/grpc-web+proto"] {
            for method in ["GET", "HEAD", "PUT", "OPTIONS", "post"] {
                let head = head(method, "/", &format!("Content-Type: {kind}\r\n"));
                assert!(told(&head, &Answer::new(401, "No."), true).is_none(), "{method} {kind}");
            }
        }
    }

    #[test]
    fn a_message_is_encoded() {
        assert_eq!(escaped("100 % of “it”\n~"), "100 %25 of %E2%80%9Cit%E2%80%9D%0A~");
    }
}
