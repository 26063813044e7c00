//! The datagrams of one port, and its flows.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::{Mutex, Notify},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    door::{Door, Pair},
    flow::{self, Flow},
};
use crate::{
    model::Transport,
    net::Ends,
    proxy::{
        listening::Port,
        ports::{Caller, Place},
        worker::{self, Worker},
    },
};

/// The longest datagram.
pub(super) const LONGEST: usize = 65_535;

/// Bytes that all flows of a port keep while their backends wake.
const KEPT: usize = 32 << 20;

/// At the end, flows that moved within this time may go on.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// So many datagrams that were kept may be without an answer at once: a backend that wakes finds them all together, and
/// its socket has room for a few hundred only.
const UNANSWERED: usize = 128;

/// One more is sent when so long no answer came: there are protocols without any.
const NO_ANSWER: Duration = Duration::from_millis(1);

/// What the flows of a port share.
pub(super) struct Common {
    pub(super) worker: Rc<Worker>,
    pub(super) door: Door,
    pub(super) flows: RefCell<HashMap<Pair, Rc<Flow>>>,
    /// Bytes kept by all flows.
    pub(super) kept: Cell<usize>,
    /// Datagrams that were kept and have no answer yet.
    unanswered: Cell<usize>,
    answered: Notify,
    /// Who waits to send what was kept, in turn.
    queue: Mutex<()>,
    /// Where an answer is read into.
    pub(super) room: RefCell<Vec<u8>>,
}

impl Common {
    /// Takes so many bytes to be kept, if there is room.
    pub(super) fn keep(&self, bytes: usize) -> bool {
        let kept = self.kept.get() + bytes;
        let fits = kept <= KEPT;
        if fits {
            self.kept.set(kept);
        }
        fits
    }

    /// Waits until a datagram that was kept may be sent.
    pub(super) async fn turn(&self) {
        let _turn = self.queue.lock().await;
        if self.unanswered.get() >= UNANSWERED {
            let _ = tokio::time::timeout(NO_ANSWER, self.answered.notified()).await;
        }
        self.unanswered.set((self.unanswered.get() + 1).min(UNANSWERED));
    }

    /// An answer came, to whomever.
    pub(super) fn was_answered(&self) {
        if let Some(left) = self.unanswered.get().checked_sub(1) {
            self.unanswered.set(left);
            self.answered.notify_one();
        }
    }

    pub(super) fn let_go(&self, bytes: usize) {
        self.kept.set(self.kept.get().saturating_sub(bytes));
    }
}

/// Serves a port until `shutdown`, and then those flows that still move.
pub(in crate::proxy) async fn serve(
    worker: Rc<Worker>,
    socket: UdpSocket,
    port: Arc<Port>,
    shutdown: CancellationToken,
) {
    let door = match Door::new(socket) {
        Ok(door) => door,
        Err(error) => {
            tracing::error!(%error, address = %port.key.address, "a port can not be served");
            return;
        }
    };
    let common = Rc::new(Common {
        worker,
        door,
        flows: RefCell::default(),
        kept: Cell::new(0),
        unanswered: Cell::new(0),
        answered: Notify::new(),
        queue: Mutex::new(()),
        room: RefCell::new(vec![0; LONGEST]),
    });
    // The flows end with it.
    let mut tasks = JoinSet::new();
    let mut room = vec![0; LONGEST];
    let mut quiet = tokio::time::interval(LAST_WORDS / 10);
    loop {
        let ending = shutdown.is_cancelled();
        let succeeded = common.worker.shared.is_succeeded();
        tokio::select! {
            biased;
            () = shutdown.cancelled(), if !ending => {}
            Some(_) = tasks.join_next() => {}
            // What comes now is another process's, where one has taken over: the socket is the same.
            received = common.door.receive(&mut room), if !(ending && succeeded) => match received {
                Ok((count, pair)) => {
                    let datagram = room.get(..count).unwrap_or_default();
                    take(&common, &port, pair, datagram, ending, &mut tasks);
                }
                // An answer that did not arrive, perhaps; the next datagram may be well.
                Err(error) => {
                    tracing::debug!(%error, address = %port.key.address, "a datagram could not be read");
                    tokio::task::yield_now().await;
                }
            },
            _ = quiet.tick(), if ending => {
                if common.flows.borrow().values().all(|flow| flow.is_quiet_for(LAST_WORDS)) {
                    return;
                }
            }
        }
    }
}

fn take(common: &Rc<Common>, port: &Port, pair: Pair, datagram: &[u8], ending: bool, tasks: &mut JoinSet<()>) {
    let known = common.flows.borrow().get(&pair).map(Rc::clone);
    if let Some(flow) = known {
        flow.take(common, datagram);
    } else if !ending && let Some(flow) = begin(common, port, pair, tasks) {
        flow.take(common, datagram);
    }
}

/// A new flow, where the route is there for this client and there is room.
fn begin(common: &Rc<Common>, port: &Port, pair: Pair, tasks: &mut JoinSet<()>) -> Option<Rc<Flow>> {
    let ends = Ends { source: pair.client, destination: common.door.destination(pair) };
    let caller = Caller { transport: Transport::Udp, ends };
    let route = port.route(None).filter(|route| caller.may_use(route))?;
    let Ok(bounded) = Arc::clone(&common.worker.flows).try_acquire_owned() else {
        tracing::debug!(client = %pair.client, "a datagram over the bound of flows was dropped");
        return None;
    };
    let seat = worker::enter_flow(&common.worker, pair.client)?;
    let permit = Arc::clone(&common.worker.permits).try_acquire_owned().ok()?;
    let place = Place::take(&route)?;
    let flow = Rc::new(Flow::new(&common.worker, route, caller, Instant::now())?);
    common.flows.borrow_mut().insert(pair, Rc::clone(&flow));
    let (common, running) = (Rc::clone(common), Rc::clone(&flow));
    tasks.spawn_local(async move {
        flow::run(&common, &running, pair).await;
        running.end(&common);
        common.flows.borrow_mut().remove(&pair);
        drop((bounded, seat, permit, place));
    });
    Some(flow)
}
