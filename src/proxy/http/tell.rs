//! What we say ourselves to a request of a route: as a page of the route's own where it has one, and with the header
//! fields that the route wants in all its answers, so that a page of another origin can read a refusal, too, and
//! browsers are as careful with it as with the service.

use crate::{control::LiveRoute, web};

use super::{
    answer::Answer,
    field::is_set,
    front::{Client, Next},
    middleware,
    remake::OF_BODY,
    request_head::RequestHead,
    rewrite::HSTS,
    secure,
    variables::Message,
};

/// Tells the client something ourselves.
pub(super) async fn tell(client: &mut Client, head: &RequestHead, route: &LiveRoute, answer: &Answer) -> Next {
    let page = as_page(route, head, answer);
    let wanted = wanted(client, head, route, answer.status);
    client.answer_with(Some(head), page.as_ref().unwrap_or(answer), &wanted).await
}

/// The page that the route has for it, for those who like to see it.
pub(super) fn as_page(route: &LiveRoute, head: &RequestHead, answer: &Answer) -> Option<Answer> {
    let pages = route.spec.options.middlewares.as_ref()?.error_pages()?;
    answer.as_page(pages, head)
}

/// The header fields that the route wants in its answers, as far as they do not tell of a body, which is ours.
pub(super) fn wanted(client: &Client, head: &RequestHead, route: &LiveRoute, status: u16) -> Vec<(String, String)> {
    let options = &route.spec.options;
    let added = options.middlewares.as_ref().map_or(&[][..], |all| &all.add_response_headers);
    let origin = middleware::allowed_origin(route, head).map(|origin| ("Access-Control-Allow-Origin", origin));
    let hsts = secure::hsts(client, head).filter(|_| !is_set(&options.set_response_headers, HSTS.as_bytes()));
    let (peer, trusted) = (client.peer.as_ref(), client.settings.trusted_proxies.as_slice());
    let stays = route.group.as_ref().and_then(|group| group.cookie.as_ref());
    let ours = (stays, client.worker.shared.drawn_session_key());
    let message = Message {
        head,
        peer,
        trusted,
        route: &route.spec,
        edits: None,
        ours,
        upstream: None,
        answer: Some((status, None)),
    };
    let varied = options.middlewares.as_deref().map(|all| message.of_answer(all)).unwrap_or_default();
    let varied = varied.into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()));
    let varied: Vec<(String, String)> = varied.collect();
    let own = options.set_response_headers.iter().chain(added).chain(&varied);
    let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
    // What is shown within the waiting page must be allowed to be.
    let is_frame = head.path() == web::FRAME_PATH;
    let fits = |name: &str| {
        let of_body = OF_BODY.iter().any(|known| known.eq_ignore_ascii_case(name) && *known != POLICY);
        !(of_body || is_frame && name.eq_ignore_ascii_case("x-frame-options"))
    };
    let all = own.filter(|(name, _)| fits(name)).chain(origin).chain(hsts.map(|hsts| (HSTS, hsts)));
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// That of the route holds for what has none of its own.
const POLICY: &str = "content-security-policy";

/// Adds fields to a head, except those under whose names it says something already.
pub(super) fn add_wanted(head: &mut String, wanted: &[(String, String)]) {
    if wanted.is_empty() {
        return;
    }
    let names = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    let said: Vec<String> = names.map(|(name, _)| name.to_ascii_lowercase()).collect();
    for (name, value) in wanted.iter().filter(|(name, _)| !said.contains(&name.to_ascii_lowercase())) {
        for part in [name.as_str(), ": ", value, "\r\n"] {
            head.push_str(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_already_counts() {
        let mut head = "HTTP/1.1 204 No Content\r\nVary: Origin, Cookie\r\n".to_owned();
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        add_wanted(&mut head, &[field("vary", "Origin"), field("X-A", "1"), field("X-A", "2")]);
        assert_eq!(head, "HTTP/1.1 204 No Content\r\nVary: Origin, Cookie\r\nX-A: 1\r\nX-A: 2\r\n");
    }
}
