//! The keeper on the simulated engine, under a paused clock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Control, Ended, FileSource, Keeper, Node};
use crate::{
    backend::{Answer, Order},
    model::{ContainerPort, NodeName, Transport},
    provider::{Script, Simulated},
    telemetry::Journal,
};

struct World {
    engine: Simulated,
    control: Control,
    end: CancellationToken,
    keeper: JoinHandle<Ended>,
}

fn node() -> NodeName {
    "local".parse().unwrap()
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn create(engine: &Simulated, name: &str) {
    engine.add(name, Script::default());
    engine.facts(name, |unit| {
        unit.ports = vec![ContainerPort { port: 3000, transport: Transport::Tcp, published: None }];
        unit.labels.insert("dormouse.idle_timeout".to_owned(), "1h".to_owned());
    });
}

/// A keeper of these units.
async fn world(names: &[&str]) -> World {
    let engine = Simulated::new(node());
    for name in names {
        create(&engine, name);
    }
    let source = FileSource::None { explicit: false, https: None };
    let loaded = source.load().unwrap();
    let one = Node { provider: Arc::new(engine.clone()), engine: "simulated".to_owned(), discovers: true };
    let nodes = BTreeMap::from([(node(), one)]);
    let (mut keeper, control) = Keeper::new(source, loaded, nodes, None, HashMap::new(), Journal::default());
    keeper.prepare(secs(5)).await;
    let end = CancellationToken::new();
    let keeper = tokio::spawn(keeper.run(end.clone()));
    World { engine, control, end, keeper }
}

impl World {
    fn has(&self, name: &str) -> bool {
        let id = format!("local/{name}").parse().unwrap();
        let view = self.control.view();
        let routed = view.catalog.routes.values().any(|route| route.backend() == Some(&id));
        assert_eq!(routed, self.control.backend(&id).is_some(), "routes and backends go together");
        routed
    }

    async fn ends(self) {
        self.end.cancel();
        self.keeper.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_back_is_shown_as_back_though_nothing_else_changed() {
    let world = world(&["app"]).await;
    let away = || world.control.view().nodes[&node()].away.clone();
    assert_eq!(away(), None);
    world.engine.go_away("no socket");
    sleep(secs(5)).await;
    assert!(away().is_some(), "{:?}", away());
    world.engine.come_back();
    sleep(secs(5)).await;
    assert_eq!(away(), None);
    assert!(world.has("app"));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_is_forgotten_after_its_time_though_nothing_else_changes() {
    let world = world(&["app", "other"]).await;
    assert!(world.has("app") && world.has("other"));
    world.engine.hand_remove("app");
    sleep(secs(50)).await;
    assert!(world.has("app"), "most come back under their name");
    sleep(secs(50)).await;
    assert!(!world.has("app"));
    assert!(world.has("other"));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_in_time_stays() {
    let world = world(&["app", "other"]).await;
    let before = world.control.find("app").unwrap();
    world.engine.hand_remove("app");
    sleep(secs(40)).await;
    create(&world.engine, "app");
    sleep(secs(200)).await;
    assert!(world.has("app"));
    // One that was retired meanwhile would do nothing any more.
    assert_eq!(before.order(Order::Sleep, "test").await, Answer::AlreadySo);
    world.ends().await;
}

#[tokio::test]
async fn routes_that_a_reload_leaves_as_they_are_are_in_memory_once() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("dormouse.yaml");
    let write = |port: u16| {
        let text =
            format!("routes:\n  app: {{ host: 127.0.0.1, port: 5000 }}\n  two: {{ host: 127.0.0.1, port: {port} }}\n");
        std::fs::write(&file, text).unwrap();
    };
    write(5001);
    let source = FileSource::File(file.clone());
    let loaded = source.load().unwrap();
    let (mut keeper, control) = Keeper::new(source, loaded, BTreeMap::new(), None, HashMap::new(), Journal::default());
    keeper.prepare(secs(5)).await;
    let end = CancellationToken::new();
    let keeper = tokio::spawn(keeper.run(end.clone()));
    for (port, changes) in [(5001, 0), (5002, 1), (5002, 0)] {
        write(port);
        assert_eq!(control.reload().await.unwrap().len(), changes);
        let (view, table) = (control.view(), control.table().load_full());
        for route in table.all() {
            assert!(Arc::ptr_eq(&route.spec, &view.catalog.routes[&route.spec.alias]), "{}", route.spec.alias);
            assert!(Arc::ptr_eq(table.find(&route.spec.alias).unwrap(), route), "{}", route.spec.alias);
        }
        assert!(table.find(&"nobody".parse().unwrap()).is_none());
        assert_eq!(table.all().count(), 2);
    }
    end.cancel();
    keeper.await.unwrap();
}
