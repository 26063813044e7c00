//! The waiting page as a response that stays open until the wake has ended, and its own resources.

use std::{
    fmt::Write as _,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::TryFutureExt;
use tokio::{io::AsyncWriteExt, time::Instant};

use crate::{
    backend::{Backend, Pass, Refused, Status, StatusState},
    control::LiveRoute,
    model::{Cause, without_escapes},
    proxy::carry::gone,
    web::{self, DependencyView, Failure, Language, Phase, Progress, Theme, WaitingPage, WaitingView, WhyFailed},
};

use super::{
    answer::Answer,
    attempt::Job,
    balance,
    front::Next,
    tell::{self, add_wanted, wanted},
    wake::{Entry, refusal},
};

/// How long the page is held back for an answer that makes it needless: awake already, or refused at once.
const GRACE: Duration = Duration::from_millis(5);

/// Whoever waits wakes another member as soon as one has failed: so many looks, 20 ms apart, see it.
const PATIENCE_FOR_ANOTHER: u32 = 15;

/// So often something is sent, lest somebody on the way gives up on the silent response.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The waiting page. A pass comes back when the backend was awake before the page was needed.
pub(super) async fn page(
    job: &mut Job<'_>,
    backend: &Backend,
    cause: Cause,
    patience: Duration,
) -> Result<Pass, Entry> {
    match balance::door(job) {
        None => page_while(job, backend, backend.enter(cause, patience)).await,
        Some(mut door) => {
            // Which of the members it was is found out anew.
            let entering = door.enter(cause, patience).map_ok(|(_, pass)| pass);
            let entered = page_while(job, backend, entering).await;
            entered.and_then(|_| Err(Entry::Again))
        }
    }
}

async fn page_while(
    job: &mut Job<'_>,
    backend: &Backend,
    entering: impl Future<Output = Result<Pass, Refused>>,
) -> Result<Pass, Entry> {
    let mut entering = pin!(entering);
    let language = Language::choose(job.head.get("accept-language"));
    match tokio::time::timeout(GRACE, entering.as_mut()).await {
        Ok(Ok(pass)) => return Ok(pass),
        Ok(Err(refused)) => {
            let answer = refusal(&refused);
            if tell::as_page(job.route, job.head, &answer).is_some() {
                return Err(Entry::Answer(answer));
            }
            let page = web::failed_page(title(job.route), language, &failure(&refused));
            return Err(Entry::Done(whole(job, &page.headers, &page.body).await));
        }
        Err(_) => {}
    }
    Err(Entry::Done(open(job, backend, language, entering).await))
}

/// Sends the page and keeps its response open until the wake has ended.
async fn open(
    job: &mut Job<'_>,
    backend: &Backend,
    language: Language,
    mut entering: Pin<&mut impl Future<Output = Result<Pass, Refused>>>,
) -> Next {
    job.route.counters.answered(503);
    let page = render(job, backend, language);
    let mut reply = match Reply::begin(job, &page.headers).await {
        Ok(reply) => reply,
        Err(next) => return next,
    };
    if reply.send(&page.head).await.is_err() {
        return Next::Close;
    }
    loop {
        let heartbeat = tokio::select! {
            biased;
            entered = entering.as_mut() => {
                let tail = match &entered {
                    Ok(_) => WaitingPage::READY_TAIL.to_owned(),
                    Err(refused) => page.failed_tail(&failure(refused)),
                };
                return reply.end(&tail).await;
            }
            () = gone(reply.job.client.stream.beneath(), false) => return Next::Close,
            () = tokio::time::sleep(HEARTBEAT) => reply.send(WaitingPage::HEARTBEAT).await,
        };
        if heartbeat.is_err() {
            return Next::Close;
        }
    }
}

/// What lives under the reserved path while the backend is not awake. None of it wakes.
pub(super) async fn resource(job: &mut Job<'_>, backend: &Backend) -> Next {
    let language = Language::choose(job.head.get("accept-language"));
    match job.head.path() {
        web::PROGRESS_PATH if job.head.method() == "GET" => progress(job, backend, language).await,
        web::FRAME_PATH => {
            let (dependencies, status) = (dependencies(job, backend), backend.status().borrow().clone());
            let path = page_path(job.head.target()).unwrap_or_default();
            let page = web::framed_page(&view(job.route, &path, language, &status, &dependencies));
            whole(job, &page.headers, &page.body).await
        }
        _ => {
            job.route.counters.answered(404);
            tell::tell(job.client, job.head, job.route, &Answer::new(404, "There is nothing here.")).await
        }
    }
}

/// The stream of events that the page listens to: each change, up to the end of the wake.
async fn progress(job: &mut Job<'_>, backend: &Backend, language: Language) -> Next {
    let mut status = backend.status();
    let fields = [
        ("Content-Type", "text/event-stream".to_owned()),
        ("Cache-Control", "no-store".to_owned()),
        ("X-Accel-Buffering", "no".to_owned()),
    ];
    job.route.counters.answered(200);
    let mut reply = match Reply::begin_with(job, 200, &fields).await {
        Ok(reply) => reply,
        Err(next) => return next,
    };
    loop {
        let now = Arc::clone(&status.borrow_and_update());
        if now.state == StatusState::Awake {
            return reply.end(web::ready_event()).await;
        }
        if let Some(failure) = failed(&now) {
            if let Some(next) = another(reply.job).await {
                status = next.status();
                continue;
            }
            return reply.end(&web::failed_event(&failure, language)).await;
        }
        let dependencies = dependencies(reply.job, backend);
        if reply.send(&web::progress_event(&progress_of(&now, &dependencies), language)).await.is_err() {
            return Next::Close;
        }
        loop {
            tokio::select! {
                changed = status.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return reply.end("").await,
                },
                () = gone(reply.job.client.stream.beneath(), false) => return Next::Close,
                () = reply.job.client.stopping() => return reply.end("").await,
                () = tokio::time::sleep(HEARTBEAT) => {
                    if reply.send(":\n\n").await.is_err() {
                        return Next::Close;
                    }
                }
            }
        }
    }
}

/// Another member of the group that is on its way up, after the one that was looked at has failed.
async fn another(job: &Job<'_>) -> Option<Backend> {
    let group = job.turn.as_ref()?.group;
    let coming = |state| matches!(state, StatusState::Waking | StatusState::Awake | StatusState::Draining);
    let backends = || group.members.iter().filter_map(|member| member.route.backend.as_ref());
    let found = || backends().find(|backend| coming(backend.status().borrow().state)).cloned();
    for _ in 0..PATIENCE_FOR_ANOTHER {
        if let Some(found) = found() {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// The path of the page that a reserved resource belongs to, from its query.
pub(super) fn page_path(target: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let coded = query.split('&').find_map(|pair| pair.strip_prefix("path="))?;
    String::from_utf8(without_escapes(coded)).ok().filter(|path| path.starts_with('/'))
}

fn render(job: &Job<'_>, backend: &Backend, language: Language) -> WaitingPage {
    let (dependencies, status) = (dependencies(job, backend), backend.status().borrow().clone());
    web::waiting_page(&view(job.route, job.head.path(), language, &status, &dependencies))
}

fn view<'a>(
    route: &'a LiveRoute,
    path: &'a str,
    language: Language,
    status: &Status,
    dependencies: &'a [DependencyView],
) -> WaitingView<'a> {
    WaitingView {
        title: title(route),
        path,
        language,
        theme: Theme::Auto,
        progress: progress_of(status, dependencies),
        template: route.spec.options.waiting_page.as_deref(),
    }
}

fn title(route: &LiveRoute) -> &str {
    route.spec.options.title.as_deref().unwrap_or(route.spec.alias.as_str())
}

/// What is woken before it, by the titles of their routes; those without a route have no public name.
fn dependencies(job: &Job<'_>, backend: &Backend) -> Vec<DependencyView> {
    let waits_for = backend.status().borrow().waits_for.clone();
    if waits_for.is_empty() {
        return Vec::new();
    }
    let table = job.client.worker.shared.table.load();
    let view = |id| {
        let route = table.all().find(|route| route.spec.backends().any(|to| to == id))?;
        Some(DependencyView { title: title(route).to_owned(), ready: false })
    };
    waits_for.iter().filter_map(view).collect()
}

fn progress_of<'a>(status: &Status, dependencies: &'a [DependencyView]) -> Progress<'a> {
    let waking = status.state == StatusState::Waking;
    Progress {
        phase: match status {
            Status { respected_until: Some(until), .. } if *until > Instant::now() => Phase::Paused,
            Status { waits_for, .. } if waits_for.is_empty() => Phase::Starting,
            Status { .. } => Phase::Dependencies,
        },
        elapsed: if waking { status.since_instant.elapsed() } else { Duration::ZERO },
        expected: status.wakes.quantile(0.5),
        dependencies,
    }
}

fn failed(status: &Status) -> Option<Failure> {
    match status.state {
        StatusState::Failed => {
            let retry_after = status.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
            let why = status.refusal.as_ref().map_or(WhyFailed::StartFailed, why_failed);
            Some(Failure { why, retry_after })
        }
        StatusState::Gone => Some(Failure { why: WhyFailed::StaysDown, retry_after: None }),
        StatusState::Unknown
        | StatusState::Stopped
        | StatusState::Paused
        | StatusState::Waking
        | StatusState::Awake
        | StatusState::Draining
        | StatusState::Stopping => None,
    }
}

fn failure(refused: &Refused) -> Failure {
    Failure { why: why_failed(refused), retry_after: refused.retry_after() }
}

fn why_failed(refused: &Refused) -> WhyFailed {
    match refused {
        Refused::TimedOut { .. } | Refused::CoolingDown { late: true, .. } => WhyFailed::TimedOut,
        Refused::WakeFailed { .. } | Refused::CoolingDown { .. } => WhyFailed::StartFailed,
        Refused::TooManyHeld { .. } => WhyFailed::TooMany,
        Refused::EngineAway { .. } => WhyFailed::EngineAway,
        Refused::PutToSleep => WhyFailed::PutToSleep,
        Refused::StaysDown | Refused::Gone => WhyFailed::StaysDown,
    }
}

/// Sends a page whose body is complete.
async fn whole(job: &mut Job<'_>, fields: &[(&'static str, String)], body: &str) -> Next {
    job.route.counters.answered(503);
    match Reply::begin(job, fields).await {
        Ok(reply) => reply.end(body).await,
        Err(next) => next,
    }
}

/// A response of ours that is sent in pieces.
struct Reply<'a, 'b> {
    job: &'a mut Job<'b>,
    chunked: bool,
    keep_alive: bool,
}

impl<'a, 'b> Reply<'a, 'b> {
    async fn begin(job: &'a mut Job<'b>, fields: &[(&'static str, String)]) -> Result<Self, Next> {
        Self::begin_with(job, 503, fields).await
    }

    async fn begin_with(job: &'a mut Job<'b>, status: u16, fields: &[(&'static str, String)]) -> Result<Self, Next> {
        let chunked = job.head.is_11;
        let keep_alive = chunked && job.head.keep_alive && !job.head.has_body() && !job.client.is_stopping();
        let mut head = String::with_capacity(1024);
        let reason = if status == 200 { "OK" } else { "Service Unavailable" };
        let _ = write!(head, "HTTP/1.1 {status} {reason}\r\n");
        for (name, value) in fields {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        add_wanted(&mut head, &wanted(job.client, job.head, job.route, status));
        head.push_str(if chunked { "Transfer-Encoding: chunked\r\n" } else { "" });
        head.push_str(if keep_alive { "\r\n" } else { "Connection: close\r\n\r\n" });
        job.client.note(|notes| notes.status = Some(status));
        let mut reply = Self { job, chunked, keep_alive };
        reply.write(head.as_bytes()).await.map_err(|()| Next::Close)?;
        Ok(reply)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let client = &mut *self.job.client;
        match tokio::time::timeout(client.settings.limits.body_window, client.stream.write_all(bytes)).await {
            Ok(Ok(())) => {
                client.note(|notes| notes.bytes_out += bytes.len() as u64);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }

    async fn send(&mut self, text: &str) -> Result<(), ()> {
        if text.is_empty() || self.job.head.method() == "HEAD" {
            return Ok(());
        }
        if self.chunked {
            self.write(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await
        } else {
            self.write(text.as_bytes()).await
        }
    }

    /// The last piece.
    async fn end(mut self, text: &str) -> Next {
        let sent = self.send(text).await;
        let bodiless = !self.chunked || self.job.head.method() == "HEAD";
        let ended = if bodiless { Ok(()) } else { self.write(b"0\r\n\r\n").await };
        match (sent, ended) {
            (Ok(()), Ok(())) if self.keep_alive => Next::Again,
            (Ok(()), Ok(())) => Next::Linger,
            _ => Next::Close,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_a_resource_is_in_its_query() {
        assert_eq!(page_path("/.dormouse/progress?path=/a%20b/%C3%A4&x=1").as_deref(), Some("/a b/ä"));
        for target in ["/.dormouse/progress", "/p?path=a", "/p?path=/%zz", "/p?path=/%ff", "/p?path=/%2"] {
            assert_eq!(page_path(target).filter(|path| !path.contains('%')), None, "{target}");
        }
    }
}
