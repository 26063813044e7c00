//! What lasts longer than the idle timeout keeps its backend awake, and the idle time begins at its end.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    wait::must,
};

async fn web_socket(dormouse: &Dormouse, name: &str) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(dormouse.http).await.unwrap();
    let (socket, answer) = must("a WebSocket", client_async(format!("ws://{name}.test/ws"), stream)).await.unwrap();
    assert_eq!(answer.status(), 101);
    socket
}

/// It was not ended while in use, ran in one life, and sleeps its idle timeout after the use ended.
async fn sleeps_after(dormouse: &Dormouse, app: &App, idle: Duration, ended: Instant) {
    assert_eq!((app.journal().starts(), app.journal().ends()), (1, 0), "{} was ended in use", app.name);
    dormouse.has_logged(&app.name, "is let down", 1).await;
    let quiet = ended.elapsed();
    println!("{}: told to end {:.2} s after its last use", app.name, quiet.as_secs_f64());
    assert!(quiet >= idle - Duration::from_millis(50), "{} sleeps after {quiet:?}", app.name);
    dormouse.reaches(&app.name, "asleep").await;
    app.journal().was_never_ended_in_use();
}

const IDLE: Duration = Duration::from_secs(2);

fn app(name: &str) -> App {
    App::new(name).idle("idle_timeout: 2s")
}

#[tokio::test]
async fn streams_that_outlive_the_idle_timeout_five_times_are_not_cut() {
    let apps = ["download", "silent", "socket", "quiet-socket", "events"].map(app);
    let [download, silent, socket, quiet_socket, events] = &apps;
    let dormouse = Dormouse::start(&config(&apps.each_ref())).await;
    let dormouse = &dormouse;
    let downloads = async {
        // A KiB in each twentieth of a second: 10 s.
        let reply = dormouse.get(&download.name, "/download?bytes=204800&rate=20480").await;
        assert_eq!((reply.status, reply.body.len()), (200, 204_800));
        assert!(reply.took >= 5 * IDLE, "too fast to show anything: {:?}", reply.took);
        sleeps_after(dormouse, download, IDLE, Instant::now()).await;
    };
    let waits = async {
        let reply = dormouse.get(&silent.name, "/slow?ms=10000").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "slow\n"));
        sleeps_after(dormouse, silent, IDLE, Instant::now()).await;
    };
    let talks = async {
        let mut stream = web_socket(dormouse, &socket.name).await;
        for number in 0..11 {
            let text = format!("message {number}");
            stream.send(Message::text(text.clone())).await.unwrap();
            let back = must("an echo", stream.next()).await.unwrap().unwrap();
            assert_eq!(back, Message::text(text));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        stream.close(None).await.unwrap();
        while let Some(Ok(_)) = must("the end of the WebSocket", stream.next()).await {}
        sleeps_after(dormouse, socket, IDLE, Instant::now()).await;
    };
    let says_nothing = async {
        let mut stream = web_socket(dormouse, &quiet_socket.name).await;
        tokio::time::sleep(5 * IDLE).await;
        stream.send(Message::text("still there")).await.unwrap();
        let back = must("an echo", stream.next()).await.unwrap().unwrap();
        assert_eq!(back, Message::text("still there"));
        drop(stream);
        sleeps_after(dormouse, quiet_socket, IDLE, Instant::now()).await;
    };
    let listens = async {
        let reply = dormouse.get(&events.name, "/stream?ms=3000&n=4").await;
        assert_eq!(reply.body.matches("data: ").count(), 4, "{}", reply.body);
        sleeps_after(dormouse, events, IDLE, Instant::now()).await;
    };
    tokio::join!(downloads, waits, talks, says_nothing, listens);
}

#[tokio::test]
async fn a_web_socket_silent_beyond_stream_idle_is_closed_with_1001() {
    let app = App::new("app").idle("idle_timeout: 1s, stream_idle: 2s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let mut stream = web_socket(&dormouse, "app").await;
    // As long as it talks it is not silent.
    for _ in 0..4 {
        stream.send(Message::text("hello")).await.unwrap();
        assert!(must("an echo", stream.next()).await.unwrap().unwrap().is_text());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stream.send(Message::text("last")).await.unwrap();
    assert!(must("an echo", stream.next()).await.unwrap().unwrap().is_text());
    let silent = Instant::now();
    let end = must("the close frame", stream.next()).await.unwrap().unwrap();
    let Message::Close(Some(frame)) = end else { panic!("no close frame, but {end:?}") };
    assert_eq!(frame.code, CloseCode::Away);
    println!("closed with 1001 after {:.2} s of silence", silent.elapsed().as_secs_f64());
    assert!(silent.elapsed() >= Duration::from_millis(1900));
    drop(stream);
    dormouse.reaches("app", "asleep").await;
    assert_eq!(app.journal().starts(), 1);
}

#[tokio::test]
async fn a_busy_check_that_can_not_be_run_is_told() {
    let app = App::new("app").idle("idle_timeout: 300ms, busy: /nonexistent/busy");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    dormouse.reaches("app", "asleep").await;
    let log = dormouse.log();
    assert!(log.contains("the command of `busy` can not be run") && log.contains("/nonexistent/busy"), "{log}");
}
