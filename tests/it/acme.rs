//! Certificates from a real ACME server.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

use crate::support::{
    apps::{App, config, free_port},
    dormouse::Dormouse,
    pebble::{KEY, Options, Pebble},
    tls::{Curled, client_config, curl, s_client},
    wait::{LONG, until},
};

fn https(dormouse: &Dormouse) -> SocketAddr {
    dormouse.https.expect("it serves HTTPS")
}

/// A Dormouse that is not started before its authority looks at its ports.
struct Ports {
    http: SocketAddr,
    https: SocketAddr,
}

impl Ports {
    fn new() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { http: local(free_port()), https: local(free_port()) }
    }

    async fn pebble(&self, options: Options) -> Pebble {
        Pebble::start(self.http, self.https, options).await
    }

    async fn dormouse(&self, config: &str) -> Dormouse {
        Dormouse::start_at(config, self.http, self.https).await
    }
}

async fn ask(dormouse: &Dormouse, root: &Path, host: &str) -> Curled {
    let at = https(dormouse);
    let trust = vec!["--cacert".to_owned(), root.display().to_string()];
    curl(&format!("https://{host}:{}/", at.port()), host, at, trust).await
}

async fn is_certified(dormouse: &Dormouse, root: &Path, host: &str) {
    until(&format!("a certificate for {host}"), async || ask(dormouse, root, host).await, |reply| reply.status == 200)
        .await;
}

/// The certificate that is shown, in PEM.
async fn shown(dormouse: &Dormouse, host: &str) -> String {
    let said = s_client(https(dormouse), &["-servername", host], "").await;
    let pem = said.split("-----BEGIN CERTIFICATE-----").nth(1).and_then(|rest| rest.split("-----END").next());
    pem.unwrap_or_else(|| panic!("no certificate: {said}")).to_owned()
}

async fn problems(dormouse: &Dormouse) -> String {
    dormouse.api("GET", "/api/v1/problems").await["problems"].to_string()
}

#[tokio::test]
async fn a_host_of_a_route_gets_a_certificate_when_it_is_asked_for_and_keeps_it_over_a_kill() {
    let (app, ports) = (App::new("app").idle("idle_timeout: 1h"), Ports::new());
    let pebble = ports.pebble(Options::default()).await;
    let text = format!(
        "domains: [example.com]\n{}acme: {{ {}, email: me@example.com }}\n",
        config(&[&app]),
        pebble.settings()
    );
    let mut dormouse = ports.dormouse(&text).await;
    let root = pebble.root().await;
    // The very first handshake waits for it; on a slow machine the second one has it.
    is_certified(&dormouse, &root, "app.example.com").await;
    let first = shown(&dormouse, "app.example.com").await;
    // A host that no route claims gets none.
    let reply = ask(&dormouse, &root, "stranger.example.com").await;
    assert!(!reply.ok, "{reply:?}");
    assert!(!pebble.log().contains("stranger"), "{}", pebble.log());
    // Now that there is one, who comes in clear is sent there.
    let url = format!("http://app.example.com:{}/", dormouse.http.port());
    assert_eq!(curl(&url, "app.example.com", dormouse.http, Vec::new()).await.status, 308);
    dormouse.kill();
    let kept = files(&dormouse.state_dir().join("certificates"));
    assert_eq!(kept.len(), 2, "an account and a certificate: {kept:?}");
    for file in &kept {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    let ordered = pebble.log().matches("new-order").count();
    // Also to those who connect while it starts, however long it reads what is kept.
    fs::write(kept[0].with_file_name("0.pem"), "\n".repeat(4 << 20)).unwrap();
    let (at, trust) = (https(&dormouse), fs::read(&root).unwrap());
    let early: Vec<_> = (0..8)
        .map(|_| (trust.clone(), at))
        .map(|(trust, at)| tokio::task::spawn_blocking(move || first_handshake(at, &trust)))
        .collect();
    dormouse.start_again().await;
    for handshake in early {
        handshake.await.unwrap().unwrap_or_else(|error| panic!("{error}\n{}", dormouse.log()));
    }
    assert_eq!(shown(&dormouse, "app.example.com").await, first);
    assert_eq!(ask(&dormouse, &root, "app.example.com").await.status, 200);
    assert_eq!(pebble.log().matches("new-order").count(), ordered, "nothing is ordered again");
    assert!(!dormouse.log().contains("PRIVATE KEY"));
}

/// The first handshake that somebody gets who connects as soon as there is a listener.
fn first_handshake(at: SocketAddr, root: &[u8]) -> std::io::Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    let root: rustls::pki_types::CertificateDer<'_> = rustls::pki_types::pem::PemObject::from_pem_slice(root).unwrap();
    roots.add(root.into_owned()).unwrap();
    let config = client_config().with_root_certificates(roots).with_no_client_auth();
    let mut session = rustls::ClientConnection::new(config.into(), "app.example.com".try_into().unwrap()).unwrap();
    let since = Instant::now();
    let mut tcp = loop {
        match std::net::TcpStream::connect(at) {
            Ok(tcp) => break tcp,
            Err(error) => assert!(since.elapsed() < LONG, "nobody listens: {error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    tcp.set_read_timeout(Some(LONG))?;
    while session.is_handshaking() {
        session.complete_io(&mut tcp)?;
    }
    Ok(())
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn certificates_that_are_named_are_got_by_tls_alpn_and_by_dns() {
    let (app, ports) = (App::new("app"), Ports::new());
    let pebble = ports.pebble(Options { bound: true, ..Options::default() }).await;
    let (settings, hook) = (pebble.settings(), pebble.hook());
    let eab = format!("eab: {{ kid: {}, hmac: {} }}", KEY.0, KEY.1);
    // By TLS alone, two names in one.
    let named = "certificates: [[app.example.com, www.example.com]]";
    let alpn = format!("{}acme: {{ {settings}, {eab}, challenge: tls-alpn-01, {named} }}\n", config(&[&app]));
    let dormouse = ports.dormouse(&alpn).await;
    let root = pebble.root().await;
    is_certified(&dormouse, &root, "app.example.com").await;
    let said = s_client(https(&dormouse), &["-servername", "www.example.com"], "").await;
    assert_eq!(said.matches("BEGIN CERTIFICATE").count(), 1, "{said}");
    assert_eq!(shown(&dormouse, "www.example.com").await, shown(&dormouse, "app.example.com").await);
    // A wildcard by DNS, taken up at run time. An order that waits for the DNS ends when its settings are others, and
    // goes on when they only move down.
    let wild = |apps: &[&App], wait: &str| {
        let dns = format!("dns: {{ command: [\"{}\"], wait: {wait} }}", hook.display());
        let wild = "certificates: [[wild.test, \"*.wild.test\"]]";
        format!("{}acme: {{ {settings}, {eab}, {dns}, {wild} }}\n", config(apps))
    };
    let notes = async || fs::read_to_string(pebble.hook_notes()).unwrap_or_default();
    dormouse.configure(&wild(&[&app], "10m"));
    let presented = |notes: &String| notes.matches("present _acme-challenge.wild.test. ").count() == 2;
    until("the records are put in", notes, presented).await;
    let other = App::new("other");
    dormouse.configure(&wild(&[&app, &other], "10m"));
    dormouse.knows("other").await;
    dormouse.configure(&wild(&[&app, &other], "0s"));
    is_certified(&dormouse, &root, "app.wild.test").await;
    // Also those of the order that was broken off, before the other one began.
    let cleaned = |notes: &String| notes.matches("cleanup _acme-challenge.wild.test. ").count() == 4;
    let calls = until("the records are taken out", notes, cleaned).await;
    let words: Vec<&str> = calls.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(words, [["present"; 2], ["cleanup"; 2], ["present"; 2], ["cleanup"; 2]].concat(), "{calls}");
    assert_eq!(notes().await.matches("present _acme-challenge.wild.test. ").count(), 4, "{}", dormouse.log());
    assert!(dormouse.log().contains("an order broke off: its record stays in the DNS"), "{}", dormouse.log());
    assert!(!dormouse.log().contains(KEY.1), "a secret is in the log");
}

#[tokio::test]
async fn a_certificate_is_renewed_without_a_cut() {
    let (app, ports) = (App::new("app"), Ports::new());
    let pebble = ports.pebble(Options { good: Duration::from_secs(30), ..Options::default() }).await;
    let text = format!("{}acme: {{ {}, certificates: [app.example.com] }}\n", config(&[&app]), pebble.settings());
    let dormouse = ports.dormouse(&text).await;
    let root = pebble.root().await;
    is_certified(&dormouse, &root, "app.example.com").await;
    let first = shown(&dormouse, "app.example.com").await;
    let (at, trust) = (https(&dormouse), vec!["--cacert".to_owned(), root.display().to_string()]);
    let url = format!("https://app.example.com:{}/download?bytes=1200000&rate=40000", at.port());
    let download = curl(&url, "app.example.com", at, trust);
    let renewed = until("a new one", async || shown(&dormouse, "app.example.com").await, |now| *now != first);
    let (reply, _) = tokio::join!(download, renewed);
    assert_eq!((reply.ok, reply.body.len()), (true, 1_200_000), "{}", reply.said);
    assert_eq!(ask(&dormouse, &root, "app.example.com").await.status, 200);
}

/// Stands before somebody, who is away once this is dropped.
struct Before(AbortHandle);

impl Before {
    async fn begin(at: u16, behind: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", at)).await.unwrap();
        let carry = async move {
            let mut carried = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                carried.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
            }
        };
        Self(tokio::spawn(carry).abort_handle())
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn a_renewal_waits_for_an_authority_that_is_away_and_the_certificate_stays() {
    let (app, ports) = (App::new("app"), Ports::new());
    let pebble = ports.pebble(Options { good: Duration::from_secs(45), ..Options::default() }).await;
    let (at, settings) = (free_port(), pebble.settings());
    let behind = settings.split_once("localhost:").and_then(|(_, rest)| rest.split_once('/')).unwrap().0;
    let before = Before::begin(at, behind.parse().unwrap()).await;
    let settings = settings.replacen(behind, &at.to_string(), 1);
    let text = format!("{}acme: {{ {settings}, certificates: [app.example.com] }}\n", config(&[&app]));
    let dormouse = ports.dormouse(&text).await;
    let root = pebble.root().await;
    is_certified(&dormouse, &root, "app.example.com").await;
    let first = shown(&dormouse, "app.example.com").await;
    assert_eq!(problems(&dormouse).await, "[]");
    drop(before);
    // Due when a third of its time is left.
    let is_told = |told: &String| told.contains("no certificate for `app.example.com`");
    until("it is told", async || problems(&dormouse).await, is_told).await;
    assert_eq!(shown(&dormouse, "app.example.com").await, first);
    assert_eq!(ask(&dormouse, &root, "app.example.com").await.status, 200, "it is good for some time yet");
    let _before = Before::begin(at, behind.parse().unwrap()).await;
    until("a new one", async || shown(&dormouse, "app.example.com").await, |now| *now != first).await;
    is_certified(&dormouse, &root, "app.example.com").await;
    until("nothing is wrong any more", async || problems(&dormouse).await, |told| told == "[]").await;
}

#[tokio::test]
async fn an_authority_that_fails_is_told_and_tried_again_and_a_refusal_has_its_reason() {
    let (app, ports) = (App::new("app"), Ports::new());
    let mut pebble = ports.pebble(Options::default()).await;
    let text = format!(
        "{}acme: {{ {}, certificates: [app.example.com, other.example.com] }}\n",
        config(&[&app]),
        pebble.settings()
    );
    // Nobody answers where this host is said to be.
    let elsewhere = "127.0.0.77";
    pebble.stop();
    let dormouse = ports.dormouse(&text).await;
    until(
        "it is told",
        async || problems(&dormouse).await,
        |told| told.contains("no certificate for `app.example.com`"),
    )
    .await;
    // It serves all the same.
    let reply = curl(
        &format!("https://app.example.com:{}/", https(&dormouse).port()),
        "app.example.com",
        https(&dormouse),
        vec!["--insecure".to_owned()],
    )
    .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    pebble.start_again().await;
    pebble.set_address("other.example.com", elsewhere).await;
    let root = pebble.root().await;
    is_certified(&dormouse, &root, "app.example.com").await;
    let told = until(
        "the refusal",
        async || problems(&dormouse).await,
        |told| told.contains("other.example.com` from") && told.contains("127.0.0.77"),
    )
    .await;
    assert!(!told.contains("no certificate for `app.example.com`"), "{told}");
    assert!(told.contains("tried again at"), "{told}");
}
