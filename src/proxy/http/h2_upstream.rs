//! A stream of HTTP/2 to a service that is written and read like a connection of HTTP/1.1: neither the relay nor its
//! rules know the difference.
//!
//! What is written is a request, head and framing and all; what is read is the answer, likewise.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream, client::SendRequest};
use memchr::memmem;
use tokio::io::ReadBuf;

use crate::net::Within;

use super::{
    h2_answer::{Answering, Malformed},
    h2_asking::{self, Asked},
    h2_body::Sending,
    h2_hub::Hub,
    h2_link::Link,
    h2_reading::failure,
};

/// So much of a request is kept until it is answered, to be sent again when the service has not seen it.
const KEPT: usize = 64 * 1024;

/// Why a request was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Nothing more is known than that its stream or connection ended.
    Ended,
    /// The service says that it has not worked on it.
    Unseen,
    /// What came is no answer.
    Malformed,
}

/// What is known of one request beside its bytes.
#[derive(Debug)]
pub(super) struct Record {
    why: Cell<Why>,
    /// What was written; absent: it is too much, or nobody will ask for it.
    written: RefCell<Option<Vec<u8>>>,
    link: Rc<Link>,
}

impl Record {
    pub(super) fn why(&self) -> Why {
        self.why.get()
    }

    /// All that was written, when it may be written once more.
    pub(super) fn take_back(&self) -> Option<Vec<u8>> {
        if self.why.get() == Why::Unseen { self.written.borrow_mut().take() } else { None }
    }

    /// Whether its connection carries WebSockets.
    pub(super) fn takes_websockets(&self) -> bool {
        self.link.takes_websockets()
    }

    /// No more requests are put on its connection.
    pub(super) fn retire(&self) {
        self.link.retire();
    }
}

/// One request on a shared connection.
#[derive(Debug)]
pub(super) struct H2Upstream {
    record: Rc<Record>,
    asking: RefCell<Asking>,
    answering: RefCell<Option<Answering>>,
    /// The stream's number, once there is one.
    id: Cell<Option<u32>>,
    hub: Rc<Hub>,
}

/// A request as it is written.
#[derive(Debug)]
enum Asking {
    /// Its head is to come, what of it came, and which of its fields are made for it alone.
    Head(SendRequest<Bytes>, Vec<u8>, Vec<String>),
    Body(SendStream<Bytes>, Sending),
    Failed,
}

impl H2Upstream {
    /// One more request on a connection. `made`: the names of its fields that are made for it alone.
    pub(super) fn new(link: Rc<Link>, hub: Rc<Hub>, made: Vec<String>) -> (Self, Rc<Record>) {
        link.enter();
        let asking = Asking::Head(link.sender(), Vec::new(), made);
        let record = Rc::new(Record { why: Cell::new(Why::Ended), written: RefCell::new(Some(Vec::new())), link });
        let upstream = Self {
            record: Rc::clone(&record),
            asking: RefCell::new(asking),
            answering: RefCell::new(None),
            id: Cell::new(None),
            hub,
        };
        (upstream, record)
    }

    fn link(&self) -> &Link {
        &self.record.link
    }

    /// Takes what belongs to the head.
    fn poll_head(
        &self,
        sender: &mut SendRequest<Bytes>,
        (begun, made): (&mut Vec<u8>, &[String]),
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<(usize, Option<Asking>)>> {
        if let Err(error) = ready!(sender.poll_ready(cx)) {
            return Poll::Ready(Err(self.not_sent(error)));
        }
        let before = begun.len();
        begun.extend_from_slice(bytes);
        let from = before.saturating_sub(3);
        let Some(end) = memmem::find(begun.get(from..).unwrap_or_default(), b"\r\n\r\n").map(|at| from + at + 4) else {
            return Poll::Ready(Ok((bytes.len(), None)));
        };
        let head = begun.get(..end).unwrap_or_default();
        let Asked { request, sending, to_head, accept } = h2_asking::read(head, self.link().secure, made)?;
        let (response, body) = match sender.send_request(request, sending.is_ended()) {
            Ok(sent) => sent,
            Err(error) => return Poll::Ready(Err(self.not_sent(error))),
        };
        let id = body.stream_id().as_u32();
        self.id.set(Some(id));
        self.link().marks(|marks| marks.begun(id));
        *self.answering.borrow_mut() = Some(Answering::new(response, to_head, accept));
        Poll::Ready(Ok((end - before, Some(Asking::Body(body, sending)))))
    }

    /// The connection takes no new request.
    fn not_sent(&self, error: h2::Error) -> io::Error {
        self.link().retire();
        self.record.why.set(Why::Unseen);
        failure(error)
    }

    /// Keeps what was taken, as long as that may be needed.
    fn keep(&self, bytes: &[u8]) {
        let mut written = self.record.written.borrow_mut();
        let Some(kept) = written.as_mut() else { return };
        if kept.len() + bytes.len() > KEPT {
            *written = None;
        } else {
            kept.extend_from_slice(bytes);
        }
    }

    /// What a failure means; `true`: nothing, the answer was whole.
    fn failed(&self, answering: &mut Answering, error: &io::Error) -> bool {
        let inner = error.get_ref();
        let h2 = inner.and_then(|error| error.downcast_ref::<h2::Error>());
        // What `h2` itself has refused does not count as an end.
        let is_ours = h2.is_none_or(h2::Error::is_library);
        if !is_ours
            && answering.has_begun()
            && self.id.get().is_some_and(|id| self.link().marks(|marks| marks.is_whole(id)))
        {
            answering.end_all_the_same();
            return true;
        }
        let refused =
            h2.is_some_and(|h2| h2.is_remote() && h2.is_reset() && h2.reason() == Some(Reason::REFUSED_STREAM));
        if refused {
            self.link().refused();
        }
        let unseen = self.id.get().is_some_and(|id| self.link().marks(|marks| marks.is_unseen(id)));
        let broken = inner.is_some_and(|error| error.is::<Malformed>())
            || h2.is_some_and(|h2| h2.is_library() && (h2.is_reset() || h2.is_go_away()));
        self.record.why.set(match (refused || unseen, broken) {
            (true, _) => Why::Unseen,
            (false, true) => Why::Malformed,
            (false, false) => Why::Ended,
        });
        false
    }
}

impl Within for H2Upstream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut answering = self.answering.borrow_mut();
        let Some(answering) = answering.as_mut() else {
            // Nothing was asked yet; or it can not be.
            return match &*self.asking.borrow() {
                Asking::Failed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Asking::Head(..) | Asking::Body(..) => Poll::Pending,
            };
        };
        match ready!(answering.poll_ready(cx)) {
            Err(error) if !self.failed(answering, &error) => Poll::Ready(Err(error)),
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_read_ready(cx))?;
        let mut answering = self.answering.borrow_mut();
        let Some(answering) = answering.as_mut() else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let result = ready!(answering.poll_read(cx, out));
        if answering.has_begun() {
            // It will not be asked again.
            *self.record.written.borrow_mut() = None;
        }
        Poll::Ready(result)
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut asking = self.asking.borrow_mut();
        let count = match &mut *asking {
            Asking::Head(sender, begun, made) => match ready!(self.poll_head(sender, (begun, made), cx, bytes)) {
                Ok((count, next)) => {
                    if let Some(next) = next {
                        *asking = next;
                    }
                    count
                }
                Err(error) => {
                    *asking = Asking::Failed;
                    return Poll::Ready(Err(error));
                }
            },
            Asking::Body(body, sending) => ready!(sending.poll_write(body, cx, bytes))?,
            Asking::Failed => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        self.keep(bytes.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_shutdown(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.asking.borrow_mut() {
            Asking::Body(body, sending) => Poll::Ready(sending.shutdown(body)),
            Asking::Head(..) | Asking::Failed => Poll::Ready(Ok(())),
        }
    }

    /// It is not asked of a service.
    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        if let Some(id) = self.id.get() {
            self.link().marks(|marks| marks.forget(id));
        }
        let answered = self.answering.borrow().as_ref().is_some_and(Answering::has_begun);
        self.link().leave(answered);
        self.hub.note_room();
    }
}
