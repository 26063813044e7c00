//! What a request pays for being watched: the gate, which every request to a backend passes twice, entered and left by one
//! thread alone and by eight at once; and what is counted of a request.

use std::{
    hint::black_box,
    sync::{Barrier, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use dormouse::{
    backend::{Entered, Gate},
    telemetry::RouteCounters,
};

const THREADS: u64 = 8;

fn pass(gate: &Gate, moment: i64) -> bool {
    match gate.enter() {
        Entered::Inside => gate.leave(Some(moment)),
        Entered::Closed | Entered::ClosedAndEmptied => false,
    }
}

/// The time that eight threads take for so many passes each.
fn crowd(gate: &Gate, each: u64) -> Duration {
    let start = Barrier::new(THREADS as usize + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    for moment in 0..each {
                        black_box(pass(gate, moment as i64));
                    }
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        for thread in threads {
            let _ = thread.join();
        }
        begun.elapsed()
    })
}

fn passes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gate/enter and leave");
    let gate = Gate::closed(0);
    gate.open();
    group.bench_function("alone", |bencher| bencher.iter(|| black_box(pass(&gate, black_box(7)))));
    // Per pass, whoever made it: the threads share what cores there are.
    group.bench_function("eight threads", |bencher| {
        bencher.iter_custom(|count| crowd(&gate, count.div_ceil(THREADS)));
    });
    gate.close();
    group.bench_function("closed", |bencher| bencher.iter(|| black_box(pass(&gate, black_box(7)))));
    group.finish();
}

/// All counters that a request without trouble moves.
fn counts(criterion: &mut Criterion) {
    let counters = RouteCounters::default();
    criterion.bench_function("counters of a request", |bencher| {
        bencher.iter(|| {
            counters.in_flight.fetch_add(1, Ordering::Relaxed);
            counters.answered(black_box(200));
            counters.bytes_in.fetch_add(black_box(500), Ordering::Relaxed);
            counters.bytes_out.fetch_add(black_box(1_500), Ordering::Relaxed);
            counters.took(black_box(Duration::from_micros(700)));
            counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        });
    });
}

criterion_group!(benches, passes, counts);
criterion_main!(benches);
