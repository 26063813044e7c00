//! The frames of a connection of HTTP/2, told apart in what comes, whatever the pieces.

/// The bytes of a frame's head.
pub(super) const HEAD: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// What a frame's head says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Of its payload.
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// What came next.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// The last byte of a frame's head.
    Head(Head),
    /// Some of its payload, or of what comes before the first frame.
    Payload(&'a [u8]),
}

/// Tells frames apart.
#[derive(Debug)]
pub(super) struct Splitter {
    /// Bytes that are still to come of a payload, or before the first frame.
    left: usize,
    head: [u8; HEAD],
    /// So many bytes of a head came.
    known: usize,
}

impl Splitter {
    /// Frames behind so many bytes that are none.
    pub(super) fn behind(preface: usize) -> Self {
        Self { left: preface, head: [0; HEAD], known: 0 }
    }

    /// Bytes that are still to come of a payload, or before the first frame.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// A head came in part.
    pub(super) fn is_in_head(&self) -> bool {
        self.known > 0
    }

    /// Takes the next piece off these bytes; none when they hold no more than a part of a head.
    pub(super) fn take<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Piece<'a>> {
        if self.left > 0 && !bytes.is_empty() {
            let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
            (self.left, *bytes) = (self.left - payload.len(), rest);
            return Some(Piece::Payload(payload));
        }
        let (taken, rest) = bytes.split_at((HEAD - self.known).min(bytes.len()));
        if let Some(room) = self.head.get_mut(self.known..self.known + taken.len()) {
            room.copy_from_slice(taken);
        }
        (self.known, *bytes) = (self.known + taken.len(), rest);
        if self.known < HEAD {
            return None;
        }
        self.known = 0;
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let stream = u32::from_be_bytes(stream) & 0x7FFF_FFFF;
        Some(Piece::Head(Head { length: self.left, kind, flags, stream }))
    }
}
