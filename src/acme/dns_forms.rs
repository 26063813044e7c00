//! The forms of what providers of DNS need, as far as they are known: a mistake is told before anything is ordered.

use std::net::Ipv4Addr;

use dns_update::jwt::parse_rsa_pkcs8_pem;
use http::Uri;
use serde_json::Value;

use crate::model::{DnsOption, DnsProviderKind, DnsServer};

/// What an account of Google's must have in it, beside its key.
const OF_AN_ACCOUNT: [&str; 3] = ["client_email", "private_key", "token_uri"];

/// Says what is wrong with a value. Nothing of a secret is told.
pub(super) fn check(kind: &DnsProviderKind, option: &DnsOption, value: &str) -> Result<(), String> {
    match (kind.name, option.key) {
        ("googlecloud", "service_account") => account(value),
        ("transip", "private_key") => private_key(value),
        ("rfc2136", "server") => value.parse::<DnsServer>().map(drop).map_err(|wrong| wrong.to_string()),
        ("namecheap", "client_ip") => match value.parse::<Ipv4Addr>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("`{value}` is no IPv4 address")),
        },
        ("powerdns", "endpoint") => endpoint(value),
        _ => Ok(()),
    }
}

/// The key of a service account, as Google gives it.
fn account(text: &str) -> Result<(), String> {
    let hint = "(hint: it is the whole file that Google gives for a key of a service account)";
    let account: Value = serde_json::from_str(text)
        .map_err(|error| format!("it is no JSON: line {}, column {} is wrong {hint}", error.line(), error.column()))?;
    for field in OF_AN_ACCOUNT {
        if account.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(format!("it has no `{field}` {hint}"));
        }
    }
    let key = account.get("private_key").and_then(Value::as_str).unwrap_or_default();
    private_key(key).map_err(|why| format!("its `private_key`: {why}"))
}

fn private_key(text: &str) -> Result<(), String> {
    if text.contains("ENCRYPTED") {
        return Err("it is encrypted, and nobody is there to be asked for its password".to_owned());
    }
    if !text.contains("-----BEGIN ") {
        return Err("it is no PEM (hint: its first line is `-----BEGIN PRIVATE KEY-----`)".to_owned());
    }
    // What the library says may quote what stands there.
    parse_rsa_pkcs8_pem(text).map(drop).map_err(|_| "it is no private key of RSA that can be read".to_owned())
}

fn endpoint(text: &str) -> Result<(), String> {
    let uri = text.parse::<Uri>().ok();
    let is_sound = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    if uri.as_ref().is_some_and(is_sound) {
        return Ok(());
    }
    Err(format!("`{text}` is no address of an API: write it as in `http://127.0.0.1:8081`"))
}
