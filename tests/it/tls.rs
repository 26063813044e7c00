//! HTTPS with certificates from files, with real clients: `curl` and `openssl`.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use crate::support::{
    apps::{App, config, free_port},
    dormouse::Dormouse,
    tls::{Authority, YEAR, client_config, curl, s_client},
    wait::until,
};

fn https(dormouse: &Dormouse) -> SocketAddr {
    dormouse.https.expect("it serves HTTPS")
}

fn with_certificates(apps: &[&App], entries: &[String], more: &str) -> String {
    format!("{}tls: {{ certificates: [{}]{more} }}\n", config(apps), entries.join(", "))
}

#[tokio::test]
async fn a_sleeping_service_is_woken_through_https_and_told_how_it_was_asked() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let dormouse = Dormouse::start_secure(&with_certificates(&[&app], &[authority.entry("app")], "")).await;
    let reply = authority.curl("app.test", https(&dormouse), "/echo?x=1", &["--data", "hello"]).await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", dormouse.log());
    let told: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    let field = |name: &str| {
        let mut fields = told["headers"].as_array().unwrap().iter();
        let found = fields.find(|field| field[0].as_str().unwrap().eq_ignore_ascii_case(name));
        found.map(|field| field[1].as_str().unwrap().to_owned()).unwrap_or_default()
    };
    assert_eq!((&told["method"], &told["length"]), (&"POST".into(), &5.into()));
    assert_eq!(field("x-forwarded-proto"), "https");
    assert_eq!(field("x-forwarded-port"), https(&dormouse).port().to_string());
    assert!(field("forwarded").ends_with(";proto=https"), "{told}");
    assert_eq!(app.journal().starts(), 1);
    // Several on one connection, and a large body both ways.
    let body = vec![b'x'; 3 << 20];
    fs::write(authority.path("body"), &body).unwrap();
    let file = format!("@{}", authority.path("body").display());
    let reply = authority.curl("app.test", https(&dormouse), "/echo", &["--data-binary", &file, "-H", "Expect:"]).await;
    let told: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(told["length"], body.len());
    let reply = authority.curl("app.test", https(&dormouse), "/download?bytes=3000000", &[]).await;
    assert_eq!((reply.ok, reply.body.len()), (true, 3_000_000), "{}", reply.said);
}

#[tokio::test]
async fn only_a_host_with_a_certificate_is_sent_to_https_and_remembered() {
    let (app, bare) = (App::new("app"), App::new("bare"));
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let text = with_certificates(&[&app, &bare], &[authority.entry("app")], ", hsts: 180d");
    let dormouse = Dormouse::start_secure(&text).await;
    let clear = |host: &str| format!("http://{host}:{}/a/b?c=d", dormouse.http.port());
    let reply = curl(&clear("app.test"), "app.test", dormouse.http, Vec::new()).await;
    assert_eq!(reply.status, 308, "{reply:?}");
    let port = https(&dormouse).port();
    assert_eq!(reply.field("location"), Some(format!("https://app.test:{port}/a/b?c=d").as_str()));
    assert_eq!(app.journal().starts(), 0, "a redirect wakes nothing");
    // What Dormouse says itself is to be remembered, too.
    let reply = authority.curl("app.test", https(&dormouse), "/.dormouse/nothing", &[]).await;
    assert_eq!((reply.status, reply.field("strict-transport-security")), (404, Some("max-age=15552000")), "{reply:?}");
    assert_eq!(app.journal().starts(), 0);
    let reply = authority.curl("app.test", https(&dormouse), "/", &[]).await;
    assert_eq!((reply.status, reply.field("strict-transport-security")), (200, Some("max-age=15552000")), "{reply:?}");
    // A host of ours without a certificate.
    let reply = curl(&clear("bare.test"), "bare.test", dormouse.http, Vec::new()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let reply = authority.curl("bare.test", https(&dormouse), "/", &[]).await;
    assert!(!reply.ok && reply.said.contains("self-signed certificate"), "{reply:?}");
    let reply = authority.curl("bare.test", https(&dormouse), "/", &["--insecure"]).await;
    assert_eq!((reply.status, reply.field("strict-transport-security")), (200, None), "{reply:?}");
    let problems = dormouse.api("GET", "/api/v1/problems").await["problems"].to_string();
    assert!(problems.contains("host bare.test") && problems.contains("a self-signed one is shown"), "{problems}");
    // Switched off at run time.
    dormouse.configure(&(text + "https_redirect: false\n"));
    let ask = async || curl(&clear("app.test"), "app.test", dormouse.http, Vec::new()).await.status;
    until("no redirect", ask, |status| *status == 200).await;
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_cut_and_a_broken_one_is_not() {
    let app = App::new("app");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let dormouse = Dormouse::start_secure(&with_certificates(&[&app], &[authority.entry("app")], "")).await;
    let serial = async || {
        let said = s_client(https(&dormouse), &["-servername", "app.test"], "").await;
        let pem = said.split("-----BEGIN CERTIFICATE-----").nth(1).and_then(|rest| rest.split("-----END").next());
        pem.unwrap_or_else(|| panic!("no certificate: {said}")).to_owned()
    };
    let first = serial().await;
    assert_eq!(authority.curl("app.test", https(&dormouse), "/", &[]).await.status, 200);
    // A long answer begun under the old one.
    let address = https(&dormouse);
    let download = async { authority.curl("app.test", address, "/download?bytes=204800&rate=40960", &[]).await };
    let change = async {
        fs::write(authority.path("app.pem"), "-----BEGIN CERTIFICATE-----\nrubbish\n").unwrap();
        let told = async || dormouse.api("GET", "/api/v1/problems").await["problems"].to_string();
        until("the broken file is told", told, |told| told.contains("app.pem")).await;
        assert_eq!(serial().await, first);
        authority.issue("app", &["app.test"], YEAR);
        until("the new one is shown", serial, |now| *now != first).await;
        until("nothing is wrong", told, |told| !told.contains("app.pem")).await;
    };
    let (reply, ()) = tokio::join!(download, change);
    assert_eq!((reply.ok, reply.body.len()), (true, 204_800), "{}", reply.said);
    assert_eq!(authority.curl("app.test", address, "/", &[]).await.status, 200);
}

#[tokio::test]
async fn versions_and_protocols_are_those_of_today_and_plain_http_is_told_so() {
    let app = App::new("app");
    let authority = Authority::new("an authority of tests");
    authority.issue("exact", &["app.test"], YEAR);
    authority.issue("wild", &["*.test"], YEAR);
    let folder = format!(", folder: \"{}\"", authority.path("").display());
    let text = format!("{}tls: {{ hsts: off{folder} }}\n", config(&[&app]));
    let dormouse = Dormouse::start_secure(&text).await;
    let address = https(&dormouse);
    let ca = authority.path("ca.pem").display().to_string();
    let trusting = ["-servername", "app.test", "-CAfile", ca.as_str(), "-alpn", "http/1.1"];
    for (version, protocol) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = s_client(address, &[&trusting[..], &[version]].concat(), "").await;
        assert!(said.contains("Verify return code: 0 (ok)") && said.contains(protocol), "{said}");
        assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
    }
    let said = s_client(address, &[&trusting[..], &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]].concat(), "").await;
    assert!(said.contains("Cipher is (NONE)") && said.contains(" alert "), "{said}");
    // A session is taken up again.
    let session = authority.path("session").display().to_string();
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    let quiet = [&trusting[..], &["-ign_eof"]].concat();
    let said = s_client(address, &[&quiet[..], &["-sess_out", &session]].concat(), request).await;
    assert!(said.contains("HTTP/1.1 200 "), "{said}");
    let said = s_client(address, &[&quiet[..], &["-sess_in", &session]].concat(), request).await;
    assert!(said.contains("Reused, TLSv1.3") && said.contains("HTTP/1.1 200 "), "{said}");
    // The wildcard's.
    let said = s_client(address, &["-servername", "other.test", "-CAfile", &ca], "").await;
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    let reply = curl(&format!("http://app.test:{}/", address.port()), "app.test", address, Vec::new()).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.body.contains("This port speaks HTTPS"), "{reply:?}");
}

#[tokio::test]
async fn a_client_that_says_nothing_keeps_nobody_from_being_served() {
    let app = App::new("app");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let dormouse = Dormouse::start_secure(&with_certificates(&[&app], &[authority.entry("app")], "")).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(https(&dormouse)).await.unwrap());
    }
    assert_eq!(authority.curl("app.test", https(&dormouse), "/", &[]).await.status, 200);
    // They are let go in their time.
    let mut byte = [0];
    let ended = tokio::time::timeout(Duration::from_secs(60), tokio::io::AsyncReadExt::read(&mut silent[0], &mut byte));
    assert!(matches!(ended.await, Ok(Ok(0) | Err(_))), "a silent client is still there");
}

/// An endpoint that speaks TLS: `openssl s_server`, which answers with a page about the connection.
struct Endpoint {
    child: std::process::Child,
    port: u16,
}

impl Endpoint {
    async fn start(authority: &Authority, name: &str, options: &[&str]) -> Self {
        let port = free_port();
        let path = |ending: &str| authority.path(&format!("{name}.{ending}"));
        let child = std::process::Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")])
            .arg("-cert")
            .arg(path("pem"))
            .arg("-key")
            .arg(path("key"))
            .args(options)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        let endpoint = Self { child: child.expect("openssl"), port };
        let listens = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        until("the endpoint listens", listens, |up| *up).await;
        endpoint
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn an_endpoint_that_speaks_https_is_checked_unless_the_route_says_not_to() {
    let authority = Authority::new("an authority of tests");
    let clients = Authority::new("an authority of clients");
    authority.issue("inner", &["inner.test"], YEAR);
    clients.issue_to_client("proxy");
    let ca = clients.path("ca.pem").display().to_string();
    let plain = Endpoint::start(&authority, "inner", &[]).await;
    let asking = Endpoint::start(&authority, "inner", &["-Verify", "1", "-verify_return_error", "-CAfile", &ca]).await;
    let roots = authority.path("ca.pem").display().to_string();
    let own = format!(
        "ssl_certificate: \"{}\", ssl_certificate_key: \"{}\"",
        clients.path("proxy.pem").display(),
        clients.path("proxy.key").display()
    );
    let (port, other) = (plain.port, asking.port);
    let text = format!(
        "routes:\n  unchecked: {{ host: 127.0.0.1, port: {port}, scheme: https, no_tls_verify: true }}\n  \
         strict: {{ host: 127.0.0.1, port: {port}, scheme: https }}\n  \
         trusting: {{ host: 127.0.0.1, port: {port}, scheme: https, ssl_server_name: inner.test, ssl_trusted_certificate: \"{roots}\" }}\n  \
         misnamed: {{ host: 127.0.0.1, port: {port}, scheme: https, ssl_server_name: outer.test, ssl_trusted_certificate: \"{roots}\" }}\n  \
         mutual: {{ host: 127.0.0.1, port: {other}, scheme: https, no_tls_verify: true, {own} }}\n  \
         anonymous: {{ host: 127.0.0.1, port: {other}, scheme: https, no_tls_verify: true }}\n  \
         clear: {{ host: 127.0.0.1, port: {port}, scheme: http }}\n"
    );
    let dormouse = Dormouse::start(&text).await;
    for (name, expected) in
        [("unchecked", 200), ("trusting", 200), ("mutual", 200), ("strict", 502), ("misnamed", 502), ("anonymous", 502)]
    {
        // Twice: a second connection takes the session up again.
        for _ in 0..2 {
            let reply = dormouse.get(name, "/").await;
            assert_eq!(reply.status, expected, "{name}: {reply:?}\n{}", dormouse.log());
        }
    }
    assert!(dormouse.log().contains("no TLS to the service"), "{}", dormouse.log());
    assert_ne!(dormouse.get("clear", "/").await.status, 200);
}

#[tokio::test]
async fn a_route_for_holders_of_certificates_lets_nobody_else_in_and_wakes_for_nobody_else() {
    let (secret, open) = (App::new("secret").route(", inbound_mtls_profile: staff"), App::new("open"));
    let authority = Authority::new("an authority of tests");
    let (staff, strangers) = (Authority::new("staff"), Authority::new("strangers"));
    authority.issue("all", &["secret.test", "open.test"], YEAR);
    staff.issue_to_client("me");
    strangers.issue_to_client("you");
    let clients = format!(", clients: {{ staff: \"{}\" }}", staff.path("ca.pem").display());
    let text = with_certificates(&[&secret, &open], &[authority.entry("all")], &clients) + "https_redirect: false\n";
    let dormouse = Dormouse::start_secure(&text).await;
    let at = https(&dormouse);
    let with = |of: &Authority, name: &str| {
        ["pem", "key"].map(|ending| of.path(&format!("{name}.{ending}")).display().to_string())
    };
    let [mine, my_key] = with(&staff, "me");
    let [yours, your_key] = with(&strangers, "you");
    let reply = authority.curl("secret.test", at, "/", &[]).await;
    assert_eq!(reply.status, 403, "{reply:?}");
    let reply = authority.curl("secret.test", at, "/", &["--cert", &yours, "--key", &your_key]).await;
    assert!(!reply.ok, "{reply:?}");
    assert_eq!(dormouse.get("secret", "/").await.status, 403);
    // By way of another host of ours, with and without a certificate.
    let fronted = ["-H", "Host: secret.test", "--cert", mine.as_str(), "--key", my_key.as_str()];
    assert_eq!(authority.curl("open.test", at, "/", &fronted).await.status, 421);
    let reply =
        authority.curl("secret.test", at, "/", &["-H", "Host: open.test", "--cert", &mine, "--key", &my_key]).await;
    assert_eq!(reply.status, 421);
    assert_eq!((secret.journal().starts(), open.journal().starts()), (0, 0), "somebody was woken for");
    let reply = authority.curl("secret.test", at, "/", &["--cert", &mine, "--key", &my_key]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(authority.curl("open.test", at, "/", &[]).await.status, 200);
    // Another authority is put in the place of the first one.
    fs::copy(strangers.path("ca.pem"), staff.path("ca.pem")).unwrap();
    let theirs = ["--cert", yours.as_str(), "--key", your_key.as_str()];
    let ask = async || authority.curl("secret.test", at, "/", &theirs).await.status;
    until("the new authority's holders are let in", ask, |status| *status == 200).await;
    let reply = authority.curl("secret.test", at, "/", &["--cert", &mine, "--key", &my_key]).await;
    assert!(!reply.ok, "{reply:?}");
}

#[tokio::test]
async fn certificates_are_told_by_name_issuer_and_end_and_a_near_end_is_a_problem() {
    let app = App::new("app");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test", "www.test"], Duration::from_secs(3600));
    let dormouse = Dormouse::start_secure(&with_certificates(&[&app], &[authority.entry("app")], "")).await;
    let told = dormouse.api("GET", "/api/v1/certificates").await;
    let one = &told["certificates"][0];
    assert_eq!(
        (&one["names"], &one["issuer"]),
        (&serde_json::json!(["app.test", "www.test"]), &"an authority of tests".into())
    );
    assert_eq!((&one["source"], &one["expired"]), (&"file".into(), &false.into()));
    assert!(!told.to_string().contains("PRIVATE"), "{told}");
    // Half an hour before its end, of an hour: the last third is not reached.
    let problems = async || dormouse.api("GET", "/api/v1/problems").await["problems"].to_string();
    assert!(!problems().await.contains(" ends at "));
    authority.issue("app", &["app.test"], Duration::from_secs(10));
    until("the near end is told", problems, |told| told.contains(" ends at ") || told.contains(" ended at ")).await;
    let command = std::process::Command::new(env!("CARGO_BIN_EXE_dormouse"))
        .arg("--state-dir")
        .arg(dormouse.state_dir())
        .arg("certificates")
        .output()
        .unwrap();
    let printed = String::from_utf8(command.stdout).unwrap();
    assert!(printed.contains("app.test") && printed.contains("an authority of tests"), "{printed}");
}

type Session = rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>;

/// A client of `app.test` that trusts the authority of this file.
fn session(at: SocketAddr, ca: &Path) -> Session {
    let mut roots = rustls::RootCertStore::empty();
    let pem = fs::read(ca).unwrap();
    for one in rustls::pki_types::pem::PemObject::pem_slice_iter(&pem) {
        let one: rustls::pki_types::CertificateDer<'_> = one.unwrap();
        roots.add(one.into_owned()).unwrap();
    }
    let config = client_config().with_root_certificates(roots).with_no_client_auth();
    let session = rustls::ClientConnection::new(config.into(), "app.test".try_into().unwrap()).unwrap();
    let stream = rustls::StreamOwned::new(session, std::net::TcpStream::connect(at).unwrap());
    stream.sock.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn read_until(stream: &mut Session, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Its kernel forgets the closed connection after a second, as it would after a minute.
#[allow(unsafe_code, reason = "an option of a socket of our own that nobody wraps")]
fn forget_soon(socket: &std::net::TcpStream) {
    use std::os::fd::AsRawFd;
    let second: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the value is as long as is said.
    let set = unsafe {
        let value = (&raw const second).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_LINGER2, value, 4)
    };
    assert_eq!(set, 0);
}

#[tokio::test]
async fn who_leaves_a_quiet_stream_in_order_is_noticed_and_the_service_sleeps() {
    let app = App::new("app").idle("idle_timeout: 1s");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let dormouse = Dormouse::start_secure(&with_certificates(&[&app], &[authority.entry("app")], "")).await;
    let (at, ca) = (https(&dormouse), authority.path("ca.pem"));
    // Nothing is read of what the second one sends behind its request: its end lies behind that.
    for behind in ["", "GET / HTTP/1.1\r\n"] {
        let ca = ca.clone();
        let talk = tokio::task::spawn_blocking(move || {
            let mut stream = session(at, &ca);
            stream.write_all(b"GET /stream?ms=600000&n=2 HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
            let head = read_until(&mut stream, "\r\n\r\n");
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            // All of its event: an end with something unread would be a reset.
            read_until(&mut stream, "\n\n\r\n");
            stream.write_all(behind.as_bytes()).unwrap();
            stream
        });
        let mut stream = talk.await.unwrap();
        assert_eq!(dormouse.state("app").await, "awake");
        forget_soon(&stream.sock);
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        drop(stream);
        dormouse.reaches("app", "asleep").await;
    }
}

#[tokio::test]
async fn a_tunnel_through_tls_carries_both_ways_until_it_is_closed() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let dormouse = Dormouse::start_secure(&with_certificates(&[&app], &[authority.entry("app")], "")).await;
    let (at, ca) = (https(&dormouse), authority.path("ca.pem"));
    let talk = tokio::task::spawn_blocking(move || {
        let mut stream = session(at, &ca);
        let request = "GET /ws HTTP/1.1\r\nHost: app.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let head = read_until(&mut stream, "\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // Text frames of 100 bytes, masked with zeros, which come back without a mask.
        for round in 0..50 {
            let payload = [b'a' + round % 26; 100];
            stream.write_all(&[&[0x81, 0x80 | 100, 0, 0, 0, 0], &payload[..]].concat()).unwrap();
            let mut frame = vec![0; 102];
            stream.read_exact(&mut frame).unwrap();
            assert_eq!(frame, [&[0x81, 100], &payload[..]].concat());
        }
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    });
    talk.await.unwrap();
    assert_eq!(app.journal().starts(), 1);
}
