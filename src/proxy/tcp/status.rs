//! What a client gets that does not wake a sleeping backend: for the ping of a server list of Minecraft an answer.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::connection::{End, Session};
use crate::{
    backend::{Backend, StatusState},
    model::{Opening, WakeOn},
    net::{Handshake, handshake, pong, status_answer},
    proxy::ports::Closed,
};

/// How long a ping may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers, where there is something to answer.
pub(super) async fn answer(session: &mut Session<'_>, backend: &Backend) -> End {
    let WakeOn::Data(openings) = &session.route.spec.options.wake_on else { return no_reason() };
    let ping = handshake(session.first.bytes());
    let (true, Handshake::Status { protocol, length }) = (openings.contains(&Opening::Minecraft), ping) else {
        return no_reason();
    };
    session.first.consume(length);
    let words = words(session, backend);
    match tokio::time::timeout(PATIENCE, talk(session, protocol, &words)).await {
        Ok(Ok(())) => End::Answered,
        Ok(Err(_)) | Err(_) => End::Left,
    }
}

fn no_reason() -> End {
    End::Closed(Closed("what it said is no reason to wake the backend".to_owned()))
}

fn words(session: &Session<'_>, backend: &Backend) -> String {
    let spec = &session.route.spec;
    let name = spec.options.title.as_deref().unwrap_or(spec.alias.as_str());
    match backend.status().borrow().state {
        StatusState::Waking | StatusState::Awake | StatusState::Draining => format!("{name} is starting"),
        StatusState::Unknown
        | StatusState::Stopped
        | StatusState::Paused
        | StatusState::Stopping
        | StatusState::Failed
        | StatusState::Gone => format!("{name} is asleep: join to wake it"),
    }
}

/// The request is answered, and one ping.
async fn talk(session: &mut Session<'_>, protocol: i32, words: &str) -> std::io::Result<()> {
    let mut asked = false;
    loop {
        match pong(session.first.bytes()) {
            Some((length, None)) if !asked => {
                asked = true;
                session.first.consume(length);
                session.stream.write_all(&status_answer(protocol, words)).await?;
            }
            Some((_, Some(back))) => {
                session.stream.write_all(&back).await?;
                return session.stream.shutdown().await;
            }
            Some((_, None)) => return Ok(()),
            None if session.first.bytes().len() >= 10 => return Ok(()),
            None => session.first.read(&mut session.stream).await?,
        }
    }
}
