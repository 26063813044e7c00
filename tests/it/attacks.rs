//! Attacks on the program itself: floods, clients that do not read, clients that do not finish, and very many of them.
//! Others are served meanwhile, memory is bounded, and when it ends all is as before.

use std::{
    fs, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    frames::{CONTINUATION, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WHOLE, frame, get, hello},
    history::History,
    wait::{LONG, until},
};

fn memory(dormouse: &Dormouse) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", dormouse.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// An app that is awake, behind a Dormouse, and a record of those who ask for it.
async fn awake() -> (App, Dormouse, History) {
    let app = App::new("app").idle("idle_timeout: 2s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    let history = History::new(dormouse.http);
    (app, dormouse, history)
}

/// Others are served while something goes on, and none of them waits for long.
async fn others_are_served(what: &str, app: &App, history: &History, meanwhile: impl Future<Output = ()>) {
    let over = AtomicBool::new(false);
    let asks = async {
        let mut asked = 0;
        while !over.load(Ordering::SeqCst) || asked < 20 {
            let method = if asked % 2 == 0 { "GET" } else { "POST" };
            assert_eq!(history.ask(app, method).await, Some(200), "{what}");
            asked += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let meanwhile = async {
        meanwhile.await;
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(asks, meanwhile);
    history.check(&[app], &[]);
    println!("{what}: {:?}, the longest took {:?}", history.statuses(), history.longest());
    assert!(history.longest() < Duration::from_secs(15), "{what}: {:?}", history.longest());
}

/// When all have gone nothing is left in hand: it goes to sleep, and can be woken.
async fn all_is_as_before(app: &App, dormouse: &Dormouse) {
    until("the app is asleep", async || dormouse.state("app").await, |state| state == "asleep").await;
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    app.journal().was_never_ended_in_use();
}

/// Sends the same again and again, on a new connection where one was ended, for so long; how often it was ended.
async fn flood(at: SocketAddr, begin: Vec<u8>, bytes: Arc<Vec<u8>>, time: Duration) -> usize {
    let (since, mut ended) = (Instant::now(), 0);
    while since.elapsed() < time {
        let Ok(stream) = TcpStream::connect(at).await else { continue };
        let (mut answers, mut out) = stream.into_split();
        // Whoever does not read is stopped by that alone.
        let reading = tokio::spawn(async move {
            let mut bytes = vec![0; 64 << 10];
            while answers.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
        });
        let writing = async {
            out.write_all(&begin).await?;
            while since.elapsed() < time {
                out.write_all(&bytes).await?;
            }
            Ok::<_, io::Error>(())
        };
        // One whose connection is held without being read has been stopped too.
        let left = time.saturating_sub(since.elapsed());
        match tokio::time::timeout(left, writing).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => ended += 1,
        }
        reading.abort();
    }
    ended
}

#[tokio::test]
async fn floods_of_http_2() {
    let (app, dormouse, history) = awake().await;
    let (at, time) = (dormouse.http, Duration::from_secs(2));
    let block = get("/attack");
    let cancel = 8u32.to_be_bytes();
    let reset =
        |at: u32| [frame(HEADERS, WHOLE, 2 * at + 1, &block), frame(RST_STREAM, 0, 2 * at + 1, &cancel)].concat();
    let setting = [0, 4, 0, 0, 255, 255];
    // What begins each connection, and what follows without end.
    let floods = [
        ("rapid resets", (0..10_000).flat_map(reset).collect(), frame(PING, 1, 0, &[0; 8])),
        ("continuations", frame(HEADERS, 1, 1, &block), frame(CONTINUATION, 0, 1, &[0; 0]).repeat(100)),
        ("large continuations", frame(HEADERS, 1, 1, &block), frame(CONTINUATION, 0, 1, &[0x40; 16_000])),
        ("settings", Vec::new(), frame(SETTINGS, 0, 0, &setting).repeat(100)),
        ("pings", Vec::new(), frame(PING, 0, 0, &[0; 8]).repeat(100)),
    ];
    let before = memory(&dormouse);
    for (name, begin, bytes) in floods {
        let (begin, bytes) = ([hello(&[]), begin].concat(), Arc::new(bytes));
        let mut attackers = JoinSet::new();
        for _ in 0..4 {
            attackers.spawn(flood(at, begin.clone(), Arc::clone(&bytes), time));
        }
        let mut ended = 0;
        others_are_served(name, &app, &history, async { ended = attackers.join_all().await.into_iter().sum() }).await;
        println!("{name}: {ended} connections were ended, {} KiB more", memory(&dormouse).saturating_sub(before));
        assert!(ended >= 4, "{name}: the connections of the attackers were not ended");
    }
    let grown = memory(&dormouse).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
    all_is_as_before(&app, &dormouse).await;
}

#[tokio::test]
async fn clients_that_do_not_read() {
    let (app, dormouse, history) = awake().await;
    let before = memory(&dormouse);
    let mut hoard = Vec::new();
    // Of HTTP/2: no room for any answer, and as many large ones as one may ask for at once.
    for _ in 0..10 {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        let asks = (0..100).flat_map(|at| frame(HEADERS, WHOLE, 2 * at + 1, &get("/download?bytes=3000000")));
        stream.write_all(&[hello(&[0, 4, 0, 0, 0, 0]), asks.collect()].concat()).await.unwrap();
        hoard.push(stream);
    }
    // Of HTTP/1.1: one large answer each.
    for _ in 0..100 {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        stream.write_all(b"GET /download?bytes=50000000 HTTP/1.1\r\nHost: app.test\r\n\r\n").await.unwrap();
        hoard.push(stream);
    }
    others_are_served("those who do not read", &app, &history, tokio::time::sleep(Duration::from_secs(3))).await;
    let grown = memory(&dormouse).saturating_sub(before);
    println!("{grown} KiB for 1100 answers that nobody reads");
    assert!(grown < 224 << 10, "{grown} KiB");
    drop(hoard);
    all_is_as_before(&app, &dormouse).await;
}

/// A GET with this many references to a field of 4,000 bytes, which the first of a connection has remembered.
fn inflated(path: &str, first: bool, times: usize) -> Vec<u8> {
    // A name of one byte, and a value whose length is 127 + 33 + 30 * 128.
    let remembered = [&[0x40, 1, b'x', 0x7F, 0xA1, 0x1E][..], &[b'y'; 4000]].concat();
    [get(path), if first { remembered } else { Vec::new() }, vec![0xBE; times]].concat()
}

#[tokio::test]
async fn small_heads_that_grow_behind_closed_windows() {
    let (app, dormouse, history) = awake().await;
    let before = memory(&dormouse);
    let mut hoard = Vec::new();
    // Each connection asks a hundred times for a large answer it has no room for, with a head that is 24 KiB once it is read
    // and some thirty bytes on the way.
    for _ in 0..10 {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        let ask = |at: u32| frame(HEADERS, WHOLE, 2 * at + 1, &inflated("/download?bytes=3000000", at == 0, 6));
        let asks = [hello(&[0, 4, 0, 0, 0, 0]), (0..100).flat_map(ask).collect()].concat();
        assert!(asks.len() < 12_000, "{} bytes", asks.len());
        stream.write_all(&asks).await.unwrap();
        hoard.push(stream);
    }
    // And with heads that are 32 MiB each: those are not even read to their end.
    for _ in 0..50 {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        let bomb = frame(HEADERS, WHOLE, 1, &inflated("/", true, 8000));
        stream.write_all(&[hello(&[0, 4, 0, 0, 0, 0]), bomb].concat()).await.unwrap();
        hoard.push(stream);
    }
    let arrived = async || app.journal().arrivals("/download?bytes=3000000");
    until("all of them are worked on", arrived, |count| *count == 1000).await;
    assert_eq!(history.ask(&app, "GET").await, Some(200));
    let grown = memory(&dormouse).saturating_sub(before);
    println!("{grown} KiB for 1000 answers that nobody reads, and 50 heads of 32 MiB");
    // As of others who do not read: a head and a buffer each. The bombs alone would be 1,600 MiB.
    assert!(grown < 224 << 10, "{grown} KiB");
    drop(hoard);
    all_is_as_before(&app, &dormouse).await;
}

#[tokio::test]
async fn clients_that_do_not_finish() {
    let (app, dormouse, history) = awake().await;
    let before = memory(&dormouse);
    // Those of each kind whose connection was ended.
    let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicUsize::new(0) }; 3]));
    let mut slow = JoinSet::new();
    let since = Instant::now();
    for number in 0..300_usize {
        let (at, stop, ended) = (dormouse.http, Arc::clone(&stop), Arc::clone(&ended));
        slow.spawn(async move {
            let begin = match number % 3 {
                0 => b"GET / HTTP/1.1\r\nHost: app.test\r\nX-Slow: ".to_vec(),
                1 => b"POST /echo HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100000\r\n\r\n".to_vec(),
                _ => [hello(&[]), frame(HEADERS, 1, 1, &get("/"))[..12].to_vec()].concat(),
            };
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(&begin).await.unwrap();
            // The head of HTTP/2 grows no further: one byte more and it would be whole.
            let step: &[u8] = if number % 3 == 2 { b"" } else { b"x" };
            let mut answer = [0; 1024];
            while !stop.load(Ordering::SeqCst) {
                match tokio::time::timeout(Duration::from_millis(200), stream.read(&mut answer)).await {
                    Ok(Ok(0) | Err(_)) => {
                        ended[number % 3].fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    Ok(Ok(_)) => {}
                    Err(_) => {
                        let _ = stream.write_all(step).await;
                    }
                }
            }
        });
    }
    let over = async || [0, 1, 2].map(|kind: usize| ended[kind].load(Ordering::SeqCst));
    // The heads, of both versions; the bodies go on for as long again.
    let heads = async {
        let ended = until("all heads are given up", over, |ended| ended[0] + ended[2] == 200).await;
        println!("{ended:?} were ended after {:?}", since.elapsed());
    };
    others_are_served("those who do not finish", &app, &history, heads).await;
    let grown = memory(&dormouse).saturating_sub(before);
    println!("the heads were given up after {:?}; {grown} KiB more", since.elapsed());
    assert!(grown < 32 << 10, "{grown} KiB for 300 slow ones");
    stop.store(true, Ordering::SeqCst);
    slow.join_all().await;
    all_is_as_before(&app, &dormouse).await;
}

#[tokio::test]
async fn ten_thousand_idle_connections() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    assert!(most >= 12_000, "this test needs 12,000 descriptors, and may have {most}");
    let (app, dormouse, history) = awake().await;
    let before = memory(&dormouse);
    let mut hoard = Vec::new();
    for number in 0..10_000 {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        match number % 4 {
            // Silent ones, two that have asked, and one of HTTP/2.
            0 => {}
            1 => stream.write_all(&hello(&[])).await.unwrap(),
            _ => stream.write_all(b"GET / HTTP/1.1\r\nHost: unknown.test\r\n\r\n").await.unwrap(),
        }
        hoard.push(stream);
    }
    others_are_served("with 10,000 idle ones", &app, &history, async {}).await;
    let mut answered = 0;
    for (number, stream) in hoard.iter_mut().enumerate().filter(|(number, _)| number % 4 > 0) {
        let count = tokio::time::timeout(LONG, stream.read(&mut [0; 4096])).await.unwrap().unwrap();
        assert!(count > 0, "connection {number} was ended");
        answered += 1;
    }
    let grown = memory(&dormouse).saturating_sub(before);
    println!("{answered} answered; {grown} KiB more, {} bytes each", grown * 1024 / 10_000);
    assert!(grown < 160 << 10, "{grown} KiB for 10,000 idle ones");
    let busy = dormouse.cpu_time();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = dormouse.cpu_time().saturating_sub(busy);
    assert!(spent < Duration::from_secs(1), "a busy loop: {spent:?} in two seconds");
    drop(hoard);
    all_is_as_before(&app, &dormouse).await;
}

#[tokio::test]
async fn with_200_descriptors_and_more_clients_than_that() {
    let app = App::new("app").idle("idle_timeout: 2s");
    let dormouse = Dormouse::start_bounded(&config(&[&app]), 200).await;
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    let before = memory(&dormouse);
    let mut hoard = Vec::new();
    for number in 0..400 {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        // Some are silent, some hold half a head, some have asked and stay.
        let text: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET / HTTP/1.1\r\n",
            _ => b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        };
        // Those for whom there is no place are cut.
        let _ = stream.write_all(text).await;
        hoard.push(stream);
    }
    let history = History::new(dormouse.http);
    // At first there is no place for them, and they are told so at once; then those who do not go on are let go.
    let mut served = 0;
    let since = Instant::now();
    while served < 20 {
        let status = history.ask(&app, "GET").await;
        assert!(matches!(status, Some(200 | 503)), "{status:?}\n{}", dormouse.log());
        served += usize::from(status == Some(200));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(since.elapsed() < LONG, "{:?}\n{}", history.statuses(), dormouse.log());
    }
    println!("{:?} in {:?}, the longest took {:?}", history.statuses(), since.elapsed(), history.longest());
    let grown = memory(&dormouse).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    drop(hoard);
    until("an answer", async || history.ask(&app, "GET").await, |status| *status == Some(200)).await;
    all_is_as_before(&app, &dormouse).await;
}

/// The frames that came: kind and payload, as far as they are whole.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push((head[3], payload.to_vec()));
        bytes = rest;
    }
    frames
}

#[tokio::test]
async fn those_who_asked_and_stay_give_their_places_to_others() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start_bounded(&config(&[&app]), 200).await;
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    let before = memory(&dormouse);
    // More than there are places for: each asks once, has its answer and stays, by turns with HTTP/1.1 and HTTP/2.
    let mut hoard = Vec::new();
    for number in 0..400 {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        let http2 = number % 2 == 1;
        let request = if http2 {
            [hello(&[]), frame(HEADERS, WHOLE, 1, &get("/"))].concat()
        } else {
            b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n".to_vec()
        };
        stream.write_all(&request).await.unwrap();
        let mut got = Vec::new();
        let answered = |got: &[u8]| match http2 {
            true => frames(got).iter().any(|(kind, _)| *kind == HEADERS),
            false => got.starts_with(b"HTTP/1.1 200 "),
        };
        while !answered(&got) {
            let read = tokio::time::timeout(LONG, stream.read_buf(&mut got)).await.unwrap();
            assert!(read.is_ok_and(|count| count > 0), "{number}: {got:?}\n{}", dormouse.log());
        }
        hoard.push((http2, stream, got));
    }
    let history = History::new(dormouse.http);
    others_are_served("beside those who stay", &app, &history, async {}).await;
    let grown = memory(&dormouse).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    // Who came first went first, and was told so where the protocol has words for it.
    for (http2, stream, got) in hoard.iter_mut().take(100) {
        tokio::time::timeout(LONG, stream.read_to_end(got)).await.expect("its place is needed").unwrap();
        if *http2 {
            let (kind, payload) = frames(got).pop().unwrap();
            assert_eq!((kind, payload.as_slice()), (GOAWAY, [0, 0, 0, 1, 0, 0, 0, 0].as_slice()), "no error");
        }
    }
    let (http2, last, got) = &mut hoard[399];
    assert!(*http2, "the last one has HTTP/2");
    last.write_all(&frame(PING, 0, 0, b"are you?")).await.unwrap();
    let still_there = |got: &[u8]| frames(got).contains(&(PING, b"are you?".to_vec()));
    while !still_there(got) {
        assert!(tokio::time::timeout(LONG, last.read_buf(got)).await.unwrap().is_ok_and(|count| count > 0), "{got:?}");
    }
}

#[tokio::test]
async fn connections_to_services_that_wait_give_way_when_descriptors_run_out() {
    // Many services, each with a connection that is kept alive: more of them than there are descriptors.
    const MANY: usize = 300;
    let mut text = String::from("routes:\n");
    let mut services = JoinSet::new();
    for number in 0..MANY {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        text += &format!("  s{number}: {{ host: 127.0.0.1, port: {port}, scheme: http }}\n");
        services.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                    }
                });
            }
        });
    }
    let dormouse = Dormouse::start_bounded(&text, 200).await;
    for number in 0..2 * MANY {
        let reply = dormouse.get(&format!("s{}", number % MANY), "/").await;
        assert_eq!(reply.status, 200, "{number}: {reply:?}\n{}", dormouse.log());
    }
    // Several at once.
    let names: Vec<_> = (0..30).map(|number| format!("s{number}")).collect();
    for reply in join_all(names.iter().map(|name| dormouse.get(name, "/"))).await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}
