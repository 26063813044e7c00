//! Many requests, each recorded, and what must hold for all of them together.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    apps::App,
    dormouse::{Reply, request},
};

/// Requests with numbers, and what became of them.
#[derive(Debug)]
pub(crate) struct History {
    at: SocketAddr,
    next: AtomicU64,
    asked: Mutex<Vec<Asked>>,
}

#[derive(Debug, Clone)]
struct Asked {
    app: String,
    method: &'static str,
    /// In the target, and so in the app's journal and in its answer.
    mark: String,
    outcome: Result<Reply, String>,
}

impl History {
    pub(crate) fn new(at: SocketAddr) -> Self {
        Self { at, next: AtomicU64::new(1), asked: Mutex::default() }
    }

    /// A request on a connection of its own, and the status of its answer; none when there was no whole answer.
    pub(crate) async fn ask(&self, app: &App, method: &'static str) -> Option<u16> {
        self.ask_for(app, method, "/echo", "").await
    }

    /// As [`Self::ask`], with fields and a body, if any: whatever stands after the first field.
    async fn ask_for(&self, app: &App, method: &'static str, path: &str, rest: &str) -> Option<u16> {
        let mark = format!("mark={}.", self.next.fetch_add(1, Ordering::Relaxed));
        let joint = if path.contains('?') { '&' } else { '?' };
        let rest = match rest {
            "" if method == "POST" => "Content-Length: 4\r\n\r\nbody",
            "" => "\r\n",
            rest => rest,
        };
        let name = &app.name;
        let text = format!("{method} {path}{joint}{mark} HTTP/1.1\r\nHost: {name}.test\r\nConnection: close\r\n{rest}");
        let outcome = request(self.at, &text).await.map_err(|error| error.to_string());
        let status = outcome.as_ref().ok().map(|reply| reply.status);
        self.asked.lock().unwrap().push(Asked { app: name.clone(), method, mark, outcome });
        status
    }

    /// How often each status was the answer; 0 stands for none.
    pub(crate) fn statuses(&self) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for asked in self.asked.lock().unwrap().iter() {
            *counts.entry(asked.outcome.as_ref().map_or(0, |reply| reply.status)).or_default() += 1;
        }
        counts
    }

    /// The longest time that an answer took.
    pub(crate) fn longest(&self) -> Duration {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter_map(|asked| asked.outcome.as_ref().ok()).map(|reply| reply.took).max().unwrap_or_default()
    }

    /// Every request was answered, once, with its own answer or one of these statuses; nothing unsafe was sent twice;
    /// nothing in use was ended.
    pub(crate) fn check(&self, apps: &[&App], refusals: &[u16]) {
        self.check_answers(apps, refusals);
        for app in apps {
            app.journal().was_never_ended_in_use();
        }
    }

    fn check_answers(&self, apps: &[&App], refusals: &[u16]) {
        let asked = self.asked.lock().unwrap();
        assert!(!asked.is_empty(), "nothing was asked");
        for Asked { app, method, mark, outcome } in asked.iter() {
            let reply = outcome.as_ref().unwrap_or_else(|error| panic!("{method} {mark} to {app}: {error}"));
            let app = apps.iter().find(|known| known.name == *app).expect("a known app");
            let arrivals = app.journal().arrivals(mark);
            assert!(*method == "GET" || arrivals <= 1, "{method} {mark} arrived {arrivals} times");
            if reply.status == 200 {
                assert!(reply.body.contains(mark.as_str()), "{mark} got the answer of another: {reply:?}");
                assert!(arrivals >= 1, "{mark} was answered and never arrived");
            } else {
                assert!(refusals.contains(&reply.status), "{method} {mark}: {reply:?}");
                let says_when = reply.field("retry-after").is_some();
                assert!(reply.status != 503 || says_when, "{method} {mark}: no Retry-After in {reply:?}");
            }
        }
    }
}

/// A sequence that looks random and can be had again from its seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The seed of the environment's `SEED`, or another each time; it is printed.
    pub(crate) fn new() -> Self {
        let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs());
        let seed = given.unwrap_or_else(now);
        println!("SEED={seed}");
        Self(seed)
    }

    /// Another sequence of the same seed.
    pub(crate) fn branch(&self, salt: u64) -> Self {
        Self(self.0 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// A time below a bound.
    pub(crate) fn time(&mut self, bound: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).max(1)))
    }
}
