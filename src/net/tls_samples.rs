//! Certificates for tests.

use rcgen::{CertificateParams, KeyPair};

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
