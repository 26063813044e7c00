//! Texts of OpenID Connect: parameters of queries and forms, and what browsers keep for us in cookies.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::model::{Identity, Oidc, without_escapes};

/// A value as it stands in a query or form.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// The value of a parameter of a query; none where it stands more than once.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let mut found = query.trim_start_matches('?').split('&').filter_map(|pair| {
        let (own, value) = pair.split_once('=')?;
        (own == name).then_some(value)
    });
    let value = found.next().filter(|_| found.next().is_none())?;
    String::from_utf8(without_escapes(&value.replace('+', " "))).ok()
}

/// An address with more parameters.
pub(super) fn with_parameters(address: &str, parameters: &[(&str, &str)]) -> String {
    let joined: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let joint = if address.contains('?') { '&' } else { '?' };
    format!("{address}{joint}{}", joined.join("&"))
}

/// A path on the same host, whatever it looks like: two slashes, or one of either kind, would name another host.
pub(super) fn on_this_host(target: &str) -> String {
    format!("/{}", target.trim_start_matches(['/', '\\']))
}

/// What a verifier is shown by (RFC 7636, 4.2).
pub(super) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

/// What the values of cookies are about: for another route, provider, client or host they mean nothing.
pub(super) struct About {
    /// All of it.
    text: String,
    /// The name of the cookie of the session. Several routes may share a host.
    pub(super) name: String,
}

impl About {
    /// `names`: how the names of our cookies begin.
    pub(super) fn new(route: &str, rule: &Oidc, host: &str, names: &str) -> Self {
        let text = format!("{route}\0{}\0{}\0{}", rule.issuer, rule.client_id, host.to_ascii_lowercase());
        let hash = digest(&SHA256, text.as_bytes());
        let hash: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{names}{hash}");
        Self { text: format!("{name}\0{text}"), name }
    }

    /// What the session is sealed about.
    pub(super) fn session(&self) -> Vec<u8> {
        format!("session\0{}", self.text).into_bytes()
    }

    /// What a login under way is sealed about.
    pub(super) fn login(&self) -> Vec<u8> {
        format!("login\0{}", self.text).into_bytes()
    }

    /// The name of the cookie of a login. A browser has few at once, so that tabs do not fill its requests.
    pub(super) fn login_name(&self, state: &str) -> String {
        format!("{}_{}", self.name, state.bytes().next().unwrap_or_default() % 4)
    }
}

/// A field that has a browser keep a cookie for so many seconds; with 0 it is forgotten. It is sent with what the
/// browser is led to by others, since the provider leads it back.
pub(super) fn cookie(name: &str, value: &str, age: u64, secure: bool) -> (String, String) {
    let secure = if secure { "; Secure" } else { "" };
    ("Set-Cookie".to_owned(), format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"))
}

/// The values of the cookies of this name. White space is what it is to browsers: they keep a name that begins with any
/// other, which anybody may set, as if it were not ours.
pub(super) fn crumbs<'a>(fields: impl Iterator<Item = &'a str>, name: &str) -> impl Iterator<Item = &'a str> {
    fields
        .flat_map(|field| field.split(';'))
        .filter_map(move |crumb| crumb.trim_matches([' ', '\t']).strip_prefix(name)?.strip_prefix('='))
}

/// A login under way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
    /// Where to go then.
    pub(super) back: String,
    /// Seconds since 1970.
    pub(super) until: i64,
}

impl Login {
    pub(super) fn text(&self) -> String {
        json!([self.state, self.nonce, self.verifier, self.back, self.until]).to_string()
    }

    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let parts: Value = serde_json::from_slice(text).ok()?;
        let text = |at: usize| parts.get(at)?.as_str().map(str::to_owned);
        let until = parts.get(4)?.as_i64()?;
        Some(Self { state: text(0)?, nonce: text(1)?, verifier: text(2)?, back: text(3)?, until })
    }
}

/// Somebody who is logged in until then, as a text.
pub(super) fn session(who: &Identity, until: i64) -> String {
    let Identity { subject, user, name, email, email_verified, groups } = who;
    json!([until, subject, user, name, email, email_verified, groups]).to_string()
}

/// The same, read.
pub(super) fn read_session(text: &[u8]) -> Option<(Identity, i64)> {
    let parts: Value = serde_json::from_slice(text).ok()?;
    let text = |at: usize| parts.get(at)?.as_str().map(str::to_owned);
    let groups = parts.get(6)?.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let who = Identity {
        subject: text(1)?,
        user: text(2)?,
        name: text(3)?,
        email: text(4)?,
        email_verified: parts.get(5)?.as_bool()?,
        groups,
    };
    Some((who, parts.get(0)?.as_i64()?))
}

/// What the service is told of somebody. A name may hold anything: what would end a field is left out, and so is a
/// group that would read as two.
pub(super) fn fields(who: &Identity) -> Vec<(String, String)> {
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned();
    let groups: Vec<_> = who.groups.iter().filter(|group| !group.contains(',')).map(|group| clean(group)).collect();
    // Somebody without a name of that kind is told by what never changes.
    let email = if who.email_verified { who.email.as_str() } else { "" };
    let user = [&who.user, email, &who.subject].into_iter().find(|text| !text.is_empty());
    let values = [user.unwrap_or_default(), &who.name, &who.email, &groups.join(",")].map(clean);
    let named = Oidc::FIELDS.into_iter().zip(values).filter(|(_, value)| !value.is_empty());
    named.map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_written_and_read() {
        let odd = "a b&c=d+e%f/?#ä\"";
        let address = with_parameters("https://id.example/auth", &[("x", odd), ("y", "1")]);
        assert_eq!(address, "https://id.example/auth?x=a%20b%26c%3Dd%2Be%25f%2F%3F%23%C3%A4%22&y=1");
        let (_, query) = address.split_once('?').unwrap();
        assert_eq!(parameter(query, "x").as_deref(), Some(odd));
        assert_eq!(with_parameters("https://id.example/auth?a=1", &[("b", "2")]), "https://id.example/auth?a=1&b=2");
        for (query, found) in [
            ("?code=a+b", Some("a b")),
            ("?x=1&code=", Some("")),
            ("?code", None),
            ("?code=1&code=2", None),
            ("?Code=1", None),
            ("?code=%ff", None),
            ("", None),
        ] {
            assert_eq!(parameter(query, "code").as_deref(), found, "{query}");
        }
    }

    #[test]
    fn cookies_of_other_names_are_not_ours() {
        let fields = ["a=1; b=2;\ta=3 ;b=4", "\u{2000}a=5; \u{a0}a=6;\u{c}a=7; \u{b}a=8; xa=9; A=10", "a=11"];
        assert_eq!(crumbs(fields.into_iter(), "a").collect::<Vec<_>>(), ["1", "3", "11"]);
    }

    #[test]
    fn nobody_is_led_to_another_host() {
        for (target, path) in [
            ("/a?b=//c", "/a?b=//c"),
            ("//evil.example/", "/evil.example/"),
            ("/\\evil.example", "/evil.example"),
            ("\\/\\evil.example", "/evil.example"),
            ("https://evil.example", "/https://evil.example"),
            ("", "/"),
        ] {
            assert_eq!(on_this_host(target), path);
        }
    }

    #[test]
    fn what_a_service_is_told_ends_no_field_and_makes_no_groups() {
        let who = Identity {
            subject: "7".to_owned(),
            user: String::new(),
            name: "Mia\r\nRemote-User: root\0".to_owned(),
            email: "mia@example.org".to_owned(),
            email_verified: false,
            groups: ["a,admins", "b", "c\n"].map(str::to_owned).into(),
        };
        let told = fields(&who);
        let told: Vec<_> = told.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("Remote-User", "7"),
            ("Remote-Name", "MiaRemote-User: root"),
            ("Remote-Email", "mia@example.org"),
            ("Remote-Groups", "b,c"),
        ];
        assert_eq!(told, expected, "an address that may be another's names nobody");
        assert_eq!(read_session(session(&who, 9).as_bytes()), Some((who, 9)));
        assert!(read_session(b"[]").is_none() && read_session(b"x").is_none() && Login::read(b"[1]").is_none());
    }

    #[test]
    fn the_challenge_is_that_of_the_standard() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
