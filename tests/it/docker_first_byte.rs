//! How soon after a container listens its first answer comes. These tests measure: they run alone.

use std::{
    ops::Range,
    time::{Duration, Instant, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::support::{
    docker::DockerCli,
    dormouse::{Dormouse, Figures, read_reply},
    wait::must,
};

/// Wakes one fresh container after the other, all with this delay, and tells when the answers came.
async fn first_bytes(cli: &DockerCli, dormouse: &Dormouse, delay: &str, rounds: Range<usize>) -> Vec<f64> {
    let mut figures = Vec::new();
    let words = ["--delay-listen", delay];
    for round in rounds {
        let name = cli.sleeper(&["create"], &format!("{delay}-{round}"), &["idle_timeout=1h"], &words).await;
        dormouse.knows(&name).await;
        let reply = dormouse.get(&name, "/").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(cli.count(&name, "start").await, 1);
        figures.push(reply.after_listening());
        cli.run(&["rm", "-f", &name]).await;
    }
    figures
}

#[tokio::test]
async fn the_first_byte_comes_as_soon_as_the_app_listens() {
    let Some(cli) = DockerCli::new() else { return };
    // A bridge without containers has no carrier, and the kernel lets it have one again only a second after it went. The
    // containers here come and go faster than that: another one keeps the bridge up.
    cli.container(&["run", "-d"], "keeper", &[], &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    let mut all = Vec::new();
    for delay in ["100ms", "300ms", "700ms", "1100ms", "3300ms"] {
        // A poll interval would show as a median above the bound each time; a busy moment of the machine does not.
        let mut tries = 0;
        let figures = loop {
            let figures = Figures::new(first_bytes(&cli, &dormouse, delay, 8 * tries..8 * tries + 8).await);
            println!("first byte after the app listens, {delay} after its start, {figures}");
            tries += 1;
            if figures.median() <= 5.0 {
                break figures;
            }
            assert!(tries < 4, "{delay}: {figures}");
        };
        all.extend(figures.all());
    }
    let all = Figures::new(all);
    println!("first byte after the app listens, all of them, {all}");
    assert!(all.median() <= 5.0 && all.quantile(0.95) <= 20.0, "{all}");
}

/// The engine's own call, timed from outside of everything.
async fn unpause(cli: &DockerCli, name: &str) -> f64 {
    let path = cli.address.strip_prefix("unix://").expect("a unix socket");
    let mut stream = UnixStream::connect(path).await.unwrap();
    let since = Instant::now();
    let request = format!("POST /containers/{name}/unpause HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    let took = since.elapsed();
    assert_eq!(&answer, b"HTTP/1.1 204");
    took.as_secs_f64() * 1e3
}

#[tokio::test]
async fn a_paused_one_answers_as_soon_as_the_engine_has_thawed_it() {
    let Some(cli) = DockerCli::new() else { return };
    let name = cli.sleeper(&["run", "-d"], "app", &["idle_timeout=200ms", "stop_method=pause"], &[]).await;
    let twin = cli.container(&["run", "-d"], "twin", &[], &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let (mut ours, mut engines) = (Vec::new(), Vec::new());
    for round in 0..25 {
        dormouse.has_logged(&name, "sleeps, ", round + 1).await;
        cli.run(&["pause", &twin]).await;
        engines.push(unpause(&cli, &twin).await);
        let reply = dormouse.get(&name, "/").await;
        assert_eq!(reply.status, 200);
        ours.push(reply.first_byte.duration_since(reply.sent).unwrap().as_secs_f64() * 1e3);
    }
    let (ours, engines) = (Figures::new(ours), Figures::new(engines));
    println!("first byte of a paused one: {ours}");
    println!("the engine's unpause call:  {engines}");
    let on_top = ours.median() - engines.median();
    println!("on top at the median: {on_top:.2} ms");
    assert!(on_top <= 15.0, "{on_top} ms");
}

/// Sends one request each on so many connections at once; returns status, `Retry-After`, and times of all answers.
async fn herd(dormouse: &Dormouse, name: &str, count: usize) -> Vec<crate::support::dormouse::Reply> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(TcpStream::connect(dormouse.http).await.unwrap());
    }
    let request = format!("GET / HTTP/1.1\r\nHost: {name}.test\r\nConnection: close\r\n\r\n");
    let mut clients = tokio::task::JoinSet::new();
    for mut stream in streams {
        let request = request.clone();
        clients.spawn(async move {
            let sent = std::time::SystemTime::now();
            stream.write_all(request.as_bytes()).await.unwrap();
            read_reply(&mut stream, sent).await.expect("an answer")
        });
    }
    must("all answers", clients.join_all()).await
}

#[tokio::test]
async fn a_herd_is_answered_at_once_by_one_start() {
    let Some(cli) = DockerCli::new() else { return };
    let dormouse = Dormouse::start(&cli.config()).await;
    let mut spans = Vec::new();
    for round in 0..5 {
        let words = ["--backlog=1000", "--delay-listen=1s"];
        let name = cli.sleeper(&["create"], &format!("app{round}"), &["idle_timeout=1h"], &words).await;
        dormouse.knows(&name).await;
        let replies = herd(&dormouse, &name, 500).await;
        let fine = replies.iter().filter(|reply| reply.status == 200).count();
        assert_eq!(fine, 500, "{:?}", replies.iter().find(|reply| reply.status != 200));
        assert_eq!(cli.count(&name, "start").await, 1);
        let listened = replies[0].told("listened");
        assert!(replies.iter().all(|reply| reply.told("listened") == listened), "answered by more than one life");
        spans.push(replies.iter().map(|reply| reply.after_listening()).fold(0.0, f64::max));
        cli.run(&["rm", "-f", &name]).await;
    }
    let spans = Figures::new(spans);
    println!("the last of 500 after the app listens, {spans}");
    assert!(spans.median() <= 300.0, "{spans}");
}

#[tokio::test]
async fn of_too_many_exactly_the_excess_is_refused_at_once() {
    let Some(cli) = DockerCli::new() else { return };
    let dormouse = Dormouse::start(&cli.config()).await;
    let words = ["--delay-listen=5s"];
    let name = cli.sleeper(&["create"], "app", &["idle_timeout=1h", "max_held=500"], &words).await;
    dormouse.knows(&name).await;
    let replies = herd(&dormouse, &name, 1500).await;
    let count = |status| replies.iter().filter(|reply| reply.status == status).count();
    assert_eq!((count(200), count(503)), (500, 1000));
    let listened = replies.iter().find(|reply| reply.status == 200).expect("one").told("listened");
    let mut waits = Vec::new();
    for reply in replies.iter().filter(|reply| reply.status == 503) {
        assert!(reply.field("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()), "{reply:?}");
        assert!(reply.first_byte.duration_since(UNIX_EPOCH).unwrap().as_nanos() < listened, "not at once");
        waits.push(reply.took.as_secs_f64() * 1e3);
    }
    println!("refused after, {}", Figures::new(waits));
    assert_eq!(cli.count(&name, "start").await, 1);
    // A place that is free again is given again.
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
    let sum: Duration = replies.iter().map(|reply| reply.took).sum();
    println!("mean wait of all {:?}", sum / 1500);
}
