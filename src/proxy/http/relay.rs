//! Moving a body from one connection to another, in place and under back-pressure.

use std::{
    io, mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

use crate::{
    model::RouteOptions,
    net::{ReadHalf, WriteHalf},
    proxy::carry::{Buf, Buffers, Pieces, SIZE},
};

use super::{chunk::ChunkScanner, coding::Coder, request_head::Framing, spliced::Spliced};

/// Why a body did not arrive whole.
#[derive(Debug)]
pub(super) enum Cut {
    /// The sender's connection ended or failed before the body did.
    Source(#[allow(dead_code, reason = "shown in logs")] io::Error),
    /// The sender broke the rules of chunked coding.
    Malformed,
    /// The body is larger than it may be.
    TooLarge,
    /// The receiver's connection failed.
    Sink(#[allow(dead_code, reason = "shown in logs")] io::Error),
}

/// How the body is written to its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emit {
    /// As it comes (chunks without extensions).
    AsIs,
    /// The data alone: the receiver does not know chunks.
    Data,
    /// As chunks: it came without a length.
    Chunks,
}

#[derive(Debug)]
enum Body {
    Done,
    Length(u64),
    Chunked(Box<ChunkScanner>),
    UntilClose,
}

/// Room in front of data for the size line of a chunk.
const FRONT: usize = 10;

/// One direction of an exchange: what is to be written first, then the body as it comes.
#[derive(Debug)]
pub(super) struct Pump {
    body: Body,
    emit: Emit,
    out: Pieces,
    /// Written behind what is in `out`.
    tail: Vec<u8>,
    /// Bytes that came behind the end of the body.
    surplus: Option<Box<Buf>>,
    /// Bytes written.
    pub(super) sent: u64,
    /// Bytes read from the sender by the pump.
    pub(super) received: u64,
    /// Bytes of the body that were there before.
    pub(super) begun: u64,
    /// The last read filled its buffer: bulk.
    bulk: bool,
    /// More of the body is surely there, and is read first: it goes with the head and what came with that.
    ahead: bool,
    /// What reading ahead met. Told once what came before is written.
    failed: Option<Cut>,
    /// Puts the body into another coding.
    coder: Option<Box<Coder>>,
    /// What passes by us.
    spliced: Spliced,
    home: Rc<Buffers>,
}

impl Pump {
    /// `out` is written first; the body begins with what is in `begun`. What is in `begun` behind the body's end
    /// becomes the surplus.
    pub(super) fn new(
        framing: Framing,
        emit: Emit,
        out: Buf,
        begun: Option<Buf>,
        home: &Rc<Buffers>,
    ) -> Result<Self, Cut> {
        Self::with((framing, emit, None), out, begun, home, |_| {})
    }

    /// The same, for a body that goes out in another coding, in chunks.
    pub(super) fn coded(
        framing: Framing,
        coder: Coder,
        out: Buf,
        begun: Option<Buf>,
        home: &Rc<Buffers>,
    ) -> Result<Self, Cut> {
        let coder = Some(Box::new(coder));
        Self::with((framing, Emit::Data, coder), out, begun, home, |scanner| *scanner = ChunkScanner::apart())
    }

    /// The same, for the body of a request of this route, which may have so many bytes of data.
    pub(super) fn request(
        framing: Framing,
        out: Buf,
        begun: Option<Buf>,
        home: &Rc<Buffers>,
        most: Option<u64>,
        route: &Arc<RouteOptions>,
    ) -> Result<Self, Cut> {
        Self::with((framing, Emit::AsIs, None), out, begun, home, |scanner| {
            scanner.withhold(route);
            if let Some(most) = most {
                scanner.bound(most);
            }
        })
    }

    fn with(
        (framing, emit, coder): (Framing, Emit, Option<Box<Coder>>),
        mut out: Buf,
        begun: Option<Buf>,
        home: &Rc<Buffers>,
        prepare: impl FnOnce(&mut ChunkScanner),
    ) -> Result<Self, Cut> {
        let body = match framing {
            Framing::Empty | Framing::Length(0) => Body::Done,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => {
                let mut scanner = Box::new(ChunkScanner::new(emit == Emit::Data));
                prepare(&mut scanner);
                Body::Chunked(scanner)
            }
            Framing::UntilClose => Body::UntilClose,
        };
        let mut pump = Self {
            body,
            emit,
            out: Pieces::default(),
            tail: Vec::new(),
            surplus: None,
            sent: 0,
            received: 0,
            begun: 0,
            // What came with the head filled its buffer: more is there.
            bulk: begun.as_ref().is_some_and(Buf::is_full),
            ahead: false,
            failed: None,
            coder,
            spliced: Spliced::new(begun.as_ref().is_some_and(Buf::is_full)),
            home: Rc::clone(home),
        };
        let mut rest = None;
        if let Some(mut begun) = begun.filter(|begun| !begun.is_empty()) {
            if pump.finished_reading() {
                pump.surplus = Some(Box::new(begun));
            } else {
                pump.begun = begun.len() as u64;
                pump.decode(&mut begun)?;
                pump.begun -= pump.surplus.as_ref().map_or(0, |surplus| surplus.len() as u64);
                if pump.coder.is_some() && (!begun.is_empty() || pump.finished_reading()) {
                    begun = pump.code(begun.filled())?;
                }
                let chunk = pump.emit == Emit::Chunks && !begun.is_empty();
                if chunk {
                    out.push(format!("{:x}\r\n", begun.len()).as_bytes());
                }
                // Little is copied, which is cheaper than two pieces.
                if begun.len() + 2 <= out.spare_mut().len() {
                    out.push(begun.filled());
                    out.push(if chunk { b"\r\n" } else { b"" });
                } else {
                    rest = Some(begun);
                    pump.tail.extend_from_slice(if chunk { b"\r\n" } else { b"" });
                }
            }
        }
        pump.out.push(out);
        rest.into_iter().for_each(|rest| pump.out.push(rest));
        pump.ahead = pump.bulk && pump.tail.is_empty() && !pump.finished_reading();
        Ok(pump)
    }

    /// All that was written is to be written once more, before what is left.
    pub(super) fn write_again(&mut self, written: &[u8]) {
        let mut out = self.home.lend();
        out.push(written);
        mem::take(&mut self.out).copy_to(&mut out);
        self.out.push(out);
        self.sent = 0;
    }

    /// The body was read to its end.
    pub(super) fn finished_reading(&self) -> bool {
        matches!(self.body, Body::Done)
    }

    /// Everything was read and written.
    pub(super) fn finished(&self) -> bool {
        self.finished_reading() && !self.has_output()
    }

    /// Something waits to be written.
    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty() || !self.tail.is_empty() || !self.spliced.is_empty()
    }

    /// How much of the body is still to come, where that is known.
    fn left(&self) -> Option<usize> {
        match self.body {
            Body::Length(left) => Some(usize::try_from(left).unwrap_or(usize::MAX)),
            Body::Done | Body::Chunked(_) | Body::UntilClose => None,
        }
    }

    /// What came behind the body.
    pub(super) fn take_surplus(&mut self) -> Option<Buf> {
        self.surplus.take().map(|surplus| *surplus)
    }

    /// Moves what can be moved. Ready when everything was written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut ReadHalf<'_>,
        sink: &mut WriteHalf<'_>,
    ) -> Poll<Result<(), Cut>> {
        if mem::take(&mut self.ahead)
            && self.passing(source, sink).is_none()
            && let Poll::Ready(Err(cut)) = self.poll_fill(cx, source)
        {
            self.failed = Some(cut);
        }
        loop {
            ready!(self.poll_flush(cx, sink))?;
            if let Some(cut) = self.failed.take() {
                return Poll::Ready(Err(cut));
            }
            if self.finished_reading() {
                self.spliced.rest();
                return Poll::Ready(Ok(()));
            }
            if self.coder.as_mut().is_some_and(|coder| coder.had_its_turn()) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some((from, left)) = self.passing(source, sink)
                && let Some(count) = ready!(self.spliced.poll_fill(cx, from, left)).map_err(Cut::Source)?
            {
                self.received += count;
                self.body = if count < left { Body::Length(left - count) } else { Body::Done };
                continue;
            }
            self.spliced.rest();
            ready!(self.poll_fill(cx, source))?;
        }
    }

    /// The socket whose bytes need not be seen, and how many of them belong to the body.
    fn passing<'s>(&self, source: &'s ReadHalf<'_>, sink: &WriteHalf<'_>) -> Option<(&'s TcpStream, u64)> {
        let Body::Length(left) = self.body else { return None };
        let passes = self.spliced.takes(left) && self.coder.is_none() && sink.plain().is_some();
        passes.then(|| source.plain()).flatten().map(|from| (from, left))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, sink: &mut WriteHalf<'_>) -> Poll<Result<(), Cut>> {
        loop {
            while !self.out.is_empty() {
                let count = ready!(self.out.poll_write(cx, sink)).map_err(Cut::Sink)?;
                if count == 0 {
                    return Poll::Ready(Err(Cut::Sink(io::ErrorKind::WriteZero.into())));
                }
                self.sent += count as u64;
            }
            while !self.spliced.is_empty()
                && let Some(to) = sink.plain()
            {
                self.sent += ready!(self.spliced.poll_drain(cx, to)).map_err(Cut::Sink)?;
            }
            if self.tail.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut out = self.home.lend();
            out.push(&self.tail);
            self.tail.clear();
            self.out.push(out);
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, source: &mut ReadHalf<'_>) -> Poll<Result<(), Cut>> {
        let polled = self.poll_read(cx, source);
        if polled.is_pending() && self.coder.as_ref().is_some_and(|coder| coder.holds()) {
            // While nothing comes, whoever reads has all that came.
            let piece = self.code(&[])?;
            self.out.push(piece);
            return Poll::Ready(Ok(()));
        }
        polled
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, source: &mut ReadHalf<'_>) -> Poll<Result<(), Cut>> {
        // No buffer is held while there is nothing to read.
        ready!(source.poll_read_ready(cx)).map_err(Cut::Source)?;
        let left = self.left();
        let bulk = left.map_or(self.bulk, |left| left > SIZE) && self.coder.is_none();
        let mut buf = if bulk { self.home.lend_big() } else { self.home.lend() };
        let chunks = self.emit == Emit::Chunks;
        if chunks {
            buf.clear_leaving(FRONT);
        }
        let mut spare = ReadBuf::new(buf.spare_mut());
        let room = match left {
            _ if chunks => spare.remaining() - 2,
            // Little more than is left, lest a crowd of requests be read behind a body; but more, so that a read that
            // brings all of it is seen not to be full.
            Some(left) if bulk => left.saturating_add(1),
            Some(_) | None => usize::MAX,
        };
        let mut spare = spare.take(room);
        ready!(Pin::new(source).poll_read(cx, &mut spare)).map_err(Cut::Source)?;
        let count = spare.filled().len();
        self.bulk = spare.remaining() == 0;
        self.spliced.saw(count);
        if count == 0 {
            return Poll::Ready(self.source_ended());
        }
        buf.fill(count);
        self.received += count as u64;
        self.decode(&mut buf)?;
        if chunks && !buf.is_empty() {
            let size = format!("{:x}\r\n", buf.len());
            buf.push(b"\r\n");
            buf.prepend(size.as_bytes());
        }
        if self.coder.is_some() && (!buf.is_empty() || self.finished_reading()) {
            buf = self.code(buf.filled())?;
        }
        self.out.push(buf);
        Poll::Ready(Ok(()))
    }

    fn source_ended(&mut self) -> Result<(), Cut> {
        if !matches!(self.body, Body::UntilClose) {
            return Err(Cut::Source(io::ErrorKind::UnexpectedEof.into()));
        }
        self.body = Body::Done;
        if self.emit == Emit::Chunks {
            self.tail.extend_from_slice(b"0\r\n\r\n");
        }
        if self.coder.is_some() {
            let end = self.code(&[])?;
            self.out.push(end);
        }
        Ok(())
    }

    /// Data of the body as a chunk in the other coding, with the end behind it where the body was read to its end; no
    /// data before that: all that was held back.
    fn code(&mut self, data: &[u8]) -> Result<Buf, Cut> {
        let ended = self.finished_reading();
        let mut out = self.home.lend();
        out.clear_leaving(FRONT);
        if let Some(coder) = &mut self.coder {
            let coded = coder.encode(data, &mut out);
            let coded = match (ended, data.is_empty()) {
                (true, _) => coded.and_then(|()| coder.finish(&mut out)),
                (false, true) => coded.and_then(|()| coder.flush(&mut out)),
                (false, false) => coded,
            };
            coded.map_err(|_| Cut::Malformed)?;
        }
        if !out.is_empty() {
            let size = format!("{:x}\r\n", out.len());
            out.push(b"\r\n");
            out.prepend(size.as_bytes());
        }
        if ended {
            out.push(b"0\r\n");
            // The trailers with the line that ends them, of a body that came in chunks.
            let tail = mem::take(&mut self.tail);
            out.push(if tail.is_empty() { b"\r\n" } else { &tail });
        }
        Ok(out)
    }

    /// Leaves in `buf` what is to be written.
    fn decode(&mut self, buf: &mut Buf) -> Result<(), Cut> {
        let (consumed, produced, done) = match &mut self.body {
            Body::Done => (0, 0, true),
            Body::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= here as u64;
                (here, here, *left == 0)
            }
            Body::Chunked(scanner) => {
                let scanned = scanner.scan(buf.filled_mut(), &mut self.tail).map_err(|_| Cut::Malformed)?;
                if scanner.is_over() {
                    return Err(Cut::TooLarge);
                }
                (scanned.consumed, scanned.produced, scanned.done)
            }
            Body::UntilClose => (buf.len(), buf.len(), false),
        };
        if let Some(surplus) = buf.filled().get(consumed..).filter(|surplus| !surplus.is_empty()) {
            let mut kept = self.home.lend();
            kept.push(surplus);
            self.surplus = Some(Box::new(kept));
        }
        buf.truncate(produced);
        if done {
            self.body = Body::Done;
        }
        Ok(())
    }
}
