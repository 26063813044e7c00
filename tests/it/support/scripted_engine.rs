//! An engine's socket that answers from a script: for faults that no real engine shows at will.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

/// What the engine does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Answers with this status and JSON.
    Json(u16, String),
    /// Answers with these pieces, one by one, and then ends the connection in the middle.
    Pieces(Vec<String>),
    /// Answers with these pieces and then with nothing more, and keeps the connection.
    PiecesThenSilence(Vec<String>),
    /// Answers with what [`ScriptedEngine::tell`] is given from then on, until [`ScriptedEngine::cut`].
    Events,
    /// Takes the request and never answers.
    Silence,
    /// Closes without an answer.
    Close,
}

/// A scripted engine; gone with its socket when dropped.
#[derive(Debug)]
pub(crate) struct ScriptedEngine {
    directory: tempfile::TempDir,
    script: Arc<Mutex<Script>>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<(String, VecDeque<Reply>)>,
    seen: Vec<String>,
    listeners: Vec<UnboundedSender<String>>,
}

impl ScriptedEngine {
    /// Nobody listens yet.
    pub(crate) fn absent() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), script: Arc::default(), task: None }
    }

    pub(crate) fn new() -> Self {
        let mut engine = Self::absent();
        engine.appear();
        engine
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Begins to listen.
    pub(crate) fn appear(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket()).unwrap();
        let script = Arc::clone(&self.script);
        self.task = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&script)));
            }
        }));
    }

    /// Answers requests whose method and target begin so with these replies in turn; the last one stays.
    pub(crate) fn on(&self, request: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut script = self.script.lock().unwrap();
        script.rules.retain(|(known, _)| known != request);
        script.rules.push((request.to_owned(), replies.into_iter().collect()));
    }

    /// Tells this to all who listen to its events.
    pub(crate) fn tell(&self, text: &str) {
        self.script.lock().unwrap().listeners.retain(|listener| listener.send(text.to_owned()).is_ok());
    }

    /// Ends all streams of events, in the middle.
    pub(crate) fn cut(&self) {
        self.script.lock().unwrap().listeners.clear();
    }

    /// All requests so far, as method and target.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.script.lock().unwrap().seen.clone()
    }
}

impl Drop for ScriptedEngine {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn reply_to(request: &str, script: &Mutex<Script>) -> Reply {
    let mut script = script.lock().unwrap();
    script.seen.push(request.to_owned());
    let rule = script.rules.iter_mut().filter(|(start, _)| request.starts_with(start)).max_by_key(|rule| rule.0.len());
    let reply =
        rule.and_then(|(_, replies)| if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() });
    reply.unwrap_or_else(|| Reply::Json(404, r#"{"message":"No such container: unknown"}"#.to_owned()))
}

async fn converse(mut stream: UnixStream, script: Arc<Mutex<Script>>) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    let request = first.trim_end_matches(" HTTP/1.1").to_owned();
    match reply_to(&request, &script) {
        Reply::Json(status, body) => {
            let head =
                format!("HTTP/1.1 {status} Answer\r\nApi-Version: 1.41\r\nContent-Length: {}\r\n\r\n", body.len());
            let bare = matches!(status, 204 | 304);
            let answer = if bare { format!("HTTP/1.1 {status} Answer\r\n\r\n") } else { head + &body };
            write.write_all(answer.as_bytes()).await
        }
        Reply::Pieces(pieces) => send(&mut write, pieces).await,
        Reply::PiecesThenSilence(pieces) => {
            send(&mut write, pieces).await?;
            std::future::pending().await
        }
        Reply::Events => {
            let (told, events) = unbounded_channel();
            script.lock().unwrap().listeners.push(told);
            relay(&mut write, events).await
        }
        Reply::Silence => std::future::pending().await,
        Reply::Close => Ok(()),
    }
}

async fn relay(write: &mut (impl AsyncWriteExt + Unpin), mut events: UnboundedReceiver<String>) -> std::io::Result<()> {
    write.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    while let Some(piece) = events.recv().await {
        write.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await?;
    }
    Ok(())
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), pieces: Vec<String>) -> std::io::Result<()> {
    write.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    for piece in pieces {
        write.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await?;
        write.flush().await?;
    }
    Ok(())
}
