//! Certificates for tests.

use rcgen::{CertificateParams, CustomExtension, KeyPair};

use super::tls_certificate::{Certificate, CertificateSource};

/// PEM texts of a certificate for these names, and of its key.
pub(super) fn pem(names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

pub(super) fn sample(names: &[&str]) -> Certificate {
    let (certificate, key) = pem(names);
    let source = CertificateSource::File("sample.pem".into());
    Certificate::from_pem(certificate.as_bytes(), key.as_bytes(), source).unwrap()
}

/// One that clients refuse without the word of its authority.
pub(super) fn must_staple(names: &[&str]) -> Certificate {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let features = vec![0x30, 3, 2, 1, 5];
    params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], features));
    let certificate = params.self_signed(&key).unwrap().pem();
    let source = CertificateSource::File("sample.pem".into());
    Certificate::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes(), source).unwrap()
}
