//! Clients that leave or read slowly, time that jumps, and a machine that has no time for anybody.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    history::{Dice, History},
    wait::until,
};

fn open_files(dormouse: &Dormouse) -> usize {
    fs::read_dir(format!("/proc/{}/fd", dormouse.pid())).unwrap().count()
}

#[tokio::test]
async fn clients_that_leave_while_they_wait_leave_nothing_behind() {
    let app = App::new("app").options(&["--delay-listen", "10s"]).idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let history = History::new(dormouse.http);
    let before = open_files(&dormouse);
    let held = async || dormouse.api("GET", "/api/v1/backends/jobs/app").await["held"].as_u64().unwrap();
    let stay = futures_util::future::join_all((0..50).map(|_| history.ask(&app, "POST")));
    let leave = async {
        let mut streams = Vec::new();
        for _ in 0..150 {
            let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
            stream.write_all(b"GET /left HTTP/1.1\r\nHost: app.test\r\n\r\n").await.unwrap();
            // An orderly close after a whole request may be one who still listens. These leave with a reset.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            streams.push(stream);
        }
        until("all wait", &held, |held| *held == 200).await;
        drop(streams);
        until("those have left", &held, |held| *held == 50).await;
    };
    tokio::join!(stay, leave);
    history.check(&[&app], &[]);
    assert_eq!((history.statuses()[&200], app.journal().starts(), app.journal().arrivals("/left")), (50, 1, 0));
    // Connections to the app are kept for a while.
    let spare = 70;
    until("files are closed", async || open_files(&dormouse), |now| *now <= before + spare).await;
}

#[tokio::test]
async fn a_wake_that_nobody_waits_for_any_more_runs_to_its_end() {
    let app = App::new("app").options(&["--delay-listen", "1s"]).idle("idle_timeout: 2s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    stream.write_all(b"GET /left HTTP/1.1\r\nHost: app.test\r\n\r\n").await.unwrap();
    app.has_started(1).await;
    drop(stream);
    dormouse.reaches("app", "awake").await;
    dormouse.reaches("app", "asleep").await;
    assert_eq!((app.journal().starts(), app.journal().ends()), (1, 1));
}

#[tokio::test]
async fn requests_around_the_idle_decision_find_it_up_or_wake_it() {
    // The last request is 50 ms ago when it is decided. Half of the apps take their time to stop.
    let app = |number: usize| {
        let slow: &[&str] = if number.is_multiple_of(2) { &["--term-delay", "20ms"] } else { &[] };
        App::new(&format!("app{number}")).options(slow).idle("idle_timeout: 50ms")
    };
    let apps: Vec<App> = (0_usize..8).map(app).collect();
    let all: Vec<&App> = apps.iter().collect();
    let dormouse = Dormouse::start(&config(&all)).await;
    let (history, dice) = (History::new(dormouse.http), Dice::new());
    let rounds = if std::env::var_os("DORMOUSE_TEST_LONG").is_some() { 1250 } else { 25 };
    let clients = apps.iter().zip(0..).map(|(app, salt)| {
        let (history, mut dice) = (&history, dice.branch(salt));
        async move {
            for round in 0..rounds {
                let method = if dice.below(2) == 0 { "GET" } else { "POST" };
                assert_eq!(history.ask(app, method).await, Some(200), "{} in round {round}", app.name);
                let (least, span) = if round % 4 == 0 { (0, 120) } else { (45, 10) };
                tokio::time::sleep(Duration::from_millis(least) + dice.time(Duration::from_millis(span))).await;
            }
        }
    });
    futures_util::future::join_all(clients).await;
    let ends: usize = apps.iter().map(|app| app.journal().ends()).sum();
    println!("{} rounds, {ends} ends, the longest took {:?}", 8 * rounds, history.longest());
    assert!(ends > rounds, "the edge was hardly ever met: {ends} ends");
    history.check(&all, &[]);
    apps.iter().for_each(|app| app.journal().had_one_life_at_a_time());
}

#[tokio::test]
async fn a_slow_reader_is_in_use_to_its_last_byte() {
    let app = App::new("app").idle("idle_timeout: 500ms");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
    let text = "GET /download?bytes=12000000 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut piece = vec![0; 64 << 10];
    let (mut total, begun) = (0, Instant::now());
    loop {
        let count = stream.read(&mut piece).await.expect("no cut");
        if count == 0 {
            break;
        }
        total += count;
        // Some 3 s for all, and a long rest in the middle.
        let rest = if total > 6_000_000 && total - count <= 6_000_000 { 2000 } else { 10 };
        tokio::time::sleep(Duration::from_millis(rest)).await;
    }
    println!("{total} bytes in {:?}", begun.elapsed());
    assert!(total > 12_000_000, "cut after {total} bytes");
    dormouse.reaches("app", "asleep").await;
    assert_eq!((app.journal().starts(), app.journal().ends()), (1, 1));
    app.journal().was_never_ended_in_use();
}

/// A library that moves the wall clock of a program by the seconds in a file, whenever they change.
fn moving_clock(directory: &std::path::Path) -> String {
    let source = directory.join("clock.rs");
    let library = directory.join("clock.so");
    let text = r#"
        #[repr(C)] pub struct Time { seconds: i64, nanoseconds: i64 }
        unsafe extern "C" { fn syscall(number: i64, clock: i32, time: *mut Time) -> i64; fn getenv(name: *const i8) -> *const i8;
            fn open(path: *const i8, flags: i32) -> i32; fn read(file: i32, to: *mut u8, most: usize) -> isize; fn close(file: i32) -> i32; }
        #[unsafe(no_mangle)] pub unsafe extern "C" fn clock_gettime(clock: i32, time: *mut Time) -> i32 {
            let result = unsafe { syscall(228, clock, time) };
            if clock == 0 && result == 0 { unsafe {
                let path = getenv(c"CLOCK_OFFSET".as_ptr().cast());
                let file = if path.is_null() { -1 } else { open(path, 0) };
                if file >= 0 {
                    let mut text = [0_u8; 20];
                    let count = read(file, text.as_mut_ptr(), 20);
                    close(file);
                    let (mut offset, mut sign) = (0, 1);
                    for &byte in text.iter().take(count.max(0) as usize) {
                        match byte { b'-' => sign = -1, b'0'..=b'9' => offset = offset * 10 + i64::from(byte - b'0'), _ => {} }
                    }
                    (*time).seconds += sign * offset;
                }
            } }
            result as i32
        }
    "#;
    fs::write(&source, text).unwrap();
    let words = ["--edition", "2024", "--crate-type", "cdylib", "-C", "panic=abort", "-O", "-o"];
    let built = Command::new("rustc").args(words).arg(&library).arg(&source).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library.display().to_string()
}

#[tokio::test]
#[cfg(target_arch = "x86_64")]
async fn jumps_of_the_wall_clock_end_nothing_early_and_keep_nothing_awake() {
    let directory = tempfile::tempdir().unwrap();
    let offset = directory.path().join("offset");
    fs::write(&offset, "0").unwrap();
    let library = moving_clock(directory.path());
    let idle = App::new("idle").idle("idle_timeout: 6s");
    let used = App::new("used").idle("idle_timeout: 1s");
    let environment = [("LD_PRELOAD", library.as_str()), ("CLOCK_OFFSET", offset.to_str().unwrap())];
    // Wakes again and again, which is told with the time.
    let brief = App::new("brief").idle("idle_timeout: 100ms");
    let dormouse = Dormouse::start_in(&config(&[&idle, &used, &brief]), &environment).await;
    let history = History::new(dormouse.http);
    assert_eq!(history.ask(&used, "GET").await, Some(200));
    let stream = dormouse.get("used", "/stream?ms=500&n=16");
    let jumps = async {
        let (hour, year) = (3600, 365 * 24 * 3600);
        for jump in [hour, -hour, year, 0] {
            assert_eq!(history.ask(&idle, "GET").await, Some(200));
            let last = Instant::now();
            fs::write(&offset, jump.to_string()).unwrap();
            tokio::time::sleep(Duration::from_millis(1000)).await;
            assert_eq!(history.ask(&brief, "GET").await, Some(200));
            tokio::time::sleep(Duration::from_millis(500)).await;
            // By its own clock it slept through hours. By ours it was quiet for a moment.
            if last.elapsed() < Duration::from_secs(5) {
                assert_eq!((idle.journal().starts(), idle.journal().ends()), (1, 0), "ended by a jump of {jump} s");
            }
        }
    };
    let (reply, ()) = tokio::join!(stream, jumps);
    assert_eq!(reply.body.matches("data: ").count(), 16, "a stream was cut");
    let years: BTreeSet<_> = dormouse.log().lines().map(|line| line.chars().take(4).collect::<String>()).collect();
    println!("years of the log: {years:?}");
    assert!(years.len() > 1, "the jumps were not felt:\n{}", dormouse.log());
    // And time goes on.
    dormouse.reaches("idle", "asleep").await;
    dormouse.reaches("used", "asleep").await;
    history.check(&[&idle, &used, &brief], &[]);
}

#[tokio::test]
async fn a_suspended_dormouse_goes_on_where_it_was() {
    let app = App::new("app").idle("idle_timeout: 3s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let history = History::new(dormouse.http);
    let stream = dormouse.get("app", "/stream?ms=500&n=20");
    let suspend = async {
        until("the stream", async || app.journal().arrivals("/stream"), |count| *count == 1).await;
        dormouse.signal(libc::SIGSTOP);
        let asks = (0..10).map(|_| history.ask(&app, "POST"));
        let resume = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            dormouse.signal(libc::SIGCONT);
        };
        tokio::join!(futures_util::future::join_all(asks), resume);
    };
    let (reply, ()) = tokio::join!(stream, suspend);
    assert_eq!(reply.body.matches("data: ").count(), 20, "the stream was cut");
    history.check(&[&app], &[]);
    assert_eq!((history.statuses()[&200], app.journal().starts()), (10, 1));
    dormouse.reaches("app", "asleep").await;
}

#[tokio::test]
async fn without_processor_time_nothing_is_ended_in_use_and_nothing_fails() {
    let apps: Vec<App> = (0..4).map(|number| App::new(&format!("app{number}")).idle("idle_timeout: 300ms")).collect();
    let dormouse = Dormouse::start(&config(&apps.iter().collect::<Vec<_>>())).await;
    let history = History::new(dormouse.http);
    let over = Arc::new(AtomicBool::new(false));
    let spinners: Vec<_> = (0..8)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {})
        })
        .collect();
    let clients = apps.iter().map(|app| async {
        for round in 0..25_u64 {
            let method = if round % 2 == 0 { "GET" } else { "POST" };
            let path = if round % 5 == 0 { "/slow?ms=600" } else { "/echo" };
            if path == "/echo" {
                history.ask(app, method).await;
            } else {
                assert_eq!(dormouse.get(&app.name, path).await.status, 200);
            }
            tokio::time::sleep(Duration::from_millis(round * 25)).await;
        }
    });
    futures_util::future::join_all(clients).await;
    over.store(true, Ordering::Relaxed);
    spinners.into_iter().for_each(|spinner| spinner.join().unwrap());
    println!("{:?}, the longest took {:?}", history.statuses(), history.longest());
    history.check(&apps.iter().collect::<Vec<_>>(), &[]);
    let log = dormouse.log();
    assert!(!log.contains("did not wake") && !log.contains("could not be let down"), "{log}");
    apps.iter().for_each(|app| app.journal().had_one_life_at_a_time());
}
