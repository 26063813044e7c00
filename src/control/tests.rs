//! The keeper on the simulated engine, under a paused clock.

use std::{
    collections::{BTreeMap, HashMap},
    io::{PipeReader, PipeWriter, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Control, Ended, FileSource, Keeper, Node, Reload, ReloadFailed};
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
    world_of(FileSource::None { explicit: false, https: None }, names).await
}

async fn world_of(source: FileSource, names: &[&str]) -> World {
    let engine = Simulated::new(node());
    for name in names {
        create(&engine, name);
    }
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
    let problems = || world.control.view().absent().0;
    assert_eq!((away(), problems()), (None, Vec::new()));
    world.engine.go_away("no socket");
    sleep(secs(5)).await;
    let since = away().expect("it is away").since;
    let told = problems();
    assert_eq!(world.control.view().absence(&node()).as_ref(), told.first());
    let text = told.first().expect("a problem").to_string();
    assert!(text.starts_with("warning: node local: ") && text.contains("no socket"), "{text}");
    assert!(text.contains(&format!("(since {since})")) && text.contains("\n  hint: "), "{text}");
    // It is told why now, and since when at all.
    world.engine.go_away("no answer");
    sleep(secs(60)).await;
    let later = away().expect("it is still away");
    assert!(later.why.contains("no answer") && later.since == since, "{later:?}");
    world.engine.come_back();
    sleep(secs(5)).await;
    assert_eq!((away(), problems()), (None, Vec::new()));
    assert!(world.has("app"));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_not_been_asked_yet_is_no_problem() {
    let source = FileSource::None { explicit: false, https: None };
    let one = Node { provider: Arc::new(Simulated::new(node())), engine: "simulated".to_owned(), discovers: true };
    let (nodes, loaded) = (BTreeMap::from([(node(), one)]), source.load().unwrap());
    let (_keeper, control) = Keeper::new(source, loaded, nodes, None, HashMap::new(), Journal::default());
    let view = control.view();
    assert!(!view.nodes[&node()].listed && view.absent().0.is_empty());
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
        assert_eq!(control.reload().await.unwrap().changes.len(), changes);
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

/// A file whose reader waits for what is written: a disk that is slow for as long as the test wants.
struct SlowFile {
    home: tempfile::TempDir,
}

impl SlowFile {
    fn path(&self) -> PathBuf {
        self.home.path().join("dormouse.yaml")
    }

    fn new(text: &str) -> Self {
        let slow = Self { home: tempfile::tempdir().unwrap() };
        slow.replace(text);
        slow
    }

    /// Another file stands at its path. Whoever reads the one before goes on with that.
    fn replace(&self, text: &str) {
        let other = self.home.path().join("other");
        std::fs::write(&other, text).unwrap();
        std::fs::rename(other, self.path()).unwrap();
    }

    /// From now on it is slow: as slow as what is written to this pipe.
    fn stall(&self) -> Stalled {
        std::fs::remove_file(self.path()).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        std::os::unix::fs::symlink(path, self.path()).unwrap();
        Stalled { reader, writer }
    }
}

struct Stalled {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Stalled {
    /// Waits until somebody reads it: has it open beside the two ends here.
    async fn is_read(&self) {
        let pipe = |fd: &Path| std::fs::read_link(fd).ok();
        let ours = pipe(Path::new(&format!("/proc/self/fd/{}", self.reader.as_raw_fd())));
        let opened = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap();
            all.filter(|fd| pipe(&fd.as_ref().unwrap().path()) == ours).count()
        };
        while opened() < 3 {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

fn route_to(port: u16) -> String {
    format!("routes:\n  app: {{ host: 127.0.0.1, port: {port} }}\n")
}

#[tokio::test]
async fn a_slow_disk_keeps_neither_engines_nor_the_end_waiting() {
    let file = SlowFile::new("{}");
    let world = world_of(FileSource::File(file.path()), &["app"]).await;
    let slow = file.stall();
    let control = world.control.clone();
    let reload = tokio::spawn(async move { control.reload().await });
    slow.is_read().await;
    create(&world.engine, "late");
    tokio::time::timeout(secs(60), async {
        while !world.has("late") {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the engine is heard while the file is read");
    tokio::time::timeout(secs(60), world.ends()).await.expect("the keeper ends while the file is read");
    let told = tokio::time::timeout(secs(60), reload).await.expect("so does who asked for the reload");
    assert_eq!(told.unwrap(), Err(ReloadFailed::Ending));
}

#[tokio::test]
async fn of_two_reloads_at_once_the_later_file_is_taken() {
    let file = SlowFile::new("{}");
    let world = world_of(FileSource::File(file.path()), &[]).await;
    let reload = || {
        let control = world.control.clone();
        tokio::spawn(async move { control.reload().await })
    };
    let mut slow = file.stall();
    let first = reload();
    slow.is_read().await;
    file.replace(&route_to(2));
    let mut second = reload();
    // Time enough for it to be taken first, if it could be.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    slow.writer.write_all(route_to(1).as_bytes()).unwrap();
    drop(slow);
    first.await.unwrap().unwrap();
    assert!(early.is_err(), "it was read while another was read before it");
    second.await.unwrap().unwrap();
    let routes = world.control.view().catalog.routes.clone();
    let ports: Vec<_> = routes.values().map(|route| route.endpoint().unwrap().port).collect();
    assert_eq!(ports, [2]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_beneath_the_access_log_holds_up_no_reload() {
    let world = world(&[]).await;
    let hanging = Arc::clone(&world.control.looks.0).lock_owned().await;
    let mut told = world.control.reloads();
    let control = world.control.clone();
    let reload = tokio::spawn(async move { control.reload().await });
    for expected in [Reload::Begun, Reload::Over] {
        assert_eq!(told.recv().await, Ok(expected));
    }
    assert!(!reload.is_finished(), "it still looks");
    assert!(world.control.turn.try_lock().is_ok(), "and the next may begin");
    let taken = reload.await.unwrap().expect("it was taken");
    assert!(taken.problems.to_string().contains("can not be looked at in time"), "{}", taken.problems);
    drop(hanging);
    assert_eq!(world.control.reload().await.unwrap().problems.to_string(), "");
    world.ends().await;
}
