//! A worker as HTTP sees it.

use std::{ops::Deref, rc::Rc, sync::Arc};

use super::{arena::Arenas, middleware::Ledger, noting::NotesShelf, pool::Pool, shelf::Shelf};
use crate::proxy::worker::{GiveWay, Shared, Worker};

/// What a worker has for HTTP, beside what it has whatever its clients speak. Not shared between threads.
#[derive(Debug)]
pub(in crate::proxy) struct HttpWorker {
    worker: Worker,
    pub(super) pool: Rc<Pool>,
    /// What heads are kept in.
    pub(super) shelf: Rc<Shelf>,
    /// What requests are worked on in.
    pub(super) arenas: Rc<Arenas>,
    /// What is noted for the access log, while it is not used.
    pub(super) notes: NotesShelf,
    pub(super) ledger: Arc<Ledger>,
}

impl HttpWorker {
    /// A worker with an empty pool. All of a process have the same ledger.
    pub(in crate::proxy) fn new(shared: Arc<Shared>, ledger: Arc<Ledger>) -> Self {
        let pool = Rc::new(Pool::default());
        let spared = Rc::clone(&pool);
        let give_way: GiveWay = Rc::new(move || spared.give_way());
        Self {
            worker: Worker::new(shared, give_way),
            pool,
            shelf: Rc::default(),
            arenas: Rc::default(),
            notes: NotesShelf::default(),
            ledger,
        }
    }
}

impl Deref for HttpWorker {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}
