//! What an answer is worth (RFC 6960, 4.2 and 3.2). Pure.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

use super::{
    der::{BYTES, ENUMERATED, Element, INTEGER, OID, Reader, SEQUENCE, TIME, numbered, plain},
    parts::{Parts, Signature, Signed, sha1},
    question::{Question, SHA1},
};

/// The clock of a responder may be ahead of ours.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// A revocation without an end is asked for again within this.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// `id-pkix-ocsp-basic`
pub(super) const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// What a responder says, and may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Since when the certificate is revoked, if it is.
    pub(super) revoked: Option<Timestamp>,
    /// The verdict is good from here on.
    pub(super) since: Timestamp,
    /// It is good until here.
    pub(super) until: Timestamp,
}

/// Why an answer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoVerdict {
    /// It is something else.
    #[error("its answer is not one of OCSP")]
    Strange,
    /// It did not want to.
    #[error("it does not answer: {0}")]
    Refused(&'static str),
    /// It is about something else.
    #[error("its answer is about another certificate")]
    Other,
    /// It does not know the certificate.
    #[error("it does not know the certificate")]
    Unknown,
    /// It is about a time to come.
    #[error("its answer is good only from {0} on")]
    Early(Timestamp),
    /// Its time is over.
    #[error("its answer was good until {0}")]
    Late(Timestamp),
    /// It would be good for ever.
    #[error("its answer does not say until when it is good")]
    Endless,
    /// Whoever signed it may not.
    #[error("its answer is signed by somebody who may not answer")]
    Stranger,
    /// The signature is of no kind that is known.
    #[error("its answer is signed in a way that is not known here")]
    UnknownSignature,
    /// It was not signed by whom it says.
    #[error("the signature of its answer is wrong")]
    Forged,
}

/// Judges an answer to a question.
pub(super) fn judge(answer: &[u8], question: &Question, now: Timestamp) -> Result<Verdict, NoVerdict> {
    let basic = basic(answer)?;
    let (leaf, issuer) = Parts::read(&question.leaf).zip(Parts::read(&question.issuer)).ok_or(NoVerdict::Other)?;
    let parsed = Basic::read(basic).ok_or(NoVerdict::Strange)?;
    let signer_ends = parsed.signer_ends(&issuer, now)?;
    let single = parsed.about(&leaf, &issuer)?;
    let revoked = match single.status {
        Status::Good => None,
        Status::Revoked(since) => Some(since),
        Status::Unknown => return Err(NoVerdict::Unknown),
    };
    // A revoked one stays so: whoever says that need not say for how long.
    let until = single.until.or_else(|| revoked.and(now.checked_add(DAY).ok())).ok_or(NoVerdict::Endless)?;
    if single.since > now.saturating_add(AHEAD).unwrap_or(now) {
        return Err(NoVerdict::Early(single.since));
    }
    let (_, leaf_ends) = leaf.validity().ok_or(NoVerdict::Other)?;
    let until = [Some(until), Some(leaf_ends), signer_ends].into_iter().flatten().min().unwrap_or(until);
    if until <= now {
        return Err(NoVerdict::Late(until));
    }
    Ok(Verdict { revoked, since: single.since, until })
}

/// The answer within what was sent.
fn basic(answer: &[u8]) -> Result<&[u8], NoVerdict> {
    let mut outer = Reader(answer);
    let mut parts = outer.inside(SEQUENCE).filter(|_| outer.is_empty()).ok_or(NoVerdict::Strange)?;
    match parts.one(ENUMERATED).ok_or(NoVerdict::Strange)?.inside {
        [0] => {}
        [1] => return Err(NoVerdict::Refused("the question is malformed")),
        [2] => return Err(NoVerdict::Refused("it has an internal error")),
        [3] => return Err(NoVerdict::Refused("it is to be asked later")),
        [5] => return Err(NoVerdict::Refused("the question must be signed")),
        [6] => return Err(NoVerdict::Refused("it is not responsible for the certificate")),
        _ => return Err(NoVerdict::Refused("for no reason that is known")),
    }
    // Nothing of this is signed: what is behind its parts was put there by anybody, and is shown to nobody.
    let mut inner = parts.inside(numbered(0)).filter(|_| parts.is_empty()).ok_or(NoVerdict::Strange)?;
    let mut typed = inner.inside(SEQUENCE).filter(|_| inner.is_empty()).ok_or(NoVerdict::Strange)?;
    let kind = typed.one(OID).filter(|kind| kind.inside == BASIC);
    let basic = kind.and_then(|_| typed.one(BYTES)).filter(|_| typed.is_empty());
    basic.map(|basic| basic.inside).ok_or(NoVerdict::Strange)
}

/// An answer taken apart.
struct Basic<'a> {
    signed: Signed<'a>,
    signer: Signer<'a>,
    singles: Reader<'a>,
    /// Certificates of who may have signed it.
    certificates: Vec<&'a [u8]>,
}

/// What the signer calls itself.
enum Signer<'a> {
    /// Its name, encoded.
    Name(&'a [u8]),
    /// SHA-1 of its key.
    Key(&'a [u8]),
}

/// What is said of one certificate.
struct Single {
    status: Status,
    since: Timestamp,
    until: Option<Timestamp>,
}

enum Status {
    Good,
    Revoked(Timestamp),
    Unknown,
}

impl<'a> Basic<'a> {
    fn read(basic: &'a [u8]) -> Option<Self> {
        let mut all = Reader(basic);
        let mut outer = all.inside(SEQUENCE).filter(|_| all.is_empty())?;
        let what = outer.one(SEQUENCE)?;
        let signed = Signed { what: what.whole, algorithm: outer.one(SEQUENCE)?.inside, signature: outer.bits()? };
        let mut certificates = Vec::new();
        if let Some(list) = outer.one(numbered(0)) {
            let mut around = Reader(list.inside);
            let mut list = around.inside(SEQUENCE).filter(|_| around.is_empty())?;
            while !list.is_empty() {
                certificates.push(list.one(SEQUENCE)?.whole);
            }
        }
        if !outer.is_empty() {
            return None;
        }
        let mut inner = Reader(what.inside);
        inner.one(numbered(0));
        let signer = match inner.any()? {
            Element { tag, inside, .. } if tag == numbered(1) => Signer::Name(inside),
            Element { tag, inside, .. } if tag == numbered(2) => Signer::Key(Reader(inside).one(BYTES)?.inside),
            _ => return None,
        };
        inner.one(TIME)?;
        Some(Self { signed, signer, singles: inner.inside(SEQUENCE)?, certificates })
    }

    /// Until when its signer may sign, if that is not the issuer; an error unless it may and did.
    fn signer_ends(&self, issuer: &Parts<'_>, now: Timestamp) -> Result<Option<Timestamp>, NoVerdict> {
        let mut why = NoVerdict::Stranger;
        let mut is_by = |parts: &Parts<'_>| {
            let worth = self.signed.by(parts.key);
            match worth {
                Signature::Sound => {}
                Signature::Wrong => why = NoVerdict::Forged,
                Signature::Unknown => why = NoVerdict::UnknownSignature,
            }
            worth == Signature::Sound
        };
        if self.signer.is(issuer) && is_by(issuer) {
            return Ok(None);
        }
        for certificate in self.certificates.iter().filter_map(|one| Parts::read(one)) {
            let good = certificate.validity().filter(|(from, to)| *from <= now && now < *to);
            let may = certificate.may_answer() && certificate.is_issued_by(issuer);
            if let Some((_, ends)) = good.filter(|_| may && self.signer.is(&certificate))
                && is_by(&certificate)
            {
                return Ok(Some(ends));
            }
        }
        Err(why)
    }

    /// What it says of a certificate.
    fn about(&self, leaf: &Parts<'_>, issuer: &Parts<'_>) -> Result<Single, NoVerdict> {
        let mut singles = self.singles;
        while !singles.is_empty() {
            let mut single = singles.inside(SEQUENCE).ok_or(NoVerdict::Strange)?;
            if is_id_of(single.inside(SEQUENCE).ok_or(NoVerdict::Strange)?, leaf, issuer) {
                return Single::read(single).ok_or(NoVerdict::Strange);
            }
        }
        Err(NoVerdict::Other)
    }
}

impl Signer<'_> {
    fn is(&self, other: &Parts<'_>) -> bool {
        match self {
            Self::Name(name) => *name == other.subject,
            Self::Key(key) => *key == sha1(other.key.bits),
        }
    }
}

/// Whether this is what the certificate is called.
fn is_id_of(mut id: Reader<'_>, leaf: &Parts<'_>, issuer: &Parts<'_>) -> bool {
    let algorithm = id.inside(SEQUENCE).and_then(|mut algorithm| algorithm.one(OID));
    let is = |found: Option<Element<'_>>, expected: &[u8]| found.is_some_and(|found| found.inside == expected);
    is(algorithm, SHA1)
        && is(id.one(BYTES), &sha1(leaf.issuer))
        && is(id.one(BYTES), &sha1(issuer.key.bits))
        && is(id.one(INTEGER), leaf.serial)
}

impl Single {
    /// What follows the id.
    fn read(mut single: Reader<'_>) -> Option<Self> {
        let status = match single.any()? {
            Element { tag, .. } if tag == plain(0) => Status::Good,
            Element { tag, inside, .. } if tag == numbered(1) => Status::Revoked(time(Reader(inside).one(TIME)?)?),
            Element { tag, .. } if tag == plain(2) => Status::Unknown,
            _ => return None,
        };
        let since = time(single.one(TIME)?)?;
        let until = match single.one(numbered(0)) {
            Some(until) => Some(time(Reader(until.inside).one(TIME)?)?),
            None => None,
        };
        Some(Self { status, since, until })
    }
}

fn time(element: Element<'_>) -> Option<Timestamp> {
    let text = std::str::from_utf8(element.inside).ok().filter(|text| text.len() == 15)?;
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    // The last seconds of the year 9999 are beyond what can be counted, and as good as never.
    Some(time.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |time| time.timestamp()))
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
