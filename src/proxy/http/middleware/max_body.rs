//! `max_body`: what says that it is larger is refused at once; what does not say is counted on the way.

use super::{
    super::{
        answer::{Answer, TOO_LARGE},
        request_head::Framing,
    },
    chain::Refusal,
};

pub(super) fn check(most: u64, framing: Framing) -> Result<(), Refusal> {
    match framing {
        Framing::Length(length) if length > most => {
            Err(Refusal::new("its body is too large", Answer::new(413, TOO_LARGE)))
        }
        Framing::Length(_) | Framing::Empty | Framing::Chunked | Framing::UntilClose => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_says_so_is_too_large() {
        for (framing, fits) in [
            (Framing::Empty, true),
            (Framing::Length(10), true),
            (Framing::Length(11), false),
            (Framing::Chunked, true),
        ] {
            let checked = check(10, framing);
            assert_eq!(checked.is_ok(), fits, "{framing:?}");
            assert!(checked.err().is_none_or(|refusal| refusal.answer.status == 413));
        }
    }
}
