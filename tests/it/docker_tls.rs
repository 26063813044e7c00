//! An engine that is reached over TLS, and knows its callers by their certificates.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::support::{
    docker::Spare,
    dormouse::Dormouse,
    tls::{Authority, YEAR},
    wait::until,
};

/// An authority with a certificate for the engine and one for us.
fn authority() -> Authority {
    let authority = Authority::new("the engine's authority");
    authority.issue("engine", &[Spare::HOST], YEAR);
    authority.issue("client", &["client"], YEAR);
    authority
}

/// The configuration of a Dormouse that speaks TLS to the engine in this way.
fn config(spare: &Spare, tls: &str) -> String {
    let before = format!("{{ docker: \"{}\" }}", spare.cli.address);
    let config = spare.cli.config();
    assert!(config.contains(&before), "{config}");
    config.replace(&before, &format!("{{ docker: \"tcp://{}:2376\", tls: {tls} }}", Spare::HOST))
}

/// Why the engine is away for it, once it is.
async fn reason(dormouse: &Dormouse, words: &str) {
    let ask = async || dormouse.api("GET", "/api/v1/nodes").await["nodes"][0]["away"].to_string();
    let told = until("the reason", ask, |told| told != "null").await;
    assert!(told.contains(words), "{told}");
}

#[tokio::test]
async fn containers_of_an_engine_behind_tls_sleep_and_wake() {
    let authority = authority();
    let directory = authority.path("");
    let Some(spare) = Spare::with(&["tls", directory.to_str().expect("a plain path")]).await else { return };
    let file = |name: &str| authority.path(name).display().to_string();
    let whole = format!("{{ ca: {}, cert: {}, key: {} }}", file("ca.pem"), file("client.pem"), file("client.key"));

    // Another machine's bridges are not ours to dial: a published port is.
    let label = format!("--label={}.idle_timeout=1s", spare.cli.prefix);
    let name = spare.cli.container(&["create"], "app", &["--expose=80", "-p", "80", &label], &[]).await;
    let dormouse = Dormouse::start(&config(&spare, &whole)).await;
    dormouse.knows(&name).await;
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
    dormouse.comes_to(&name, "stopped").await;
    assert_eq!(spare.cli.status(&name).await, "exited");
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
    assert_eq!(spare.cli.count(&name, "start").await, 2);
    drop(dormouse);

    // One without a certificate is refused by the engine.
    let nobody = Dormouse::start(&config(&spare, &format!("{{ ca: {} }}", file("ca.pem")))).await;
    reason(&nobody, "it wants a certificate of its authority").await;
    drop(nobody);

    // One that trusts another authority refuses the engine, until the file is another.
    let other = Authority::new("another authority");
    fs::copy(authority.path("client.pem"), other.path("cert.pem")).unwrap();
    fs::copy(authority.path("client.key"), other.path("key.pem")).unwrap();
    let directory = other.path("");
    let doubtful = Dormouse::start(&config(&spare, &directory.display().to_string())).await;
    reason(&doubtful, &format!("not from an authority in `{}`", other.path("ca.pem").display())).await;
    fs::copy(authority.path("ca.pem"), other.path("ca.pem")).unwrap();
    doubtful.knows(&name).await;
    assert_eq!(doubtful.get(&name, "/").await.status, 200);
}

fn check(directory: &Path, node: &str) -> Output {
    fs::write(directory.join("dormouse.yaml"), format!("nodes:\n  gpu: {node}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    command.current_dir(directory).args(["check", "dormouse.yaml"]).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn what_tls_needs_is_checked_with_the_file() {
    let (authority, directory) = (authority(), TempDir::new().unwrap());
    for name in ["ca.pem", "client.pem", "client.key", "engine.key"] {
        fs::copy(authority.path(name), directory.path().join(name)).unwrap();
    }
    let inline = format!("{:?}", fs::read_to_string(authority.path("ca.pem")).unwrap());
    for (tls, words) in [
        ("{ ca: ca.pem, cert: client.pem, key: client.key }", ""),
        (&format!("{{ ca: {inline} }}"), ""),
        ("{ ca: gone.pem }", "can not read `gone.pem`: No such file"),
        ("here", "can not read `here/ca.pem`: No such file"),
        ("{ ca: client.key }", "`client.key` holds no certificate"),
        ("{ ca: ca.pem, cert: client.pem, key: ca.pem }", "`ca.pem` holds no private key"),
        ("{ ca: ca.pem, cert: client.pem, key: engine.key }", "`client.pem` and `engine.key` are no pair"),
        ("{ ca: ca.pem, cert: client.pem }", "`cert` and `key` of a node's `tls` go together"),
    ] {
        let output = check(directory.path(), &format!("{{ docker: \"tcp://10.0.0.5:2376\", tls: {tls} }}"));
        let said = said(&output);
        assert_eq!(output.status.success(), words.is_empty(), "{tls}: {said}");
        assert!(said.contains(words), "{tls}: {said}");
        assert!(words.is_empty() || said.contains("dormouse.yaml:2:"), "{tls}: {said}");
    }
    let output = check(directory.path(), "{ docker: \"tcp://10.0.0.5:2375\" }");
    let said = said(&output);
    assert!(!output.status.success() && said.contains("`insecure: true`"), "{said}");
    assert!(check(directory.path(), "{ docker: \"tcp://10.0.0.5:2375\", insecure: true }").status.success());
}
