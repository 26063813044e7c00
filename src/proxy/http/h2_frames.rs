//! A look at the frames of the other side before they are worked on: floods of cheap ones, header blocks that never end, and
//! frames of a client that are ended with a code of their own (`h2_faults`).
//!
//! Each frame that carries neither a request nor data costs; time and data, sent or taken, pay. Who owes too much is asked to
//! calm down (RFC 9113, 10.5).

use h2::Reason;
use tokio::time::Instant;

use super::{
    h2_faults::Faults,
    h2_split::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Head, Piece, RST_STREAM, Splitter},
};

/// What may be owed.
const CREDIT: u64 = 4000;

/// What each second pays for a client.
const EACH_SECOND: u64 = 1000;

/// What each second pays for a service: a lively one of gRPC sends a PING and a WINDOW_UPDATE after each message.
const EACH_SECOND_OF_SERVICE: u64 = 50_000;

/// So many bytes that the client takes pay for one frame.
const BYTES: usize = 1024;

/// What a reset by a client costs: the most expensive of the cheap frames, since what it takes back was begun.
const RESET: u64 = 20;

/// The bytes of the preface.
const PREFACE: usize = 24;

/// What is known of the frames that came.
#[derive(Debug)]
pub(super) struct Frames {
    splitter: Splitter,
    /// What is looked for in the frames of a client.
    faults: Option<Faults>,
    /// What was found: nothing behind it counts.
    fault: Option<Reason>,
    /// The last head was one of data.
    in_data: bool,
    owed: u64,
    /// What a reset costs.
    reset: u64,
    /// What each second pays.
    each_second: u64,
    /// Bytes that were sent and have not paid yet.
    taken: usize,
    paid: Option<Instant>,
    /// Since when the preface, a header block, or a frame other than one of data, is unfinished.
    pub(super) unfinished: Option<Instant>,
    in_block: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            splitter: Splitter::behind(PREFACE),
            faults: Some(Faults::default()),
            fault: None,
            in_data: false,
            owed: 0,
            reset: RESET,
            each_second: EACH_SECOND,
            taken: 0,
            paid: None,
            unfinished: None,
            in_block: false,
        }
    }
}

impl Frames {
    /// Those of a service: no preface comes before them, and it may reset what we began.
    pub(super) fn of_service() -> Self {
        Self {
            splitter: Splitter::behind(0),
            faults: None,
            reset: 1,
            each_second: EACH_SECOND_OF_SERVICE,
            ..Self::default()
        }
    }

    /// Looks at what came. So many of the bytes are good: what is behind them is no more to be worked on.
    pub(super) fn look(&mut self, mut bytes: &[u8]) -> usize {
        let all = bytes.len();
        if bytes.is_empty() {
            return all;
        }
        let now = Instant::now();
        let before = *self.paid.get_or_insert(now);
        let pays =
            u64::try_from((now - before).as_millis()).unwrap_or(u64::MAX).saturating_mul(self.each_second) / 1000;
        if pays > 0 {
            self.owed = self.owed.saturating_sub(pays);
            self.paid = Some(now);
        }
        let mut good = 0;
        while let Some(piece) = self.splitter.take(&mut bytes) {
            let fault = match (piece, &mut self.faults) {
                (Piece::Head(head), faults) => {
                    let fault = faults.as_mut().and_then(|faults| faults.of_head(head));
                    self.frame(head);
                    fault
                }
                (Piece::Payload(payload), Some(faults)) => faults.of_payload(payload),
                (Piece::Payload(_), None) => None,
            };
            if fault.is_some() {
                self.fault = fault;
                return good;
            }
            good = all - bytes.len();
        }
        let in_payload = self.splitter.left() > 0 && !self.in_data;
        if self.in_block || in_payload || self.splitter.is_in_head() {
            self.unfinished.get_or_insert(now);
        } else {
            self.unfinished = None;
        }
        all
    }

    fn frame(&mut self, Head { length, kind, flags, .. }: Head) {
        self.in_data = kind == DATA;
        let has_data = length > 0 || flags & END_STREAM != 0;
        if !self.in_block {
            self.unfinished = None;
        }
        match kind {
            HEADERS | CONTINUATION => {
                self.in_block = flags & END_HEADERS == 0;
                self.owed += u64::from(self.in_block);
            }
            DATA if has_data => self.owed = self.owed.saturating_sub(2),
            RST_STREAM => self.owed += self.reset,
            _ => self.owed += 1,
        }
    }

    /// So many bytes were sent: a client that takes much has much to acknowledge.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.taken += bytes;
        self.owed = self.owed.saturating_sub((self.taken / BYTES) as u64);
        self.taken %= BYTES;
    }

    /// Whether the client owes too much.
    pub(super) fn is_flood(&self) -> bool {
        self.owed > CREDIT
    }

    /// Why the connection is to be ended, if it is.
    pub(super) fn ends(&self) -> Option<Reason> {
        self.fault.or_else(|| self.is_flood().then_some(Reason::ENHANCE_YOUR_CALM))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::h2_split::{HEAD, SETTINGS},
        *,
    };

    fn frame(length: u32, kind: u8, flags: u8) -> Vec<u8> {
        let [_, a, b, c] = length.to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + length as usize, 0);
        frame
    }

    fn begun() -> Frames {
        let mut frames = Frames::default();
        frames.look(&[0; PREFACE]);
        assert!(frames.unfinished.is_none());
        frames.look(&frame(0, SETTINGS, 0));
        frames
    }

    #[test]
    fn cheap_frames_are_a_flood_and_those_that_go_with_data_are_not() {
        const PING: u8 = 6;
        const WINDOW_UPDATE: u8 = 8;
        let (mut flood, mut taking, mut sending, mut resets) = (begun(), begun(), begun(), begun());
        for _ in 0..3 * CREDIT {
            flood.look(&frame(8, PING, 0));
            taking.look(&frame(4, WINDOW_UPDATE, 0));
            taking.look(&frame(4, WINDOW_UPDATE, 0));
            taking.sent(16 * 1024);
            sending.look(&frame(8, PING, 0));
            sending.look(&frame(100, DATA, 0));
        }
        for _ in 0..CREDIT {
            resets.look(&frame(100, HEADERS, END_HEADERS | END_STREAM));
            resets.look(&frame(4, RST_STREAM, 0));
        }
        assert!(flood.is_flood() && resets.is_flood());
        assert!(!taking.is_flood() && !sending.is_flood());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lively_service_is_no_flood_and_one_that_sends_nothing_else_is() {
        const PING: u8 = 6;
        const WINDOW_UPDATE: u8 = 8;
        let (mut client, mut lively, mut flood) = (begun(), Frames::of_service(), Frames::of_service());
        for _ in 0..1000 {
            tokio::time::advance(std::time::Duration::from_millis(1)).await;
            for frames in [&mut client, &mut lively] {
                for _ in 0..10 {
                    frames.look(&frame(8, PING, 0));
                    frames.look(&frame(4, WINDOW_UPDATE, 0));
                }
            }
            for _ in 0..100 {
                flood.look(&frame(8, PING, 0));
            }
        }
        assert!(client.is_flood() && !lively.is_flood() && flood.is_flood());
    }

    #[test]
    fn what_is_behind_a_wrong_frame_is_held_back() {
        const PING: u8 = 6;
        let bytes = [frame(8, PING, 0), frame(7, PING, 0), frame(8, PING, 0)].concat();
        for piece in 1..=bytes.len() {
            let (mut frames, mut good) = (begun(), 0);
            for bytes in bytes.chunks(piece) {
                let seen = frames.look(bytes);
                good += seen;
                if seen < bytes.len() {
                    break;
                }
            }
            assert_eq!(frames.ends(), Some(Reason::FRAME_SIZE_ERROR), "in pieces of {piece}");
            // Of the head itself a part may have gone before.
            assert!((17..26).contains(&good), "{good} bytes went on in pieces of {piece}");
        }
        let mut service = Frames::of_service();
        assert_eq!((service.look(&bytes), service.ends()), (bytes.len(), None));
    }

    #[test]
    fn what_is_unfinished_is_seen_in_any_pieces() {
        let block = [frame(20, HEADERS, END_STREAM), frame(20, CONTINUATION, END_HEADERS)].concat();
        for piece in 1..block.len() {
            let mut frames = begun();
            for bytes in block[..block.len() - 1].chunks(piece) {
                frames.look(bytes);
                assert!(frames.unfinished.is_some(), "in pieces of {piece}");
            }
            frames.look(&[0]);
            assert!(frames.unfinished.is_none(), "in pieces of {piece}");
        }
        let mut frames = Frames::default();
        frames.look(&[0; PREFACE - 1]);
        assert!(frames.unfinished.is_some());
        // A body has its own rule.
        let mut frames = begun();
        frames.look(&frame(100, DATA, 0)[..50]);
        assert!(frames.unfinished.is_none());
    }
}
