//! What every provider must do, whatever its engine. Run against the simulated engine, plain processes, and each
//! real engine that is present.

use std::time::{Duration, Instant};

use dormouse::{
    model::{ContainerState, SleepMethod, StopSignal, Unit},
    provider::{Changed, Hint, ProviderError, StopOrder},
};
use futures_util::{StreamExt, future::join_all};

use crate::support::{
    rig::{Kind, ProcessRig, Rig, docker, paused, running, simulated, stopped, unit},
    wait::{LONG, must},
};

/// A grace time that nobody who behaves well reaches.
const STOP: StopOrder = StopOrder { method: SleepMethod::Stop, signal: None, grace: LONG };
const PAUSE: StopOrder = StopOrder { method: SleepMethod::Pause, signal: None, grace: LONG };
const KILL: StopOrder = StopOrder { method: SleepMethod::Kill, signal: None, grace: LONG };

/// Names one test for each engine and each case.
macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod on_simulated {
            $(#[tokio::test(start_paused = true)]
            async fn $case() {
                let (rig, _engine) = super::simulated();
                super::$case(&rig).await;
            })*
        }
        mod on_processes {
            $(#[tokio::test]
            async fn $case() {
                let processes = super::ProcessRig::new();
                super::$case(&processes.rig).await;
                processes.finish().await;
            })*
        }
        mod on_docker {
            $(#[tokio::test]
            async fn $case() {
                if let Some(rig) = super::docker() {
                    super::$case(&rig).await;
                }
            })*
        }
    };
}

conformance!(
    starting_and_stopping_are_idempotent,
    pausing_is_idempotent_and_start_thaws,
    a_paused_unit_is_thawed_before_it_is_stopped,
    a_paused_unit_can_be_killed,
    a_stubborn_unit_is_killed_after_its_grace_time,
    the_signal_of_the_order_is_used,
    letting_down_what_is_down_is_already_so,
    an_unknown_unit_is_gone,
    concurrent_starts_start_once,
    concurrent_opposite_orders_end_in_one_of_both,
    a_unit_that_exits_at_once_was_started_all_the_same,
    a_unit_that_cannot_start_says_why,
    an_end_by_another_hand_is_told,
    an_end_by_another_hand_is_seen_without_events,
    a_pause_by_another_hand_is_seen,
    a_start_by_another_hand_is_told,
    a_signal_that_does_not_end_it_is_no_end,
    a_removed_unit_is_gone,
    an_order_outlives_its_caller,
    the_list_has_every_unit_with_its_state,
    a_unit_has_an_address_in_every_run,
    log_lines_are_of_this_run_and_follow,
);

async fn up(rig: &Rig, name: &str, kind: Kind) -> Unit {
    let unit = rig.hand.make(name, kind).await;
    assert_eq!(rig.provider.start(&unit).await.unwrap(), Changed::Done);
    if matches!(kind, Kind::Good | Kind::Stubborn) {
        rig.see_in_log(&unit, "ready").await;
    }
    unit
}

async fn starting_and_stopping_are_idempotent(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    assert!(running(&rig.look(&unit).await));
    assert_eq!(rig.provider.start(&unit).await.unwrap(), Changed::Already);
    assert_eq!(rig.provider.stop(&unit, STOP).await.unwrap(), Changed::Done);
    assert_eq!(rig.look(&unit).await, ContainerState::Stopped { exit_code: Some(0), error: None });
    assert_eq!(rig.provider.stop(&unit, STOP).await.unwrap(), Changed::Already);
    assert_eq!(rig.provider.start(&unit).await.unwrap(), Changed::Done);
    assert!(running(&rig.look(&unit).await));
    assert_eq!(rig.provider.stop(&unit, KILL).await.unwrap(), Changed::Done);
    assert!(stopped(&rig.look(&unit).await));
}

async fn pausing_is_idempotent_and_start_thaws(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    for _ in 0..3 {
        assert_eq!(rig.provider.stop(&unit, PAUSE).await.unwrap(), Changed::Done);
        assert!(paused(&rig.look(&unit).await));
        assert_eq!(rig.provider.stop(&unit, PAUSE).await.unwrap(), Changed::Already);
        assert_eq!(rig.provider.start(&unit).await.unwrap(), Changed::Done);
        assert!(running(&rig.look(&unit).await));
        assert_eq!(rig.provider.start(&unit).await.unwrap(), Changed::Already);
    }
}

async fn a_paused_unit_is_thawed_before_it_is_stopped(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    rig.provider.stop(&unit, PAUSE).await.unwrap();
    assert_eq!(rig.provider.stop(&unit, STOP).await.unwrap(), Changed::Done);
    assert_eq!(rig.look(&unit).await, ContainerState::Stopped { exit_code: Some(0), error: None });
    rig.see_in_log(&unit, "got TERM").await;
}

async fn a_paused_unit_can_be_killed(rig: &Rig) {
    let unit = up(rig, "app", Kind::Stubborn).await;
    rig.provider.stop(&unit, PAUSE).await.unwrap();
    assert_eq!(rig.provider.stop(&unit, KILL).await.unwrap(), Changed::Done);
    assert_eq!(exit_code(&rig.look(&unit).await), Some(137));
}

async fn a_stubborn_unit_is_killed_after_its_grace_time(rig: &Rig) {
    let unit = up(rig, "app", Kind::Stubborn).await;
    let short = StopOrder { grace: Duration::from_secs(1), ..STOP };
    assert_eq!(rig.provider.stop(&unit, short).await.unwrap(), Changed::Done);
    assert_eq!(exit_code(&rig.look(&unit).await), Some(137));
}

async fn the_signal_of_the_order_is_used(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    let by_name = StopOrder { signal: Some("TERM".parse::<StopSignal>().unwrap()), ..STOP };
    assert_eq!(rig.provider.stop(&unit, by_name).await.unwrap(), Changed::Done);
    assert_eq!(exit_code(&rig.look(&unit).await), Some(0));
    rig.see_in_log(&unit, "got TERM").await;
}

async fn letting_down_what_is_down_is_already_so(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    rig.provider.stop(&unit, STOP).await.unwrap();
    for order in [STOP, PAUSE, KILL] {
        assert_eq!(rig.provider.stop(&unit, order).await.unwrap(), Changed::Already, "{order:?}");
    }
}

async fn an_unknown_unit_is_gone(rig: &Rig) {
    let unknown = unit("nobody-knows-it");
    assert_eq!(rig.look(&unknown).await, ContainerState::Gone);
    assert!(
        matches!(rig.provider.start(&unknown).await, Err(ProviderError::NoSuchUnit { unit }) if unit == unknown.name)
    );
    assert!(matches!(rig.provider.stop(&unknown, STOP).await, Err(ProviderError::NoSuchUnit { .. })));
    assert_eq!(rig.provider.log_lines(&unknown).next().await, None);
}

async fn concurrent_starts_start_once(rig: &Rig) {
    let unit = rig.hand.make("app", Kind::Good).await;
    let answers = join_all((0..10).map(|_| rig.provider.start(&unit))).await;
    let done = answers.iter().filter(|answer| matches!(answer, Ok(Changed::Done))).count();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(done >= 1, "{answers:?}");
    rig.see_in_log(&unit, "ready").await;
    if let Some(runs) = rig.hand.runs(&unit).await {
        assert_eq!(runs, 1);
    }
}

async fn concurrent_opposite_orders_end_in_one_of_both(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    for _ in 0..3 {
        let (down, up) = tokio::join!(rig.provider.stop(&unit, STOP), rig.provider.start(&unit));
        assert!(down.is_ok() && up.is_ok(), "{down:?} {up:?}");
        rig.see(&unit, |state| running(state) || stopped(state)).await;
    }
    rig.provider.start(&unit).await.unwrap();
    rig.see(&unit, running).await;
}

async fn a_unit_that_exits_at_once_was_started_all_the_same(rig: &Rig) {
    let unit = up(rig, "app", Kind::ExitsAtOnce).await;
    let state = rig.see(&unit, stopped).await;
    assert_eq!(exit_code(&state), Some(3));
}

async fn a_unit_that_cannot_start_says_why(rig: &Rig) {
    let unit = rig.hand.make("app", Kind::Broken).await;
    let error = rig.provider.start(&unit).await.unwrap_err();
    assert!(
        matches!(&error, ProviderError::Refused { reason, .. } if reason.contains("o such") || reason.contains("there is no program")),
        "{error:?}"
    );
    assert!(!error.is_away());
    assert!(stopped(&rig.look(&unit).await));
}

async fn an_end_by_another_hand_is_told(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    let mut events = rig.provider.events();
    assert_eq!(must("the first hint", events.next()).await, Some(Hint::All));
    assert!(rig.hand.end(&unit).await);
    told(&mut events, &unit, "die").await;
    let state = rig.see(&unit, stopped).await;
    assert_eq!(exit_code(&state), Some(137));
}

async fn an_end_by_another_hand_is_seen_without_events(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    assert!(rig.hand.end(&unit).await);
    let listed = crate::support::wait::until(
        "the list",
        async || find(rig, &unit).await,
        |state| state.as_ref().is_some_and(stopped),
    );
    listed.await;
}

async fn a_pause_by_another_hand_is_seen(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    assert!(rig.hand.pause(&unit).await);
    rig.see(&unit, paused).await;
    assert_eq!(rig.provider.start(&unit).await.unwrap(), Changed::Done);
    rig.see(&unit, running).await;
}

async fn a_start_by_another_hand_is_told(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    rig.provider.stop(&unit, STOP).await.unwrap();
    let mut events = rig.provider.events();
    assert_eq!(must("the first hint", events.next()).await, Some(Hint::All));
    if rig.hand.start(&unit).await {
        told(&mut events, &unit, "start").await;
        rig.see(&unit, running).await;
    } else {
        assert_eq!(rig.provider.start(&unit).await.unwrap(), Changed::Done);
        told(&mut events, &unit, "start").await;
    }
}

async fn a_signal_that_does_not_end_it_is_no_end(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    assert!(rig.hand.hup(&unit).await);
    assert!(running(&rig.look(&unit).await));
    assert_eq!(rig.provider.start(&unit).await.unwrap(), Changed::Already);
}

async fn a_removed_unit_is_gone(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    if rig.hand.remove(&unit).await {
        rig.see(&unit, |state| *state == ContainerState::Gone).await;
        assert!(matches!(rig.provider.start(&unit).await, Err(ProviderError::NoSuchUnit { .. })));
    } else {
        assert!(running(&rig.look(&unit).await), "an engine that cannot remove still has it");
    }
}

async fn an_order_outlives_its_caller(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    {
        let order = rig.provider.stop(&unit, STOP);
        // Long enough to send the order, and not long enough to wait for its end in most runs; either way it ends.
        let _ = tokio::time::timeout(Duration::from_millis(20), order).await;
    }
    rig.see(&unit, stopped).await;
}

async fn the_list_has_every_unit_with_its_state(rig: &Rig) {
    let one = up(rig, "one", Kind::Good).await;
    let two = up(rig, "two", Kind::Good).await;
    rig.provider.stop(&two, PAUSE).await.unwrap();
    assert!(find(rig, &one).await.is_some_and(|state| running(&state)));
    assert!(find(rig, &two).await.is_some_and(|state| paused(&state)));
    rig.provider.stop(&one, STOP).await.unwrap();
    assert!(find(rig, &one).await.is_some_and(|state| stopped(&state)));
}

async fn a_unit_has_an_address_in_every_run(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    for _ in 0..3 {
        let state = rig.look(&unit).await;
        let ContainerState::Running(how) = &state else { panic!("{state:?}") };
        assert!(how.address.is_some(), "{how:?}");
        rig.provider.stop(&unit, KILL).await.unwrap();
        rig.provider.start(&unit).await.unwrap();
    }
}

async fn log_lines_are_of_this_run_and_follow(rig: &Rig) {
    let unit = up(rig, "app", Kind::Good).await;
    rig.provider.stop(&unit, STOP).await.unwrap();
    rig.provider.start(&unit).await.unwrap();
    let read = async {
        let mut lines = rig.provider.log_lines(&unit);
        let first = lines.next().await.unwrap();
        rig.provider.stop(&unit, STOP).await.unwrap();
        let rest: Vec<_> = lines.collect().await;
        (first, rest)
    };
    let (first, rest) = must("the end of the log", read).await;
    assert!(first.contains("ready"), "{first}");
    assert_eq!(rest.last().map(String::as_str), Some("got TERM"), "{rest:?}");
    assert_eq!(rest.iter().filter(|line| line.contains("ready")).count(), 0, "{rest:?}");
}

async fn told(events: &mut (impl futures_util::Stream<Item = Hint> + Unpin), unit: &Unit, what: &str) {
    let wanted = Hint::Unit { name: unit.name.clone(), what: what.to_owned() };
    let come = async {
        while let Some(hint) = events.next().await {
            if hint == wanted {
                return;
            }
        }
        panic!("the hints ended");
    };
    must(what, come).await;
}

async fn find(rig: &Rig, unit: &Unit) -> Option<ContainerState> {
    let listed = rig.provider.list().await.unwrap();
    listed.into_iter().find(|found| found.name == unit.name).map(|found| found.state)
}

fn exit_code(state: &ContainerState) -> Option<i64> {
    match state {
        ContainerState::Stopped { exit_code, .. } => *exit_code,
        ContainerState::Running(_) | ContainerState::Paused(_) | ContainerState::Changing | ContainerState::Gone => {
            None
        }
    }
}

/// Faults that only a scripted engine shows at will.
mod simulated_faults {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_away_says_so_once_and_comes_back() {
        let (rig, engine) = simulated();
        let unit = up(&rig, "app", Kind::Good).await;
        let mut events = rig.provider.events();
        assert_eq!(events.next().await, Some(Hint::All));
        engine.go_away("connection refused");
        assert_eq!(events.next().await, Some(Hint::Away("connection refused".to_owned())));
        assert!(rig.provider.look(&unit).await.is_err_and(|error| error.is_away()));
        assert!(rig.provider.list().await.is_err_and(|error| error.is_away()));
        engine.hand_stop("app", 1);
        engine.come_back();
        assert_eq!(events.next().await, Some(Hint::All));
        assert_eq!(exit_code(&rig.look(&unit).await), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn every_call_to_a_hanging_engine_ends_in_its_deadline() {
        let (rig, engine) = simulated();
        let unit = up(&rig, "app", Kind::Good).await;
        engine.set_hanging(true);
        let since = tokio::time::Instant::now();
        assert!(matches!(rig.provider.look(&unit).await, Err(ProviderError::TimedOut { .. })));
        assert!(matches!(rig.provider.list().await, Err(ProviderError::TimedOut { .. })));
        assert!(matches!(rig.provider.start(&unit).await, Err(ProviderError::TimedOut { .. })));
        assert!(matches!(rig.provider.stop(&unit, STOP).await, Err(ProviderError::TimedOut { .. })));
        assert!(since.elapsed() < Duration::from_secs(10 + 10 + 60 + 60 + 30) + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn lost_events_are_not_told_but_the_state_is_true() {
        let (rig, engine) = simulated();
        let unit = up(&rig, "app", Kind::Good).await;
        let mut events = rig.provider.events();
        assert_eq!(events.next().await, Some(Hint::All));
        engine.set_losing_events(true);
        engine.hand_stop("app", 0);
        assert!(tokio::time::timeout(Duration::from_secs(3600), events.next()).await.is_err());
        assert!(stopped(&rig.look(&unit).await));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_change_where_the_script_says_so() {
        let (rig, engine) = simulated();
        engine.add("app", dormouse::provider::Script { address_changes: true, ..Default::default() });
        let unit = unit("app");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            rig.provider.start(&unit).await.unwrap();
            let ContainerState::Running(how) = rig.look(&unit).await else { panic!("it runs") };
            assert!(how.address.unwrap().is_loopback());
            seen.insert(how.address);
            rig.provider.stop(&unit, STOP).await.unwrap();
        }
        assert_eq!(seen.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_is_never_answered_comes_true_all_the_same() {
        let (rig, engine) = simulated();
        let start_delay = Duration::from_secs(5);
        engine.add("app", dormouse::provider::Script { start_hangs: true, start_delay, ..Default::default() });
        let unit = unit("app");
        assert!(matches!(rig.provider.start(&unit).await, Err(ProviderError::TimedOut { .. })));
        assert!(running(&rig.look(&unit).await));
        assert_eq!(rig.provider.stop(&unit, STOP).await.unwrap(), Changed::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_start_and_a_slow_thaw_take_their_time() {
        let (rig, engine) = simulated();
        let (start_delay, thaw_delay) = (Duration::from_secs(7), Duration::from_secs(2));
        engine.add("app", dormouse::provider::Script { start_delay, thaw_delay, ..Default::default() });
        let unit = unit("app");
        let since = tokio::time::Instant::now();
        rig.provider.start(&unit).await.unwrap();
        assert_eq!(since.elapsed().as_secs(), 7);
        rig.provider.stop(&unit, PAUSE).await.unwrap();
        rig.provider.start(&unit).await.unwrap();
        assert_eq!(since.elapsed().as_secs(), 9);
        assert_eq!(engine.runs("app"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_lives_in_a_unit_moves_in_and_out_with_each_run() {
        let (rig, engine) = simulated();
        let inside = std::sync::Arc::new(());
        let guest = inside.clone();
        let move_in: dormouse::provider::MoveIn = std::sync::Arc::new(move |_| Box::new(guest.clone()));
        engine.add("app", dormouse::provider::Script { inhabitant: Some(move_in), ..Default::default() });
        let unit = unit("app");
        let count = || std::sync::Arc::strong_count(&inside);
        let nobody = count();
        for _ in 0..2 {
            rig.provider.start(&unit).await.unwrap();
            assert_eq!(count(), nobody + 1);
            rig.provider.stop(&unit, KILL).await.unwrap();
            assert_eq!(count(), nobody);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_dies_after_a_while_and_only_in_that_run() {
        let (rig, engine) = simulated();
        let fate = Some((Duration::from_secs(100), 9));
        engine.add("app", dormouse::provider::Script { dies_after: fate, ..Default::default() });
        let unit = unit("app");
        rig.provider.start(&unit).await.unwrap();
        tokio::time::sleep(Duration::from_secs(50)).await;
        engine.hand_restart("app");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(running(&rig.look(&unit).await), "the death of the first run does not end the second");
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(exit_code(&rig.look(&unit).await), Some(9));
        assert_eq!(engine.runs("app"), 2);
        assert_eq!(engine.start_calls("app"), 1);
    }
}

/// Nobody is kept waiting for the whole grace time by a unit that behaves well.
#[tokio::test]
async fn a_good_process_is_down_long_before_its_grace_time() {
    let processes = ProcessRig::new();
    let unit = up(&processes.rig, "app", Kind::Good).await;
    let since = Instant::now();
    processes.rig.provider.stop(&unit, STOP).await.unwrap();
    assert!(since.elapsed() < STOP.grace / 2);
    processes.finish().await;
}
