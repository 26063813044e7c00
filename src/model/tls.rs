//! Settings of TLS: which certificates there are, and what is told to browsers.

use std::{path::PathBuf, time::Duration};

use super::Place;

/// What the file says about TLS on the clients' side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    /// Certificates by name of their files.
    pub certificates: Vec<CertificateFiles>,
    /// Folders of certificates with their keys.
    pub folders: Vec<CertificateFolder>,
    /// What browsers are told to remember; absent: nothing.
    pub hsts: Option<Hsts>,
    /// Whether who comes in clear is sent to TLS.
    pub redirect: HttpsRedirect,
}

/// A certificate with its chain, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM, the certificate itself first.
    pub certificate: PathBuf,
    /// PEM; may be the same file.
    pub key: PathBuf,
    /// Where it was written.
    pub place: Place,
}

/// A folder in which, and in whose direct folders, every certificate with its key is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFolder {
    /// The folder.
    pub path: PathBuf,
    /// Where it was written.
    pub place: Place,
}

/// `Strict-Transport-Security`: browsers use nothing but TLS for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// How long.
    pub max_age: Duration,
    /// All hosts below this one too.
    pub include_subdomains: bool,
    /// Consent to be put on the lists that browsers ship with.
    pub preload: bool,
}

/// Whether who comes in clear to a host that has a certificate is sent to TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpsRedirect {
    /// To the port that is listened to.
    #[default]
    On,
    /// To this port, which is the one seen from outside.
    Port(u16),
    /// No.
    Off,
}

impl Hsts {
    /// The value of the header field.
    pub fn value(&self) -> String {
        let mut text = format!("max-age={}", self.max_age.as_secs());
        if self.include_subdomains {
            text.push_str("; includeSubDomains");
        }
        if self.preload {
            text.push_str("; preload");
        }
        text
    }
}
