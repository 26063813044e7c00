//! Certificates of our own making, for hosts that have none: so that TLS answers at all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};
use rustls::{pki_types::PrivateKeyDer, sign::CertifiedKey};
use tokio::time::Instant;

use super::tls_certificate::{BadCertificate, provider};

/// Made for so many hosts; the others share one.
const MOST: usize = 1000;

/// Used for so long. They are good for longer.
const USED: Duration = Duration::from_secs(200 * 24 * 3600);

/// Good for so long: what browsers take at most.
const GOOD: Duration = Duration::from_secs(397 * 24 * 3600);

/// The name on the certificate that hosts share which are not ours.
const NOBODY: &str = "self-signed.invalid";

/// Self-signed certificates by host. They share a private key, which is never stored.
#[derive(Debug, Default)]
pub(super) struct SelfSigned {
    // Held for as long as a certificate takes to be made: once for each host.
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    key: Option<KeyPair>,
    by_host: HashMap<Box<str>, (Arc<CertifiedKey>, Instant)>,
    nobody: Option<(Arc<CertifiedKey>, Instant)>,
}

impl SelfSigned {
    /// The certificate of a host, and whether it was made just now.
    pub(super) fn of(&self, host: &str) -> Result<(Arc<CertifiedKey>, bool), BadCertificate> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((key, since)) = made.by_host.get(host)
            && since.elapsed() < USED
        {
            return Ok((Arc::clone(key), false));
        }
        if made.by_host.len() >= MOST {
            drop(made);
            return Ok((self.of_nobody()?, false));
        }
        let key = made.make(host)?;
        made.by_host.insert(host.into(), (Arc::clone(&key), Instant::now()));
        Ok((key, true))
    }

    /// The certificate of hosts that are not ours.
    pub(super) fn of_nobody(&self) -> Result<Arc<CertifiedKey>, BadCertificate> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((key, since)) = &made.nobody
            && since.elapsed() < USED
        {
            return Ok(Arc::clone(key));
        }
        let key = made.make(NOBODY)?;
        made.nobody = Some((Arc::clone(&key), Instant::now()));
        Ok(key)
    }

    /// The hosts that one was made for, in order.
    pub(super) fn hosts(&self) -> Vec<String> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hosts: Vec<String> = made.by_host.keys().map(|host| host.to_string()).collect();
        hosts.sort();
        hosts
    }
}

/// The certificate by which a host shows an authority that it is ours (RFC 8737).
pub fn challenge_certificate(host: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, BadCertificate> {
    let failed = |error: rcgen::Error| BadCertificate::Certificate(error.to_string());
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(failed)?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    certified(&params.self_signed(&key).map_err(failed)?, &key)
}

/// A new private key (PEM), and a request (DER) for a certificate for these names.
pub fn signing_request(names: &[String]) -> Result<(String, Vec<u8>), BadCertificate> {
    let failed = |error: rcgen::Error| BadCertificate::Certificate(error.to_string());
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

fn certified(certificate: &rcgen::Certificate, key: &KeyPair) -> Result<Arc<CertifiedKey>, BadCertificate> {
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(|why| BadCertificate::Key(why.to_owned()))?;
    let signing = provider().key_provider.load_private_key(private);
    let signing = signing.map_err(|error| BadCertificate::Key(error.to_string()))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing)))
}

impl Made {
    fn make(&mut self, host: &str) -> Result<Arc<CertifiedKey>, BadCertificate> {
        let failed = |error: rcgen::Error| BadCertificate::Certificate(error.to_string());
        if self.key.is_none() {
            self.key = Some(KeyPair::generate().map_err(failed)?);
        }
        let Some(key) = &self.key else { return Err(BadCertificate::NoKey) };
        let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, "Dormouse, self-signed");
        let now = std::time::SystemTime::now();
        // From yesterday on: clocks differ.
        params.not_before = (now - Duration::from_secs(24 * 3600)).into();
        params.not_after = (now + GOOD).into();
        certified(&params.self_signed(key).map_err(failed)?, key)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tls_certificate::Facts, *};

    #[test]
    fn each_host_has_one_of_its_own_and_the_rest_share_one() {
        let signed = SelfSigned::default();
        let (first, new) = signed.of("app.example.com").unwrap();
        assert!(new);
        let (again, new) = signed.of("app.example.com").unwrap();
        assert!(!new && Arc::ptr_eq(&first, &again));
        let facts = Facts::read(&first.cert[0]).unwrap();
        assert_eq!(facts.names, ["app.example.com"]);
        assert!(first.keys_match().is_ok());
        for number in 1..MOST {
            signed.of(&format!("h{number}.example.com")).unwrap();
        }
        let (shared, new) = signed.of("one-too-many.example.com").unwrap();
        assert!(!new && Arc::ptr_eq(&shared, &signed.of_nobody().unwrap()));
        assert_eq!(signed.hosts().len(), MOST);
    }
}
