//! Containers that do not come up.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::support::{
    docker::DockerCli,
    dormouse::{Dormouse, Figures, Reply, get},
    wait::until,
};

fn nanoseconds(at: SystemTime) -> i128 {
    Timestamp::try_from(at).unwrap().as_nanosecond()
}

fn retry_after(reply: &Reply) -> u64 {
    let after = reply.field("retry-after").unwrap_or_else(|| panic!("no Retry-After in {reply:?}"));
    after.parse().expect("seconds")
}

#[tokio::test]
async fn when_the_wake_takes_too_long_every_waiter_is_told_at_that_moment() {
    let Some(cli) = DockerCli::new() else { return };
    let labels = ["idle_timeout=1h", "wake_timeout=3s"];
    let name = cli.sleeper(&["create"], "mute", &labels, &["--never-listen"]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let late = async |millis| {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        dormouse.get(&name, "/").await
    };
    // A person, whose page says why in the end: without scripts, its response stays open until then.
    let page = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        get(dormouse.http, &name, "/", "Accept: text/html\r\n").await.unwrap()
    };
    let (first, second, third, page) = tokio::join!(late(0), late(800), late(2200), page);
    let start = cli.happened_at(&name, "start").await;
    let times = [&first, &second, &third].map(|reply| {
        assert_eq!(reply.status, 504, "{reply:?}");
        nanoseconds(reply.first_byte)
    });
    let spread = (times.iter().max().unwrap() - times.iter().min().unwrap()) as f64 / 1e6;
    let after_start = (times[0] - start) as f64 / 1e9;
    println!("504 for all within {spread:.1} ms of each other, {after_start:.2} s after the start event");
    assert!(spread < 50.0, "{spread} ms");
    // From the start call, which began before its event.
    assert!((2.0..3.1).contains(&after_start), "{after_start} s");
    assert!(first.took > Duration::from_secs(3), "{first:?}");
    assert!(first.body.contains("did not start in time"), "{first:?}");
    assert_eq!(page.status, 503);
    assert!(page.took > Duration::from_millis(2500), "it stays open until the end: {:?}", page.took);
    let refreshes = page.body.matches("http-equiv=\"refresh\"").count();
    assert!(refreshes > 0, "nothing leads on to the reason: {}", page.body);
    let failed = get(dormouse.http, &name, "/", "Accept: text/html\r\n").await.unwrap();
    assert_eq!(failed.status, 503);
    let shown = failed.body.lines().find(|line| line.contains("id=\"failed\"")).unwrap_or_default();
    println!("{shown}");
    assert!(shown.contains("not ready in time"), "the page shows the reason: {shown}");
    until("the half-started one is stopped", async || cli.status(&name).await, |status| status == "exited").await;
    assert_eq!(cli.count(&name, "start").await, 1);
}

#[tokio::test]
async fn one_that_is_left_half_started_may_still_come_up() {
    let Some(cli) = DockerCli::new() else { return };
    let labels = ["idle_timeout=1h", "wake_timeout=1s", "on_wake_timeout=leave"];
    let name = cli.sleeper(&["create"], "late", &labels, &["--delay-listen=4s"]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    assert_eq!(dormouse.get(&name, "/").await.status, 504);
    assert_eq!(cli.status(&name).await, "running");
    let answer = async || dormouse.get(&name, "/").await.status;
    until("it is served in the end", answer, |status| *status == 200).await;
    assert_eq!(cli.count(&name, "start").await, 1);
}

#[tokio::test]
async fn one_that_ends_at_once_is_told_at_once_and_cools_down_twice_as_long_each_time() {
    let Some(cli) = DockerCli::new() else { return };
    let dormouse = Dormouse::start(&cli.config()).await;
    let mut figures = Vec::new();
    for round in 0..5 {
        let arguments = ["--delay-start=300ms", "--exit-code=3"];
        let name = cli.sleeper(&["create"], &format!("broken{round}"), &["idle_timeout=1h"], &arguments).await;
        dormouse.knows(&name).await;
        let reply = dormouse.get(&name, "/").await;
        assert_eq!(reply.status, 503, "{reply:?}");
        let died = cli.happened_at(&name, "die").await;
        figures.push((nanoseconds(reply.first_byte) - died) as f64 / 1e6);
        let failure = dormouse.container(&name).await["failure"].to_string();
        assert!(failure.contains("exit code 3"), "{failure}");
    }
    let figures = Figures::new(figures);
    println!("503 after the die event: {figures}");
    assert!(figures.median() <= 50.0, "{figures}");
    // The last one: the cool-down of the first may have passed.
    let name = cli.name("broken4");
    for cool_down in [5, 10] {
        let starts = cli.count(&name, "start").await;
        let refused = dormouse.get(&name, "/").await;
        assert_eq!(refused.status, 503);
        let after = retry_after(&refused);
        println!("cools down for {after} s more, told after {:?}", refused.took);
        assert!((1..=cool_down).contains(&after) && after + 4 > cool_down - 4, "{after} s");
        assert!(refused.took < Duration::from_millis(500), "at once: {:?}", refused.took);
        assert_eq!(cli.count(&name, "start").await, starts, "not tried again while it cools down");
        let tried = async || {
            dormouse.get(&name, "/").await;
            cli.count(&name, "start").await
        };
        let since = SystemTime::now();
        until("the next try", tried, |count| *count > starts).await;
        println!("tried again after {:?}", since.elapsed().unwrap());
    }
    assert!(dormouse.container(&name).await["wakes"]["failed"].as_u64() >= Some(3));
}

#[tokio::test]
async fn a_start_that_the_engine_refuses_is_told_with_its_reason() {
    let Some(cli) = DockerCli::new() else { return };
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = format!("127.0.0.1:{}:80", taken.local_addr().unwrap().port());
    let directory = tempfile::tempdir().unwrap();
    let mount = format!("type=bind,source={},target=/data", directory.path().join("gone").display());
    std::fs::create_dir(directory.path().join("gone")).unwrap();
    let cases: [(&str, &[&str], &str); 3] = [
        ("port", &["create", "-p", &port], "address already in use"),
        ("mount", &["create", "--mount", &mount], "bind source path does not exist"),
        ("command", &["create", "--entrypoint", "/nothing"], "no such file"),
    ];
    let mut names = Vec::new();
    for (case, how, _) in cases {
        names.push(cli.sleeper(how, case, &["idle_timeout=1h"], &[]).await);
    }
    std::fs::remove_dir(directory.path().join("gone")).unwrap();
    let dormouse = Dormouse::start(&cli.config()).await;
    for ((case, _, reason), name) in cases.iter().zip(&names) {
        dormouse.knows(name).await;
        let reply = dormouse.get(name, "/").await;
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!((1..=5).contains(&retry_after(&reply)));
        // The moment the engine's answer was taken note of, by the program's own log.
        let line = dormouse.logged(name, "did not wake").pop().expect("a line of the log");
        let at: Timestamp = line.split_whitespace().next().unwrap().parse().unwrap();
        let after = (nanoseconds(reply.first_byte) - at.as_nanosecond()) as f64 / 1e6;
        println!("{case}: 503 {after:.1} ms after the engine's answer");
        assert!(after <= 50.0, "{case}: {after} ms");
        let told = dormouse.container(name).await;
        let failure = told["failure"].as_str().unwrap_or_default().to_lowercase();
        assert!(failure.contains(reason), "{case}: {told}");
        assert!(!reply.body.to_lowercase().contains(reason), "a stranger is told: {reply:?}");
    }
    drop(taken);
    let answer = async || dormouse.get(&names[0], "/").await.status;
    until("the port is free: it is served", answer, |status| *status == 200).await;
}

#[tokio::test]
async fn an_image_that_is_gone_does_not_keep_its_container_down() {
    let Some(cli) = DockerCli::new() else { return };
    let image = format!("{}/app:1", cli.prefix);
    cli.run(&["tag", crate::support::docker::IMAGE, &image]).await;
    let label = format!("--label={}.idle_timeout=1h", cli.prefix);
    let (name, mark) = (cli.name("app"), format!("--label=dormouse.test={}", cli.prefix));
    cli.run(&["create", "--name", &name, &mark, &label, "--expose=80", &image]).await;
    cli.run(&["rmi", "-f", &image]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
    cli.run(&["rename", &name, &cli.name("renamed")]).await;
    dormouse.knows(&cli.name("renamed")).await;
    assert_eq!(dormouse.get(&cli.name("renamed"), "/").await.status, 200);
    let gone = dormouse.get(&name, "/").await;
    assert_eq!(gone.status, 503, "{gone:?}");
    assert!(retry_after(&gone) > 0, "{gone:?}");
}
