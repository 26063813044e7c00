//! What the frames of a service tell beside what `h2` makes of them: that it speaks HTTP/2 at all, which requests it
//! says it has not seen, and which answers came to their end whatever happened to their streams later.

use std::collections::HashMap;

use super::{
    h2_frames::Frames,
    h2_split::{CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Head, Piece, SETTINGS, Splitter},
    h2_wire::Watch,
};

/// What was seen.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) frames: Frames,
    splitter: Splitter,
    /// The first bytes of a GOAWAY's payload, while there is one.
    last: Option<Vec<u8>>,
    /// Something came.
    pub(super) came: bool,
    /// Its first frame came whole, and was one of settings.
    pub(super) settled: bool,
    /// What came first is no frame of settings.
    pub(super) is_other: bool,
    /// It takes no new requests; those behind this one it has not seen.
    pub(super) last_seen: Option<u32>,
    /// The stream whose answer ends with what is on its way.
    ending: Option<u32>,
    /// A header block is not at its end.
    open_block: bool,
    /// Requests under way, and whether their answers came to their end.
    streams: HashMap<u32, bool>,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            frames: Frames::of_service(),
            splitter: Splitter::behind(0),
            last: None,
            came: false,
            settled: false,
            is_other: false,
            last_seen: None,
            ending: None,
            open_block: false,
            streams: HashMap::new(),
        }
    }
}

impl Watch for Marks {
    fn look(&mut self, bytes: &[u8]) -> usize {
        self.came |= !bytes.is_empty();
        self.frames.look(bytes);
        let mut rest = bytes;
        while !self.is_other
            && let Some(piece) = self.splitter.take(&mut rest)
        {
            match piece {
                Piece::Head(head) => self.begin(head),
                Piece::Payload(payload) => self.payload(payload),
            }
            if self.splitter.left() == 0 {
                self.frame_came();
            }
        }
        bytes.len()
    }

    fn sent(&mut self, bytes: usize) {
        self.frames.sent(bytes);
    }
}

impl Marks {
    /// A request has begun.
    pub(super) fn begun(&mut self, stream: u32) {
        self.streams.insert(stream, false);
    }

    /// Nobody asks for a request any more.
    pub(super) fn forget(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// Whether the end of an answer came.
    pub(super) fn is_whole(&self, stream: u32) -> bool {
        self.streams.get(&stream) == Some(&true)
    }

    /// Whether the service has said that it has not seen a request.
    pub(super) fn is_unseen(&self, stream: u32) -> bool {
        self.last_seen.is_some_and(|last| stream > last)
    }

    fn begin(&mut self, Head { kind, flags, stream, .. }: Head) {
        if !self.settled && (kind != SETTINGS || stream != 0) {
            self.is_other = true;
        }
        self.last = (kind == GOAWAY).then(Vec::new);
        if matches!(kind, DATA | HEADERS) {
            self.ending = (flags & END_STREAM != 0).then_some(stream);
        }
        self.open_block = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS == 0;
    }

    /// A frame came whole. What it says of an end holds from here on, or from the end of its header block.
    fn frame_came(&mut self) {
        self.settled = true;
        if !self.open_block
            && let Some(stream) = self.ending.take()
            && let Some(ended) = self.streams.get_mut(&stream)
        {
            *ended = true;
        }
    }

    fn payload(&mut self, bytes: &[u8]) {
        if let Some(begun) = self.last.as_mut().filter(|begun| begun.len() < 4) {
            begun.extend(bytes.iter().take(4 - begun.len()));
            if let Ok(last) = <[u8; 4]>::try_from(begun.as_slice()) {
                let last = u32::from_be_bytes(last) & 0x7FFF_FFFF;
                // It only ever takes back.
                self.last_seen = Some(self.last_seen.map_or(last, |before| before.min(last)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
    }

    #[test]
    fn marks_are_seen_in_any_pieces() {
        let bytes = [
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
            frame(HEADERS, 4, 1, &[7; 9]),
            frame(DATA, END_STREAM, 1, b"end"),
            frame(HEADERS, 4, 3, &[7; 9]),
            frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]),
        ]
        .concat();
        for piece in 1..=bytes.len() {
            let mut marks = Marks::default();
            for stream in [1, 3, 5] {
                marks.begun(stream);
            }
            marks.look(&bytes[..9]);
            assert!(!marks.settled, "the settings did not come whole yet");
            for piece in bytes[9..].chunks(piece) {
                marks.look(piece);
            }
            assert!(marks.settled && !marks.is_other);
            assert!(marks.is_whole(1) && !marks.is_whole(3) && !marks.is_whole(5));
            assert!(!marks.is_unseen(3) && marks.is_unseen(5));
            marks.forget(1);
            assert!(!marks.is_whole(1));
        }
    }

    #[test]
    fn an_answer_is_whole_with_the_last_byte_of_its_last_frame() {
        let data = frame(DATA, END_STREAM, 1, b"the end");
        let trailers = [frame(HEADERS, END_STREAM, 1, &[7; 9]), frame(CONTINUATION, END_HEADERS, 1, &[7; 9])].concat();
        for bytes in [data, trailers, frame(DATA, END_STREAM, 1, b"")] {
            let mut marks = Marks::default();
            marks.begun(1);
            marks.look(&frame(SETTINGS, 0, 0, b""));
            let (last, before) = bytes.split_last().unwrap();
            for byte in before {
                marks.look(&[*byte]);
                assert!(!marks.is_whole(1));
            }
            marks.look(&[*last]);
            assert!(marks.is_whole(1));
        }
    }

    #[test]
    fn another_protocol_is_seen_as_such() {
        let mut marks = Marks::default();
        marks.look(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert!(marks.came && marks.is_other && !marks.settled);
    }
}
