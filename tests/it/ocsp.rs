//! Certificates that are shown with what their authority says of them: `openssl ocsp` answers, `openssl s_client` looks.

use std::{net::SocketAddr, path::Path};

use serde_json::Value;

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    line::Line,
    ocsp::Responder,
    tls::{Asked, Authority, YEAR, s_client},
    wait::until,
};

fn https(dormouse: &Dormouse) -> SocketAddr {
    dormouse.https.expect("it serves HTTPS")
}

/// What a client is told that asks for the word of the authority.
async fn seen(dormouse: &Dormouse, host: &str, version: &str) -> String {
    s_client(https(dormouse), &["-servername", host, "-status", version], "").await
}

fn is_good(seen: &str, serial: &str) -> bool {
    let parts = ["OCSP Response Status: successful (0x0)", "Cert Status: good", &format!("Serial Number: {serial}")];
    parts.iter().all(|part| seen.contains(part))
}

fn is_bare(seen: &str) -> bool {
    seen.contains("OCSP response: no response sent") && seen.contains("BEGIN CERTIFICATE")
}

async fn told(dormouse: &Dormouse, host: &str) -> Value {
    let all = dormouse.api("GET", "/api/v1/certificates").await;
    let mut all = all["certificates"].as_array().unwrap().iter();
    all.find(|one| one["names"][0] == host).map(|one| one["ocsp"].clone()).unwrap_or_default()
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

/// A host whose certificate must be stapled, and whom to ask for that.
struct Stapled {
    authority: Authority,
    responder: Responder,
    asked: Asked,
    /// Of its first certificate, which the responder knows.
    serial: String,
    config: String,
}

impl Stapled {
    async fn new() -> Self {
        let authority = Authority::new("an authority of tests");
        let responder = Responder::start(&authority.path(""), "ca").await;
        let asked = Asked { at: responder.url(), must_staple: true };
        let serial = authority.issue_asked("app", &["app.test"], YEAR, &asked);
        responder.knows(&serial);
        let config = format!("{}tls: {{ certificates: [{}] }}\n", config(&[&App::new("app")]), authority.entry("app"));
        Self { authority, responder, asked, serial, config }
    }
}

#[tokio::test]
async fn a_certificate_is_shown_with_the_word_of_its_authority_also_after_a_restart_that_finds_nobody_to_ask() {
    let Stapled { authority, responder, asked, serial: first, config } = Stapled::new().await;
    // At first without its issuer, so that nobody knows what to ask.
    let chain = std::fs::read_to_string(authority.path("app.pem")).unwrap();
    let leaf = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    assert!(leaf.len() < chain.len(), "{chain}");
    std::fs::write(authority.path("app.pem"), leaf).unwrap();
    let mut dormouse = Dormouse::start_secure(&config).await;
    let status = async || told(&dormouse, "app.test").await.to_string();
    until("what is missing", status, |told| told.contains("issuer is not in its chain")).await;
    std::fs::write(authority.path("app.pem"), &chain).unwrap();
    until("a staple", async || seen(&dormouse, "app.test", "-tls1_3").await, |seen| is_good(seen, &first)).await;
    assert!(is_good(&seen(&dormouse, "app.test", "-tls1_2").await, &first));
    let ocsp = told(&dormouse, "app.test").await;
    assert_eq!((&ocsp["status"], &ocsp["must_staple"]), (&"stapled".into(), &true.into()), "{ocsp}");
    assert_eq!(ocsp["responder"], responder.url());
    let problems = async || dormouse.api("GET", "/api/v1/problems").await["problems"].to_string();
    assert!(!problems().await.contains("OCSP"), "{}", problems().await);
    assert_eq!(responder.asked(), 1);
    // Who does not ask for it is not shown it, and is served all the same.
    assert_eq!(authority.curl("app.test", https(&dormouse), "/", &[]).await.status, 200);

    // Another certificate in the same file has a word of its own.
    let second = authority.serial();
    responder.knows(&second);
    authority.issue_numbered("app", &["app.test"], YEAR, &asked, &second);
    until("its staple", async || seen(&dormouse, "app.test", "-tls1_3").await, |seen| is_good(seen, &second)).await;
    assert_eq!(responder.asked(), 2);

    // Nobody is there to ask.
    drop(responder);
    assert!(dormouse.end().await.success());
    assert_eq!(files(&dormouse.state_dir().join("ocsp")), 2);
    dormouse.start_again().await;
    assert!(is_good(&seen(&dormouse, "app.test", "-tls1_3").await, &second), "{}", dormouse.log());
    assert!(!dormouse.log().contains("no OCSP answer"), "{}", dormouse.log());
}

#[tokio::test]
async fn a_new_certificate_that_must_be_stapled_is_shown_when_its_answer_is_there_and_the_one_before_until_then() {
    let Stapled { authority, responder, asked, serial: first, config } = Stapled::new().await;
    let dormouse = Dormouse::start_secure(&config).await;
    let seen = async || seen(&dormouse, "app.test", "-tls1_3").await;
    until("a staple", seen, |seen| is_good(seen, &first)).await;
    responder.holds_its_answers();
    let second = authority.serial();
    responder.knows(&second);
    authority.issue_numbered("app", &["app.test"], YEAR, &asked, &second);
    // From now on nobody is shown a certificate without the word about it.
    let asks = async || (responder.asked(), seen().await);
    let never_bare = |seen: &str| assert!(is_good(seen, &first) || is_good(seen, &second), "{seen}");
    until("it is asked for", asks, |(asked, seen)| {
        never_bare(seen);
        *asked == 2
    })
    .await;
    assert!(is_good(&seen().await, &first));
    let problems = async || dormouse.api("GET", "/api/v1/problems").await["problems"].to_string();
    let words = "the one before it is shown until there is, at most until 2";
    until("it is told", problems, |told| told.contains(words)).await;
    responder.answers_again();
    until("its staple", seen, |seen| {
        never_bare(seen);
        is_good(seen, &second)
    })
    .await;
    assert!(!problems().await.contains("OCSP"), "{}", problems().await);
}

#[tokio::test]
async fn a_process_that_takes_over_shows_the_staple_at_once_and_asks_nobody() {
    // The authority's files stay as long as this.
    let Stapled { authority: _authority, responder, serial, config, .. } = Stapled::new().await;
    let mut line = Line::of(Dormouse::start_secure(&config).await);
    let staple = async || seen(&line.dormouse, "app.test", "-tls1_3").await;
    until("a staple", staple, |seen| is_good(seen, &serial)).await;
    // Nobody is there to ask.
    drop(responder);
    line.upgrade().await;
    for _ in 0..4 {
        let seen = seen(&line.dormouse, "app.test", "-tls1_3").await;
        assert!(is_good(&seen, &serial), "{seen}\n{}", line.dormouse.log());
    }
    line.is_one_process().await;
    assert!(is_good(&seen(&line.dormouse, "app.test", "-tls1_3").await, &serial), "{}", line.dormouse.log());
    assert!(!line.dormouse.log().contains("no OCSP answer"), "{}", line.dormouse.log());
    line.end().await;
}

#[tokio::test]
async fn one_who_was_told_to_answers_and_what_is_revoked_or_unknown_is_told_and_shown_without() {
    let app = App::new("app");
    let authority = Authority::new("an authority of tests");
    authority.issue_responder("responder");
    let responder = Responder::start(&authority.path(""), "responder").await;
    // Another authority that says it is the same one.
    let impostor = Authority::new("an authority of tests");
    let forger = Responder::start(&impostor.path(""), "ca").await;
    let asked = |at: &Responder, must_staple| Asked { at: at.url(), must_staple };
    let good = authority.issue_asked("good", &["good.test"], YEAR, &asked(&responder, false));
    let gone = authority.issue_asked("gone", &["gone.test"], YEAR, &asked(&responder, false));
    let forged = authority.issue_asked("forged", &["forged.test"], YEAR, &asked(&forger, true));
    authority.issue_asked("unknown", &["unknown.test"], YEAR, &asked(&responder, true));
    responder.knows(&good);
    responder.has_revoked(&gone);
    forger.knows(&forged);
    let entries = ["good", "gone", "forged", "unknown"].map(|name| authority.entry(name)).join(", ");
    let with = |more: &str| format!("{}tls: {{ certificates: [{entries}]{more} }}\n", config(&[&app]));
    let dormouse = Dormouse::start_secure(&with("")).await;
    until("a staple", async || seen(&dormouse, "good.test", "-tls1_3").await, |seen| is_good(seen, &good)).await;
    assert!(seen(&dormouse, "good.test", "-tls1_3").await.contains("OCSP Signing"), "its certificate comes with it");
    let all = async || dormouse.api("GET", "/api/v1/problems").await["problems"].to_string();
    let revoked = "the certificate of `gone.test` was revoked at 2020-01-01T00:00:00Z";
    let bare = |host: &str, why: &str| {
        format!("the certificate of `{host}` must be shown with an OCSP answer, and there is none: {why}")
    };
    let forged = bare("forged.test", "the signature of its answer is wrong");
    let unknown = bare("unknown.test", "it does not know the certificate");
    let expected = [revoked, &forged, &unknown];
    until("what is wrong", all, |all| expected.iter().all(|words| all.contains(words))).await;
    assert!(dormouse.log().contains("the authority has revoked this certificate"), "{}", dormouse.log());
    for (host, status) in [("gone.test", "revoked"), ("forged.test", "none"), ("unknown.test", "none")] {
        assert!(is_bare(&seen(&dormouse, host, "-tls1_3").await), "{host}");
        assert_eq!(told(&dormouse, host).await["status"], status, "{host}");
    }
    assert_eq!(files(&dormouse.state_dir().join("ocsp")), 1);
    // Switched off at run time.
    dormouse.configure(&with(", ocsp: false"));
    until("no staple", async || seen(&dormouse, "good.test", "-tls1_3").await, |seen| is_bare(seen)).await;
    assert_eq!(told(&dormouse, "good.test").await, Value::Null);
}
