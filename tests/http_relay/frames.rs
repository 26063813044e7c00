//! A client of HTTP/2 that writes and reads frames: nothing stands between a test and the bytes.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::support::{Proxy, connect};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITIZED: u8 = 32;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer that was whole.
    Answer(Answer),
    /// The stream was reset, with this code.
    Reset(u32),
    /// The connection was ended, with this code.
    GoAway(u32),
    /// The connection ended without a word.
    Closed,
}

/// An answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of informational ones first.
    pub(crate) statuses: Vec<u16>,
    pub(crate) body: Vec<u8>,
    /// A block of fields came behind the body.
    pub(crate) trailers: bool,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.statuses.last().copied().unwrap_or(0)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Outcome {
    /// The answer; anything else fails the test.
    pub(crate) fn answer(self) -> Answer {
        match self {
            Self::Answer(answer) => answer,
            Self::Reset(_) | Self::GoAway(_) | Self::Closed => panic!("no answer, but {self:?}"),
        }
    }
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A number with a prefix of so many bits (RFC 7541, 5.1).
fn number(first: u8, bits: u8, value: usize) -> Vec<u8> {
    let most = (1usize << bits) - 1;
    if value < most {
        return vec![first | u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![first | u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// A field, written out and not remembered.
pub(crate) fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = vec![0];
    for part in [name.as_ref(), value.as_ref()] {
        bytes.extend(number(0, 7, part.len()));
        bytes.extend(part);
    }
    bytes
}

/// A block of fields.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The pseudo-header fields of a usual request, and more fields.
pub(crate) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = block(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "app.test")]);
    bytes.extend(block(more));
    bytes
}

/// A setting.
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// A connection.
pub(crate) struct H2 {
    pub(crate) socket: TcpStream,
    /// Data that was received is not answered with more room.
    pub(crate) stingy: bool,
    /// The other side has said that it takes no more requests.
    told: bool,
}

impl H2 {
    /// Connects and says hello. Our table of fields is empty, so that each answer can be read by itself.
    pub(crate) fn connect(proxy: &Proxy) -> Self {
        Self::connect_with(proxy, &[])
    }

    /// Connects, and says nothing.
    pub(crate) fn silent(proxy: &Proxy) -> Self {
        Self { socket: connect(proxy), stingy: false, told: false }
    }

    /// The same connection, for one who reads beside the one who writes.
    pub(crate) fn beside(&self) -> Self {
        Self { socket: self.socket.try_clone().unwrap(), stingy: self.stingy, told: self.told }
    }

    /// As [`Self::connect`], with more settings.
    pub(crate) fn connect_with(proxy: &Proxy, settings: &[(u16, u32)]) -> Self {
        let mut own = setting(1, 0);
        own.extend(settings.iter().flat_map(|(id, value)| setting(*id, *value)));
        let mut h2 = Self::silent(proxy);
        h2.raw(&[PREFACE, &frame(SETTINGS, 0, 0, &own)].concat());
        h2
    }

    /// Writes bytes. What the other side no longer takes is its answer, which is read then.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) {
        self.raw(&frame(kind, flags, stream, payload.as_ref()));
    }

    /// A request without a body.
    pub(crate) fn get(&mut self, stream: u32, path: &str) -> Outcome {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, request("GET", path, &[]));
        self.outcome(stream)
    }

    /// The next frame; `None` when the connection has ended.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.fill(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.fill(&mut payload)?;
        let stream = u32::from_be_bytes([head[5] & 127, head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Silence is no end of the connection.
    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.socket.read_exact(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing came for 20 seconds"),
            read => read.ok(),
        }
    }

    /// Reads until this stream or the connection has ended, and answers what wants an answer.
    pub(crate) fn outcome(&mut self, stream: u32) -> Outcome {
        let mut answer = Answer::default();
        let mut begun = false;
        while let Some(frame) = self.read() {
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, []),
                PING if frame.flags & ACK == 0 => self.send(PING, ACK, 0, &frame.payload),
                GOAWAY => {
                    let code = u32::from_be_bytes(frame.payload[4..8].try_into().unwrap());
                    if code != NO_ERROR {
                        return Outcome::GoAway(code);
                    }
                    self.told = true;
                }
                RST_STREAM if frame.stream == stream => {
                    return Outcome::Reset(u32::from_be_bytes(frame.payload.try_into().unwrap()));
                }
                HEADERS if frame.stream == stream => {
                    if begun {
                        answer.trailers = true;
                    } else {
                        let status = status(&frame.payload);
                        begun = status >= 200;
                        answer.statuses.push(status);
                    }
                }
                DATA if frame.stream == stream => {
                    answer.body.extend(&frame.payload);
                    let count = u32::try_from(frame.payload.len()).unwrap();
                    if count > 0 && !self.stingy {
                        self.send(WINDOW_UPDATE, 0, 0, count.to_be_bytes());
                        self.send(WINDOW_UPDATE, 0, stream, count.to_be_bytes());
                    }
                }
                _ => {}
            }
            if frame.stream == stream && matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return Outcome::Answer(answer);
            }
        }
        Outcome::Closed
    }

    /// Reads until the connection has ended; the code it was ended with.
    pub(crate) fn ending(&mut self) -> Outcome {
        let mut code = self.told.then_some(NO_ERROR);
        while let Some(frame) = self.read() {
            if frame.kind == GOAWAY {
                code = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
        code.map_or(Outcome::Closed, Outcome::GoAway)
    }
}

/// The status that a block of fields begins with, when nothing is remembered between blocks.
fn status(block: &[u8]) -> u16 {
    // Changes of the table's size come first.
    let block = &block[block.iter().take_while(|byte| **byte & 0xE0 == 0x20).count()..];
    match block[0] {
        indexed @ 0x88..=0x8E => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        0x08 | 0x18 | 0x48 => {
            let length = usize::from(block[1] & 127);
            let text = &block[2..2 + length];
            if block[1] & 128 == 0 {
                return std::str::from_utf8(text).unwrap().parse().unwrap();
            }
            digits(text)
        }
        other => panic!("a block of fields begins with {other:#x}"),
    }
}

/// Three digits in the code of RFC 7541, appendix B: five bits for 0, 1 and 2, six for the others.
fn digits(text: &[u8]) -> u16 {
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | bits.next().unwrap();
        }
        let digit = if code < 3 { code } else { (code << 1 | bits.next().unwrap()) - 0b01_1001 + 3 };
        number = number * 10 + digit;
    }
    number
}
