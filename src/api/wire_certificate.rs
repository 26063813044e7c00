//! Certificates as they are told. Never a key.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// All certificates, those of files first, and the hosts without one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificates {
    /// The certificates.
    pub certificates: Vec<Certificate>,
    /// Hosts of routes that were asked for by TLS and were shown a self-signed certificate.
    pub self_signed: Vec<String>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// The hosts it is for; `*.` stands for one label.
    pub names: Vec<String>,
    /// Who vouches for it.
    pub issuer: String,
    /// It is good from here on.
    pub not_before: String,
    /// It is good until here.
    pub not_after: String,
    /// Whether its time is over.
    pub expired: bool,
    /// `file` or `authority`.
    pub source: String,
    /// The path of the file, or the host of the authority.
    pub from: String,
    /// Where it stands with the responder of its authority (OCSP); absent where it names none and needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocsp: Option<Ocsp>,
}

/// What the authority behind a certificate says of it, and whether clients are shown that with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ocsp {
    /// `stapled`: clients are shown that it is good; `revoked`; or `none`: they are shown nothing.
    pub status: String,
    /// The responder's address; absent: the certificate names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responder: Option<String>,
    /// What is shown is good until here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Since when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
    /// Whether clients are to refuse it when nothing is shown (must-staple).
    pub must_staple: bool,
    /// Why nothing is shown, or nothing newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}
