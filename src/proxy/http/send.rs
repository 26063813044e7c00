//! Writing a request to the upstream, and reading the head that answers it.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    time::Instant,
};

use crate::{
    net::ReadHalf,
    proxy::carry::{Buf, Buffers, Leaving},
};

use super::{
    attempt::{Fault, Job, Way},
    field,
    front::Client,
    pool::Connection,
    progress::Progress,
    relay::{Cut, Pump},
    request_head::RequestHead,
    response_head::{self, ResponseHead},
    rewrite::{self, Ending},
};

/// Informational responses before the final one, at most.
const INTERIM: usize = 32;

enum Event {
    Head,
    /// The request is written.
    Written,
    Fault(Fault),
}

/// The request's way to the upstream, and what is known of the connection.
pub(super) struct Run {
    pub(super) pump: Pump,
    pub(super) write_failed: bool,
    /// What came of the answer and was not used yet.
    pub(super) input: Option<Buf>,
    /// How the request gets on that is being written.
    progress: Progress,
    /// When the head of the answer must be there; absent: the request is not written.
    until: Option<Instant>,
}

impl Run {
    /// Nothing is written yet.
    pub(super) fn new(pump: Pump) -> Self {
        Self { pump, write_failed: false, input: None, progress: Progress::default(), until: None }
    }

    /// Writes the request and reads heads until the final one, or the 101 that was asked for.
    pub(super) async fn head(
        &mut self,
        job: &mut Job<'_>,
        way: &Way,
        upstream: &mut Connection,
    ) -> Result<ResponseHead, Fault> {
        let max_head = job.client.settings.limits.head;
        let to_head = job.head.is_head();
        for interims in 0..INTERIM {
            let head = loop {
                if let Some(buf) = &self.input
                    && let Some(head) = response_head::read(buf, &job.client.worker.shelf, to_head, max_head)
                        .map_err(|_| Fault::Bad("malformed"))?
                {
                    break head;
                }
                self.more(job, upstream, max_head).await.map_err(|fault| {
                    // Something of the answer was seen: the request has been worked on.
                    if interims > 0 && matches!(fault, Fault::Silent) { Fault::Cut } else { fault }
                })?;
            };
            if head.status >= 200 {
                self.check_settled(job, way, &head)?;
                if let Some(pause) = job.again_after(head.status) {
                    return Err(Fault::Unwanted(pause));
                }
                return Ok(head);
            }
            let Some(mut buf) = self.input.take() else { return Err(Fault::Silent) };
            if head.status == 101 {
                let answers = answers_upgrade(job.head, &head, &buf);
                self.input = Some(buf);
                return if answers { Ok(head) } else { Err(Fault::Bad("101 unasked")) };
            }
            if job.head.is_11 && (head.status != 100 || job.head.expects_continue) {
                Box::pin(interim(job, &head, &buf)).await?;
            }
            buf.consume(head.length);
            self.input = Some(buf).filter(|buf| !buf.is_empty());
        }
        Err(Fault::Bad("informational responses without end"))
    }

    /// A 502 or 503 shortly after a wake is that of an app that has not finished starting.
    fn check_settled(&self, job: &Job<'_>, way: &Way, head: &ResponseHead) -> Result<(), Fault> {
        if !matches!(head.status, 502 | 503) {
            return Ok(());
        }
        let settle = job.route.backend.as_ref().map_or(Duration::ZERO, |backend| backend.policy().settle);
        let early = way.settles_at(settle).is_some();
        if early && job.head.may_be_repeated() { Err(Fault::HalfStarted) } else { Ok(()) }
    }

    /// Reads more of a response head, while the request is still being written.
    async fn more(&mut self, job: &mut Job<'_>, upstream: &mut Connection, max_head: usize) -> Result<(), Fault> {
        let Self { pump, write_failed, input, progress, until } = self;
        let waits = job.route.spec.options.upstream.response_header_timeout;
        // The messages of a stream of gRPC come when they come.
        let streams = upstream.record.is_some()
            && job.head.get("content-type").is_some_and(|kind| field::is_grpc(kind.as_bytes()));
        let Client { stream, timer, settings, worker, input: rest, .. } = &mut *job.client;
        let (mut client_read, _) = stream.split();
        let (mut up_read, mut up_write) = upstream.stream.split();
        if !pump.finished() && !*write_failed {
            let event = poll_fn(|cx| {
                match pump.poll(cx, &mut client_read, &mut up_write) {
                    Poll::Ready(Ok(())) => {
                        // Often the answer is not there yet, and the second wait sees to the rest.
                        return Poll::Ready(Event::Written);
                    }
                    Poll::Ready(Err(Cut::Sink(_))) => {
                        // The answer may have come all the same.
                        *write_failed = true;
                        return Poll::Ready(Event::Written);
                    }
                    Poll::Ready(Err(Cut::Source(_))) => return Poll::Ready(Event::Fault(Fault::ClientLeft)),
                    Poll::Ready(Err(Cut::Malformed)) => return Poll::Ready(Event::Fault(Fault::ClientBad)),
                    Poll::Ready(Err(Cut::TooLarge)) => return Poll::Ready(Event::Fault(Fault::ClientTooMuch)),
                    Poll::Pending => {}
                }
                if let Poll::Ready(event) = poll_head(cx, &mut up_read, input, &worker.buffers, max_head) {
                    return Poll::Ready(event);
                }
                // Blocked by the client, or by the upstream.
                let by_client = !pump.has_output();
                if by_client && streams {
                    progress.rest();
                    return Poll::Pending;
                }
                let expecting = by_client && job.head.expects_continue && pump.received == 0;
                let (window, minimum) = if by_client && !expecting {
                    (settings.limits.body_window, settings.limits.body_minimum)
                } else {
                    (waits, 1)
                };
                if progress.is_too_slow(cx, timer, pump.received + pump.sent, window, minimum) {
                    let fault = if by_client && !expecting { Fault::ClientSlow } else { Fault::Late };
                    return Poll::Ready(Event::Fault(fault));
                }
                Poll::Pending
            })
            .await;
            if let Some(surplus) = pump.take_surplus() {
                *rest = Some(surplus);
            }
            match event {
                Event::Head => return Ok(()),
                Event::Written => {}
                Event::Fault(fault) => return Err(fault),
            }
        }
        // All of the head, and what is said before it, has the one time (and no time of its own for each byte).
        timer.set(*until.get_or_insert_with(|| Instant::now() + waits));
        let mut left = Leaving::new(client_read.beneath(), false);
        let event = poll_fn(|cx| {
            if let Poll::Ready(event) = poll_head(cx, &mut up_read, input, &worker.buffers, max_head) {
                return Poll::Ready(event);
            }
            if left.poll(cx).is_ready() {
                return Poll::Ready(Event::Fault(Fault::ClientLeft));
            }
            timer.poll(cx).map(|()| Event::Fault(Fault::Late))
        })
        .await;
        match event {
            Event::Head | Event::Written => Ok(()),
            Event::Fault(fault) => Err(fault),
        }
    }
}

/// Whether a 101 answers what the client asked for.
fn answers_upgrade(request: &RequestHead, head: &ResponseHead, buf: &Buf) -> bool {
    let (Some(asked), Some(given)) = (&request.upgrade, &head.upgrade) else { return false };
    let given = buf.filled().get(given.clone()).unwrap_or_default();
    request.part(asked).eq_ignore_ascii_case(given)
}

/// Passes an informational response on.
async fn interim(job: &mut Job<'_>, head: &ResponseHead, buf: &Buf) -> Result<(), Fault> {
    let mut out = job.client.worker.buffers.lend();
    let hide = job.route.spec.options.hide_response_headers.as_slice();
    rewrite::response(head, buf.filled(), Ending::none(hide), &mut out);
    let window = job.client.settings.limits.body_window;
    match tokio::time::timeout(window, job.client.stream.write_all(out.filled())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Fault::ClientLeft),
        Err(_) => Err(Fault::ClientSlow),
    }
}

/// Reads what came of a response head.
fn poll_head(
    cx: &mut Context<'_>,
    source: &mut ReadHalf<'_>,
    input: &mut Option<Buf>,
    buffers: &Rc<Buffers>,
    max_head: usize,
) -> Poll<Event> {
    if source.poll_read_ready(cx).is_pending() {
        return Poll::Pending;
    }
    let buf = input.get_or_insert_with(|| buffers.lend());
    if buf.spare_mut().is_empty() && !buf.make_room(max_head) {
        return Poll::Ready(Event::Fault(Fault::Bad("head too large")));
    }
    let mut spare = ReadBuf::new(buf.spare_mut());
    let polled = Pin::new(source).poll_read(cx, &mut spare);
    let count = spare.filled().len();
    buf.fill(count);
    let empty = buf.is_empty();
    if empty {
        *input = None;
    }
    match polled {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Ok(())) if count > 0 => Poll::Ready(Event::Head),
        Poll::Ready(_) if empty => Poll::Ready(Event::Fault(Fault::Silent)),
        Poll::Ready(_) => Poll::Ready(Event::Fault(Fault::Cut)),
    }
}
