//! Streams by the name in the hello of TLS: passed on as they are, or with TLS ending here; on ports of their own, and on
//! that of HTTPS.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    streams::{echoed, hello, talk},
    tls::{Authority, YEAR, s_client},
    wait::until,
};

/// The alert for a name that nobody answers to.
const NOBODY: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Says this and no more to a name, through TLS, and returns all that comes back.
async fn ask(
    authority: &Authority,
    at: SocketAddr,
    name: &str,
    protocols: &[&str],
    text: &[u8],
) -> Result<Vec<u8>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let session = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let text = text.to_vec();
    let asked = move || {
        let socket = TcpStream::connect(at).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        let failed = |error: std::io::Error| match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
            Some(error) => error.clone(),
            None => Error::General(error.to_string()),
        };
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(failed)?;
        }
        stream.write_all(&text).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).map_err(failed)?;
        Ok(got)
    };
    tokio::task::spawn_blocking(asked).await.unwrap()
}

fn is_alert(got: &Result<Vec<u8>, Error>, alert: AlertDescription) {
    assert_eq!(got.as_ref().unwrap_err(), &Error::AlertReceived(alert));
}

/// Asks as soon as it is served as is expected.
async fn asked_until(ask: impl AsyncFn() -> Result<Vec<u8>, Error>, expected: &[u8]) {
    let got = until("an answer", ask, |got| got.as_ref().is_ok_and(|got| got == expected)).await;
    assert_eq!(got.as_deref(), Ok(expected));
}

#[tokio::test]
async fn tls_ends_here_and_the_service_has_what_is_within() {
    let idle = "idle_timeout: 1h";
    let mut db = App::echoing("db", "tcp").route(", sni: [db.test, \"*.db.test\"], tls_termination: true").idle(idle);
    let mut bare = App::echoing("bare", "tcp").route(", sni: [bare.test], tls_termination: true").idle(idle);
    let mut raw = App::echoing("raw", "tcp").route(", sni: [raw.test]").idle(idle);
    let any = App::echoing("any", "tcp").route(", tls_termination: true, wake_on: data").idle(idle);
    (db.listen, bare.listen) = (raw.listen, raw.listen);
    raw.listen = db.listen;
    let authority = Authority::new("an authority of tests");
    authority.issue("db", &["db.test", "*.db.test", "any.test"], YEAR);
    // Nothing listens for HTTPS, and certificates are there all the same.
    let log = authority.path("access.log");
    let text = format!(
        "{}tls: {{ certificates: [{}] }}\naccess_log: {{ format: json, path: \"{}\" }}\n",
        config(&[&db, &bare, &raw, &any]),
        authority.entry("db"),
        log.display()
    );
    let dormouse = Dormouse::start(&text).await;
    let at = db.front();
    let routes = dormouse.api("GET", "/api/v1/routes").await["routes"].clone();
    let said = ["any", "db", "raw"].map(|alias| {
        let route = routes.as_array().unwrap().iter().find(|route| route["alias"] == alias).unwrap();
        (route["tls_termination"].clone(), route["wake_on"].clone(), route["match"].clone())
    });
    let stream = |ends: bool, wake_on: &str| (ends.into(), wake_on.into(), serde_json::json!([]));
    assert_eq!(said, [stream(true, "data"), stream(true, "connect"), stream(false, "connect")]);
    let starts = || [&db, &bare, &raw, &any].map(|app| app.journal().starts());
    // Whoever names somebody else, or nobody, is told so; who does not finish its handshake wakes nobody.
    assert_eq!(talk(at, &hello("other.test")).await.unwrap(), NOBODY);
    is_alert(&ask(&authority, at, "other.test", &[], b"").await, AlertDescription::UnrecognisedName);
    let said = s_client(at, &["-noservername"], "").await;
    assert!(said.contains("unrecognized name"), "{said}");
    assert!(talk(at, b"GET / HTTP/1.1\r\n\r\n").await.map_or(true, |got| got.is_empty()));
    assert!(talk(any.front(), b"no hello").await.map_or(true, |got| got.is_empty()));
    let _ = talk(at, &hello("db.test")).await;
    // Who is turned away behind its handshake sees a cut, and no end.
    assert!(ask(&authority, any.front(), "any.test", &[], b"").await.is_err());
    assert_eq!(starts(), [0; 4]);

    assert_eq!(ask(&authority, at, "db.test", &[], b"hello").await, Ok(echoed(b"hello")));
    assert_eq!(ask(&authority, at, "deep.db.test", &["anything"], b"again").await, Ok(echoed(b"again")));
    assert_eq!(ask(&authority, any.front(), "any.test", &["h2"], b"hello").await, Ok(echoed(b"hello")));
    let much: Vec<u8> = (0..3_000_000u32).map(|number| (number >> 3) as u8).collect();
    assert!(ask(&authority, at, "db.test", &[], &much).await == Ok(echoed(&much)), "3 MB both ways");
    assert_eq!(starts(), [1, 0, 0, 1]);
    // Without a certificate there is one of our own.
    let said = s_client(at, &["-servername", "bare.test"], "").await;
    assert!(said.contains("CN = \"Dormouse, self-signed\""), "{said}");
    let problems = dormouse.api("GET", "/api/v1/problems").await["problems"].to_string();
    assert!(problems.contains("host bare.test"), "{problems}");
    // Beside them what is passed on stays as it is.
    assert_eq!(talk(at, &hello("raw.test")).await.unwrap(), echoed(&hello("raw.test")));
    assert_eq!(raw.journal().starts(), 1);
    // Of the log, only what came through TLS that ended here is said to have done so.
    let lines = async || std::fs::read_to_string(&log).unwrap_or_default();
    let of = |text: &str, route: &str, scheme: &str, status: u16| {
        let lines = text.lines().flat_map(serde_json::from_str::<serde_json::Value>);
        let mut lines = lines.filter(|line| line["route"] == route && line["status"] == status);
        lines.any(|line| line["scheme"] == scheme)
    };
    until("their lines", lines, |text| of(text, "db", "tls", 200) && of(text, "raw", "tcp", 200)).await;
    let text = lines().await;
    assert!(!of(&text, "db", "tcp", 200) && !of(&text, "raw", "tls", 200) && of(&text, "db", "tcp", 503), "{text}");
}

#[tokio::test]
async fn streams_share_the_port_of_https_by_their_names() {
    let idle = "idle_timeout: 1h";
    let web = App::new("web").idle(idle);
    let authority = Authority::new("an authority of tests");
    authority.issue("all", &["web.test", "ends.test", "*.pass.test"], YEAR);
    let certificates = format!("tls: {{ certificates: [{}] }}\n", authority.entry("all"));
    let with = |apps: &[&App]| format!("{}{certificates}", config(apps));
    let dormouse = Dormouse::start_secure(&with(&[&web])).await;
    let at = dormouse.https.unwrap();
    let mut pass = App::echoing("pass", "tcp").route(", sni: [pass.test, \"*.pass.test\"]").idle(idle);
    let mut ends = App::echoing("ends", "tcp").route(", sni: [ends.test], tls_termination: true").idle(idle);
    (pass.listen, ends.listen) = (Some(at.port()), Some(at.port()));
    let starts = || [&web, &pass, &ends].map(|app| app.journal().starts());
    let web_answers = async || {
        let reply = authority.curl("web.test", at, "/echo", &["--http2"]).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.head.starts_with("HTTP/2"), "{reply:?}");
    };
    web_answers().await;
    // They come at run time.
    dormouse.configure(&with(&[&web, &pass, &ends]));
    asked_until(async || ask(&authority, at, "ends.test", &[], b"hello").await, &echoed(b"hello")).await;
    assert_eq!(starts(), [1, 0, 1]);
    // A challenge of an authority is ours where TLS ends here; where it does not the service may have asked for it.
    is_alert(&ask(&authority, at, "ends.test", &["acme-tls/1"], b"").await, AlertDescription::AccessDenied);
    // Others are for HTTPS, whoever they are.
    web_answers().await;
    let said = s_client(at, &["-servername", "other.test"], "").await;
    assert!(said.contains("BEGIN CERTIFICATE"), "{said}");
    let clear = "GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
    let got = talk(at, clear.as_bytes()).await.unwrap();
    assert!(got.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&got));
    // A certificate that is good for a stream's host, too, is no way to it for requests.
    let reply = authority.curl("web.test", at, "/", &["-H", "Host: deep.pass.test"]).await;
    assert_eq!(reply.status, 421, "{reply:?}");
    assert_eq!(starts(), [1, 0, 1]);
    for name in ["pass.test", "deep.pass.test"] {
        let text = [&hello(name)[..], b"and more"].concat();
        assert_eq!(talk(at, &text).await.unwrap(), echoed(&text), "{name}");
    }
    // A hello may come in pieces.
    let text = hello("pass.test");
    let mut slow = crate::support::streams::connect(at).await;
    for piece in text.chunks(20) {
        tokio::io::AsyncWriteExt::write_all(&mut slow, piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    tokio::io::AsyncWriteExt::shutdown(&mut slow).await.unwrap();
    let mut got = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut slow, &mut got).await.unwrap();
    assert_eq!(got, echoed(&text));
    assert_eq!(starts(), [1, 1, 1]);
    // Without them HTTPS has its port to itself.
    dormouse.configure(&with(&[&web]));
    let told = async || s_client(at, &["-servername", "deep.pass.test"], "").await;
    until("HTTPS alone", told, |said| said.contains("CN = ") || said.contains("BEGIN CERTIFICATE")).await;
    web_answers().await;
}
