//! The certificates that clients are shown.

use axum::{Json, extract::State};
use jiff::Timestamp;

use super::{Api, wire};
use crate::net::{Certificate, CertificateSource, Stapling};

/// All certificates, and the hosts that have none.
#[utoipa::path(get, path = "/api/v1/certificates", tag = "configuration",
    responses((status = 200, body = wire::Certificates)))]
pub(super) async fn certificates(State(api): State<Api>) -> Json<wire::Certificates> {
    let (known, now) = (api.control.certificates(), Timestamp::now());
    Json(wire::Certificates {
        certificates: known.all().iter().map(|certificate| tell(certificate, now)).collect(),
        self_signed: known.self_signed_hosts(),
    })
}

fn tell(certificate: &Certificate, now: Timestamp) -> wire::Certificate {
    let (source, from) = match &certificate.source {
        CertificateSource::File(path) => ("file", path.display().to_string()),
        CertificateSource::Authority(authority) => ("authority", authority.clone()),
    };
    wire::Certificate {
        names: certificate.names.clone(),
        issuer: certificate.issuer.clone(),
        not_before: certificate.not_before.to_string(),
        not_after: certificate.not_after.to_string(),
        expired: certificate.has_expired(now),
        source: source.to_owned(),
        from,
        ocsp: certificate.stapling().map(|stapling| standing(&stapling, now)),
    }
}

fn standing(stapling: &Stapling, now: Timestamp) -> wire::Ocsp {
    let staple = stapling.good_staple(now);
    let status = match (stapling.revoked, staple) {
        (Some(_), _) => "revoked",
        (None, Some(_)) => "stapled",
        (None, None) => "none",
    };
    wire::Ocsp {
        status: status.to_owned(),
        responder: stapling.responder.clone(),
        until: staple.map(|staple| staple.until.to_string()),
        revoked: stapling.revoked.map(|since| since.to_string()),
        must_staple: stapling.must_staple,
        trouble: stapling.trouble.clone(),
    }
}
