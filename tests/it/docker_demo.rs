//! `dormouse demo --docker`: what it makes on the engine, and that nothing of it stays.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{
    docker::DockerCli,
    dormouse::request,
    wait::{must, until},
};

/// A running demo; killed when dropped.
struct Demo {
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Demo {
    fn start(cli: &DockerCli) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dormouse"))
            .args(["demo", "--docker"])
            .env("DOCKER_HOST", &cli.address)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program");
        let (shown, mut output) = (Arc::new(Mutex::new(String::new())), child.stdout.take().expect("a pipe"));
        let writes = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = std::io::Read::read(&mut output, &mut bytes) {
                writes.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { child, shown }
    }

    /// Where it serves, once it has said so and does.
    async fn address(&self) -> SocketAddr {
        let said = async || {
            let shown = self.shown.lock().unwrap().clone();
            let rest = shown.split_once("behind a proxy on ")?.1;
            rest.split(['.', '\n', ' ']).collect::<Vec<_>>().get(..4)?.join(".").parse::<SocketAddr>().ok()
        };
        let address = until("its address", said, |found| found.is_some()).await.expect("an address");
        let connect = async || tokio::net::TcpStream::connect(address).await.is_ok();
        until("it listens", connect, |listens| *listens).await;
        address
    }

    async fn end(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        let waiting = tokio::task::spawn_blocking(move || self.child.wait().map(|status| status.success()));
        assert!(must("its end", waiting).await.unwrap().unwrap(), "it ends in order");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn body(address: SocketAddr, app: &str) -> String {
    let text = format!("GET / HTTP/1.1\r\nHost: {app}.localhost\r\nConnection: close\r\n\r\n");
    let reply = request(address, &text).await.unwrap();
    assert_eq!(reply.status, 200, "{app}: {reply:?}");
    reply.body
}

/// Containers and images of all demos.
async fn made(cli: &DockerCli) -> (Vec<String>, Vec<String>) {
    let lines = |text: String| text.lines().map(str::to_owned).collect();
    let label = "--filter=label=dormouse-workshop";
    let containers = cli.run(&["ps", "--all", "--format={{.Names}}", label]).await;
    (lines(containers), lines(cli.run(&["images", "--quiet", label]).await))
}

#[tokio::test]
async fn its_apps_sleep_and_wake_in_containers_and_nothing_of_it_stays() {
    let Some(cli) = DockerCli::new() else { return };
    let other = cli.container(&["run", "-d"], "other", &["--label=dormouse-workshop=of somebody else"], &[]).await;
    let demo = Demo::start(&cli);
    let address = demo.address().await;
    assert!(body(address, "nap").await.starts_with("nap: request 1 of process 1\n"));
    assert!(body(address, "slow").await.starts_with("slow: process 1, "));
    let (containers, images) = made(&cli).await;
    assert_eq!((containers.len(), images.len()), (3 + 1, 1), "{containers:?}");
    let nap = containers.iter().find(|name| name.ends_with("-nap")).expect("its container");
    until("it is paused", async || cli.status(nap).await, |status| status == "paused").await;
    assert!(body(address, "nap").await.starts_with("nap: request 2 of process 1\n"), "its memory was kept");
    demo.end().await;
    assert_eq!(made(&cli).await, (vec![other], Vec::new()));

    // One that is killed leaves all, and the next one removes it.
    let mut killed = Demo::start(&cli);
    killed.address().await;
    killed.child.kill().unwrap();
    drop(killed);
    assert_eq!(made(&cli).await.0.len(), 3 + 1);
    let demo = Demo::start(&cli);
    demo.address().await;
    assert_eq!(made(&cli).await.0.len(), 3 + 1, "only its own, and that of somebody else");
    demo.end().await;
    assert_eq!(made(&cli).await.0.len(), 1);
}
