//! Doors for the fuzz target, there only under `--cfg fuzzing`: bytes and plain values cross them.

use jiff::Timestamp;

use super::{
    answer::judge,
    der::{Reader, element},
    question::Facts,
};

/// The first element, and what is behind it.
pub fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader(bytes);
    let whole = reader.any()?.whole;
    Some((whole, reader.0))
}

/// The first element written anew.
pub fn written(bytes: &[u8]) -> Option<Vec<u8>> {
    Reader(bytes).any().map(|read| element(read.tag, &[read.inside]))
}

/// What an answer about a certificate is worth at a time, in seconds since 1970: from when to when it is good, and
/// whether it says that the certificate is revoked. Absent: nothing can be asked about such a certificate.
pub fn verdict(certificate: &[u8], issuer: &[u8], answer: &[u8], now: i64) -> Option<Result<(i64, i64, bool), String>> {
    let question = Facts::read(&[certificate, issuer])?.question.ok()?;
    question.request()?;
    let now = Timestamp::from_second(now).ok()?;
    let judged = judge(answer, &question, now).map_err(|why| why.to_string());
    Some(judged.map(|verdict| (verdict.since.as_second(), verdict.until.as_second(), verdict.revoked.is_some())))
}
