//! `on_exit: wake_all`: what Dormouse has let down is up again when it ends.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use futures_util::future::{join, join_all};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    backend::{Answer, Backend, Order, StatusState},
    control::Control,
    model::BackendId,
};

/// All have so long to come up: who ends us does not wait for ever.
const ALL: Duration = Duration::from_secs(20);

/// Of that, what is paused has so long for itself.
const PAUSED: Duration = Duration::from_secs(10);

/// So long before the end of its time nothing waits for its turn any more, or for what it needs to be ready: everything
/// is to have been started at least.
const STARTS: Duration = Duration::from_secs(5);

/// Wakes what sleeps by Dormouse's doing, and before that what is paused: frozen, it could not even be ended. What its
/// owner stopped stays so.
pub(super) async fn wake_all(control: &Control) {
    let begun = Instant::now();
    let is_paused = |backend: &Backend| backend.status().borrow().state == StatusState::Paused;
    let (paused, others): (Vec<_>, Vec<_>) = control.backends().into_iter().partition(is_paused);
    wake(control, &paused, begun + PAUSED).await;
    let ours: Vec<_> = others.into_iter().filter(is_let_down).collect();
    wake(control, &ours, begun + ALL).await;
}

/// Whether it is down by our doing, or about to be.
fn is_let_down(backend: &Backend) -> bool {
    let status = backend.status().borrow().clone();
    status.put_to_sleep || matches!(status.state, StatusState::Draining | StatusState::Stopping)
}

async fn wake(control: &Control, backends: &[Backend], until: Instant) {
    let order = |backend: &Backend| {
        let backend = backend.clone();
        async move { timeout_at(until, backend.order(Order::Wake, "the end of Dormouse")).await }
    };
    let mut wakes = pin!(join_all(backends.iter().map(order)));
    let (answers, started) = tokio::select! {
        answers = &mut wakes => (answers, BTreeSet::new()),
        () = sleep_until(until - STARTS) => join(wakes, start_all(control, backends.to_vec(), until)).await,
    };
    for (backend, answer) in backends.iter().zip(answers) {
        let id = backend.id();
        match answer {
            Ok(Answer::Done | Answer::AlreadySo) => {}
            Ok(Answer::Denied(why)) => tracing::warn!(backend = %id, why, "was not woken"),
            Err(_) if started.contains(id) => tracing::warn!(backend = %id, "was started, and is not up yet"),
            Err(_) => tracing::warn!(backend = %id, "could not be started in time"),
        }
    }
}

/// Has all started that are not yet, what others need before those. Returns those whose start was called for.
async fn start_all(control: &Control, mut left: Vec<Backend>, until: Instant) -> BTreeSet<BackendId> {
    let view = control.view();
    let mut started = BTreeSet::new();
    while !left.is_empty() {
        let ids: BTreeSet<BackendId> = left.iter().map(|backend| backend.id().clone()).collect();
        let waits = |backend: &Backend| {
            let spec = view.catalog.backends.get(backend.id());
            spec.is_some_and(|spec| spec.depends_on.iter().any(|dependency| ids.contains(&dependency.on)))
        };
        let (later, mut now): (Vec<_>, Vec<_>) = left.into_iter().partition(waits);
        left = later;
        if now.is_empty() {
            // They need each other, which is refused where it is written; nobody is left out for that.
            now = std::mem::take(&mut left);
        }
        let calls = now.iter().map(|backend| timeout_at(until, backend.start_now()));
        let called = join_all(calls).await;
        let called = now.iter().zip(called).filter(|(_, called)| matches!(called, Ok(true)));
        started.extend(called.map(|(backend, _)| backend.id().clone()));
    }
    started
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashMap},
        net::TcpListener,
        sync::Arc,
    };

    use tokio_util::sync::CancellationToken;

    use tokio::task::JoinHandle;

    use super::*;
    use crate::{
        control::{Ended, FileSource, Keeper, Node},
        model::{ContainerPort, ContainerState, NodeName, Transport},
        provider::{Call, Script, Simulated},
        telemetry::Journal,
    };

    fn node() -> NodeName {
        "local".parse().unwrap()
    }

    fn add(engine: &Simulated, name: &str, port: u16) {
        engine.add(name, Script::default());
        engine.facts(name, |unit| {
            unit.ports = vec![ContainerPort { port, transport: Transport::Tcp, published: None }];
            unit.labels.insert("dormouse.idle_timeout".to_owned(), "1h".to_owned());
        });
    }

    /// A keeper of these units, once it knows what each of them does.
    async fn world(engine: &Simulated, names: &[&str]) -> (Control, CancellationToken, JoinHandle<Ended>) {
        let source = FileSource::None { explicit: false, https: None };
        let loaded = source.load().unwrap();
        let one = Node { provider: Arc::new(engine.clone()), engine: "simulated".to_owned(), discovers: true };
        let nodes = BTreeMap::from([(node(), one)]);
        let (mut keeper, control) = Keeper::new(source, loaded, nodes, None, HashMap::new(), Journal::default());
        keeper.prepare(Duration::from_secs(5)).await;
        for name in names {
            let mut status = control.find(name).unwrap().status();
            status.wait_for(|status| status.state != StatusState::Unknown).await.unwrap();
        }
        let end = CancellationToken::new();
        (control, end.clone(), tokio::spawn(keeper.run(end)))
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_started_before_the_end_what_others_need_before_those() {
        let engine = Simulated::new(node());
        // Nothing listens there: none of them is ever ready, and each keeps its turn.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let names: Vec<String> = (10..40).map(|number| format!("app{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for name in &names {
            add(&engine, name, port);
            engine.hand_start(name);
        }
        let needs = [("app10", "app39"), ("app39", "app25")];
        for (name, on) in needs {
            engine.facts(name, |unit| {
                unit.labels.insert("dormouse.depends_on".to_owned(), on.to_owned());
            });
        }
        let (control, end, keeper) = world(&engine, &names).await;
        for name in ["app10", "app39"].iter().chain(&names[1..29]) {
            assert_eq!(control.find(name).unwrap().order(Order::Sleep, "test").await, Answer::Done, "{name}");
        }
        let begun = Instant::now();
        wake_all(&control).await;
        assert_eq!(begun.elapsed().as_secs(), ALL.as_secs(), "those that are never ready are waited for so long");
        let calls = engine.calls();
        let called = |name: &str| calls.iter().position(|call| matches!(call, Call::Start(started) if started == name));
        for name in &names {
            assert!(called(name).is_some(), "{name} was not started: {calls:?}");
        }
        for (name, on) in needs {
            assert!(called(on) < called(name), "{on} before {name}: {calls:?}");
        }
        end.cancel();
        keeper.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_wakes_and_not_for_ever() {
        let engine = Simulated::new(node());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let names = ["quick", "slow", "asleep", "stopped"];
        for name in names {
            add(&engine, name, port);
        }
        for name in ["quick", "slow"] {
            engine.hand_start(name);
            engine.hand_pause(name);
        }
        engine.hand_start("asleep");
        engine.script("slow", |script| script.thaw_delay = Duration::from_secs(50));
        let (control, end, keeper) = world(&engine, &names).await;
        assert_eq!(control.find("asleep").unwrap().order(Order::Sleep, "test").await, Answer::Done);
        let begun = Instant::now();
        wake_all(&control).await;
        assert_eq!(begun.elapsed().as_secs(), PAUSED.as_secs(), "the slow one is not waited for");
        for name in ["quick", "asleep"] {
            assert!(matches!(engine.state(name), ContainerState::Running(_)), "{name}: {:?}", engine.state(name));
        }
        assert!(matches!(engine.state("slow"), ContainerState::Paused(_)), "{:?}", engine.state("slow"));
        assert!(matches!(engine.state("stopped"), ContainerState::Stopped { .. }), "its owner stopped it");
        end.cancel();
        keeper.await.unwrap();
    }
}
