//! Containers on no network (`network_mode: none`), on a real engine: their apps listen on the loopback that is theirs
//! alone, and are reached there.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::support::{
    apps::free_port,
    docker::DockerCli,
    dormouse::{Dormouse, field},
    streams::{echoed, talk},
    tls::Authority,
    wait::{must, until},
};

const CREATE: &[&str] = &["create", "--network", "none"];
const RUN: &[&str] = &["run", "-d", "--network", "none"];
const INSIDE: &str = "--address=127.0.0.1";

/// The namespaces that a process is in with any of its threads, or has open.
fn networks_of(pid: u32) -> BTreeSet<String> {
    let links = |folder: String, below: &'static str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(move |entry| Some(fs::read_link(entry.path().join(below)).ok()?.display().to_string()))
    };
    let threads = links(format!("/proc/{pid}/task"), "ns/net");
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open = open.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string()));
    threads.chain(open.filter(|at| at.starts_with("net:"))).collect()
}

fn is_at_home(dormouse: &Dormouse) {
    let home = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_eq!(networks_of(dormouse.pid()), BTreeSet::from([home]));
}

#[tokio::test]
async fn it_is_woken_from_stop_and_served_inside() {
    let Some(cli) = DockerCli::new() else { return };
    let name = cli.sleeper(CREATE, "app", &["idle_timeout=2s"], &[INSIDE, "--delay-listen=200ms"]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    for wakes in 1..=2 {
        let reply = dormouse.get(&name, "/").await;
        assert_eq!(reply.status, 200, "{reply:?}\n{}", dormouse.log());
        println!("{:.1} ms after it listened", reply.after_listening());
        assert_eq!(cli.count(&name, "start").await, wakes);
        // One connection is kept, and nothing else of where it leads.
        is_at_home(&dormouse);
        dormouse.comes_to(&name, "stopped").await;
        is_at_home(&dormouse);
    }
    let published = cli.inspect(&name, "{{.NetworkSettings.IPAddress}}{{.NetworkSettings.Ports}}").await;
    assert_eq!(published, "map[]", "it had another way");
}

#[tokio::test]
async fn it_is_woken_from_pause_with_its_web_sockets_and_keeps_awake_by_them() {
    let Some(cli) = DockerCli::new() else { return };
    let name = cli.sleeper(RUN, "app", &["idle_timeout=2s", "stop_method=pause"], &[INSIDE]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let pid = dormouse.get(&name, "/").await.told("started");
    dormouse.comes_to(&name, "paused").await;
    let stream = TcpStream::connect(dormouse.http).await.unwrap();
    let (mut socket, answer) = must("a WebSocket", client_async(format!("ws://{name}.test/ws"), stream)).await.unwrap();
    assert_eq!(answer.status(), 101);
    socket.send(Message::text("inside")).await.unwrap();
    assert_eq!(must("an echo", socket.next()).await.unwrap().unwrap(), Message::text("inside"));
    assert_eq!(dormouse.get(&name, "/").await.told("started"), pid, "its memory is kept");
    assert_eq!((cli.count(&name, "start").await, cli.count(&name, "unpause").await), (1, 1));
    drop(socket);
    dormouse.comes_to(&name, "paused").await;
}

#[tokio::test]
async fn after_a_restart_by_hand_its_new_process_is_found() {
    let Some(cli) = DockerCli::new() else { return };
    let labels = ["idle_timeout=1h", "*.healthcheck.interval=1s"];
    let name = cli.sleeper(RUN, "app", &labels, &[INSIDE]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let pid = || cli.inspect(&name, "{{.State.Pid}}");
    let mut lives = BTreeSet::new();
    for _ in 0..3 {
        let reply = dormouse.get(&name, "/").await;
        assert_eq!(reply.status, 200, "{reply:?}\n{}", dormouse.log());
        lives.insert((pid().await, reply.told("started")));
        cli.run(&["restart", "-t", "5", &name]).await;
    }
    assert_eq!(lives.len(), 3);
    // Killed behind everybody's back, it is started anew by the next request.
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
    cli.run(&["kill", &name]).await;
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
    let health = async || dormouse.api("GET", "/api/v1/routes").await.to_string();
    until("it is found healthy", health, |told| told.contains("\"healthy\"")).await;
    is_at_home(&dormouse);
}

#[tokio::test]
async fn streams_and_datagrams_wake_it_by_a_port_of_the_same_number() {
    let Some(cli) = DockerCli::new() else { return };
    let port = free_port();
    let both = format!("echo.port={port}:{port}");
    let labels = ["aliases=echo", "echo.scheme=tcp+udp", &both, "idle_timeout=2s", "flow_timeout=1s"];
    let arguments = ["--echo", INSIDE, &format!("--port={port}"), "--delay-listen=200ms"];
    let name = cli.sleeper(CREATE, "echo", &labels, &arguments).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    // On our loopback that is where Dormouse listens. In there it is the app.
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    until("the port is open", async || TcpStream::connect(to).await.is_ok(), |is_open| *is_open).await;
    assert_eq!(talk(to, b"by stream").await.unwrap(), echoed(b"by stream"), "{}", dormouse.log());
    dormouse.comes_to(&name, "stopped").await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    for text in ["one", "two"] {
        socket.send(text.as_bytes()).await.unwrap();
    }
    let mut room = [0; 100];
    for text in ["one", "two"] {
        let count = must("an answer", socket.recv(&mut room)).await.unwrap();
        assert_eq!(&room[..count], text.as_bytes());
    }
    dormouse.comes_to(&name, "stopped").await;
    is_at_home(&dormouse);
}

#[tokio::test]
async fn a_port_of_ours_is_another_one_inside() {
    let Some(cli) = DockerCli::new() else { return };
    let dormouse = Dormouse::start(&cli.config()).await;
    let port = dormouse.http.port();
    let labels = ["idle_timeout=1h", &format!("*.port={port}")];
    let name = cli.sleeper(CREATE, "app", &labels, &[INSIDE, &format!("--port={port}")]).await;
    dormouse.knows(&name).await;
    let reply = dormouse.get(&name, "/echo").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", dormouse.log());
    assert_eq!(reply.body.matches("ormouse-Hop").count() + reply.body.matches("ormouse-hop").count(), 1, "{reply:?}");
}

#[tokio::test]
async fn one_that_shares_its_namespace_is_reached_there_too() {
    let Some(cli) = DockerCli::new() else { return };
    let host = cli.sleeper(RUN, "host", &["idle_timeout=1h"], &[INSIDE]).await;
    let shared = format!("container:{host}");
    let labels = ["idle_timeout=2s", "*.port=81"].map(|label| format!("--label={}.{label}", cli.prefix));
    let how = ["run", "-d", "--network", &shared];
    let guest = cli.container(&how, "guest", &labels.each_ref().map(String::as_str), &[INSIDE, "--port=81"]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&guest).await;
    let lives = [dormouse.get(&host, "/").await, dormouse.get(&guest, "/").await];
    assert!(lives.iter().all(|reply| reply.status == 200), "{lives:?}\n{}", dormouse.log());
    assert_ne!(lives[0].told("started"), lives[1].told("started"), "each is asked itself");
    dormouse.comes_to(&guest, "stopped").await;
    assert_eq!(dormouse.get(&guest, "/").await.status, 200, "{}", dormouse.log());
}

/// A server of HTTPS in the network of another process.
struct SecureServer(Child);

impl SecureServer {
    fn start(pid: &str, certificates: &Path) -> Self {
        let file = |name: &str| certificates.join(name).display().to_string();
        let child = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .args(["openssl", "s_server", "-quiet", "-www", "-accept", "127.0.0.1:443"])
            .args(["-cert", &file("app.pem"), "-key", &file("app.key")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("nsenter and openssl"))
    }
}

impl Drop for SecureServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn https_is_spoken_inside() {
    let Some(cli) = DockerCli::new() else { return };
    let authority = Authority::new("an authority of tests");
    let labels = ["idle_timeout=1h", "*.port=443", "*.no_tls_verify=true"];
    let name = cli.sleeper(RUN, "app", &labels, &[INSIDE]).await;
    authority.issue("app", &["app.test"], crate::support::tls::YEAR);
    let entry = authority.path("app.pem");
    let pid = cli.inspect(&name, "{{.State.Pid}}").await;
    let _server = SecureServer::start(&pid, entry.parent().unwrap());
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let reply = async || dormouse.get(&name, "/").await;
    let reply = until("an answer of the server", reply, |reply| reply.status == 200).await;
    assert!(field(&reply.head, "content-type").is_some_and(|kind| kind.starts_with("text/html")), "{reply:?}");
    assert!(reply.body.contains("s_server"), "{reply:?}");
}

#[tokio::test]
async fn without_the_rights_for_it_the_wake_fails_at_once_and_says_what_is_missing() {
    let Some(cli) = DockerCli::new() else { return };
    let name = cli.sleeper(CREATE, "app", &["idle_timeout=1h", "wake_timeout=5m"], &[INSIDE]).await;
    let found = cli.sleeper(RUN, "found", &["idle_timeout=1h", "wake_timeout=5m"], &[INSIDE]).await;
    let dormouse = Dormouse::start_under(&cli.config(), &["setpriv", "--bounding-set=-sys_admin"]).await;
    for name in [&name, &found] {
        dormouse.knows(name).await;
        let reply = dormouse.get(name, "/").await;
        assert_eq!(reply.status, 503, "{reply:?}\n{}", dormouse.log());
        let told = "its network namespace can not be entered";
        dormouse.has_logged(name, told, 1).await;
        let line = &dormouse.logged(name, told)[0];
        assert!(line.contains("CAP_SYS_ADMIN") && line.contains("put it on a network"), "{line}");
    }
    // What it started it lets down again; what ran already is left alone.
    until("it is let down", async || cli.status(&name).await, |status| status == "exited").await;
    assert_eq!(cli.status(&found).await, "running");
}
