//! Mistakes in the frames of a client that are seen before `h2` sees them: something else where the settings should come first,
//! which it lets pass, and frames that are not of the size of their kind or ask for a window that is larger than any, for
//! which it ends the connection with the general code where RFC 9113 has one of their own.

use h2::Reason;

use super::h2_split::{ACK, GOAWAY, Head, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE};

/// The bytes of a setting.
const SETTING: usize = 6;

/// `SETTINGS_INITIAL_WINDOW_SIZE` (RFC 9113, 6.5.2).
const INITIAL_WINDOW: u16 = 4;

/// Looks for them.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// The first frame came.
    begun: bool,
    in_settings: bool,
    setting: [u8; SETTING],
    /// So many bytes of a setting came.
    known: usize,
}

impl Faults {
    /// What is wrong with a frame of this head (RFC 9113, 3.4, 4.2 and 6).
    pub(super) fn of_head(&mut self, Head { length, kind, flags, .. }: Head) -> Option<Reason> {
        if !std::mem::replace(&mut self.begun, true) && (kind != SETTINGS || flags & ACK != 0) {
            return Some(Reason::PROTOCOL_ERROR);
        }
        (self.in_settings, self.known) = (kind == SETTINGS, 0);
        let fits = match kind {
            PRIORITY => length == 5,
            RST_STREAM | WINDOW_UPDATE => length == 4,
            SETTINGS if flags & ACK != 0 => length == 0,
            SETTINGS => length % SETTING == 0,
            PING => length == 8,
            GOAWAY => length >= 8,
            _ => true,
        };
        (!fits).then_some(Reason::FRAME_SIZE_ERROR)
    }

    /// What is wrong with these bytes of a frame's payload (RFC 9113, 6.5.2).
    pub(super) fn of_payload(&mut self, bytes: &[u8]) -> Option<Reason> {
        if !self.in_settings {
            return None;
        }
        for byte in bytes {
            if let Some(place) = self.setting.get_mut(self.known) {
                *place = *byte;
            }
            self.known += 1;
            if self.known == SETTING {
                self.known = 0;
                let [a, b, largest, ..] = self.setting;
                if u16::from_be_bytes([a, b]) == INITIAL_WINDOW && largest & 0x80 != 0 {
                    return Some(Reason::FLOW_CONTROL_ERROR);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Faults {
        Faults { begun: true, ..Faults::default() }
    }

    fn of_head(kind: u8, flags: u8, length: usize) -> Option<Reason> {
        begun().of_head(Head { length, kind, flags, stream: 0 })
    }

    #[test]
    fn settings_come_first() {
        let first = |kind, flags| Faults::default().of_head(Head { length: 0, kind, flags, stream: 0 });
        assert_eq!(first(SETTINGS, 0), None);
        assert_eq!((first(SETTINGS, ACK), first(99, 0)), (Some(Reason::PROTOCOL_ERROR), Some(Reason::PROTOCOL_ERROR)));
    }

    #[test]
    fn each_kind_has_its_size() {
        let kinds = [(PRIORITY, 5), (RST_STREAM, 4), (SETTINGS, 6), (PING, 8), (GOAWAY, 8), (WINDOW_UPDATE, 4)];
        for (kind, size) in kinds {
            assert_eq!(of_head(kind, 0, size), None, "kind {kind}");
            assert_eq!(of_head(kind, 0, size - 1), Some(Reason::FRAME_SIZE_ERROR), "kind {kind}");
        }
        assert_eq!((of_head(SETTINGS, 0, 0), of_head(SETTINGS, 0, 12), of_head(SETTINGS, ACK, 0)), (None, None, None));
        assert_eq!(of_head(SETTINGS, ACK, 6), Some(Reason::FRAME_SIZE_ERROR));
        assert_eq!((of_head(0, 0, 77), of_head(99, 0, 77), of_head(GOAWAY, 0, 77)), (None, None, None));
    }

    #[test]
    fn a_window_that_is_too_large_is_seen_in_any_pieces() {
        let settings = [0, 3, 0xFF, 0, 0, 0, 0, 4, 0x7F, 0xFF, 0xFF, 0xFF, 0, 4, 0x80, 0, 0, 0];
        for piece in 1..=settings.len() {
            let mut faults = begun();
            let head = Head { length: settings.len(), kind: SETTINGS, flags: 0, stream: 0 };
            assert_eq!(faults.of_head(head), None);
            let found = settings.chunks(piece).filter_map(|piece| faults.of_payload(piece)).collect::<Vec<_>>();
            assert_eq!(found, [Reason::FLOW_CONTROL_ERROR]);
            assert_eq!(faults.of_head(Head { kind: 0, ..head }), None);
            assert_eq!(faults.of_payload(&settings), None, "the data of a request");
        }
    }
}
