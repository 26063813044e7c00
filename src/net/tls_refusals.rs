//! Clients whose certificate was refused: told in the log, with the reason in the operator's words. Anybody can cause
//! such a line, so there are a few a minute, and the others are counted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use rustls::{CertificateError, Error, pki_types::UnixTime};
use tokio::time::Instant;

/// In this time each client is told of once for the same reason, and of all together so many are.
const TOLD: (Duration, usize) = (Duration::from_secs(60), 6);

/// What was told lately. A std mutex: held for a look, when somebody was refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Lately>);

#[derive(Debug, Default)]
struct Lately {
    /// When the first of these was told.
    since: Option<Instant>,
    told: Vec<(Option<IpAddr>, String)>,
    /// How many were not, since one was.
    left_out: u64,
}

impl Refusals {
    /// Tells of a client that is connected from there and has asked for this host, if its certificate is why there is no
    /// connection.
    pub(super) fn tell(&self, from: Option<SocketAddr>, host: &str, profile: &str, error: &Error) {
        let Some(why) = reason(error) else { return };
        let client = from.map(|from| from.ip().to_canonical());
        let Some(left_out) = self.may_tell(client, &why) else { return };
        let client = client.map_or_else(|| "-".to_owned(), |client| client.to_string());
        tracing::warn!(client, host, profile, left_out, "a client certificate was refused: {why}");
    }

    /// How many were left out before this one, if it is to be told.
    fn may_tell(&self, client: Option<IpAddr>, why: &str) -> Option<u64> {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lately.since.is_none_or(|since| since.elapsed() >= TOLD.0) {
            lately.since = Some(Instant::now());
            lately.told.clear();
        }
        let is_known = lately.told.iter().any(|(of, told)| *of == client && told == why);
        if is_known || lately.told.len() >= TOLD.1 {
            lately.left_out += 1;
            return None;
        }
        lately.told.push((client, why.to_owned()));
        Some(std::mem::take(&mut lately.left_out))
    }
}

/// What is wrong with the certificate, if that is what the error is about.
#[allow(clippy::wildcard_enum_match_arm, reason = "there are many more, and more to come")]
fn reason(error: &Error) -> Option<String> {
    let Error::InvalidCertificate(error) = error else { return None };
    Some(match error {
        CertificateError::UnknownIssuer => "no authority of the profile has issued it (unknown issuer)".to_owned(),
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!("it has expired, at {}", written(*not_after)),
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}", written(*not_before))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for clients: issue one with `extendedKeyUsage = clientAuth`, or without any".to_owned()
        }
        CertificateError::BadSignature => "a signature is wrong".to_owned(),
        // The crate that says so is not one of ours; its words are.
        CertificateError::Other(other) => match other.0.to_string().as_str() {
            "UnsupportedCertVersion" => {
                "it is of X.509 version 1: issue one of version 3, with `openssl x509 -req -extfile FILE` and \
                 `extendedKeyUsage = clientAuth` in FILE"
                    .to_owned()
            }
            "CaUsedAsEndEntity" => "it is one of an authority, not of a client (`CA:TRUE`)".to_owned(),
            other => other.to_owned(),
        },
        other => other.to_string(),
    })
}

fn written(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| format!("{seconds} s after 1970"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refusals_is_a_few_lines_a_minute_and_the_others_are_counted() {
        let refusals = Refusals::default();
        let client = |number: u32| Some(IpAddr::from(number.to_be_bytes()));
        assert_eq!(refusals.may_tell(client(0), "unknown"), Some(0));
        assert_eq!(refusals.may_tell(client(0), "unknown"), None);
        assert_eq!(refusals.may_tell(client(0), "expired"), Some(1), "another mistake is told at once");
        let told = (1..1000).filter(|number| refusals.may_tell(client(*number), "unknown").is_some()).count();
        assert_eq!(told, TOLD.1 - 2);
        tokio::time::advance(TOLD.0).await;
        assert_eq!(refusals.may_tell(client(0), "unknown"), Some(999 - 4));
        assert_eq!(refusals.may_tell(client(1), "unknown"), Some(0));
    }

    #[test]
    fn what_is_not_about_the_certificate_is_not_told() {
        assert_eq!(reason(&Error::DecryptError), None);
        assert!(reason(&CertificateError::BadEncoding.into()).is_some());
    }
}
