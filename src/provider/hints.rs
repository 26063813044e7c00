//! One sender of hints, many streams of them: for providers that live inside this program.

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::broadcast::{self, error::RecvError};

use super::Hint;

/// How many hints a slow listener may be behind before it is told to look at everything.
const BACKLOG: usize = 1024;

/// Tells every listener.
#[derive(Debug)]
pub(super) struct Hints {
    sender: broadcast::Sender<Hint>,
}

impl Hints {
    pub(super) fn new() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG) }
    }

    /// Nobody listening is no error.
    pub(super) fn tell(&self, hint: Hint) {
        let _ = self.sender.send(hint);
    }

    pub(super) fn unit(&self, name: &str, what: &str) {
        self.tell(Hint::Unit { name: name.to_owned(), what: what.to_owned() });
    }

    /// A stream that begins with `first` and goes on as long as the sender lives.
    pub(super) fn listen(&self, first: Hint) -> BoxStream<'static, Hint> {
        let rest = stream::unfold(self.sender.subscribe(), |mut receiver| async move {
            match receiver.recv().await {
                Ok(hint) => Some((hint, receiver)),
                Err(RecvError::Lagged(_)) => Some((Hint::All, receiver)),
                Err(RecvError::Closed) => None,
            }
        });
        stream::iter([first]).chain(rest).boxed()
    }
}
