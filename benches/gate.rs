//! The gate, which every request to a backend passes twice: entered and left by one thread alone, and by eight at once.

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use dormouse::backend::{Entered, Gate};

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

criterion_group!(benches, passes);
criterion_main!(benches);
