//! Answers about certificates: what is read and written anew is the same, what is cut or longer is nothing, and what is
//! believed is good now. The input is a certificate, its issuer and an answer, one behind the other.
#![no_main]

use dormouse::ocsp::fuzz::{first, verdict, written};
use libfuzzer_sys::fuzz_target;

/// In the year 2100, within the time of the seeds.
const NOW: i64 = 4_102_444_800;

fuzz_target!(|bytes: &[u8]| {
    each_is_itself(bytes);
    let Some((certificate, rest)) = first(bytes) else { return };
    let Some((issuer, answer)) = first(rest) else { return };
    let judge = |answer: &[u8]| verdict(certificate, issuer, answer, NOW);
    let Some(Ok((since, until, _))) = judge(answer) else { return };
    assert!(NOW < until && since <= NOW + 300, "it is good from {since} to {until}");
    assert!(judge(&answer[..answer.len() - 1]).is_none_or(|judged| judged.is_err()), "a part of it is believed");
    let longer = [answer, &[0]].concat();
    assert!(judge(&longer).is_none_or(|judged| judged.is_err()), "something behind it is shown to clients");
});

/// Elements in a row.
fn each_is_itself(mut bytes: &[u8]) {
    while let Some((whole, behind)) = first(bytes) {
        assert_eq!(whole.len() + behind.len(), bytes.len(), "nothing is passed over");
        assert_eq!(written(whole).as_deref(), Some(whole), "it has another encoding");
        assert_eq!(first(&whole[..whole.len() - 1]), None, "a part of an element is none");
        bytes = behind;
    }
}
