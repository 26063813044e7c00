//! An upgrade with other addresses: those that are not listened on any more are refused, and the others are kept.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use nix::sys::signal::{Signal, kill};
use tokio::net::{TcpStream, UdpSocket};

use crate::support::{
    apps::{App, config, free_port},
    dormouse::{Dormouse, get},
    line::{Line, pid},
    streams::{echoed, talk},
    wait::until,
};

const OWN: &str = "the new process is on its own";

/// A Dormouse that listens for everything there is.
struct Everywhere {
    line: Line,
    app: App,
    tcp: App,
    udp: App,
}

impl Everywhere {
    async fn start() -> Self {
        let app = App::new("app").idle("idle_timeout: 1h");
        let tcp = App::echoing("stream", "tcp").idle("idle_timeout: 1h");
        let udp = App::echoing("datagrams", "udp").idle("idle_timeout: 1h");
        let line = Line::of(Dormouse::start_secure(&config(&[&app, &tcp, &udp])).await);
        let started = Self { line, app, tcp, udp };
        started.serves().await;
        started
    }

    /// The streams of TCP: HTTP, HTTPS and the route.
    fn tcp(&self) -> [SocketAddr; 3] {
        [self.line.dormouse.http, self.line.dormouse.https.unwrap(), self.tcp.front()]
    }

    /// Has it listen elsewhere after the next upgrade.
    fn moves(&mut self) {
        let at = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        self.moves_to([at(), at(), at()], at());
    }

    fn moves_to(&mut self, [http, https, tcp]: [SocketAddr; 3], udp: SocketAddr) {
        self.line.dormouse.http = http;
        self.line.dormouse.https = Some(https);
        self.tcp.listen = Some(tcp.port());
        self.udp.listen = Some(udp.port());
        self.line.dormouse.configure(&config(&[&self.app, &self.tcp, &self.udp]));
    }

    async fn serves(&self) {
        self.line.serves("app").await;
        until("HTTPS", async || TcpStream::connect(self.tcp()[1]).await.is_ok(), |serves| *serves).await;
        let echo = async || talk(self.tcp.front(), b"hello").await.ok();
        until("the stream", echo, |echo| *echo == Some(echoed(b"hello"))).await;
        until("the datagrams", async || says(self.udp.front()).await.is_ok(), |serves| *serves).await;
    }

    fn log_has(&self, words: &str) -> usize {
        self.line.dormouse.log().matches(words).count()
    }
}

/// Whether an answer comes to a datagram, soon.
async fn says(to: SocketAddr) -> Result<(), ErrorKind> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(b"hello").await.map_err(|error| error.kind())?;
    let answer = tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut [0; 100])).await;
    answer.map_err(|_| ErrorKind::TimedOut)?.map(drop).map_err(|error| error.kind())
}

async fn are_refused(tcp: &[SocketAddr], udp: SocketAddr) {
    let refused = ErrorKind::ConnectionRefused;
    for at in tcp {
        let connect = async || TcpStream::connect(at).await.map(drop).map_err(|error| error.kind());
        let _ = until(&format!("`{at}` is refused"), connect, |answer| *answer == Err(refused)).await;
    }
    let _ = until(&format!("`{udp}` is refused"), async || says(udp).await, |answer| *answer == Err(refused)).await;
}

#[tokio::test]
async fn an_address_that_is_given_up_is_refused_while_the_old_process_stands_by() {
    let mut all = Everywhere::start().await;
    // A machine that is too slow to see it before the old one stands by no more may see it the next time.
    for _ in 0..10 {
        let (tcp, udp) = (all.tcp(), all.udp.front());
        let before = all.log_has(OWN);
        all.moves();
        all.line.upgrade().await;
        are_refused(&tcp, udp).await;
        let stood_by = all.log_has(OWN) == before;
        all.serves().await;
        for at in &tcp {
            let words = format!("not listened on any more: TCP {at}");
            assert_eq!(all.log_has(&words), 1, "{words}\n{}", all.line.dormouse.log());
        }
        if stood_by {
            // Back at once.
            all.moves_to(tcp, udp);
            all.line.upgrade().await;
            all.serves().await;
            all.line.is_one_process().await;
            assert_eq!(all.app.journal().starts(), 1);
            return all.line.end().await;
        }
        all.line.is_one_process().await;
    }
    panic!("nothing is refused before the old process has stood by to the end:\n{}", all.line.dormouse.log());
}

#[tokio::test]
async fn who_takes_the_place_of_one_that_was_killed_has_its_addresses_those_that_are_new_and_those_that_are_kept() {
    let mut all = Everywhere::start().await;
    let (before, kept) = (all.tcp(), all.udp.front());
    all.moves();
    let [http, https, _] = all.tcp();
    // The routes of streams stay where they are.
    all.moves_to([http, https, before[2]], kept);
    all.line.upgrade().await;
    kill(pid(all.line.heirs[0]), Signal::SIGKILL).unwrap();
    // Who comes to what is kept while nobody is there waits for the next one.
    assert_eq!(talk(before[2], b"hello").await.unwrap(), echoed(b"hello"));
    let told = all.line.logs("another process has taken over").await;
    all.line.heirs.push(told.rsplit("pid=").next().unwrap().trim().parse().unwrap());
    all.serves().await;
    assert!(get(before[0], "app", "/", "").await.is_err(), "the old address is still served");
    all.line.is_one_process().await;
    assert_eq!((all.app.journal().starts(), all.app.journal().ends()), (1, 0));
    all.line.end().await;
}
