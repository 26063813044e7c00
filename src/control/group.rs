//! A live group: its members, what is under way to each, and how each fares.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{Cookie, LiveRoute, StickyKey};
use crate::{
    backend::{Backend, StatusState},
    model::{Alias, Group, RouteSpec, RouteTarget},
    routing::{Candidate, Members, Outlier, Seat, SeatState, Step, Turn, choose, mixed, plan},
};

/// Several routes under one name.
#[derive(Debug)]
pub struct LiveGroup {
    /// As configured.
    pub spec: Arc<Group>,
    /// The members, in the order of the configuration.
    pub members: Vec<LiveMember>,
    /// By which clients stay with their member; absent: they do not.
    pub cookie: Option<Cookie>,
    /// Counts requests.
    tickets: Arc<AtomicU64>,
}

/// One of a group.
#[derive(Debug)]
pub struct LiveMember {
    /// The route to it.
    pub route: Arc<LiveRoute>,
    /// Its share.
    pub weight: u16,
    /// What it is known by.
    key: u64,
    traffic: Arc<Traffic>,
}

/// What survives a reload of a member.
#[derive(Debug, Default)]
struct Traffic {
    /// Requests under way.
    load: AtomicU32,
    outlier: AtomicU64,
    /// When it was last woken for the sake of others.
    knocked: AtomicU64,
}

/// A request under way to a member; dropped when it is over.
#[derive(Debug)]
pub struct UnderWay(Arc<Traffic>);

/// For as long a member that was to be woken is not told so again, in milliseconds.
const KNOCKED: u64 = 1_000;

fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl LiveGroup {
    /// The group, with what is known of members that it had before.
    pub(super) fn new(
        name: &Alias,
        spec: Arc<Group>,
        routes: Vec<Arc<LiveRoute>>,
        sticky: &dyn Fn() -> StickyKey,
        before: Option<&Self>,
    ) -> Self {
        let member = |(route, weight): (Arc<LiveRoute>, u16)| {
            let key = key(&route.spec);
            let known = before.and_then(|before| before.members.iter().find(|known| known.key == key));
            LiveMember {
                route,
                weight,
                key,
                traffic: known.map(|known| Arc::clone(&known.traffic)).unwrap_or_default(),
            }
        };
        let weights: Vec<u16> = spec.members.iter().map(|member| member.weight).collect();
        let members: Vec<LiveMember> = routes.into_iter().zip(weights).map(member).collect();
        let cookie = spec.sticky.map(|max_age| {
            let key = sticky();
            let values = members.iter().map(|member| key.value(name, member.key)).collect();
            Cookie { name: key.name(name), values, max_age: max_age.as_secs().max(1) }
        });
        let tickets = before.map(|before| Arc::clone(&before.tickets)).unwrap_or_default();
        Self { spec, members, cookie, tickets }
    }

    /// What is done with a request that may go to any member but those that were tried.
    pub fn plan(&self, tried: Members) -> Step {
        let now = now();
        let weighted = |(at, member): (usize, &LiveMember)| (member.weight > 0 && !tried.has(at)).then_some(at);
        let may: Members = self.members.iter().enumerate().filter_map(weighted).collect();
        let look = |seat: fn(&LiveMember, u64) -> Seat| {
            let seats: Vec<Seat> = self.members.iter().map(|member| seat(member, now)).collect();
            plan(&seats, may, self.spec.wake_more_at)
        };
        // How those are that sleep is asked only where it matters.
        match look(LiveMember::glance) {
            at_once @ Step::Among(_, None) if self.is_certain(at_once, now) => at_once,
            Step::Among(..) | Step::Wait(_) | Step::Nobody => look(LiveMember::seat),
        }
    }

    /// Whether those asked at once are asked because they are fit, rather than because there is no other.
    fn is_certain(&self, step: Step, now: u64) -> bool {
        let Step::Among(among, _) = step else { return false };
        among.iter().all(|at| self.members.get(at).is_some_and(|member| member.is_fit(now)))
    }

    /// Chooses one of these for a client. A request that was at another member before is no new turn.
    pub fn choose(&self, among: Members, client: u64, is_new: bool) -> Option<usize> {
        let ticket = self.tickets.fetch_add(u64::from(is_new), Ordering::Relaxed);
        let turn = Turn { ticket, client };
        let candidate = |member: &LiveMember| Candidate { weight: member.weight, load: member.load(), key: member.key };
        let all: Vec<Candidate> = self.members.iter().map(candidate).collect();
        choose(self.spec.mode, turn, &all, among)
    }

    /// What is done for a client to stay with this member; nothing, when it can not.
    ///
    /// One that was stopped has forgotten its clients, and is woken for them only when no other is awake.
    pub fn stay(&self, at: usize, tried: Members) -> Option<Step> {
        let now = now();
        let member = self.members.get(at).filter(|member| member.weight > 0 && !tried.has(at) && member.is_fit(now))?;
        match member.seat(now).state {
            SeatState::Awake => Some(Step::Among(Members::default().with(at), None)),
            SeatState::Waking | SeatState::Paused => Some(Step::Wait(at)),
            SeatState::Stopped if !self.is_awake() => Some(Step::Wait(at)),
            SeatState::Stopped | SeatState::Doubtful | SeatState::Closed => None,
        }
    }

    /// The route of a member for a question of our own: one that is awake, or the one that wakes soonest.
    pub fn any(&self) -> Option<Arc<LiveRoute>> {
        let at = match self.plan(Members::default()) {
            Step::Among(among, _) => self.choose(among, 0, true),
            Step::Wait(at) => Some(at),
            Step::Nobody => None,
        };
        at.and_then(|at| self.members.get(at)).map(|member| Arc::clone(&member.route))
    }

    /// Whether any member can be entered at once.
    pub fn is_awake(&self) -> bool {
        self.members.iter().any(|member| member.weight > 0 && member.is_awake())
    }
}

impl LiveMember {
    /// Requests under way to it.
    pub fn load(&self) -> u32 {
        self.traffic.load.load(Ordering::Relaxed)
    }

    /// One more is under way.
    pub fn under_way(&self) -> UnderWay {
        self.traffic.load.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.traffic))
    }

    /// It took no connection. Says whether it is left out from now on.
    pub fn refused(&self) -> bool {
        self.fares(|outlier| outlier.refused(now()))
    }

    /// It gave no proper answer. Says whether it is left out from now on.
    pub fn failed(&self) -> bool {
        self.fares(|outlier| outlier.failed(now()))
    }

    /// It answered.
    pub fn answered(&self) {
        if self.traffic.outlier.load(Ordering::Relaxed) != 0 {
            self.fares(Outlier::answered);
        }
    }

    /// Says whether it is left out only now.
    fn fares(&self, next: impl Fn(Outlier) -> Outlier) -> bool {
        let was_out = self.is_left_out();
        let word = |word| Some(next(Outlier::from_word(word)).to_word());
        // It never gives up.
        let _ = self.traffic.outlier.fetch_update(Ordering::Relaxed, Ordering::Relaxed, word);
        !was_out && self.is_left_out()
    }

    /// Whether it is left out because it failed.
    pub fn is_left_out(&self) -> bool {
        self.is_out(now())
    }

    fn is_out(&self, now: u64) -> bool {
        let word = self.traffic.outlier.load(Ordering::Relaxed);
        word != 0 && Outlier::from_word(word).is_out(now)
    }

    fn is_fit(&self, now: u64) -> bool {
        !self.is_out(now) && !self.route.health.as_ref().is_some_and(|health| health.is_ill())
    }

    /// Whether it can be entered at once.
    pub fn is_awake(&self) -> bool {
        match (&self.route.spec.target, &self.route.backend) {
            (RouteTarget::Address { .. }, _) => true,
            (RouteTarget::Backend { .. }, Some(backend)) => backend.is_open(),
            (RouteTarget::Backend { .. }, None) | (RouteTarget::Down { .. } | RouteTarget::Group(_), _) => false,
        }
    }

    /// Whether this is the one moment to wake it for the sake of those that come after.
    pub fn is_to_be_told(&self) -> bool {
        let (now, last) = (now(), self.traffic.knocked.load(Ordering::Relaxed));
        let rested = last == 0 || now.saturating_sub(last) >= KNOCKED;
        let told = || self.traffic.knocked.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed);
        rested && told().is_ok()
    }

    /// As it is, without a closer look at it when it sleeps.
    fn glance(&self, now: u64) -> Seat {
        Seat {
            state: if self.is_awake() { SeatState::Awake } else { SeatState::Stopped },
            sleeps: self.route.backend.as_ref().is_some_and(Backend::falls_asleep),
            fit: self.is_fit(now),
            load: self.load(),
            wakes_in: None,
        }
    }

    fn seat(&self, now: u64) -> Seat {
        let seat = self.glance(now);
        if seat.state == SeatState::Awake {
            return seat;
        }
        let Some(backend) =
            self.route.backend.as_ref().filter(|_| !matches!(self.route.spec.target, RouteTarget::Down { .. }))
        else {
            return Seat { state: SeatState::Closed, ..seat };
        };
        let status = backend.status();
        let status = status.borrow();
        let state = match status.state {
            // One that drains only because nobody came stays up for whoever comes.
            StatusState::Awake | StatusState::Waking | StatusState::Draining => SeatState::Waking,
            StatusState::Paused => SeatState::Paused,
            StatusState::Stopped | StatusState::Stopping => SeatState::Stopped,
            StatusState::Unknown | StatusState::Failed | StatusState::Gone => SeatState::Doubtful,
        };
        Seat { state, wakes_in: status.wakes.quantile(0.5), ..seat }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a member is known by: where it leads. FNV-1a, so that it is the same in each run.
fn key(spec: &RouteSpec) -> u64 {
    mixed(
        spec.leads_to()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
    )
}
