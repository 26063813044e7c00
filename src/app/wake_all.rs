//! `on_exit: wake_all`: what Dormouse has let down is up again when it ends.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::{
    backend::{Answer, Backend, Order, StatusState},
    control::Control,
};

/// All have so long to come up: who ends us does not wait for ever.
const ALL: Duration = Duration::from_secs(20);

/// Of that, what is paused has so long for itself.
const PAUSED: Duration = Duration::from_secs(10);

/// Wakes what sleeps by Dormouse's doing, and before that what is paused: frozen, it could not even be ended. What its
/// owner stopped stays so.
pub(super) async fn wake_all(control: &Control) {
    let begun = Instant::now();
    let is_paused = |backend: &Backend| backend.status().borrow().state == StatusState::Paused;
    let (paused, others): (Vec<_>, Vec<_>) = control.backends().into_iter().partition(is_paused);
    wake(paused, begun + PAUSED).await;
    wake(others.into_iter().filter(|backend| backend.status().borrow().put_to_sleep), begun + ALL).await;
}

async fn wake(backends: impl IntoIterator<Item = Backend>, until: Instant) {
    let wakes = backends.into_iter().map(|backend| async move {
        match timeout_at(until, backend.order(Order::Wake, "the end of Dormouse")).await {
            Ok(Answer::Done | Answer::AlreadySo) => {}
            Ok(Answer::Denied(why)) => tracing::warn!(backend = %backend.id(), why, "was not woken"),
            Err(_) => tracing::warn!(backend = %backend.id(), "was told to wake, and is not up yet"),
        }
    });
    futures_util::future::join_all(wakes).await;
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashMap},
        net::TcpListener,
        sync::Arc,
    };

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        control::{FileSource, Keeper, Node},
        model::{ContainerPort, ContainerState, Transport},
        provider::{Script, Simulated},
        telemetry::Journal,
    };

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_wakes_and_not_for_ever() {
        let node: crate::model::NodeName = "local".parse().unwrap();
        let engine = Simulated::new(node.clone());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for name in ["quick", "slow", "asleep", "stopped"] {
            engine.add(name, Script::default());
            engine.facts(name, |unit| {
                unit.ports = vec![ContainerPort { port, transport: Transport::Tcp, published: None }];
                unit.labels.insert("dormouse.idle_timeout".to_owned(), "1h".to_owned());
            });
        }
        for name in ["quick", "slow"] {
            engine.hand_start(name);
            engine.hand_pause(name);
        }
        engine.hand_start("asleep");
        engine.script("slow", |script| script.thaw_delay = Duration::from_secs(50));
        let source = FileSource::None { explicit: false, https: None };
        let loaded = source.load().unwrap();
        let one = Node { provider: Arc::new(engine.clone()), engine: "simulated".to_owned(), discovers: true };
        let nodes = BTreeMap::from([(node, one)]);
        let (mut keeper, control) = Keeper::new(source, loaded, nodes, None, HashMap::new(), Journal::default());
        keeper.prepare(Duration::from_secs(5)).await;
        for name in ["quick", "slow", "asleep", "stopped"] {
            let mut status = control.find(name).unwrap().status();
            status.wait_for(|status| status.state != StatusState::Unknown).await.unwrap();
        }
        assert_eq!(control.find("asleep").unwrap().order(Order::Sleep, "test").await, Answer::Done);
        let end = CancellationToken::new();
        let keeper = tokio::spawn(keeper.run(end.clone()));
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
