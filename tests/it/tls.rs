//! HTTPS with certificates from files, with real clients: `curl` and `openssl`.

use std::{fs, net::SocketAddr, time::Duration};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    tls::{Authority, YEAR, curl, s_client},
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
