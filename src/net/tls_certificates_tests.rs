use std::fs;

use super::{
    super::tls_samples::{pem, sample},
    *,
};
use crate::model::{CertificateFiles, CertificateFolder, ClientProfile};

fn place() -> Place {
    Place::File { path: "dormouse.yaml".into(), line: Some(3), column: Some(5) }
}

fn leaf(certificates: &Certificates, name: Option<&str>) -> Vec<u8> {
    certificates.key_for(name).unwrap().cert[0].to_vec()
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_and_a_whole_one_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let write = |(certificate, key): (String, String)| {
        fs::write(at("a.pem"), certificate).unwrap();
        fs::write(at("a.key"), key).unwrap();
    };
    write(pem(&["app.test"]));
    let files = CertificateFiles { certificate: at("a.pem"), key: at("a.key"), place: place() };
    let settings = TlsSettings { certificates: vec![files], ..TlsSettings::default() };
    let certificates = Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None));
    certificates.configure(&settings);
    assert_eq!(certificates.problems(), []);
    assert!(certificates.certify("app.test") && !certificates.certify("other.test"));
    let first = leaf(&certificates, Some("app.test"));
    fs::write(at("a.pem"), "-----BEGIN CERTIFICATE-----\nrubbish").unwrap();
    certificates.reload();
    assert_eq!(leaf(&certificates, Some("app.test")), first);
    let problems = certificates.problems();
    assert!(problems[0].to_string().starts_with("error: dormouse.yaml:3:5: `"), "{problems:?}");
    write(pem(&["app.test"]));
    certificates.reload();
    assert_ne!(leaf(&certificates, Some("app.test")), first);
    assert_eq!(certificates.problems(), []);
    assert_eq!(certificates.directories(), BTreeSet::from([directory.path().to_owned()]));
    certificates.configure(&TlsSettings::default());
    assert!(!certificates.certify("app.test"));
}

#[test]
fn what_is_taken_out_of_a_folder_is_gone_whatever_else_is_wrong_there() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("certificates");
    let write = |name: &str, host: &str| {
        let (certificate, key) = pem(&[host]);
        fs::write(inside.join(name), certificate + &key).unwrap();
    };
    fs::create_dir(&inside).unwrap();
    write("app.pem", "app.test");
    write("other.pem", "other.test");
    let folder = CertificateFolder { path: inside.clone(), place: place() };
    let settings = TlsSettings { folders: vec![folder], ..TlsSettings::default() };
    let certificates = Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None));
    certificates.configure(&settings);
    assert!(certificates.certify("app.test") && certificates.certify("other.test"));
    // One is broken and stays, the other is taken out and goes.
    fs::write(inside.join("other.pem"), "-----BEGIN CERTIFICATE-----\nrubbish").unwrap();
    fs::remove_file(inside.join("app.pem")).unwrap();
    certificates.reload();
    assert!(!certificates.problems().is_empty());
    assert!(certificates.certify("other.test") && !certificates.certify("app.test"));
    // A folder that can not be read says nothing of what is in it.
    fs::rename(&inside, directory.path().join("elsewhere")).unwrap();
    certificates.reload();
    assert!(certificates.certify("other.test"), "{:?}", certificates.problems());
}

#[test]
fn authorities_of_clients_are_read_again_and_what_stays_keeps_its_verifier() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let write = |name: &str| fs::write(at(name), pem(&["authority.test"]).0).unwrap();
    let profile = |name: &str| ClientProfile { authorities: vec![at(name)], system: false, place: place() };
    write("staff.pem");
    write("guests.pem");
    let clients = [("staff".to_owned(), profile("staff.pem")), ("guests".to_owned(), profile("guests.pem"))];
    let settings = TlsSettings { clients: clients.into(), ..TlsSettings::default() };
    let certificates = Certificates::new(Box::new(|_| Served::ByName), Box::new(|host| Some(host.to_owned())));
    certificates.configure(&settings);
    assert_eq!(certificates.directories(), BTreeSet::from([directory.path().to_owned()]));
    let verifier = |of: &str| certificates.profile_of(of).unwrap().1.unwrap();
    let before = ["staff", "guests"].map(verifier);
    // By the watcher, and by SIGHUP.
    let again: [&dyn Fn(); 2] = [&|| certificates.reload(), &|| certificates.configure(&settings)];
    for read in again {
        let last = verifier("staff");
        write("staff.pem");
        read();
        assert!(!Arc::ptr_eq(&last, &verifier("staff")));
        assert!(Arc::ptr_eq(&before[1], &verifier("guests")));
    }
    let last = verifier("staff");
    fs::write(at("staff.pem"), "rubbish").unwrap();
    certificates.reload();
    assert!(Arc::ptr_eq(&last, &verifier("staff")));
    let told = certificates.problems()[0].to_string();
    assert!(told.contains("staff.pem") && told.contains("holds no authority"), "{told}");
}

#[test]
fn a_host_without_a_certificate_gets_one_of_ours_which_is_told_and_certifies_nothing() {
    let serves = |host: &str| if host == "app.test" { Served::ByPattern } else { Served::No };
    let certificates = Certificates::new(Box::new(serves), Box::new(|_| None));
    let shared = leaf(&certificates, None);
    assert_eq!(leaf(&certificates, Some("stranger.test")), shared);
    assert_eq!(certificates.problems(), []);
    assert_ne!(leaf(&certificates, Some("app.test")), shared);
    assert!(!certificates.certify("app.test"));
    assert_eq!(certificates.self_signed_hosts(), ["app.test"]);
    assert!(certificates.problems()[0].to_string().starts_with("warning: host app.test: has no certificate"));
    certificates.set_from_authority(vec![Arc::new(sample(&["app.test"]))], Vec::new());
    assert!(certificates.certify("app.test"));
    assert_eq!(certificates.problems(), []);
}

#[tokio::test]
async fn only_a_host_that_is_served_by_its_name_is_wished_for() {
    let serves = |host: &str| if host == "app.test" { Served::ByName } else { Served::ByPattern };
    let certificates = Certificates::new(Box::new(serves), Box::new(|_| None));
    let mut wishes = certificates.wishes();
    certificates.set_demand(true);
    certificates.wish_for("random.test");
    certificates.wait_for("random.test").await;
    certificates.wish_for("app.test");
    assert_eq!(wishes.try_recv().unwrap().host, "app.test");
    assert!(wishes.try_recv().is_err());
}
