//! The connections of HTTP/2 to one endpoint: one that all share, and another when it takes no more.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, Notify, futures::Notified},
    time::Instant,
};

use super::{attempt::Fault, h2_link::Link};

/// What is known of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Hub {
    links: RefCell<Vec<Rc<Link>>>,
    /// Held by the one who makes a connection: the others wait for it rather than make more.
    pub(super) turn: Mutex<()>,
    /// There may be room.
    freed: Notify,
    /// It was last seen to choose HTTP/1.1: nobody waits for anybody.
    pub(super) plain: Cell<bool>,
    /// So often no connection came about, and why the last time.
    failures: Cell<u64>,
    last: RefCell<Option<Fault>>,
}

impl Hub {
    /// A connection that takes one more request.
    pub(super) fn room(&self, now: Instant, idle: Duration, age: Duration) -> Option<Rc<Link>> {
        self.links.borrow_mut().retain(|link| link.may_stay(now, idle, age));
        self.links.borrow().iter().find(|link| link.has_room()).cloned()
    }

    pub(super) fn add(&self, link: &Rc<Link>) {
        self.links.borrow_mut().push(Rc::clone(link));
        self.plain.set(false);
        self.freed.notify_waiters();
    }

    /// Resolves when there may be room; what happens from now on counts.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    pub(super) fn note_room(&self) {
        self.freed.notify_waiters();
    }

    /// So often no connection came about.
    pub(super) fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// No connection came about: those who waited for it need not try the same.
    pub(super) fn note_failure(&self, fault: &Fault) {
        self.failures.set(self.failures.get() + 1);
        *self.last.borrow_mut() = fault.shared();
    }

    /// Why no connection came about since there were so many failures.
    pub(super) fn failed_since(&self, failures: u64) -> Option<Fault> {
        if self.failures.get() == failures { None } else { self.last.borrow().as_ref().and_then(Fault::shared) }
    }

    /// Lets go of what may not stay; says whether nothing is left.
    pub(super) fn sweep(&self, now: Instant, idle: Duration, age: Duration) -> bool {
        self.links.borrow_mut().retain(|link| link.may_stay(now, idle, age));
        self.links.borrow().is_empty()
    }

    /// Lets go of those that are not in use, or of all: those in use go on, and take nothing new. Says of how many.
    pub(super) fn forget(&self, all: bool) -> usize {
        let mut links = self.links.borrow_mut();
        let before = links.len();
        links.retain(|link| !(all || link.is_unused()));
        before - links.len()
    }
}

impl Fault {
    /// The same for another request.
    fn shared(&self) -> Option<Self> {
        match self {
            Self::Dial(error) => Some(Self::Dial(io::Error::from(error.kind()))),
            Self::Tls(error) => Some(Self::Tls(Rc::clone(error))),
            Self::Crowded => Some(Self::Crowded),
            Self::Late => Some(Self::Late),
            Self::Bad(why) => Some(Self::Bad(why)),
            Self::NoUpgrade
            | Self::Refused
            | Self::Silent
            | Self::HalfStarted
            | Self::Unwanted(_)
            | Self::Cut
            | Self::ClientLeft
            | Self::ClientBad
            | Self::ClientTooMuch
            | Self::ClientSlow
            | Self::HeadTooLarge => None,
        }
    }
}
