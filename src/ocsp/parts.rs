//! A certificate taken apart, as far as questions and answers need it. Pure.

use jiff::Timestamp;
use ring::digest;
use rustls::crypto::ring::default_provider;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    parse_x509_certificate,
};

use super::der::{INTEGER, Reader, SEQUENCE, numbered};
use crate::net::must_staple;

/// A key that verifies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    algorithm: &'a [u8],
    pub(super) bits: &'a [u8],
}

/// What was signed, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    pub(super) what: &'a [u8],
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
}

/// A certificate.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) serial: &'a [u8],
    /// The issuer's name, encoded.
    pub(super) issuer: &'a [u8],
    /// Its own name, encoded.
    pub(super) subject: &'a [u8],
    pub(super) key: Key<'a>,
    signed: Signed<'a>,
    rest: X509Certificate<'a>,
}

/// What a signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    Sound,
    Wrong,
    /// Nothing here understands how it was made.
    Unknown,
}

impl Signed<'_> {
    /// Whether this key made it.
    pub(super) fn by(&self, key: Key<'_>) -> Signature {
        let all = default_provider().signature_verification_algorithms.all;
        let mut fitting = all
            .iter()
            .filter(|one| one.public_key_alg_id().as_ref() == key.algorithm)
            .filter(|one| one.signature_alg_id().as_ref() == self.algorithm)
            .peekable();
        if fitting.peek().is_none() {
            return Signature::Unknown;
        }
        let sound = fitting.any(|one| one.verify_signature(key.bits, self.what, self.signature).is_ok());
        if sound { Signature::Sound } else { Signature::Wrong }
    }
}

impl<'a> Parts<'a> {
    /// Takes a certificate apart.
    pub(super) fn read(certificate: &'a [u8]) -> Option<Self> {
        let (_, rest) = parse_x509_certificate(certificate).ok()?;
        let mut outer = Reader(certificate).inside(SEQUENCE)?;
        let what = outer.one(SEQUENCE)?;
        let (algorithm, signature) = (outer.one(SEQUENCE)?.inside, outer.bits()?);
        let mut inner = Reader(what.inside);
        inner.one(numbered(0));
        let serial = inner.one(INTEGER)?.inside;
        inner.one(SEQUENCE)?;
        let issuer = inner.one(SEQUENCE)?.whole;
        inner.one(SEQUENCE)?;
        let subject = inner.one(SEQUENCE)?.whole;
        let mut key = inner.inside(SEQUENCE)?;
        let key = Key { algorithm: key.one(SEQUENCE)?.inside, bits: key.bits()? };
        let signed = Signed { what: what.whole, algorithm, signature };
        Some(Self { serial, issuer, subject, key, signed, rest })
    }

    /// Whether the other one has signed it.
    pub(super) fn is_issued_by(&self, issuer: &Parts<'_>) -> bool {
        self.issuer == issuer.subject && self.signed.by(issuer.key) == Signature::Sound
    }

    /// From when to when it is good.
    pub(super) fn validity(&self) -> Option<(Timestamp, Timestamp)> {
        let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let validity = self.rest.validity();
        Some((time(validity.not_before)?, time(validity.not_after)?))
    }

    /// The addresses of its responders.
    pub(super) fn responders(&self) -> Vec<&str> {
        let mut found = Vec::new();
        for extension in self.rest.extensions() {
            let ParsedExtension::AuthorityInfoAccess(access) = extension.parsed_extension() else { continue };
            for one in access.accessdescs.iter().filter(|one| one.access_method.as_bytes() == RESPONDER) {
                if let GeneralName::URI(address) = one.access_location {
                    found.push(address);
                }
            }
        }
        found
    }

    /// Whether clients are to refuse it without an answer (RFC 7633).
    pub(super) fn must_staple(&self) -> bool {
        must_staple(&self.rest)
    }

    /// Whether it may answer in the name of who issued it.
    pub(super) fn may_answer(&self) -> bool {
        let usage = self.rest.extended_key_usage().ok().flatten();
        let signs =
            self.rest.key_usage().ok().is_some_and(|usage| usage.is_none_or(|usage| usage.value.digital_signature()));
        signs && usage.is_some_and(|usage| usage.value.ocsp_signing)
    }
}

/// `id-ad-ocsp`
const RESPONDER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1];

/// SHA-1: what questions are made of, and no proof of anything.
pub(super) fn sha1(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec()
}
