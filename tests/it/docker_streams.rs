//! Stream routes by labels, to containers that sleep, on a real engine.

use std::net::SocketAddr;

use tokio::net::UdpSocket;

use crate::support::{
    apps::free_port,
    docker::DockerCli,
    dormouse::Dormouse,
    streams::{echoed, talk},
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
    let frozen = cli.sleeper(&["run", "-d"], "frozen", &labels, &["--echo"]).await;
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

    // The port closes with the container's route.
    cli.run(&["rm", "-f", &frozen]).await;
    let closed = async || tokio::net::TcpStream::connect(to).await.is_err();
    until("a closed port", closed, |closed| *closed).await;
}
