//! The configuration changes while clients are being served.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    wait::{must, until},
};

const CLIENTS: usize = 50;

/// Streams until its end and tells how many events came.
async fn stream(dormouse: &Dormouse) -> usize {
    let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
    let request = "GET /stream?ms=250&n=48 HTTP/1.1\r\nHost: steady.test\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // Not `0` alone: the head may end in `Server-Timing: wake;dur=20`.
    while !bytes.ends_with(b"\r\n0\r\n\r\n") {
        let count = must("an event", stream.read_buf(&mut bytes)).await.expect("no cut");
        assert_ne!(count, 0, "cut after {:?}", String::from_utf8_lossy(&bytes));
    }
    // The connection itself lives on too.
    bytes.clear();
    let text = b"GET /echo HTTP/1.1\r\nHost: steady.test\r\nConnection: close\r\n\r\n";
    let events = 48;
    stream.write_all(text).await.unwrap();
    must("an answer on the same connection", stream.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&bytes));
    events
}

#[tokio::test]
async fn a_file_that_is_written_while_it_starts_is_taken() {
    let (one, two) = (App::new("one").idle("idle_timeout: 1h"), App::new("two").idle("idle_timeout: 1h"));
    let dormouse = Dormouse::start(&config(&[&one])).await;
    dormouse.configure(&config(&[&one, &two]));
    dormouse.knows("two").await;
}

#[tokio::test]
async fn reloads_touch_no_stream_and_a_broken_file_changes_nothing() {
    let steady = App::new("steady").idle("idle_timeout: 1s");
    let changed = App::new("changed").idle("idle_timeout: 1h");
    let added = App::new("added").idle("idle_timeout: 1h");
    let last = App::new("last").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&steady, &changed])).await;
    let streams = futures_util::future::join_all((0..CLIENTS).map(|_| stream(&dormouse)));
    let reloads = async {
        let passes = async || dormouse.api("GET", "/api/v1/backends/jobs/steady").await["passes"].as_u64();
        until("all stream", passes, |passes| *passes >= Some(CLIENTS as u64)).await;
        assert_eq!(dormouse.get("changed", "/").await.status, 200);

        let status = async |name: &str| dormouse.get(name, "/").await.status;
        dormouse.configure(&config(&[&steady, &changed, &added]));
        until("a route that was added", async || status("added").await, |status| *status == 200).await;

        // Broken in the middle, as when it is caught half written, and broken in its meaning.
        let whole = config(&[&steady, &last]);
        let half = &whole[..whole.find("backends:").unwrap() - 7];
        let wrong = whole.replace("idle_timeout: 1s", "idle_timeuot: 1s");
        for (broken, cause) in [(half, ""), (wrong.as_str(), "idle_timeuot")] {
            dormouse.configure(broken);
            let problems = async || dormouse.api("GET", "/api/v1/problems").await.to_string();
            let told = until("the problem", problems, |text| text.contains("dormouse.yaml") && text.contains(cause));
            println!("{}", told.await);
            assert_eq!(status("added").await, 200);
            assert_eq!(status("changed").await, 200);
            assert_eq!(status("last").await, 404);
        }
        let told = dormouse.log();
        assert!(told.contains("did you mean `idle_timeout`"), "no nearest key in the log:\n{told}");

        dormouse.configure(&whole);
        until("the fixed file", async || status("last").await, |status| *status == 200).await;
        until("a route that was removed", async || status("changed").await, |status| *status == 404).await;
        let problems = async || dormouse.api("GET", "/api/v1/problems").await.to_string();
        until("no problem is left", problems, |text| !text.contains("idle_timeuot")).await;
        assert_eq!(steady.journal().ends(), 0);
    };
    let (events, ()) = tokio::join!(streams, reloads);
    assert_eq!(events, vec![48; CLIENTS]);
    assert_eq!(steady.journal().starts(), 1);
    // The idle clock of the one that was never touched goes on as before.
    dormouse.reaches("steady", "asleep").await;
    steady.journal().was_never_ended_in_use();
    tokio::time::sleep(Duration::from_millis(10)).await;
}
