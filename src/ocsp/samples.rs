//! Authorities, certificates and answers for tests.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SigningKey,
};

use super::{
    answer::BASIC,
    der::{BITS, BYTES, ENUMERATED, OID, SEQUENCE, TIME, element, numbered},
    parts::{Parts, sha1},
    question::{Facts, Question, id},
};
use crate::net::{Certificate, CertificateSource, Fingerprint};

/// Somebody who signs.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

/// A certificate with its chain and its key.
pub(super) struct Pem {
    chain: String,
    key: String,
}

impl Pem {
    pub(super) fn read(&self) -> Arc<Certificate> {
        let source = CertificateSource::File("a.pem".into());
        Arc::new(Certificate::from_pem(self.chain.as_bytes(), self.key.as_bytes(), source).unwrap())
    }
}

/// What is answered about a certificate.
pub(super) struct Words {
    pub(super) status: Vec<u8>,
    pub(super) since: Timestamp,
    pub(super) until: Option<Timestamp>,
}

pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(super) fn der(&self) -> Vec<u8> {
        self.der.clone()
    }

    /// A certificate that names these responders.
    pub(super) fn issue(&self, host: &str, responders: &[&str], must_staple: bool) -> Vec<u8> {
        self.issue_with_key(host, responders, must_staple, YEAR).0
    }

    fn issue_with_key(&self, host: &str, responders: &[&str], must_staple: bool, good: Duration) -> (Vec<u8>, KeyPair) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = (SystemTime::now() + good).into();
        let own = &mut params.custom_extensions;
        if !responders.is_empty() {
            let method = element(OID, &[&[0x2b, 6, 1, 5, 5, 7, 0x30, 1]]);
            let one = |address: &&str| element(SEQUENCE, &[&method, &element(0x86, &[address.as_bytes()])]);
            let all: Vec<u8> = responders.iter().flat_map(one).collect();
            own.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], element(SEQUENCE, &[&all])));
        }
        if must_staple {
            own.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 3, 2, 1, 5]));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().to_vec(), key)
    }

    /// PEM of a certificate as it is shown, good for so long, and of its key.
    pub(super) fn pem(&self, host: &str, responders: &[&str], must_staple: bool, good: Duration) -> Pem {
        let (leaf, key) = self.issue_with_key(host, responders, must_staple, good);
        let pem = |der: &[u8]| {
            let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        Pem { chain: pem(&leaf) + &pem(&self.der), key: key.serialize_pem() }
    }

    /// A question about a certificate of its own.
    pub(super) fn question(&self, good: Duration) -> Question {
        let (leaf, _) = self.issue_with_key("app.test", &["http://ocsp.test/"], false, good);
        Facts::read(&[&leaf, &self.der]).unwrap().question.unwrap()
    }

    /// Somebody who may sign answers for it, or not: a certificate and its key.
    pub(super) fn responder(&self, usage: &[ExtendedKeyUsagePurpose], good: Duration) -> (Vec<u8>, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "responder");
        params.extended_key_usages = usage.to_vec();
        params.not_before = (SystemTime::now() - Duration::from_secs(7200)).into();
        params.not_after = (SystemTime::now() - Duration::from_secs(3600) + good).into();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), key)
    }

    /// Its answer, signed by itself.
    pub(super) fn answer(&self, question: &Question, words: &Words) -> Vec<u8> {
        answer(question, words, &self.der, self.issuer.key(), &[])
    }
}

impl Words {
    pub(super) const UNKNOWN: &[u8] = &[0x82, 0];

    /// Good for so long from now on.
    pub(super) fn good(from: i64, to: i64) -> Self {
        let now = Timestamp::now();
        let at = |seconds| now + jiff::SignedDuration::from_secs(seconds);
        Self { status: vec![0x80, 0], since: at(from), until: Some(at(to)) }
    }

    pub(super) fn revoked(at: Timestamp) -> Vec<u8> {
        element(numbered(1), &[&time(at)])
    }
}

/// An answer of this signer, with these certificates.
pub(super) fn answer(
    question: &Question,
    words: &Words,
    signer: &[u8],
    key: &KeyPair,
    certificates: &[&[u8]],
) -> Vec<u8> {
    let (leaf, issuer) = (Parts::read(&question.leaf).unwrap(), Parts::read(&question.issuer).unwrap());
    let until = words.until.map(|until| element(numbered(0), &[&time(until)])).unwrap_or_default();
    let single = element(SEQUENCE, &[&id(&leaf, &issuer), &words.status, &time(words.since), &until]);
    let signer = element(numbered(2), &[&element(BYTES, &[&sha1(Parts::read(signer).unwrap().key.bits)])]);
    let what = element(SEQUENCE, &[&signer, &time(words.since), &element(SEQUENCE, &[&single])]);
    // ecdsa-with-SHA256
    let algorithm = element(SEQUENCE, &[&element(OID, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])]);
    let signature = element(BITS, &[&[0], &key.sign(&what).unwrap()]);
    let certificates = match certificates.concat() {
        none if none.is_empty() => none,
        some => element(numbered(0), &[&element(SEQUENCE, &[&some])]),
    };
    let basic = element(SEQUENCE, &[&what, &algorithm, &signature, &certificates]);
    let inner = element(SEQUENCE, &[&element(OID, &[BASIC]), &element(BYTES, &[&basic])]);
    element(SEQUENCE, &[&element(ENUMERATED, &[&[0]]), &element(numbered(0), &[&inner])])
}

fn time(at: Timestamp) -> Vec<u8> {
    element(TIME, &[at.to_zoned(TimeZone::UTC).strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()])
}

/// A fingerprint of a certificate that is like no other.
pub(super) fn fingerprint(of: u8) -> Fingerprint {
    static SOME: OnceLock<Vec<Fingerprint>> = OnceLock::new();
    let some = SOME.get_or_init(|| {
        let authority = Authority::new("of fingerprints");
        (0..64).map(|_| authority.pem("app.test", &[], false, YEAR).read().fingerprint).collect()
    });
    some[usize::from(of)]
}
