//! Clients whose certificate is refused: the log says who, and why, in words that help whoever made the certificate.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime},
};

use rcgen::ExtendedKeyUsagePurpose;

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    tls::{Authority, YEAR},
    wait::until,
};

const REFUSED: &str = "a client certificate was refused";

/// One as the short commands of most guides make it: without a file of extensions.
fn issue_of_version_1(authority: &Authority, name: &str) {
    let at = |ending: &str| authority.path(&format!("{name}.{ending}")).into_os_string();
    let openssl = |arguments: &[&str], files: &[(&str, std::ffi::OsString)]| {
        let mut command = Command::new("openssl");
        command.args(arguments);
        for (option, file) in files {
            command.arg(option).arg(file);
        }
        let output = command.output().expect("openssl");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let key = ["req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=me"];
    openssl(&key, &[("-keyout", at("key")), ("-out", at("csr"))]);
    let [ca, ca_key] = ["ca.pem", "ca.key"].map(|file| authority.path(file).into_os_string());
    // Later versions of it make one of version 3 unless they are told not to.
    for more in [&[][..], &["-x509v1"]] {
        let sign = [&["x509", "-req", "-days", "30", "-CAcreateserial"][..], more].concat();
        let files = [("-in", at("csr")), ("-CA", ca.clone()), ("-CAkey", ca_key.clone()), ("-out", at("pem"))];
        openssl(&sign, &files);
        if openssl(&["x509", "-noout", "-text"], &[("-in", at("pem"))]).contains("Version: 1 ") {
            return;
        }
    }
    panic!("openssl makes no certificate of version 1");
}

#[tokio::test]
async fn a_client_certificate_that_is_refused_is_told_with_the_reason_and_wakes_nobody() {
    let app = App::new("secret").route(", inbound_mtls_profile: staff");
    let authority = Authority::new("an authority of tests");
    let (staff, strangers) = (Authority::new("staff"), Authority::new("strangers"));
    authority.issue("all", &["secret.test"], YEAR);
    staff.issue_to_client("me");
    strangers.issue_to_client("stranger");
    let now = SystemTime::now();
    staff.issue_to_client_as("late", |params| {
        params.not_before = (now - Duration::from_secs(7200)).into();
        params.not_after = (now - Duration::from_secs(3600)).into();
    });
    staff.issue_to_client_as("early", |params| params.not_before = (now + Duration::from_secs(3600)).into());
    staff.issue_to_client_as("server", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    issue_of_version_1(&staff, "old");
    let entry = authority.entry("all");
    let ca = staff.path("ca.pem");
    let text =
        config(&[&app]) + &format!("tls: {{ certificates: [{entry}], clients: {{ staff: \"{}\" }} }}\n", ca.display());
    let dormouse = Dormouse::start_secure(&text).await;
    let at = dormouse.https.unwrap();
    let ask = async |[pem, key]: [PathBuf; 2]| {
        let [pem, key] = [pem, key].map(|path| path.display().to_string());
        authority.curl("secret.test", at, "/", &["--cert", &pem, "--key", &key]).await
    };
    let files = |of: &Authority, name: &str| ["pem", "key"].map(|ending| of.path(&format!("{name}.{ending}")));
    for (of, name, why) in [
        (&strangers, "stranger", "no authority of the profile has issued it (unknown issuer)"),
        (&staff, "late", "it has expired, at 20"),
        (&staff, "early", "it is not valid before 20"),
        (&staff, "server", "it is not for clients: issue one with `extendedKeyUsage = clientAuth`"),
        (&staff, "old", "it is of X.509 version 1: issue one of version 3"),
    ] {
        let reply = ask(files(of, name)).await;
        assert!(!reply.ok, "{name}: {reply:?}");
        let find = async || dormouse.log().lines().find(|line| line.contains(why)).map(str::to_owned);
        let line = until(&format!("why `{name}` is refused"), find, Option::is_some).await.unwrap();
        for words in [" WARN ", REFUSED, "127.0.0.1", "secret.test", "staff"] {
            assert!(line.contains(words), "{words}: {line}");
        }
    }
    assert_eq!(app.journal().starts(), 0, "somebody was woken for");
    let told = dormouse.log().matches(REFUSED).count();
    // Who shows none is told so by the answer, and who may come in comes in.
    assert_eq!(authority.curl("secret.test", at, "/", &[]).await.status, 403);
    assert_eq!(ask(files(&staff, "me")).await.status, 200);
    assert_eq!(dormouse.log().matches(REFUSED).count(), told);
}
