//! `dormouse demo`: the real thing on the loopback, with three small apps and nothing left behind.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    net::TcpListener,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    serve::{Succession, World, run},
    signals::until_told_to_end,
};
use crate::{
    backend::{Backend, StatusState},
    config::{Loaded, WrittenKeys},
    control::{Control, FileSource},
    demo::{self, DemoPorts, Housing, Row, RowState, Screen, config, intro},
    model::{DockerAddress, Problems, format_duration},
    provider::Workshop,
};

/// The table is drawn anew this often.
const FRAME: Duration = Duration::from_millis(200);

/// Runs the demo until Ctrl-C or SIGTERM, its apps as processes or in containers.
pub async fn demo(docker: bool) -> anyhow::Result<()> {
    let end = CancellationToken::new();
    let ending = end.clone();
    tokio::spawn(async move {
        until_told_to_end().await;
        ending.cancel();
    });
    if docker {
        return in_containers(end).await;
    }
    let exe = std::env::current_exe().context("find this program's own file")?;
    show(Housing::Processes(&exe), end).await
}

/// Makes an image and containers, and removes them however the demo ends.
async fn in_containers(end: CancellationToken) -> anyhow::Result<()> {
    let workshop = Workshop::open(&DockerAddress::default())?;
    let prefix = format!("dormouse-demo-{}", std::process::id());
    let engine = workshop.engine();
    workshop.clear().await.with_context(|| format!("ask the Docker Engine at `{engine}`"))?;
    say(&format!("Making an image of this program, and three containers, on {engine} ...\n\n"))?;
    // Seen to its end, so that what is made is known and can be removed; told to end meanwhile, nothing is shown.
    let result = match furnish(&workshop, &prefix).await {
        Ok(()) => show(Housing::Containers(&prefix), end).await,
        Err(error) => Err(error),
    };
    let cleared = workshop.clear().await;
    result
        .and(cleared.with_context(|| format!("remove what the demo has made on `{engine}`; the next one tries again")))
}

async fn furnish(workshop: &Workshop, prefix: &str) -> anyhow::Result<()> {
    let layer = tokio::task::spawn_blocking(demo::layer).await?;
    let layer = layer.context("pack this program and its libraries into an image")?;
    let image = format!("{prefix}:1");
    workshop.import(&image, layer, &demo::ENVIRONMENT).await?;
    for container in demo::containers(prefix) {
        let words = container.arguments.iter().map(String::as_str);
        let command: Vec<_> = [demo::PROGRAM].into_iter().chain(words).collect();
        workshop.create(&container.name, &image, &command, container.port).await?;
    }
    Ok(())
}

/// Serves the apps and shows what they do until the end.
async fn show(housing: Housing<'_>, end: CancellationToken) -> anyhow::Result<()> {
    let ports = free_ports().context("find free ports on the loopback")?;
    let (settings, routes, backends) = config(housing, ports)?;
    let loaded = Loaded {
        settings,
        routes: routes.into_iter().map(Arc::new).collect(),
        backends,
        written: BTreeMap::new(),
        keys: WrittenKeys::default(),
        problems: Problems::default(),
        files: Vec::new(),
    };
    let directory = Scratch::make()?;
    let state_dir = directory.0.join("state");
    say(&intro(ports.http, &called(), &state_dir))?;
    let world = World {
        source: FileSource::Made(Box::new(loaded.clone())),
        loaded,
        read_at: Timestamp::now(),
        state_dir,
        succession: Succession::None,
    };
    let (drawing, drawn) = (end.clone(), tokio_util::task::TaskTracker::new());
    let result = run(world, end, |control| {
        drawn.spawn(draw(control.clone(), drawing));
    })
    .await;
    drawn.close();
    drawn.wait().await;
    result
}

/// The words that called this program, for others to copy.
fn called() -> String {
    std::env::args().next().filter(|word| !word.is_empty()).unwrap_or_else(|| "dormouse".to_owned())
}

/// A directory of this run, removed at its end.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("dormouse-demo-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("make `{}`", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(%error, path = %path.display(), "the demo's directory could not be removed");
    }
}

/// 8080 and 8000 where they are free; whatever is free for the rest.
fn free_ports() -> std::io::Result<DemoPorts> {
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port));
    let preferred = |port: u16| bind(port).or_else(|_| bind(0));
    // Held together, so that none is given twice.
    let held = [preferred(8080)?, preferred(8000)?, bind(0)?, bind(0)?, bind(0)?];
    let mut ports = [0; 5];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr()?.port();
    }
    let [http, api, slow, live, nap] = ports;
    Ok(DemoPorts { http, api, slow, live, nap })
}

/// Writes to the terminal. A closed one ends nothing.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("write to the terminal"),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn draw(control: Control, end: CancellationToken) {
    let mut screen = if std::io::stdout().is_terminal() { Screen::table(columns()) } else { Screen::plain() };
    loop {
        let rows: Vec<Row> = control.backends().iter().map(row).collect();
        if say(&screen.render(&rows)).is_err() {
            return;
        }
        tokio::select! {
            () = end.cancelled() => break,
            () = tokio::time::sleep(FRAME) => {}
        }
    }
    let _ = say(screen.finish());
    let open: u64 = control.backends().iter().map(|backend| backend.passes()).sum();
    if open > 0 {
        let patience = format_duration(demo::SHUTDOWN);
        let _ = say(&format!("Ending. What is open ({open}) may finish within {patience}; Ctrl-C again cuts it.\n"));
    }
}

fn columns() -> u16 {
    std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(80)
}

fn row(backend: &Backend) -> Row {
    let status = backend.status().borrow().clone();
    let state = match status.state {
        StatusState::Unknown | StatusState::Stopped | StatusState::Gone => RowState::Asleep,
        StatusState::Paused => RowState::Paused,
        StatusState::Waking => RowState::Waking,
        StatusState::Awake => RowState::Awake,
        StatusState::Draining => RowState::Draining,
        StatusState::Stopping => RowState::Stopping,
        StatusState::Failed => RowState::Failed,
    };
    Row {
        // A container's name begins with that of the demo.
        name: backend.id().name().rsplit('-').next().unwrap_or_default().to_owned(),
        state,
        since: Instant::now().saturating_duration_since(status.since_instant),
        passes: usize::try_from(backend.passes()).unwrap_or(usize::MAX),
        sleeps_in: backend.sleeps_in(),
    }
}
