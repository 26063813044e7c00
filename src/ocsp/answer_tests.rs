use std::time::Duration;

use jiff::ToSpan;
use rcgen::ExtendedKeyUsagePurpose::{OcspSigning, ServerAuth};

use super::{
    super::{
        der::element,
        samples::{Authority, Words, YEAR, answer},
    },
    *,
};

fn judged(answer: &[u8], question: &Question) -> Result<Verdict, NoVerdict> {
    judge(answer, question, Timestamp::now())
}

fn seconds(at: Timestamp) -> i64 {
    at.as_second()
}

#[test]
fn what_the_issuer_says_is_believed_for_as_long_as_it_says() {
    let authority = Authority::new("ours");
    let question = authority.question(YEAR);
    let words = Words::good(-60, 3600);
    let verdict = judged(&authority.answer(&question, &words), &question).unwrap();
    let until = seconds(words.until.unwrap());
    assert_eq!((verdict.revoked, seconds(verdict.since), seconds(verdict.until)), (None, seconds(words.since), until));
    // Not beyond the end of the certificate.
    let question = authority.question(Duration::from_secs(600));
    let verdict = judged(&authority.answer(&question, &words), &question).unwrap();
    let left = verdict.until.duration_since(Timestamp::now()).as_secs();
    assert!((500..=600).contains(&left), "{left}");
}

#[test]
fn what_is_old_early_endless_unknown_or_about_another_is_not_believed() {
    let authority = Authority::new("ours");
    let question = authority.question(YEAR);
    let check = |words: Words, expected: &str| {
        let told = judged(&authority.answer(&question, &words), &question).unwrap_err().to_string();
        assert!(told.starts_with(expected), "{told}");
    };
    check(Words::good(-7200, -3600), "its answer was good until 2");
    check(Words::good(3600, 7200), "its answer is good only from 2");
    check(Words { until: None, ..Words::good(-60, 0) }, "its answer does not say until when");
    check(Words { status: Words::UNKNOWN.to_vec(), ..Words::good(-60, 3600) }, "it does not know the certificate");
    check(Words { status: vec![0x83, 0], ..Words::good(-60, 3600) }, "its answer is not one of OCSP");
    let other = authority.answer(&authority.question(YEAR), &Words::good(-60, 3600));
    assert_eq!(judged(&other, &question), Err(NoVerdict::Other));
    // The clocks differ a bit.
    judged(&authority.answer(&question, &Words::good(120, 3600)), &question).unwrap();
}

#[test]
fn a_revoked_one_is_known_also_when_nothing_is_said_of_an_end() {
    let authority = Authority::new("ours");
    let question = authority.question(YEAR);
    let at = Timestamp::now() - 5.hours();
    for until in [Words::good(-60, 3600).until, None] {
        let words = Words { status: Words::revoked(at), since: Timestamp::now() - 1.minute(), until };
        let verdict = judged(&authority.answer(&question, &words), &question).unwrap();
        assert_eq!(verdict.revoked.map(seconds), Some(seconds(at)));
        assert!(verdict.until > Timestamp::now());
    }
}

#[test]
fn only_who_was_told_to_by_the_issuer_may_answer_for_it() {
    let (authority, other) = (Authority::new("ours"), Authority::new("ours"));
    let question = authority.question(YEAR);
    let words = Words::good(-60, 3600);
    let by = |of: &Authority, usage: &[_], good| {
        let (certificate, key) = of.responder(usage, good);
        judged(&answer(&question, &words, &certificate, &key, &[&other.der(), &certificate]), &question)
    };
    assert_eq!(by(&authority, &[OcspSigning], YEAR).unwrap().revoked, None);
    // Not longer than the responder itself is good: an hour has gone already.
    let left =
        by(&authority, &[OcspSigning], Duration::from_secs(4000)).unwrap().until.duration_since(Timestamp::now());
    assert!((300..=400).contains(&left.as_secs()), "{left}");
    for (of, usage, good) in [
        (&authority, &[ServerAuth][..], YEAR),
        (&authority, &[], YEAR),
        (&other, &[OcspSigning], YEAR),
        (&authority, &[OcspSigning], Duration::from_secs(60)),
    ] {
        assert_eq!(by(of, usage, good), Err(NoVerdict::Stranger), "{usage:?} {good:?}");
    }
    // Another authority of the same name, and a responder whose certificate is not there.
    assert_eq!(judged(&other.answer(&question, &words), &question), Err(NoVerdict::Stranger));
    let (certificate, key) = authority.responder(&[OcspSigning], YEAR);
    assert_eq!(judged(&answer(&question, &words, &certificate, &key, &[]), &question), Err(NoVerdict::Stranger));
    // It says that it is the issuer.
    assert_eq!(judged(&answer(&question, &words, &authority.der(), &key, &[]), &question), Err(NoVerdict::Forged));
}

#[test]
fn nothing_that_was_changed_or_cut_is_believed() {
    let authority = Authority::new("ours");
    let question = authority.question(YEAR);
    let words = Words::good(-60, 3600);
    let (certificate, key) = authority.responder(&[OcspSigning], YEAR);
    for whole in [authority.answer(&question, &words), answer(&question, &words, &certificate, &key, &[&certificate])] {
        let verdict = judged(&whole, &question).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            // A few bits of the wrapping mean nothing.
            let judged_now = judged(&changed, &question);
            assert!(judged_now.as_ref().map_or(true, |now| *now == verdict), "{at}: {judged_now:?}");
            assert!(judged(&whole[..at], &question).is_err(), "{at}");
        }
    }
    let plain = authority.answer(&question, &words);
    for back in 1..8 {
        // The signature is at the end.
        let mut changed = plain.clone();
        changed[plain.len() - back] ^= 1;
        assert_eq!(judged(&changed, &question), Err(NoVerdict::Forged));
    }
    let longer = [plain, vec![0]].concat();
    assert_eq!(judged(&longer, &question), Err(NoVerdict::Strange));
}

#[test]
fn a_responder_that_does_not_answer_says_why() {
    let question = Authority::new("ours").question(YEAR);
    for (status, expected) in [
        (1, "the question is malformed"),
        (2, "it has an internal error"),
        (3, "it is to be asked later"),
        (5, "the question must be signed"),
        (6, "it is not responsible for the certificate"),
        (9, "for no reason that is known"),
    ] {
        let refusal = element(SEQUENCE, &[&element(ENUMERATED, &[&[status]])]);
        assert_eq!(judged(&refusal, &question), Err(NoVerdict::Refused(expected)));
    }
    for strange in [&b""[..], b"<html>", &[0x30, 3, 0x0a, 1, 0]] {
        assert_eq!(judged(strange, &question), Err(NoVerdict::Strange));
    }
}

#[test]
fn nothing_stands_beside_what_is_signed() {
    let authority = Authority::new("ours");
    let question = authority.question(YEAR);
    let plain = authority.answer(&question, &Words::good(-60, 3600));
    let signed = basic(&plain).unwrap();
    let wrapped = |signed: &[u8], behind: [&[u8]; 4]| {
        let bytes = element(BYTES, &[signed, behind[0]]);
        let typed = element(SEQUENCE, &[&element(OID, &[BASIC]), &bytes, behind[1]]);
        let inner = element(numbered(0), &[&typed, behind[2]]);
        element(SEQUENCE, &[&element(ENUMERATED, &[&[0]]), &inner, behind[3]])
    };
    assert_eq!(wrapped(signed, [&[]; 4]), plain);
    let more = element(BYTES, &[b"more"]);
    for place in 0..4 {
        let mut behind = [&[][..]; 4];
        behind[place] = &more;
        assert_eq!(judged(&wrapped(signed, behind), &question), Err(NoVerdict::Strange), "{place}");
    }
    let parts = Reader(signed).inside(SEQUENCE).unwrap().0;
    let longer = element(SEQUENCE, &[parts, &more]);
    assert_eq!(judged(&wrapped(&longer, [&[]; 4]), &question), Err(NoVerdict::Strange));
}
