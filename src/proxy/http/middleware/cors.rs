//! `cors`: what pages of other origins may. What a browser asks beforehand is answered here and wakes nothing.

use crate::{control::LiveRoute, model::Cors};

use super::{
    super::{answer::Answer, request_head::RequestHead},
    chain::Refusal,
};

/// Answers what a browser asks before a request.
pub(super) fn preflight(cors: &Cors, head: &RequestHead) -> Result<(), Refusal> {
    let asks = head.method() == "OPTIONS" && head.get("access-control-request-method").is_some();
    let Some(origin) = head.get("origin").filter(|_| asks) else { return Ok(()) };
    let Some(allowed) = cors.allowed(origin) else {
        return Err(Refusal::new("its origin is not allowed", Answer::new(403, "The origin is not allowed.")));
    };
    let mut fields = vec![
        ("Access-Control-Allow-Origin".to_owned(), allowed.to_owned()),
        ("Vary".to_owned(), "Origin, Access-Control-Request-Method, Access-Control-Request-Headers".to_owned()),
    ];
    fields.extend(cors.preflight.iter().cloned());
    Err(Refusal::new("its preflight is answered", Answer { fields, ..Answer::new(204, "") }))
}

/// The origin that may read the answer to a request.
pub(in crate::proxy::http) fn allowed_origin<'a>(route: &'a LiveRoute, head: &RequestHead) -> Option<&'a str> {
    let cors = route.spec.options.middlewares.as_ref()?.cors()?;
    cors.allowed(head.get("origin")?)
}

#[cfg(test)]
mod tests {
    use super::{super::samples::head, *};

    #[test]
    fn what_is_asked_beforehand_is_answered() {
        let cors = Cors {
            origins: vec!["https://app.example".to_owned()],
            preflight: vec![("Access-Control-Allow-Methods".to_owned(), "GET".to_owned())],
        };
        let asks = "Access-Control-Request-Method: GET\r\n";
        for (method, fields, expected) in [
            ("GET", "Origin: https://app.example\r\n", None),
            ("OPTIONS", "Origin: https://app.example\r\n", None),
            ("OPTIONS", asks, None),
            ("OPTIONS", &format!("Origin: https://APP.example\r\n{asks}"), Some(204)),
            ("OPTIONS", &format!("Origin: https://evil.example\r\n{asks}"), Some(403)),
            ("OPTIONS", &format!("Origin: https://app.example.evil.example\r\n{asks}"), Some(403)),
            ("OPTIONS", &format!("Origin: null\r\n{asks}"), Some(403)),
        ] {
            let answer = preflight(&cors, &head(method, "/", fields)).err().map(|refusal| refusal.answer);
            assert_eq!(answer.as_ref().map(|answer| answer.status), expected, "{method} {fields}");
            if let Some(answer) = answer.filter(|answer| answer.status == 204) {
                assert_eq!(answer.fields[0].1, "https://app.example");
                assert!(answer.fields.contains(&cors.preflight[0]));
            }
        }
    }

    #[test]
    fn any_origin_is_not_repeated() {
        let cors = Cors { origins: vec!["*".to_owned()], preflight: Vec::new() };
        assert_eq!(cors.allowed("https://a.example"), Some("*"));
    }
}
