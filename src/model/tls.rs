//! Settings of TLS: which certificates there are, and what is told to browsers.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use super::{DnsAccess, Place};

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
    /// Whether certificates are shown with what their authorities say of them.
    pub ocsp: OcspStapling,
    /// Certificates from an authority; absent: none.
    pub acme: Option<AcmeSettings>,
    /// Whose certificates let clients in, by the names that routes give.
    pub clients: BTreeMap<String, ClientProfile>,
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

/// Authorities whose certificates let clients in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientProfile {
    /// Their files, PEM.
    pub authorities: Vec<PathBuf>,
    /// Those that this machine trusts, too.
    pub system: bool,
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

/// Whether the authorities behind certificates are asked for proof that these are still good (OCSP, RFC 6960), which is
/// then shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OcspStapling {
    /// Where a certificate names whom to ask.
    #[default]
    On,
    /// No.
    Off,
}

/// How certificates are got from an authority (ACME, RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The authority's directory.
    pub directory: String,
    /// A file (PEM) with the authority behind the directory itself; absent: those that this machine trusts.
    pub root: Option<PathBuf>,
    /// Whom the authority writes to.
    pub email: Option<String>,
    /// An account of the authority that ours belongs to.
    pub external: Option<ExternalAccount>,
    /// How we show that a host is ours, best first.
    pub challenges: Vec<AcmeChallenge>,
    /// What puts records into the DNS.
    pub dns: Option<DnsAccess>,
    /// Certificates to have, each for one name or several.
    pub certificates: Vec<Vec<String>>,
    /// Hosts that routes name, not by a pattern, get one of their own when they are first asked for.
    pub on_demand: bool,
    /// Where it was written.
    pub place: Place,
}

impl AcmeSettings {
    /// Whether both ask for the same, wherever that is written.
    pub fn is_same(&self, other: &Self) -> bool {
        let mut moved = Self { place: other.place.clone(), ..self.clone() };
        if let (Some(DnsAccess::Provider(moved)), Some(DnsAccess::Provider(there))) = (&mut moved.dns, &other.dns) {
            moved.place = there.place.clone();
        }
        moved == *other
    }
}

/// A way to show that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// By an answer on port 80.
    Http,
    /// By a certificate on port 443.
    TlsAlpn,
    /// By a record in the DNS.
    Dns,
}

/// An account of the authority that ours belongs to (external account binding).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Its key's id.
    pub id: String,
    /// Its key, base64url.
    pub key: Secret,
}

/// How TLS is spoken to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Its certificate must be for it, and from an authority that is trusted.
    pub verify: bool,
    /// It is told the name that is asked for.
    pub sends_name: bool,
    /// The name that its certificate must bear; absent: its own.
    pub server_name: Option<String>,
    /// The authorities that are trusted; absent: those of this machine.
    pub roots: Option<PathBuf>,
    /// Our own certificate and its key, for an endpoint that asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Nothing older than TLS 1.3.
    pub only_13: bool,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { verify: true, sends_name: true, server_name: None, roots: None, client: None, only_13: false }
    }
}

/// What no log may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps this.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// To be used, never to be shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl AcmeChallenge {
    /// Every challenge.
    pub const ALL: [Self; 3] = [Self::Http, Self::TlsAlpn, Self::Dns];

    /// Its name in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
            Self::Dns => "dns-01",
        }
    }
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
