//! Certificates by `dns-01` through providers of DNS, with a real ACME server, and a real DNS server where there is one.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, ToSpan};

use crate::support::{
    apps::{App, config},
    bind::{self, Bind},
    dns_stub::{self, DnsStub},
    dormouse::Dormouse,
    pebble::{Options, Pebble},
    tls::curl,
    wait::until,
};

/// Nobody's: these authorities look at the DNS only.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

async fn is_certified(dormouse: &Dormouse, root: &Path, host: &str) {
    let at = dormouse.https.expect("it serves HTTPS");
    let url = format!("https://{host}:{}/", at.port());
    let trust = || vec!["--cacert".to_owned(), root.display().to_string()];
    // With a certificate that fits, whatever is behind it.
    let ask = async || (curl(&url, host, at, trust()).await, dormouse.log());
    until(&format!("a certificate for {host}"), ask, |(reply, _)| reply.ok).await;
}

async fn problems(dormouse: &Dormouse) -> String {
    dormouse.api("GET", "/api/v1/problems").await["problems"].to_string()
}

/// `dns:` for a server that takes signed changes.
fn signed(bind: &Bind, secret: &Path) -> String {
    signed_and_seen_by(bind, secret, bind.address())
}

/// The same with another server that is asked whether they are seen.
fn signed_and_seen_by(bind: &Bind, secret: &Path, resolver: SocketAddr) -> String {
    format!(
        "dns: {{ provider: rfc2136, server: \"{}\", key_name: {}, key_secret_file: \"{}\", resolvers: [\"{resolver}\"] }}",
        bind.address(),
        bind::KEY.0,
        secret.display()
    )
}

/// The files that tell what is in the DNS.
fn notes(dormouse: &Dormouse) -> Vec<PathBuf> {
    let entries = fs::read_dir(dormouse.state_dir().join("dns-records"));
    entries.map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

#[tokio::test]
async fn a_wildcard_and_its_host_get_a_certificate_by_signed_changes_of_a_real_server() {
    let app = App::new("app");
    let bind = Bind::start().await;
    let options = Options { dns: Some(bind.address().port()), ..Options::default() };
    let pebble = Pebble::start(NOWHERE, NOWHERE, options).await;
    let dns = signed(&bind, &bind.secret("key", bind::KEY.1));
    let named = "certificates: [[wild.test, \"*.wild.test\"]]";
    let text = format!("{}acme: {{ {}, {dns}, {named} }}\n", config(&[&app]), pebble.settings());
    let dormouse = Dormouse::start_secure(&text).await;
    let root = pebble.root().await;
    for host in ["wild.test", "app.wild.test"] {
        is_certified(&dormouse, &root, host).await;
    }
    // What was put in is taken out, and nothing else is.
    let kept = [format!("\"{}\"", bind::FOREIGN)];
    until(
        "only what was there is there",
        async || bind.texts("_acme-challenge.wild.test").await,
        |texts| *texts == kept,
    )
    .await;
    let log = bind.log();
    let (added, taken) =
        ("adding an RR at '_acme-challenge.wild.test' TXT", "deleting an RR at _acme-challenge.wild.test TXT");
    assert_eq!((log.matches(added).count(), log.matches(taken).count()), (2, 2), "{log}");
    assert!(log.rfind(added) < log.find(taken), "both are there at a time: {log}");
    for told in [dormouse.log(), dormouse.api_text("GET", "/api/v1/problems", "").await] {
        assert!(!told.contains(bind::KEY.1), "a secret is told: {told}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_the_key_is_told_with_what_to_do() {
    let app = App::new("app");
    let bind = Bind::start().await;
    let options = Options { dns: Some(bind.address().port()), ..Options::default() };
    let pebble = Pebble::start(NOWHERE, NOWHERE, options).await;
    let wrong = "d3JvbmcsIGFuZCBhbHNvIDMyIGJ5dGVzIGluIGxlbmd0aA==";
    let dns = signed(&bind, &bind.secret("key", wrong));
    let text = format!("{}acme: {{ {}, {dns}, certificates: [wild.test] }}\n", config(&[&app]), pebble.settings());
    let dormouse = Dormouse::start_secure(&text).await;
    let told =
        until("it is told", async || problems(&dormouse).await, |told| told.contains("no certificate for")).await;
    for words in
        ["`_acme-challenge.wild.test`", "zone `wild.test`", "`rfc2136`", "key_name", &bind.address().to_string()]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!format!("{told}{}", dormouse.log()).contains(wrong), "a secret is told");
    assert_eq!(bind.texts("_acme-challenge.wild.test").await, [format!("\"{}\"", bind::FOREIGN)]);
}

#[tokio::test]
async fn what_an_order_had_in_the_dns_is_taken_out_after_a_kill() {
    let (app, name) = (App::new("app"), "_acme-challenge.wild.test");
    let bind = Bind::start().await;
    let options = Options { dns: Some(bind.address().port()), ..Options::default() };
    let pebble = Pebble::start(NOWHERE, NOWHERE, options).await;
    let secret = bind.secret("key", bind::KEY.1);
    // Nobody tells whether they are seen: the order goes on and on.
    let dns = signed_and_seen_by(&bind, &secret, NOWHERE);
    let with = |certificates: &str| {
        format!("{}acme: {{ {}, {dns}, certificates: {certificates} }}\n", config(&[&app]), pebble.settings())
    };
    let mut dormouse = Dormouse::start_secure(&with("[[wild.test, \"*.wild.test\"]]")).await;
    until("the records", async || bind.texts(name).await, |texts| texts.len() == 3).await;
    dormouse.kill();
    let kept = notes(&dormouse);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|file| !fs::read_to_string(file).unwrap().contains(bind::KEY.1)), "a secret is kept");
    assert_eq!(bind.texts(name).await.len(), 3);
    // Nothing is ordered any more.
    dormouse.configure(&with("[]"));
    dormouse.start_again().await;
    let foreign = [format!("\"{}\"", bind::FOREIGN)];
    until("only what was there is there", async || bind.texts(name).await, |texts| *texts == foreign).await;
    until("nothing is noted", async || notes(&dormouse), Vec::is_empty).await;
}

#[tokio::test]
async fn what_can_not_be_taken_out_is_taken_out_when_the_provider_is_back_and_what_another_one_has_is_told() {
    let pebble = Pebble::start(NOWHERE, NOWHERE, Options::default()).await;
    let stub = DnsStub::start("the-token", pebble.dns_management()).await;
    let (app, secret) = (App::new("app"), stub.secret("the-token"));
    let with = |provider: &str, certificates: &str| {
        let token = format!("provider: {provider}, token_file: \"{}\"", secret.display());
        let dns = format!("dns: {{ {token}, zone: wild.test, resolvers: [\"{NOWHERE}\"] }}");
        format!("{}acme: {{ {}, {dns}, certificates: {certificates} }}\n", config(&[&app]), pebble.settings())
    };
    let environment = stub.environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let ordering = with("cloudflare", "[wild.test]");
    let mut dormouse = Dormouse::start_secure_in(&ordering, &environment).await;
    until("the record", async || stub.texts(), |texts| texts.len() == 2).await;
    dormouse.kill();
    stub.goes_away();
    dormouse.configure(&with("cloudflare", "[]"));
    dormouse.start_again().await;
    let log = async || dormouse.log();
    until("it is told", log, |log| log.contains("a record could not be taken out of the DNS")).await;
    assert_eq!((stub.texts().len(), notes(&dormouse).len()), (2, 1));
    stub.comes_back();
    until("only what was there is there", async || stub.texts(), |texts| *texts == [dns_stub::FOREIGN]).await;
    until("nothing is noted", async || notes(&dormouse), Vec::is_empty).await;
    // Another provider can not take out what this one has, and it is told what to look for.
    dormouse.configure(&ordering);
    let texts = until("the record", async || stub.texts(), |texts| texts.len() == 2).await;
    dormouse.configure(&with("desec", "[]"));
    let words = "`acme: dns` does not name any more who put it there";
    let log = until("it is told", async || dormouse.log(), |log| log.contains(words)).await;
    let line = log.lines().find(|line| line.contains(words)).unwrap();
    let told = ["_acme-challenge.wild.test", "wild.test", "cloudflare", texts[1].trim_matches('"')];
    assert!(told.iter().all(|word| line.contains(word)), "{line}");
    until("nothing is noted", async || notes(&dormouse), Vec::is_empty).await;
}

/// A Dormouse that gets a wildcard certificate from a provider of the loopback.
async fn by_provider(app: &App, dns: &str, stub: &DnsStub, pebble: &Pebble, more: &[(&str, &str)]) -> Dormouse {
    let seen = format!("zone: wild.test, resolvers: [\"{}\"]", pebble.dns());
    let dns = format!("dns: {{ {dns}, {seen} }}");
    let wild = "certificates: [[wild.test, \"*.wild.test\"]]";
    let text = format!("{}acme: {{ {}, {dns}, {wild} }}\n", config(&[app]), pebble.settings());
    let environment = stub.environment();
    let mut environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    environment.extend(more);
    Dormouse::start_secure_in(&text, &environment).await
}

#[tokio::test]
async fn cloudflare_is_given_two_values_of_a_name_and_only_those_are_taken_out() {
    let pebble = Pebble::start(NOWHERE, NOWHERE, Options::default()).await;
    let stub = DnsStub::start("the-token-of-cloudflare", pebble.dns_management()).await;
    let secret = stub.secret("the-token-of-cloudflare");
    let dns = format!("provider: cloudflare, token_file: \"{}\"", secret.display());
    let dormouse = by_provider(&App::new("app"), &dns, &stub, &pebble, &[]).await;
    let root = pebble.root().await;
    is_certified(&dormouse, &root, "app.wild.test").await;
    until("only what was there is there", async || stub.texts(), |texts| *texts == [dns_stub::FOREIGN]).await;
    let asked = stub.asked();
    let puts: Vec<_> = asked.iter().filter(|asked| asked.what.starts_with("POST ")).collect();
    assert_eq!(puts.len(), 2, "{asked:?}");
    for put in &puts {
        assert_eq!(put.body["name"], "_acme-challenge.wild.test", "{put:?}");
        assert_eq!((&put.body["type"], &put.body["ttl"]), (&"TXT".into(), &120.into()), "{put:?}");
    }
    assert_ne!(puts[0].body["content"], puts[1].body["content"]);
    assert_eq!(asked.iter().filter(|asked| asked.what.starts_with("DELETE ")).count(), 2, "{asked:?}");
    assert!(asked.iter().all(|asked| asked.who == "Bearer the-token-of-cloudflare"), "{asked:?}");
    assert!(!dormouse.log().contains("the-token-of-cloudflare"), "a secret is in the log");
}

#[tokio::test]
async fn the_secret_of_desec_is_in_the_environment_and_no_child_sees_it() {
    let pebble = Pebble::start(NOWHERE, NOWHERE, Options::default()).await;
    let stub = DnsStub::start("the-token-of-desec", pebble.dns_management()).await;
    let app = App::new("app");
    let seen = app.path("environment");
    let ready = format!(", ready: {{ command: [sh, -c, \"env >{0}.new && mv {0}.new {0}\"] }}", seen.display());
    let app = app.backend(&ready);
    let secret = [("DESEC_TOKEN", "the-token-of-desec")];
    let dormouse = by_provider(&app, "provider: desec", &stub, &pebble, &secret).await;
    let root = pebble.root().await;
    is_certified(&dormouse, &root, "app.wild.test").await;
    let environment = async || fs::read_to_string(&seen).unwrap_or_default();
    let environment = until("a child has told its environment", environment, |told| !told.is_empty()).await;
    assert!(environment.contains("SSL_CERT_FILE=") && !environment.contains("the-token-of-desec"), "{environment}");
    until("only what was there is there", async || stub.texts(), |texts| *texts == [dns_stub::FOREIGN]).await;
    let asked = stub.asked();
    // The values of a name are replaced at once: what is there stays among them.
    let puts: Vec<_> = asked.iter().filter(|asked| asked.what.starts_with("PUT ")).collect();
    assert_eq!(puts.len(), 4, "{asked:?}");
    let sets: Vec<usize> = puts.iter().map(|put| put.body["records"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(sets, [2, 3, 2, 1], "{puts:?}");
    assert!(puts.iter().all(|put| put.body["records"].to_string().contains("somebody else")), "{puts:?}");
    assert!(asked.iter().all(|asked| asked.who == "Token the-token-of-desec"), "{asked:?}");
    assert!(!dormouse.log().contains("the-token-of-desec"), "a secret is in the log");
}

#[tokio::test]
async fn a_provider_that_refuses_a_token_and_quotes_it_does_not_have_it_told() {
    let pebble = Pebble::start(NOWHERE, NOWHERE, Options::default()).await;
    let stub = DnsStub::start("another-token", pebble.dns_management()).await;
    let secret = stub.secret("a-token-that-is-wrong");
    let dns = format!("provider: cloudflare, token_file: \"{}\"", secret.display());
    let dormouse = by_provider(&App::new("app"), &dns, &stub, &pebble, &[]).await;
    let told =
        until("it is told", async || problems(&dormouse).await, |told| told.contains("no certificate for")).await;
    assert!(told.contains("at `cloudflare`") && told.contains("no such token"), "{told}");
    assert!(!format!("{told}{}", dormouse.log()).contains("a-token-that-is-wrong"), "a secret is told: {told}");
    assert_eq!(fs::read_to_string(&secret).unwrap().trim(), "a-token-that-is-wrong");
}

#[tokio::test]
async fn a_provider_that_is_away_is_told_and_tried_again_as_soon_as_an_authority_is() {
    let pebble = Pebble::start(NOWHERE, NOWHERE, Options::default()).await;
    let stub = DnsStub::start("the-token", pebble.dns_management()).await;
    let dns = format!("provider: cloudflare, token_file: \"{}\"", stub.secret("the-token").display());
    stub.goes_away();
    let dormouse = by_provider(&App::new("app"), &dns, &stub, &pebble, &[]).await;
    let told =
        until("it is told", async || problems(&dormouse).await, |told| told.contains("no certificate for")).await;
    for words in ["`_acme-challenge.wild.test`", "at `cloudflare`", "was not reached", "tried again at 2"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let again = told.split("tried again at ").nth(1).and_then(|rest| rest.split(['"', ' ']).next()).unwrap();
    let again: Timestamp = again.parse().unwrap_or_else(|error| panic!("{again}: {error}"));
    // The first time after 5 s, where it had said no after a minute.
    let soon = Timestamp::now() + 30.seconds();
    assert!(again < soon, "{told}");
    stub.comes_back();
    is_certified(&dormouse, &pebble.root().await, "app.wild.test").await;
    until("nothing is told", async || problems(&dormouse).await, |told| !told.contains("no certificate for")).await;
}
