//! Which requests are page loads by a person: they get the waiting page, all others are held.

use super::request_head::RequestHead;

/// Whether the request loads a page: a GET that a browser marks as a navigation, or, from a client that marks
/// nothing, one that names `text/html`. Never an upgrade or a part of a page.
pub(super) fn is_navigation(head: &RequestHead) -> bool {
    if head.method() != "GET" || head.upgrade.is_some() || head.get("range").is_some() {
        return false;
    }
    let marked = ["sec-fetch-mode", "sec-fetch-site", "sec-fetch-dest", "sec-fetch-user"];
    if marked.iter().any(|name| head.get(name).is_some()) {
        return head.get("sec-fetch-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("navigate"));
    }
    head.all("accept").flat_map(|accept| accept.split(',')).any(|item| {
        let kind = item.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("text/html")
    })
}

/// Whether a browser asks before anybody has clicked: nobody waits for it, so it wakes nothing.
pub(super) fn is_prefetch(head: &RequestHead) -> bool {
    let says = |name: &str| head.all(name).any(|value| value.to_ascii_lowercase().contains("prefetch"));
    says("sec-purpose") || says("purpose")
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::{super::request_head, *};
    use crate::proxy::carry::Buffers;

    fn head(method: &str, fields: &str) -> RequestHead {
        let mut buf = Rc::new(Buffers::default()).lend();
        buf.push(format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
        request_head::take(&mut buf, &Rc::default(), 8192, 32768).unwrap().unwrap()
    }

    #[test]
    fn only_page_loads_by_a_person_are_navigations() {
        let html = "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n";
        for (method, fields, expected) in [
            ("GET", "Sec-Fetch-Mode: navigate\r\n", true),
            ("GET", html, true),
            ("GET", "Accept: text/html;q=0.9\r\n", true),
            ("GET", "", false),
            ("GET", "Accept: */*\r\n", false),
            ("GET", "Accept: text/*\r\n", false),
            ("POST", "Sec-Fetch-Mode: navigate\r\n", false),
            ("HEAD", html, false),
            ("GET", &format!("Sec-Fetch-Mode: cors\r\n{html}"), false),
            ("GET", &format!("Sec-Fetch-Site: same-origin\r\n{html}"), false),
            ("GET", &format!("Range: bytes=0-1\r\n{html}"), false),
            ("GET", &format!("Upgrade: websocket\r\nConnection: Upgrade\r\n{html}"), false),
        ] {
            assert_eq!(is_navigation(&head(method, fields)), expected, "{method} {fields:?}");
        }
    }

    #[test]
    fn a_prefetch_says_so() {
        assert!(is_prefetch(&head("GET", "Sec-Purpose: prefetch;prerender\r\n")));
        assert!(!is_prefetch(&head("GET", "Accept: text/html\r\n")));
    }
}
