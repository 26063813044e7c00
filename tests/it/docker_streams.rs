//! Stream routes by labels, to containers that sleep, on a real engine.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UdpSocket},
};

use crate::support::{
    apps::free_port,
    docker::DockerCli,
    dormouse::Dormouse,
    streams::{echoed, ends_at_once, talk},
    wait::{must, until},
};

#[tokio::test]
async fn a_label_opens_a_port_and_its_clients_wake_the_container() {
    let Some(cli) = DockerCli::new() else { return };
    let (front, other) = (free_port(), free_port());
    let port = format!("echo.port={front}:80");
    let labels = ["aliases=echo", "echo.scheme=tcp+udp", &port, "idle_timeout=2s", "flow_timeout=1s"];
    let name = cli.sleeper(&["create"], "echo", &labels, &["--echo", "--delay-listen", "300ms"]).await;
    let paused = format!("frozen.port={other}:80");
    let labels = ["aliases=frozen", &paused, "idle_timeout=2s", "stop_method=pause"];
    let run_frozen = async || cli.sleeper(&["run", "-d"], "frozen", &labels, &["--echo"]).await;
    let frozen = run_frozen().await;
    let dormouse = Dormouse::start(&cli.config()).await;
    let to = SocketAddr::from(([127, 0, 0, 1], front));
    let clients = (0..100).map(|number| async move {
        let said = format!("client {number}").into_bytes();
        assert_eq!(talk(to, &said).await.unwrap(), echoed(&said));
    });
    futures_util::future::join_all(clients).await;
    assert_eq!(cli.count(&name, "start").await, 1);
    dormouse.comes_to(&name, "stopped").await;

    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    for text in ["one", "two", "three"] {
        socket.send(text.as_bytes()).await.unwrap();
    }
    let mut room = [0; 100];
    for text in ["one", "two", "three"] {
        let count = must("an answer", socket.recv(&mut room)).await.unwrap();
        assert_eq!(&room[..count], text.as_bytes());
    }
    assert_eq!(cli.count(&name, "start").await, 2);

    dormouse.comes_to(&frozen, "paused").await;
    let to = SocketAddr::from(([127, 0, 0, 1], other));
    assert_eq!(talk(to, b"thawed").await.unwrap(), echoed(b"thawed"));
    assert_eq!((cli.count(&frozen, "start").await, cli.count(&frozen, "unpause").await), (1, 1));

    // Most containers come back under their name: the port stays for them, and turns clients away meanwhile.
    cli.run(&["rm", "-f", &frozen]).await;
    dormouse.has_logged(&frozen, "is no longer there", 1).await;
    let mut early = TcpStream::connect(to).await.unwrap();
    assert!(matches!(must("the end", early.read(&mut [0; 9])).await, Ok(0) | Err(_)));
    run_frozen().await;
    let answer = async || talk(to, b"back").await.unwrap_or_default();
    until("an answer", answer, |answer| *answer == echoed(b"back")).await;
}

#[tokio::test]
async fn a_flow_follows_its_container_to_another_address() {
    let Some(cli) = DockerCli::new() else { return };
    let (network, other) = (cli.network("one").await, cli.network("two").await);
    let front = free_port();
    let port = format!("echo.port={front}:80");
    let labels = ["aliases=echo", "echo.scheme=udp", &port, "idle_timeout=1h", "flow_timeout=1h"];
    let how: &[&str] = &["run", "-d", "--network", &network];
    let name = cli.sleeper(how, "echo", &labels, &["--echo", "--greet=here "]).await;
    let _dormouse = Dormouse::start(&cli.config()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(SocketAddr::from(([127, 0, 0, 1], front))).await.unwrap();
    // Who answers now. What was sent before may be answered late, and what is under way may get lost.
    let asked = std::cell::Cell::new(0);
    let answerer = async || {
        asked.set(asked.get() + 1);
        let (question, mut room) = (format!("question {}", asked.get()), [0; 100]);
        let _ = socket.send(question.as_bytes()).await;
        let answer = async {
            loop {
                let Ok(count) = socket.recv(&mut room).await else { return String::new() };
                let text = String::from_utf8_lossy(&room[..count]);
                if let Some(greeting) = text.strip_suffix(&question) {
                    return greeting.to_owned();
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(300), answer).await.unwrap_or_default()
    };
    until("an answer", answerer, |answerer| answerer == "here ").await;
    // It moves while it is in use, and another one takes its address.
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let before = cli.inspect(&name, address).await;
    cli.run(&["network", "disconnect", &network, &name]).await;
    cli.run(&["network", "connect", &other, &name]).await;
    let thief = cli.container(how, "thief", &[], &["--echo", "--greet=stranger "]).await;
    assert_eq!(cli.inspect(&thief, address).await, before);
    // The engine tells of networks only when it is asked, and is asked when it tells of the container.
    cli.run(&["update", "--restart=no", &name]).await;
    until("an answer from the new address", answerer, |answerer| answerer == "here ").await;
}

#[tokio::test]
async fn containers_that_lead_to_the_ports_of_each_other_end_what_they_take() {
    let Some(cli) = DockerCli::new() else { return };
    // Both listen elsewhere on the network of the host: where their labels say, only Dormouse does.
    let ports = [free_port(), free_port()];
    for (name, [front, target]) in [("one", ports), ("two", [ports[1], ports[0]])] {
        let aliases = format!("aliases={name}");
        let (scheme, port) = (format!("{name}.scheme=tcp"), format!("{name}.port={front}:{target}"));
        let (how, elsewhere) = (["run", "-d", "--network", "host"], free_port().to_string());
        let labels = [aliases.as_str(), &scheme, &port, "idle_timeout=1h"];
        cli.sleeper(&how, name, &labels, &["--echo", "--port", &elsewhere]).await;
    }
    let dormouse = Dormouse::start(&cli.config()).await;
    for port in [ports[0], ports[1], ports[0]] {
        ends_at_once(&dormouse, SocketAddr::from(([127, 0, 0, 1], port))).await;
    }
}
