//! The machine: one step, and a whole life from asleep over awake to asleep again.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use dormouse::{
    backend::{Event, Facts, Rules, State, step},
    model::{ContainerState, IdlePolicy, Running},
    provider::Changed,
};
use tokio::time::Instant;

fn facts(now: Instant, waiting: usize) -> Facts {
    Facts { now, inside: 0, waiting, quiet_since: now, kept_until: None, tried: None }
}

fn life(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machine");
    let policy = IdlePolicy { idle_timeout: Some(Duration::from_secs(60)), ..IdlePolicy::default() };
    let rules = Rules { policy: &policy, gathers: false };
    let now = Instant::now();
    let running = Arc::new(Running::default());
    let unknown = State::Unknown { away: None, again: None, wanted: false, before: None };
    let asleep =
        step(unknown, Event::Seen(Ok(ContainerState::Stopped { exit_code: None, error: None })), facts(now, 0), rules)
            .0;
    let waking = step(asleep.clone(), Event::Wanted, facts(now, 1), rules).0;
    let started = step(waking, Event::Started(Ok(Changed::Done)), facts(now, 1), rules).0;
    let awake = step(started, Event::Ready(Arc::clone(&running)), facts(now, 1), rules).0;
    group.bench_function("tick while awake", |bencher| {
        bencher.iter(|| black_box(step(awake.clone(), Event::Tick, facts(now, 0), rules)));
    });
    group.bench_function("wanted while asleep", |bencher| {
        bencher.iter(|| black_box(step(asleep.clone(), Event::Wanted, facts(now, 1), rules)));
    });
    group.finish();
}

criterion_group!(benches, life);
criterion_main!(benches);
