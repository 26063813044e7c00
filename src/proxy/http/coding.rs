//! `compress`: which coding a client likes, and a body put into it as it passes.

use std::{fmt, io};

use compression_codecs::{
    BrotliEncoder, Encode, GzipEncoder, ZstdEncoder, brotli, core::Level, core::util::PartialBuffer, flate, zstd,
};

use crate::{model::Coding, proxy::carry::Buf, web::weighted};

/// A window of so many bytes (as a power of two): what a stream takes of memory hangs on it.
const WINDOW: u8 = 17;

/// So many bytes are coded at most before others have their turn.
const TURN: usize = 64 * 1024;

/// The coding that a client likes best; of several the one that stands first in `ours`.
pub(super) fn choose(accepted: &str, ours: &[Coding]) -> Option<Coding> {
    let weight = |names: &[&str]| {
        let of = |wanted: &str| {
            let mut all = weighted(accepted).filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            all.next().map(|(_, weight)| weight)
        };
        names.iter().find_map(|name| of(name))
    };
    let plain = weight(&["identity"]).unwrap_or(0);
    let mut best: Option<(Coding, u16)> = None;
    for coding in ours {
        let liked = match coding {
            Coding::Gzip => weight(&["gzip", "x-gzip", "*"]),
            Coding::Zstd | Coding::Brotli => weight(&[coding.as_str(), "*"]),
        };
        let liked = liked.unwrap_or(0);
        if liked > 0 && liked >= plain && best.is_none_or(|(_, weight)| liked > weight) {
            best = Some((*coding, liked));
        }
    }
    best.map(|(coding, _)| coding)
}

enum Codec {
    Zstd(ZstdEncoder),
    Brotli(Box<BrotliEncoder>),
    Gzip(GzipEncoder),
}

impl Codec {
    fn encode(&mut self, input: &mut PartialBuffer<&[u8]>, out: &mut PartialBuffer<&mut [u8]>) -> io::Result<()> {
        match self {
            Self::Zstd(zstd) => Encode::encode(zstd, input, out),
            Self::Brotli(brotli) => Encode::encode(&mut **brotli, input, out),
            Self::Gzip(gzip) => Encode::encode(gzip, input, out),
        }
    }

    fn flush(&mut self, out: &mut PartialBuffer<&mut [u8]>) -> io::Result<bool> {
        match self {
            Self::Zstd(zstd) => Encode::flush(zstd, out),
            Self::Brotli(brotli) => Encode::flush(&mut **brotli, out),
            Self::Gzip(gzip) => Encode::flush(gzip, out),
        }
    }

    fn finish(&mut self, out: &mut PartialBuffer<&mut [u8]>) -> io::Result<bool> {
        match self {
            Self::Zstd(zstd) => Encode::finish(zstd, out),
            Self::Brotli(brotli) => Encode::finish(&mut **brotli, out),
            Self::Gzip(gzip) => Encode::finish(gzip, out),
        }
    }
}

/// A body on its way into a coding.
pub(super) struct Coder {
    codec: Codec,
    /// Something was put in that may not have come out.
    holds: bool,
    /// Bytes that were put in since others had their turn.
    turn: usize,
}

impl Coder {
    pub(super) fn new(coding: Coding) -> Self {
        let codec = match coding {
            Coding::Zstd => {
                let window = zstd::params::CParameter::window_log(u32::from(WINDOW));
                Codec::Zstd(ZstdEncoder::new_with_params(3, &[window]))
            }
            Coding::Brotli => {
                let params = brotli::params::EncoderParams::default().quality(Level::Precise(4));
                Codec::Brotli(Box::new(BrotliEncoder::new(params.window_size(i32::from(WINDOW)).block_size(16))))
            }
            Coding::Gzip => Codec::Gzip(GzipEncoder::new(flate::params::FlateEncoderParams::from(Level::Precise(5)))),
        };
        Self { codec, holds: false, turn: 0 }
    }

    /// Puts data in; what comes out is added to `out`.
    pub(super) fn encode(&mut self, data: &[u8], out: &mut Buf) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.holds = true;
        self.turn += data.len();
        let mut input = PartialBuffer::new(data);
        drain(out, |room| {
            self.codec.encode(&mut input, room)?;
            Ok(input.unwritten().is_empty())
        })
    }

    /// Whether something was put in that may not have come out.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// Everything that was put in comes out, so that its reader has it.
    pub(super) fn flush(&mut self, out: &mut Buf) -> io::Result<()> {
        self.holds = false;
        drain(out, |room| self.codec.flush(room))
    }

    /// The end of the body.
    pub(super) fn finish(&mut self, out: &mut Buf) -> io::Result<()> {
        self.holds = false;
        drain(out, |room| self.codec.finish(room))
    }

    /// Whether others should have their turn; asked once for each.
    pub(super) fn had_its_turn(&mut self) -> bool {
        let had = self.turn >= TURN;
        if had {
            self.turn = 0;
        }
        had
    }
}

impl fmt::Debug for Coder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coder").field("holds", &self.holds).finish_non_exhaustive()
    }
}

/// Adds what comes out until there is no more.
fn drain(out: &mut Buf, mut step: impl FnMut(&mut PartialBuffer<&mut [u8]>) -> io::Result<bool>) -> io::Result<()> {
    let mut in_vain = 0;
    loop {
        let mut room = [0; 4096];
        let mut room = PartialBuffer::new(&mut room[..]);
        let done = step(&mut room)?;
        let came = room.written();
        out.push(came);
        if done {
            return Ok(());
        }
        // A codec that neither takes nor gives would never end.
        in_vain = if came.is_empty() { in_vain + 1 } else { 0 };
        if in_vain > 64 {
            return Err(io::Error::other("the codec stands still"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use compression_codecs::{BrotliDecoder, Decode, GzipDecoder, ZstdDecoder};

    use super::*;
    use crate::proxy::carry::Buffers;

    #[test]
    fn the_client_chooses_and_we_among_equals() {
        use Coding::{Brotli, Gzip, Zstd};
        for (accepted, ours, expected) in [
            ("gzip, deflate, br, zstd", &Coding::ALL[..], Some(Zstd)),
            ("gzip, deflate, br", &Coding::ALL, Some(Brotli)),
            ("gzip, br;q=0.5", &Coding::ALL, Some(Gzip)),
            ("gzip;q=0, br;q=0.1", &Coding::ALL, Some(Brotli)),
            ("gzip;q=0", &Coding::ALL, None),
            ("*", &Coding::ALL, Some(Zstd)),
            ("*;q=0.5, zstd;q=0", &Coding::ALL, Some(Brotli)),
            ("*;q=0", &Coding::ALL, None),
            ("identity", &Coding::ALL, None),
            ("identity, gzip;q=0.5", &Coding::ALL, None),
            ("identity;q=0.1, gzip;q=0.5", &Coding::ALL, Some(Gzip)),
            ("GZIP", &Coding::ALL, Some(Gzip)),
            ("x-gzip", &Coding::ALL, Some(Gzip)),
            ("gzipped, brr", &Coding::ALL, None),
            ("", &Coding::ALL, None),
            ("gzip, br, zstd", &[Gzip, Zstd], Some(Gzip)),
            ("br", &[Gzip, Zstd], None),
        ] {
            assert_eq!(choose(accepted, ours), expected, "{accepted}");
        }
    }

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut input = PartialBuffer::new(bytes);
        let mut all = vec![0; 1 << 20];
        let mut out = PartialBuffer::new(&mut all[..]);
        match coding {
            Coding::Zstd => drop(ZstdDecoder::new().decode(&mut input, &mut out).unwrap()),
            Coding::Brotli => drop(BrotliDecoder::new().decode(&mut input, &mut out).unwrap()),
            Coding::Gzip => drop(GzipDecoder::new().decode(&mut input, &mut out).unwrap()),
        }
        out.written().to_vec()
    }

    #[test]
    fn what_is_flushed_can_be_read_and_what_is_finished_is_whole() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|n| format!("line {} of it\n", n % 977).into_bytes()).collect();
        for coding in Coding::ALL {
            let buffers = Rc::new(Buffers::default());
            let (mut coder, mut out) = (Coder::new(coding), buffers.lend());
            coder.encode(b"hello ", &mut out).unwrap();
            assert!(coder.holds());
            coder.flush(&mut out).unwrap();
            assert!(!coder.holds());
            assert_eq!(decoded(coding, out.filled()), b"hello ", "{coding:?}");
            for piece in text.chunks(7777) {
                coder.encode(piece, &mut out).unwrap();
            }
            coder.finish(&mut out).unwrap();
            assert!(out.len() < text.len() / 4, "{coding:?}: {}", out.len());
            assert_eq!(decoded(coding, out.filled()), [b"hello ", &text[..]].concat(), "{coding:?}");
            assert!(coder.had_its_turn() && !coder.had_its_turn());
        }
    }

    #[test]
    fn an_empty_body_has_an_end_too() {
        for coding in Coding::ALL {
            let mut out = Rc::new(Buffers::default()).lend();
            Coder::new(coding).finish(&mut out).unwrap();
            assert_eq!(decoded(coding, out.filled()), b"", "{coding:?}");
        }
    }
}
