//! The log of a container, line by line.

use std::collections::VecDeque;

use futures_util::stream::{self, Stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// A line is cut here.
const LONGEST_LINE: usize = 16 << 10;

/// Before each piece of output without a terminal stands its stream and its length.
const HEAD: usize = 8;

/// The lines of a body until it ends. Without a terminal, standard output and standard error come interleaved in
/// frames.
pub(super) fn lines(body: Incoming, has_terminal: bool) -> impl Stream<Item = String> {
    let reading = (Some(body), Demux::new(has_terminal));
    stream::unfold(reading, |(mut body, mut demux)| async {
        loop {
            if let Some(line) = demux.lines.pop_front() {
                return Some((line, (body, demux)));
            }
            match body.as_mut()?.frame().await {
                Some(Ok(frame)) => demux.take(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(_)) | None => {
                    body = None;
                    demux.end();
                }
            }
        }
    })
}

#[derive(Debug)]
struct Demux {
    has_terminal: bool,
    raw: Vec<u8>,
    /// Bytes of the present frame that are still to come, and whether they are of standard error.
    left: usize,
    is_error: bool,
    begun: [Vec<u8>; 2],
    lines: VecDeque<String>,
}

impl Demux {
    fn new(has_terminal: bool) -> Self {
        Self {
            has_terminal,
            raw: Vec::new(),
            left: 0,
            is_error: false,
            begun: [Vec::new(), Vec::new()],
            lines: VecDeque::new(),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        if self.has_terminal {
            return self.text(bytes);
        }
        while !bytes.is_empty() {
            if self.left > 0 {
                let (now, later) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= now.len();
                bytes = later;
                self.text(now);
                continue;
            }
            let (now, later) = bytes.split_at((HEAD - self.raw.len()).min(bytes.len()));
            self.raw.extend_from_slice(now);
            bytes = later;
            if let [kind, _, _, _, a, b, c, d] = *self.raw.as_slice() {
                self.is_error = kind == 2;
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                self.raw.clear();
            }
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        let [output, error] = &mut self.begun;
        let begun = if self.is_error { error } else { output };
        for byte in bytes {
            match byte {
                b'\n' => self.lines.push_back(finish(begun)),
                _ if begun.len() < LONGEST_LINE => begun.push(*byte),
                _ => {}
            }
        }
    }

    fn end(&mut self) {
        for begun in &mut self.begun {
            if !begun.is_empty() {
                self.lines.push_back(finish(begun));
            }
        }
    }
}

fn finish(begun: &mut Vec<u8>) -> String {
    let line = String::from_utf8_lossy(begun).trim_end_matches('\r').to_owned();
    begun.clear();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend(text.as_bytes());
        frame
    }

    #[test]
    fn frames_are_taken_apart_wherever_they_are_cut() {
        let whole = [frame(1, "one\ntw"), frame(2, "err\n"), frame(1, "o\r\nlast")].concat();
        for size in 1..=whole.len() {
            let mut demux = Demux::new(false);
            for piece in whole.chunks(size) {
                demux.take(piece);
            }
            demux.end();
            assert_eq!(demux.lines, ["one", "err", "two", "last"], "in pieces of {size}");
        }
    }

    #[test]
    fn a_terminal_has_no_frames() {
        let mut demux = Demux::new(true);
        demux.take(b"\x01plain\r\nte");
        demux.take(b"xt\n");
        assert_eq!(demux.lines, ["\u{1}plain", "text"]);
    }
}
