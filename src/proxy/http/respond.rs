//! Sending the response, once its head is there.

use std::{
    future::poll_fn,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use crate::{
    net::{ReadHalf, WriteHalf},
    proxy::carry::{Buf, Buffers, Leaving},
    telemetry::UpstreamError,
};

use super::{
    answer::{Answer, MALFORMED},
    attempt::{Job, Way},
    balance,
    coding::Coder,
    front::{Client, Next},
    middleware,
    pool::Connection,
    progress::Progress,
    relay::{Cut, Emit, Pump},
    remake::{Body, Remade, remake},
    request_head::Framing,
    response_head::ResponseHead,
    rewrite::{self, Ending},
    secure,
    send::Run,
    tell, tunnel,
    variables::Message,
};

/// Sends the response. From here on nothing is tried again: the client sees what happens.
pub(super) async fn respond(
    job: &mut Job<'_>,
    way: &Way,
    mut upstream: Box<Connection>,
    run: &mut Run,
    head: &mut ResponseHead,
) -> Next {
    job.route.counters.answered(head.status);
    job.client.note(|notes| notes.answered(head.status));
    let told = tell(job, run, head);
    if head.status == 101 {
        job.took();
        let begun = run.input.take().filter(|input| !input.is_empty());
        return Box::pin(tunnel::run(job, way, upstream, told.out, begun)).await;
    }
    let Told { keep_alive, may_stay, .. } = told;
    let Ok((mut pump, unread)) = begin(job, run, head, told) else {
        job.route.counters.upstream_failed(UpstreamError::Malformed);
        return Box::pin(refuse(job)).await;
    };
    let end = stream(job, way, &mut upstream, run, &mut pump).await;
    let counters = &job.route.counters;
    let body = run.pump.begun + run.pump.received;
    counters.bytes_in.fetch_add(body + job.head.len() as u64, Ordering::Relaxed);
    counters.bytes_out.fetch_add(pump.sent, Ordering::Relaxed);
    job.client.note(|notes| (notes.bytes_in, notes.bytes_out, notes.cut) = (body, pump.sent, end.word()));
    let whole = run.pump.finished() && !run.write_failed;
    match end {
        End::Whole => {
            job.took();
            if head.keep_alive && !unread && whole && pump.take_surplus().is_none() {
                let pool = &job.client.worker.pool;
                pool.put(way.key(), upstream, job.client.quiet_since, job.route.backend.as_ref());
            }
            match (keep_alive, whole) {
                (true, true) => Next::Again,
                (false, true) if may_stay && job.client.input.is_none() => Next::Close,
                _ => Next::Linger,
            }
        }
        End::UpstreamFailed(kind) => {
            counters.upstream_failed(kind);
            // Where the end of the connection is the end of the body, only a reset tells that it is no end.
            if may_stay { Next::Close } else { Next::Reset }
        }
        End::ClientCut => {
            counters.client_left.fetch_add(1, Ordering::Relaxed);
            Next::Reset
        }
    }
}

/// What the client is told before the body.
struct Told<'a> {
    /// The head.
    out: Buf,
    /// How the service delimits its body.
    framing: Framing,
    /// What becomes of that.
    body: Body<'a>,
    emit: Emit,
    /// The connection may stay after the answer, and is told to.
    keep_alive: bool,
    may_stay: bool,
}

/// Writes the head for the client.
fn tell<'a>(job: &mut Job<'a>, run: &mut Run, head: &mut ResponseHead) -> Told<'a> {
    let route = job.route;
    let bytes = run.input.as_ref().map_or(&[][..], Buf::filled);
    let (is_11, framing) = (job.head.is_11, head.framing);
    let remade = match &route.spec.options.middlewares {
        None => Remade::default(),
        Some(all) => remake(all, job.head, head, bytes),
    };
    let (emit, may_stay) = match remade.body {
        Body::AsIs => rewrite::emit(head, is_11),
        Body::Coded(_) | Body::Page(_) => (Emit::AsIs, true),
    };
    // A client that still sends is told that this connection ends with the answer.
    let keep_alive =
        job.head.keep_alive && may_stay && run.pump.finished() && !run.write_failed && !job.client.is_stopping();
    let cookie = job.turn.as_ref().and_then(|turn| balance::answered(turn, job));
    let varied = match &route.spec.options.middlewares {
        Some(all) if !all.vary_response_headers.is_empty() => {
            let (peer, trusted) = (job.client.peer.as_ref(), job.client.settings.trusted_proxies.as_slice());
            let answer = Some((head.status, Some((&*head, bytes))));
            let stays = job.turn.as_ref().and_then(|turn| turn.group.cookie.as_ref());
            let ours = (stays, job.client.worker.shared.drawn_session_key());
            let (head, route, edits) = (job.head, &*route.spec, job.edits);
            Message { head, peer, trusted, route, edits, ours, upstream: None, answer }.of_answer(all)
        }
        Some(_) | None => Vec::new(),
    };
    let ending = Ending {
        is_11,
        keep_alive,
        wake: job.wake.take().map(|took| took.as_millis()),
        set: &route.spec.options.set_response_headers,
        hide: &route.spec.options.hide_response_headers,
        add: route.spec.options.middlewares.as_ref().map_or(&[], |all| &all.add_response_headers),
        varied: &varied,
        remade: &remade.fields,
        origin: middleware::allowed_origin(route, job.head),
        cookie: cookie.as_deref(),
        hsts: secure::hsts(job.client, job.head),
    };
    let mut out = job.client.worker.buffers.lend();
    rewrite::response(head, bytes, ending, &mut out);
    if let Some(input) = &mut run.input {
        input.consume(head.length);
    }
    Told { out, framing, body: remade.body, emit, keep_alive, may_stay }
}

/// The way of the body to the client, and whether what came of the service's is left unread.
fn begin(job: &Job<'_>, run: &mut Run, head: &ResponseHead, told: Told<'_>) -> Result<(Pump, bool), Cut> {
    let home = &job.client.worker.buffers;
    let begun = run.input.take().filter(|input| !input.is_empty());
    match told.body {
        Body::AsIs => Ok((Pump::new(head.framing, told.emit, told.out, begun, home)?, false)),
        Body::Coded(coding) => Ok((Pump::coded(head.framing, Coder::new(coding), told.out, begun, home)?, false)),
        Body::Page(page) => {
            let unread = !is_all(told.framing, begun, home);
            let page = lent(page, head, home);
            Ok((Pump::new(head.framing, told.emit, told.out, Some(page), home)?, unread))
        }
    }
}

/// A page as it is sent, which is not at all to HEAD.
fn lent(page: &str, head: &ResponseHead, home: &Rc<Buffers>) -> Buf {
    let mut out = home.lend();
    if head.framing != Framing::Empty {
        out.push(page.as_bytes());
    }
    out
}

/// Whether what came is all of a body and nothing else.
fn is_all(framing: Framing, begun: Option<Buf>, home: &Rc<Buffers>) -> bool {
    let read = Pump::new(framing, Emit::Data, home.lend(), begun, home);
    read.is_ok_and(|mut read| read.finished_reading() && read.take_surplus().is_none())
}

/// The body was malformed from its first byte: nothing was sent yet, so the client gets an answer of ours.
async fn refuse(job: &mut Job<'_>) -> Next {
    let next = tell::tell(job.client, job.head, job.route, &Answer::new(502, MALFORMED)).await;
    job.took();
    match next {
        Next::Again | Next::Linger => Next::Linger,
        Next::Close | Next::Reset => Next::Close,
    }
}

enum End {
    Whole,
    UpstreamFailed(UpstreamError),
    ClientCut,
}

impl End {
    /// Who ended it early.
    fn word(&self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::UpstreamFailed(_) => Some("upstream"),
            Self::ClientCut => Some("client"),
        }
    }
}

/// Moves the response's body to the client, and what is left of the request's body to the upstream.
async fn stream(job: &mut Job<'_>, way: &Way, upstream: &mut Connection, run: &mut Run, pump: &mut Pump) -> End {
    let Client { stream, timer, settings, input: rest, notes, .. } = &mut *job.client;
    let (mut client_read, mut client_write) = stream.split();
    let (mut up_read, mut up_write) = upstream.stream.split();
    let mut progress = Progress::default();
    let mut touched = 0;
    let limits = &settings.limits;
    let mut poll_response = |cx: &mut Context<'_>, up_read: &mut ReadHalf<'_>, client_write: &mut WriteHalf<'_>| {
        match pump.poll(cx, up_read, client_write) {
            Poll::Ready(Ok(())) => return Poll::Ready(End::Whole),
            Poll::Ready(Err(Cut::Source(_))) => return Poll::Ready(End::UpstreamFailed(UpstreamError::Closed)),
            Poll::Ready(Err(Cut::Malformed | Cut::TooLarge)) => {
                return Poll::Ready(End::UpstreamFailed(UpstreamError::Malformed));
            }
            Poll::Ready(Err(Cut::Sink(_))) => return Poll::Ready(End::ClientCut),
            Poll::Pending => {}
        }
        // Known also if all this is dropped, as at the end of a shutdown.
        if let Some(notes) = notes {
            notes.bytes_out = pump.sent;
        }
        if pump.received != touched
            && let Some(pass) = &way.pass
        {
            touched = pump.received;
            pass.touch();
        }
        if !pump.has_output() {
            progress.rest();
        } else if progress.is_too_slow(cx, timer, pump.sent, limits.body_window, limits.body_minimum) {
            return Poll::Ready(End::ClientCut);
        }
        Poll::Pending
    };
    if !run.pump.finished() {
        let end = poll_fn(|cx| {
            if let Poll::Ready(end) = poll_response(cx, &mut up_read, &mut client_write) {
                return Poll::Ready(Some(end));
            }
            if run.write_failed {
                return Poll::Pending;
            }
            match run.pump.poll(cx, &mut client_read, &mut up_write) {
                Poll::Ready(Ok(())) => Poll::Ready(None),
                // The upstream takes no more, and may still be answering.
                Poll::Ready(Err(Cut::Sink(_))) => {
                    run.write_failed = true;
                    Poll::Pending
                }
                Poll::Ready(Err(Cut::Source(_) | Cut::Malformed | Cut::TooLarge)) => Poll::Ready(Some(End::ClientCut)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if let Some(surplus) = run.pump.take_surplus() {
            *rest = Some(surplus);
        }
        if let Some(end) = end {
            return end;
        }
    }
    let mut left = None;
    let client = client_read.beneath();
    poll_fn(|cx| {
        if let Poll::Ready(end) = poll_response(cx, &mut up_read, &mut client_write) {
            return Poll::Ready(end);
        }
        // Looked at only when the answer takes longer than one turn.
        let left = left.get_or_insert_with(|| Leaving::new(client, false));
        left.poll(cx).map(|()| End::ClientCut)
    })
    .await
}
