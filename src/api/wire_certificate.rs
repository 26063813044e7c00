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
}
