//! What outside tools say: load over HTTP/2, the cases of Autobahn for WebSockets, and two judges of TLS.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;

use crate::support::{
    apps::{App, config, free_port},
    dormouse::Dormouse,
    not_run::not_run,
    tls::{Authority, YEAR},
};

/// Whether a tool is there. The test is not run without it, or fails where that is not allowed.
fn is_there(tool: &str) -> bool {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(tool).exists()));
    if !found {
        not_run("DORMOUSE_TEST_NO_TOOLS", &format!("`{tool}`, which tests/run installs"));
    }
    found
}

/// Runs a tool to its end, and returns what it said.
async fn tool(name: &str, words: Vec<String>) -> (String, Output) {
    let mut command = Command::new(name);
    command.args(words).stdin(Stdio::null());
    let ran =
        tokio::task::spawn_blocking(move || command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    let output = ran.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (said, output)
}

/// `h2load` with these words against `app.test`: all requests are answered with 200.
async fn load(at: SocketAddr, scheme: &str, path: &str, count: usize, words: &[&str]) {
    let mut all = vec![format!("--connect-to={at}"), "-n".to_owned(), count.to_string()];
    all.extend(words.iter().map(|word| (*word).to_owned()));
    all.push(format!("{scheme}://app.test:{}{path}", at.port()));
    let (said, output) = tool("h2load", all).await;
    let whole =
        format!("{count} total, {count} started, {count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout");
    let right = said.contains(&whole) && said.contains(&format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx"));
    assert!(output.status.success() && right, "{scheme}{path} {words:?}:\n{said}");
    println!(
        "{scheme}{path} {words:?}: {}",
        said.lines().find(|line| line.starts_with("finished")).unwrap_or_default()
    );
}

#[tokio::test]
async fn of_many_streams_on_many_connections_none_fails() {
    if !is_there("h2load") {
        return;
    }
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let body = authority.path("body");
    fs::write(&body, vec![b'x'; 100_000]).unwrap();
    let body = format!("--data={}", body.display());
    for secure in [false, true] {
        // Each finds it asleep at first.
        let app = App::new("app").options(&["--delay-listen", "300ms"]).idle("idle_timeout: 1h");
        let tls = format!("tls: {{ certificates: [{}] }}\nhttps_redirect: false\n", authority.entry("app"));
        let dormouse = Dormouse::start_secure(&(config(&[&app]) + &tls)).await;
        let (at, scheme) = if secure { (dormouse.https.unwrap(), "https") } else { (dormouse.http, "http") };
        load(at, scheme, "/", 2000, &["-c", "40", "-m", "10"]).await;
        assert_eq!(app.journal().starts(), 1);
        load(at, scheme, "/download?bytes=200000", 400, &["-c", "10", "-m", "10"]).await;
        load(at, scheme, "/echo", 400, &["-c", "10", "-m", "10", &body]).await;
        load(at, scheme, "/", 500, &["-c", "5", "-m", "100", "--window-bits=10"]).await;
    }
}

/// An echo of WebSockets that keeps to the rules.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// What became of each of these cases at an address: its behaviour, and how the connection ended.
async fn cases(at: &str, reports: &Path, which: &[&str]) -> BTreeMap<String, (String, String)> {
    let mut words: Vec<String> = ["-m", "fuzzingclient", "-p", "8", "-o"].map(str::to_owned).to_vec();
    words.extend([reports.display().to_string(), format!("ws://{at}/")]);
    words.extend(which.iter().map(|word| (*word).to_owned()));
    let (said, _) = tool("kosoku", words).await;
    let index = fs::read_to_string(reports.join("index.json")).unwrap_or_else(|error| panic!("{at}: {error}\n{said}"));
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let cases = index.as_object().unwrap().values().next().unwrap().as_object().unwrap().iter();
    let word = |case: &serde_json::Value, key: &str| case[key].as_str().unwrap_or_default().to_owned();
    cases.map(|(name, case)| (name.clone(), (word(case, "behavior"), word(case, "behaviorClose")))).collect()
}

/// Those left out take minutes: limits, and compression, which is between the ends.
const CASES: [&str; 6] = ["-x", "9.*", "-x", "12.*", "-x", "13.*"];

/// The cases that do not end at this address as they do without a proxy. The tool gives an end one second, and tells
/// apart whether an echo or an end came first: on a busy machine a case may differ once, but not each time.
async fn that_differ(at: &str, reports: &Path, direct: &BTreeMap<String, (String, String)>) -> Vec<String> {
    let mut differ: Vec<String> = Vec::new();
    for round in 0..4 {
        let again: Vec<&str> = differ.iter().flat_map(|case| ["-i", case.as_str()]).collect();
        let got = cases(at, &reports.join(round.to_string()), if round == 0 { &CASES } else { &again }).await;
        let wanted = direct.iter().filter(|(case, _)| round == 0 || differ.contains(*case));
        let differing: Vec<_> = wanted.filter(|(case, verdict)| got.get(*case) != Some(*verdict)).collect();
        for (case, verdict) in &differing {
            println!("{at}: {case} ends as {:?}, without as {verdict:?}", got.get(*case));
        }
        differ = differing.into_iter().map(|(case, _)| case.clone()).collect();
        if differ.is_empty() {
            break;
        }
    }
    differ
}

#[tokio::test]
async fn a_websocket_through_the_proxy_is_as_good_as_without() {
    if !is_there("kosoku") {
        return;
    }
    let echo = echo().await;
    let route = |host: &str| format!("  {host}: {{ host: 127.0.0.1, port: {} }}\n", echo.port());
    let inner = format!("routes:\n{}{}", route("127.0.0.1"), route("localhost"));
    let inner = Dormouse::start_secure(&inner).await;
    // A second one before it speaks TLS and HTTP/2 for the tool, which speaks neither.
    let outer = format!(
        "routes:\n  localhost: {{ host: 127.0.0.1, port: {}, scheme: h2c }}\n  \
         127.0.0.1: {{ host: 127.0.0.1, port: {}, scheme: https, no_tls_verify: true }}\n",
        inner.http.port(),
        inner.https.unwrap().port()
    );
    let outer = Dormouse::start(&outer).await;
    let reports = tempfile::tempdir().unwrap();
    let at = |name: &str| reports.path().join(name);
    let direct = cases(&echo.to_string(), &at("direct"), &CASES).await;
    let good = direct.values().filter(|(behavior, _)| behavior != "FAILED").count();
    println!("{good} of {} cases hold without the proxy", direct.len());
    assert!(direct.len() >= 240 && good >= direct.len() - 3, "the echo itself is wrong: {direct:?}");
    let (clear, secure) = (inner.http.to_string(), outer.http.to_string());
    let http2 = format!("localhost:{}", outer.http.port());
    let (clear_at, secure_at, http2_at) = (at("clear"), at("secure"), at("http2"));
    let (clear, secure, http2) = tokio::join!(
        that_differ(&clear, &clear_at, &direct),
        that_differ(&secure, &secure_at, &direct),
        that_differ(&http2, &http2_at, &direct)
    );
    let none: Vec<String> = Vec::new();
    assert_eq!((&clear, &secure, &http2), (&none, &none, &none), "in clear, through TLS, through HTTP/2");
}

/// Certificates as a public authority makes them: `rsa` and `ec`, each with an authority of its own.
fn issue(directory: &Path, kind: &str) {
    let path = |file: &str| directory.join(format!("{kind}{file}")).display().to_string();
    let openssl = |words: &[&str]| {
        let output = Command::new("openssl").args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key: &[&str] = if kind == "rsa" {
        &["-newkey", "rsa:2048"]
    } else {
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    };
    let (ca, ca_key, own, own_key) = (path("-ca.pem"), path("-ca.key"), path(".pem"), path(".key"));
    let (asked, extensions) = (path(".csr"), path(".ext"));
    let name = format!("/CN=an authority of {kind}");
    let basic = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    let begin = ["req", "-x509", "-nodes", "-days", "365", "-subj", &name, "-keyout", &ca_key, "-out", &ca];
    openssl(&[&begin, key, &basic].concat());
    let subject = format!("/CN={kind}.test");
    openssl(&[&["req", "-nodes", "-subj", &subject, "-keyout", &own_key, "-out", &asked], key].concat());
    let text = format!(
        "subjectAltName=DNS:{kind}.test\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n\
         crlDistributionPoints=URI:http://127.0.0.1:9/crl\n"
    );
    fs::write(&extensions, text).unwrap();
    let sign = ["x509", "-req", "-days", "80", "-CAcreateserial", "-in", &asked, "-CA", &ca, "-CAkey", &ca_key];
    openssl(&[&sign[..], &["-extfile", &extensions, "-out", &own]].concat());
}

/// One that serves `rsa.test` and `ec.test` through TLS, as its documentation says that one should.
async fn careful(directory: &Path) -> Dormouse {
    let port = free_port();
    let entry = |kind: &str| {
        issue(directory, kind);
        let at = directory.display();
        format!("{{ cert: \"{at}/{kind}.pem\", key: \"{at}/{kind}.key\" }}")
    };
    let route = |kind: &str| {
        format!("  {kind}: {{ host: 127.0.0.1, port: {port}, middlewares: [{{ secure_headers: true }}] }}\n")
    };
    Dormouse::start_secure(&format!(
        "tls: {{ hsts: 365d, certificates: [{}, {}] }}\nroutes:\n{}{}",
        entry("rsa"),
        entry("ec"),
        route("rsa"),
        route("ec")
    ))
    .await
}

#[tokio::test]
async fn its_tls_is_what_mozilla_calls_intermediate() {
    if !is_there("sslyze") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let dormouse = careful(directory.path()).await;
    let judged = ["rsa", "ec"].map(|kind| {
        let ca = directory.path().join(format!("{kind}-ca.pem")).display().to_string();
        let (name, at) = (format!("{kind}.test"), dormouse.https.unwrap().to_string());
        let words = ["--sni", &name, "--certinfo_ca_file", &ca, "--mozilla_config", "intermediate", &at];
        tool("sslyze", words.map(str::to_owned).to_vec())
    });
    for (said, output) in futures_util::future::join_all(judged).await {
        assert!(output.status.success() && said.contains("OK - Compliant"), "{said}");
    }
}

/// Takes minutes, and so is a test of the long run.
#[tokio::test]
async fn its_tls_has_no_fault_above_low() {
    if !is_there("testssl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let dormouse = careful(directory.path()).await;
    for kind in ["rsa", "ec"] {
        let at = |ending: &str| directory.path().join(format!("{kind}{ending}")).display().to_string();
        let (ca, report) = (at("-ca.pem"), at(".json"));
        let url = format!("https://{kind}.test:{}", dormouse.https.unwrap().port());
        let words = ["--ip", "127.0.0.1", "--add-ca", &ca, "--warnings", "off", "--color", "0", "--fast", "--quiet"];
        let (said, _) =
            tool("testssl", words.iter().copied().chain(["--jsonfile", &report, &url]).map(str::to_owned).collect())
                .await;
        let found = fs::read_to_string(&report).unwrap_or_else(|error| panic!("{error}\n{said}"));
        let found: Vec<serde_json::Value> =
            serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}\n{said}"));
        let of = |wanted: &[&str]| -> Vec<String> {
            let bad =
                found.iter().filter(|one| one["severity"].as_str().is_some_and(|severity| wanted.contains(&severity)));
            bad.map(ToString::to_string).collect()
        };
        println!("{kind}: {} good, {:?} low", of(&["OK"]).len(), of(&["LOW"]));
        assert!(of(&["OK"]).len() > 30, "{said}");
        let bad = of(&["MEDIUM", "HIGH", "CRITICAL", "FATAL"]);
        assert!(bad.is_empty(), "{kind}: {}", bad.join("\n"));
    }
}
