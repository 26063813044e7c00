//! One certificate with its key, and what it says of itself.

use std::{fmt, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use rustls::{
    InconsistentKeys,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use x509_parser::{asn1_rs::FromDer, certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

use super::tls_staple::{Attached, Fingerprint};

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// A file, which its owner renews.
    File(PathBuf),
    /// An authority, from which it is renewed.
    Authority(String),
}

/// A certificate that can be shown to clients.
#[derive(Clone)]
pub struct Certificate {
    /// The hosts it is for, canonical; `*.` in front stands for one label.
    pub names: Vec<String>,
    /// Who vouches for it.
    pub issuer: String,
    /// It is good from here on.
    pub not_before: Timestamp,
    /// It is good until here.
    pub not_after: Timestamp,
    /// Where it comes from.
    pub source: CertificateSource,
    /// Clients that heed it refuse it without the word of its authority (RFC 7633).
    pub must_staple: bool,
    /// Tells it apart from all others.
    pub fingerprint: Fingerprint,
    pub(super) key: Arc<CertifiedKey>,
    /// What its authority says of it.
    pub(super) attached: Arc<Attached>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names, issuer, not_after, source, .. } = self;
        f.debug_struct("Certificate")
            .field("names", names)
            .field("issuer", issuer)
            .field("not_after", not_after)
            .field("source", source)
            .finish_non_exhaustive()
    }
}

/// Why something is no certificate that can be shown.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// It is not PEM.
    #[error("is not PEM: {0}")]
    Pem(String),
    /// There is no certificate in it.
    #[error("holds no certificate")]
    NoCertificate,
    /// There is no private key in it.
    #[error("holds no private key")]
    NoKey,
    /// The certificate can not be read.
    #[error("holds no sound certificate: {0}")]
    Certificate(String),
    /// The key is of no kind that is known.
    #[error("holds no usable private key: {0}")]
    Key(String),
    /// Key and certificate do not belong together.
    #[error("is for another private key")]
    OtherKey,
    /// It is for no host.
    #[error("names no host (as a DNS name among its subject alternative names)")]
    NoHost,
}

/// The certificates of a PEM text.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadCertificate> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| BadCertificate::Pem(error.to_string()))
}

/// The first private key of a PEM text.
pub(super) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, BadCertificate> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            BadCertificate::NoKey
        } else {
            // Its own text may quote what stands there.
            BadCertificate::Pem("the private key can not be read".to_owned())
        }
    })
}

impl Certificate {
    /// From PEM texts.
    pub fn from_pem(certificate: &[u8], key: &[u8], source: CertificateSource) -> Result<Self, BadCertificate> {
        Self::new(chain(certificate)?, private_key(key)?, source)
    }

    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        source: CertificateSource,
    ) -> Result<Self, BadCertificate> {
        let leaf = chain.first().ok_or(BadCertificate::NoCertificate)?;
        let facts = Facts::read(leaf)?;
        let key = provider().key_provider.load_private_key(key);
        let key = CertifiedKey::new(chain, key.map_err(|error| BadCertificate::Key(error.to_string()))?);
        match key.keys_match() {
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) | Ok(()) => {}
            Err(_) => return Err(BadCertificate::OtherKey),
        }
        if facts.names.is_empty() {
            return Err(BadCertificate::NoHost);
        }
        let Facts { names, issuer, not_before, not_after, must_staple, .. } = facts;
        let fingerprint = Fingerprint::of(key.cert.first().map_or(&[], |leaf| leaf.as_ref()));
        let (key, attached) = (Arc::new(key), Arc::default());
        Ok(Self { names, issuer, not_before, not_after, source, must_staple, fingerprint, key, attached })
    }

    /// The certificate's own bytes, by which it is known.
    pub(super) fn leaf(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |leaf| leaf.as_ref())
    }

    /// It and those that are shown with it, itself first (DER).
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.key.cert.iter().map(AsRef::as_ref)
    }

    /// How many certificates are shown with it.
    pub(super) fn chain_length(&self) -> usize {
        self.key.cert.len()
    }

    /// Whether its file is still there, if it came from one.
    pub(super) fn is_there(&self) -> bool {
        match &self.source {
            CertificateSource::File(path) => path.exists(),
            CertificateSource::Authority(_) => true,
        }
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now >= self.not_after
    }
}

/// What a certificate says.
pub(super) struct Facts {
    pub(super) names: Vec<String>,
    pub(super) issuer: String,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    must_staple: bool,
    /// It vouches for others rather than for a host.
    pub(super) is_authority: bool,
}

/// `id-pe-tlsfeature`
const FEATURES: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 24];

/// The number of the extension of TLS by which a client asks for the word of an authority.
const STATUS_REQUEST: u32 = 5;

/// Whether clients are to refuse a certificate without the word of its authority (RFC 7633).
pub fn must_staple(certificate: &X509Certificate<'_>) -> bool {
    let mut features = certificate.extensions().iter().filter(|one| one.oid.as_bytes() == FEATURES);
    features.any(|one| <Vec<u32>>::from_der(one.value).is_ok_and(|(_, features)| features.contains(&STATUS_REQUEST)))
}

impl Facts {
    pub(super) fn read(leaf: &CertificateDer<'_>) -> Result<Self, BadCertificate> {
        let bad = |error: &dyn fmt::Display| BadCertificate::Certificate(error.to_string());
        let (_, parsed) = parse_x509_certificate(leaf).map_err(|error| bad(&error))?;
        let alternatives = parsed.subject_alternative_name().map_err(|error| bad(&error))?;
        let names = alternatives.iter().flat_map(|found| &found.value.general_names).filter_map(|name| {
            let GeneralName::DNSName(name) = name else { return None };
            Some(name.trim_end_matches('.').to_ascii_lowercase())
        });
        let time = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|error| BadCertificate::Certificate(error.to_string()))
        };
        let issuer = parsed.issuer();
        let words = issuer.iter_common_name().chain(issuer.iter_organization()).find_map(|part| part.as_str().ok());
        Ok(Self {
            names: names.collect(),
            issuer: words.map_or_else(|| issuer.to_string(), str::to_owned),
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            must_staple: must_staple(&parsed),
            is_authority: parsed.is_ca(),
        })
    }
}

/// Has also those clients use the one provider of cryptography whose libraries would choose among all that are there.
pub fn use_one_provider() {
    // It is an error that there is one already: this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The one provider of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
