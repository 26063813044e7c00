//! Several backends under one name: who is woken, who gets the requests, and who may sleep again.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;

use crate::support::{
    apps::{App, config},
    docker::DockerCli,
    dormouse::{Dormouse, Load, get, request},
    wait::until,
};

const HTML: &str = "Accept: text/html\r\n";

/// A member of the group `web`.
fn member(name: &str, idle: &str, more: &str) -> App {
    App::new(name).idle(idle).route(&format!(", load_balance: {{ link: web{more} }}"))
}

/// So many slow requests at once, under way to the group when this returns.
async fn busy(dormouse: &Dormouse, clients: usize, millis: u32, apps: &[&App]) -> Vec<tokio::task::JoinHandle<u16>> {
    let (at, path) = (dormouse.http, format!("/slow?ms={millis}"));
    let arrived = || apps.iter().map(|app| app.journal().arrivals("/slow")).sum::<usize>();
    let before = arrived();
    let ask = |_| {
        let path = path.clone();
        tokio::spawn(async move { get(at, "web", &path, "").await.unwrap().status })
    };
    let asking = (0..clients).map(ask).collect();
    until("requests under way", async || arrived() - before, |count| *count >= clients).await;
    asking
}

#[tokio::test]
async fn one_of_a_sleeping_group_is_woken_and_another_only_under_load() {
    let a = member("a", "idle_timeout: 3s", ", wake_more_at: 60");
    let b = member("b", "idle_timeout: 3s", "");
    let dormouse = Dormouse::start(&config(&[&a, &b])).await;
    for reply in join_all((0..50).map(|_| dormouse.get("web", "/"))).await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!((a.journal().starts(), b.journal().starts()), (1, 0));
    // What is under way to the one awake is not too much yet, and then it is.
    let under_way = busy(&dormouse, 60, 4000, &[&a, &b]).await;
    assert_eq!(b.journal().starts(), 0);
    assert_eq!(dormouse.get("web", "/").await.status, 200);
    b.has_started(1).await;
    dormouse.reaches("b", "awake").await;
    for asked in under_way {
        assert_eq!(asked.await.unwrap(), 200);
    }
    // A trickle keeps one awake, and the other may sleep.
    let trickle = Load::begin(&dormouse, "web", "/", 1);
    dormouse.reaches("b", "asleep").await;
    assert_eq!(dormouse.state("a").await, "awake");
    let asked = trickle.end().await;
    let fine = asked.iter().filter(|asked| asked.got.as_ref().is_ok_and(|reply| reply.status == 200)).count();
    println!("{fine} of {} requests of the trickle", asked.len());
    assert_eq!(fine, asked.len());
    dormouse.reaches("a", "asleep").await;
    assert_eq!((a.journal().starts(), b.journal().starts()), (1, 1));
    a.journal().was_never_ended_in_use();
    b.journal().was_never_ended_in_use();
}

#[tokio::test]
async fn requests_are_held_for_the_second_when_the_first_does_not_start() {
    let a = member("a", "idle_timeout: 1h", "").options(&["--exit-code", "3"]);
    let b = member("b", "idle_timeout: 1h", "");
    let dormouse = Dormouse::start(&config(&[&a, &b])).await;
    let page = async { get(dormouse.http, "web", "/", HTML).await.unwrap() };
    let asks = join_all((0..20).map(|_| dormouse.get("web", "/")));
    let (page, replies) = tokio::join!(page, asks);
    for reply in replies {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!((a.journal().starts(), b.journal().starts()), (1, 1));
    // Who sees the waiting page is led on, too.
    assert!(page.status == 200 || page.body.contains("refresh"), "{page:?}");
    // While the first cools down, nobody waits for it.
    assert_eq!(get(dormouse.http, "web", "/", HTML).await.unwrap().status, 200);
}

#[tokio::test]
async fn another_member_is_woken_when_the_first_takes_too_long() {
    // As no wake of it is known, it is late after half of its time.
    let idle = "idle_timeout: 1h, wake_timeout: 6s";
    let a = member("a", idle, "").options(&["--never-listen"]);
    let b = member("b", idle, "");
    let dormouse = Dormouse::start(&config(&[&a, &b])).await;
    let page = async { get(dormouse.http, "web", "/", HTML).await.unwrap() };
    let asks = join_all((0..20).map(|_| dormouse.get("web", "/")));
    let post = async {
        a.has_started(1).await;
        let text = "POST /echo HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
        request(dormouse.http, text).await.unwrap()
    };
    let (page, replies, post) = tokio::join!(page, asks, post);
    for reply in replies.iter().chain([&post]) {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.field("server-timing").is_some_and(|field| field.contains("wake;dur")), "{reply:?}");
    }
    assert!(page.body.contains("refresh"), "{page:?}");
    assert_eq!((a.journal().starts(), b.journal().starts(), b.journal().arrivals("POST")), (1, 1, 1));
    // The first is given up as any other that is not ready in time, and nobody waits for it.
    dormouse.reaches("a", "failed").await;
    assert_eq!(dormouse.get("web", "/").await.status, 200);
    assert_eq!(a.journal().starts(), 1);
}

#[tokio::test]
async fn the_last_member_has_its_turn_though_one_hangs_and_one_fails() {
    let idle = "idle_timeout: 1h, wake_timeout: 6s";
    let a = member("a", idle, "").options(&["--never-listen"]);
    let b = member("b", idle, "").options(&["--delay-start", "200ms", "--exit-code", "7"]);
    let c = member("c", idle, "");
    let dormouse = Dormouse::start(&config(&[&a, &b, &c])).await;
    let reply = dormouse.get("web", "/").await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn who_may_not_wake_wakes_no_other_member_either() {
    let idle = "idle_timeout: 1h, start_endpoint: /start, ignore: { presets: [monitors] }";
    let a = member("a", idle, ", wake_more_at: 2");
    let b = member("b", idle, "");
    let dormouse = Dormouse::start(&config(&[&a, &b])).await;
    assert_eq!(dormouse.get("web", "/").await.status, 403);
    assert_eq!(dormouse.get("web", "/start").await.status, 200);
    let under_way = busy(&dormouse, 4, 2000, &[&a, &b]).await;
    let monitor = "User-Agent: Uptime-Kuma/1.23.11\r\n";
    assert_eq!(get(dormouse.http, "web", "/start", monitor).await.unwrap().status, 200);
    assert_eq!(dormouse.get("web", "/").await.status, 200);
    assert_eq!((a.journal().starts(), b.journal().starts()), (1, 0));
    assert_eq!(dormouse.get("web", "/start").await.status, 200);
    b.has_started(1).await;
    for asked in under_way {
        assert_eq!(asked.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_waiting_page_belongs_to_whichever_member_wakes() {
    let a = member("a", "idle_timeout: 1h", "").options(&["--delay-listen", "1s"]);
    let b = member("b", "idle_timeout: 1h", "");
    let dormouse = Dormouse::start(&config(&[&a, &b])).await;
    let page = async { get(dormouse.http, "web", "/", HTML).await.unwrap() };
    let events = async {
        a.has_started(1).await;
        get(dormouse.http, "web", "/.dormouse/progress?path=/", "").await.unwrap()
    };
    let (page, events) = tokio::join!(page, events);
    assert_eq!(page.status, 503, "{page:?}");
    assert!(page.body.contains("web") && !page.body.contains("jobs/"), "{}", page.body);
    assert!(events.status == 200 && events.body.contains("ready"), "{events:?}");
    assert_eq!((a.journal().starts(), b.journal().starts()), (1, 0));
}

#[tokio::test]
async fn one_that_dies_leaves_its_requests_to_the_other() {
    let a = member("a", "idle_timeout: 1h", "").options(&["--crash-after", "3"]);
    let b = member("b", "idle_timeout: 1h", "");
    let dormouse = Dormouse::start(&config(&[&a, &b])).await;
    for _ in 0..12 {
        let reply = dormouse.get("web", "/").await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    println!("starts: {} and {}", a.journal().starts(), b.journal().starts());
    assert!(b.journal().starts() <= 1);
}

/// The head of the request that comes.
fn head_of(stream: &mut std::net::TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
        head.push(byte[0]);
    }
    head
}

/// A service whose health can be changed. Counts the checks.
fn patient(ill: &Arc<AtomicBool>, checks: &Arc<AtomicUsize>, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (ill, checks) = (Arc::clone(ill), Arc::clone(checks));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head_of(&mut stream);
            let is_check = head.starts_with(b"HEAD /up ");
            checks.fetch_add(usize::from(is_check), Ordering::SeqCst);
            let status = if is_check && ill.load(Ordering::SeqCst) { "503 No" } else { "200 OK" };
            let body = if is_check { "" } else { name };
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    });
    at
}

#[tokio::test]
async fn an_unhealthy_member_is_left_out_until_it_is_well_and_the_last_one_is_not() {
    let (ill, checks) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (other, other_checks) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (a, b) = (patient(&ill, &checks, "a"), patient(&other, &other_checks, "b"));
    let check = "healthcheck: { path: /up, interval: 50ms, retries: 2 }";
    let dormouse = Dormouse::start(&format!("routes:\n  web: {{ endpoints: [\"{a}\", \"{b}\"], {check} }}\n")).await;
    let health = async || {
        let routes = dormouse.api("GET", "/api/v1/routes").await;
        let members = routes["routes"][0]["members"].as_array().unwrap().clone();
        members.iter().map(|member| member["health"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let seen = async || {
        let replies = join_all((0..10).map(|_| dormouse.get("web", "/"))).await;
        let mut seen: Vec<String> = replies.into_iter().map(|reply| reply.body).collect();
        seen.sort();
        seen.dedup();
        seen.join(" ")
    };
    until("both healthy", health, |health| health == "healthy healthy").await;
    assert_eq!(seen().await, "a b");
    ill.store(true, Ordering::SeqCst);
    until("one unhealthy", health, |health| health == "unhealthy healthy").await;
    assert_eq!(seen().await, "b");
    // With nobody else left, it is better to ask than to refuse.
    other.store(true, Ordering::SeqCst);
    until("both unhealthy", health, |health| health == "unhealthy unhealthy").await;
    assert_eq!(seen().await, "a b");
    ill.store(false, Ordering::SeqCst);
    until("one is well", health, |health| health == "healthy unhealthy").await;
    assert_eq!(seen().await, "a");
    let listed = routes(&dormouse);
    println!("{listed}");
    assert!(listed.contains("round_robin of 2") && listed.contains("(unhealthy)"), "{listed}");
    assert!(listed.contains(&format!("http://127.0.0.1:{}", b.port())), "{listed}");
    let log = dormouse.log();
    assert!(log.contains("is unhealthy: it answered 503 to `HEAD /up`") && log.contains("is healthy"), "{log}");
}

#[tokio::test]
async fn what_knows_no_head_is_asked_by_get_and_the_event_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head_of(&mut stream);
            let status = if head.starts_with(b"HEAD ") { "501 No" } else { "500 No" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let text = format!("routes:\n  web: {{ endpoints: [\"{at}\"], healthcheck: {{ path: /up, interval: 50ms }} }}\n");
    let dormouse = Dormouse::start(&text).await;
    until("it is told", async || dormouse.log(), |log| log.contains("it answered 500 to `GET /up`")).await;
}

/// What the command line lists.
fn routes(dormouse: &Dormouse) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dormouse"));
    let output = command.arg("--state-dir").arg(dormouse.state_dir()).arg("routes").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn checks_wake_nothing_and_keep_nothing_awake() {
    let check = ", healthcheck: { path: /up, interval: 100ms }";
    let app = App::new("app").idle("idle_timeout: 2s").route(check);
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let health = async || dormouse.api("GET", "/api/v1/backends/jobs/app").await["health"].as_str().map(str::to_owned);
    assert_eq!(health().await.as_deref(), Some("unknown"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(app.journal().starts(), 0, "a check has woken it");
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    until("a check", health, |health| health.as_deref() == Some("healthy")).await;
    // It falls asleep while it is checked ten times a second.
    dormouse.reaches("app", "asleep").await;
    let checks = app.journal().arrivals("HEAD /up");
    println!("{checks} checks");
    assert!(checks >= 3, "{checks}");
    assert_eq!(health().await.as_deref(), Some("unknown"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((app.journal().starts(), app.journal().arrivals("HEAD /up")), (1, checks));
}

#[tokio::test]
async fn sticky_clients_stay_across_a_reload_and_a_restart() {
    let one = App::new("one").idle("idle_timeout: 1h");
    let two = App::new("two").idle("idle_timeout: 1h");
    let _running = [one.run(), two.run()].map(Ended);
    let routes = |more: &str| {
        format!(
            "routes:\n  web: {{ endpoints: [\"127.0.0.1:{}\", \"127.0.0.1:{}\"], load_balance: {{ sticky: true }} }}\n{more}",
            one.port, two.port
        )
    };
    one.has_started(1).await;
    two.has_started(1).await;
    let mut dormouse = Dormouse::start(&routes("").replace("sticky: true", "sticky: false")).await;
    // Nothing is kept that nobody needs.
    let key = dormouse.state_dir().join("sticky.key");
    assert!(!key.exists());
    dormouse.configure(&routes(""));
    until("a key", async || key.exists(), |exists| *exists).await;
    let ask = async || dormouse.get("web", "/").await;
    let first = until("a cookie", ask, |reply| reply.field("set-cookie").is_some()).await;
    let cookie = first.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let fields = format!("Cookie: {cookie}\r\n");
    let same = async |dormouse: &Dormouse| {
        for _ in 0..4 {
            let reply = get(dormouse.http, "web", "/", &fields).await.unwrap();
            assert_eq!((reply.status, reply.field("set-cookie")), (200, None), "{reply:?}");
            assert_eq!(reply.told("started"), first.told("started"));
        }
    };
    same(&dormouse).await;
    dormouse.configure(&routes("  more: { host: 192.0.2.7 }\n"));
    dormouse.knows("more").await;
    same(&dormouse).await;
    assert_eq!(dormouse.end().await.code(), Some(0));
    dormouse.start_again().await;
    same(&dormouse).await;
}

/// Ends with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn two_containers_with_one_link_share_a_name() {
    let Some(cli) = DockerCli::new() else { return };
    let labels = ["aliases=web", "web.load_balance.link=web", "web.load_balance.wake_more_at=60", "idle_timeout=4s"];
    let one = cli.sleeper(&["create"], "one", &labels, &[]).await;
    let two = cli.sleeper(&["create"], "two", &labels, &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    let members = async || {
        let routes = dormouse.api("GET", "/api/v1/routes").await;
        routes["routes"][0]["members"].as_array().map_or(0, Vec::len)
    };
    until("both members", members, |members| *members == 2).await;
    for reply in join_all((0..50).map(|_| dormouse.get("web", "/"))).await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let starts = async || [cli.count(&one, "start").await, cli.count(&two, "start").await];
    assert_eq!(starts().await.iter().sum::<usize>(), 1, "50 clients have woken more than one");
    let at = dormouse.http;
    let slow = |_| tokio::spawn(async move { get(at, "web", "/slow?ms=5000", "").await.unwrap().status });
    let under_way: Vec<_> = (0..70).map(slow).collect();
    until("the second one", starts, |starts| *starts == [1, 1]).await;
    for asked in under_way {
        assert_eq!(asked.await.unwrap(), 200);
    }
    for name in [&one, &two] {
        until(&format!("{name} is asleep"), async || cli.status(name).await, |status| status == "exited").await;
        assert_eq!(cli.inspect(name, "{{.State.ExitCode}}").await, "0");
    }
    assert_eq!(starts().await, [1, 1]);
}
