//! A page load gets the waiting page and ends on the app; everything else is held.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::client_async;

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, Figures, get, request},
    wait::{must, until},
    webdriver::Browser,
};

const NAVIGATION: &str = "Sec-Fetch-Mode: navigate\r\nAccept: text/html\r\n";

/// From the request to the first bytes of the page, in milliseconds.
async fn time_to_page(dormouse: &Dormouse, name: &str) -> f64 {
    let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
    let begun = std::time::Instant::now();
    let text = format!("GET /a?b=c HTTP/1.1\r\nHost: {name}.test\r\n{NAVIGATION}\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains("<h1>") {
        assert_ne!(must("the page", stream.read_buf(&mut bytes)).await.unwrap(), 0, "{bytes:?}");
    }
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 503 "), "{text}");
    for field in ["\r\nretry-after: ", "\r\ncache-control: no-store", "\r\ncontent-security-policy: "] {
        assert!(text.contains(field), "{text}");
    }
    assert!(!text.contains("set-cookie") && !text.contains("/processes/"), "{text}");
    took
}

#[tokio::test]
async fn a_page_load_gets_the_waiting_page_within_20_ms() {
    // Other tests keep the machine busy; not all the time.
    let apps: Vec<App> = (0..60)
        .map(|number| App::new(&format!("app{number}")).options(&["--delay-listen", "2s"]).idle("idle_timeout: 1h"))
        .collect();
    let dormouse = Dormouse::start(&config(&apps.iter().collect::<Vec<_>>())).await;
    let mut medians = Vec::new();
    for round in apps.chunks(20) {
        let mut figures = Vec::new();
        for app in round {
            figures.push(time_to_page(&dormouse, &app.name).await);
        }
        let figures = Figures::new(figures);
        println!("the waiting page: {figures}");
        medians.push(figures.median());
    }
    assert!(medians.iter().any(|median| *median < 20.0), "the waiting page: medians of {medians:?} ms");
}

#[tokio::test]
async fn other_clients_are_held() {
    let app = |name: &str| App::new(name).options(&["--delay-listen", "1s"]).idle("idle_timeout: 1h");
    let apps = ["curl", "fetch", "image", "socket", "grpc"].map(app);
    let dormouse = Dormouse::start(&config(&apps.each_ref())).await;
    let at = dormouse.http;
    let curl = async {
        let url = format!("http://{at}/");
        let output =
            tokio::process::Command::new("curl").args(["-si", "-m", "60", "-H", "Host: curl.test", &url]).output();
        let text = String::from_utf8(output.await.unwrap().stdout).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("hello from"), "{text}");
        assert!(text.contains("Server-Timing: wake;dur="), "{text}");
    };
    let plain = async |name: &str, fields: &str| {
        let reply = get(at, name, "/", fields).await.unwrap();
        assert!(reply.status == 200 && reply.body.contains("hello from"), "{name}: {reply:?}");
    };
    let fetch = plain("fetch", "Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nAccept: text/html\r\n");
    let image = plain("image", "Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\nAccept: image/*\r\n");
    let socket = async {
        let stream = TcpStream::connect(at).await.unwrap();
        let (_, answer) = must("a WebSocket", client_async("ws://socket.test/ws", stream)).await.unwrap();
        assert_eq!(answer.status(), 101);
    };
    let grpc = async {
        let fields = "Content-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 5\r\nConnection: close\r\n";
        let text = format!("POST /pkg.Service/Call HTTP/1.1\r\nHost: grpc.test\r\n{fields}\r\n\0\0\0\0\0");
        let reply = request(at, &text).await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    tokio::join!(curl, fetch, image, socket, grpc);
    for app in &apps {
        assert_eq!(app.journal().starts(), 1, "{}", app.name);
    }
}

/// Opens a page of each sleeping app, and tells how long after it listened the browser came to it.
async fn lands(scripts: bool) {
    let Some(browser) = Browser::start(scripts).await else { return };
    let cases = [
        ("plain", "/some/page%20x?q=1&r=%C3%A4", "/some/page%20x?q=1&r=%C3%A4"),
        ("locked", "/status/401?q=1", "/status/401?q=1"),
        ("missing", "/status/404?q=1", "/status/404?q=1"),
        ("moved", "/status/302?q=1", "/landed"),
    ];
    let apps = cases.map(|(name, ..)| App::new(name).options(&["--delay-listen", "1500ms"]).idle("idle_timeout: 1h"));
    let dormouse = Dormouse::start(&config(&apps.each_ref())).await;
    let mut figures = Vec::new();
    for (app, (name, path, ends_on)) in apps.iter().zip(cases) {
        let origin = format!("http://{name}.localhost:{}", dormouse.http.port());
        browser.open(&format!("{origin}{path}#part")).await;
        app.has_started(1).await;
        let arrived = async || app.journal().times(&format!("begin GET {path}"));
        let times = until("the browser at the app", arrived, |times| !times.is_empty()).await;
        let listened = app.journal().times("listen")[0];
        figures.push((times[0] - listened) as f64 / 1e6);
        let wanted = format!("{origin}{ends_on}#part");
        until("the address", async || browser.url().await, |url| *url == wanted).await;
        if scripts {
            let words = if ends_on == "/landed" || name == "plain" { "hello from" } else { "as you wish" };
            until("the app's own page", async || browser.source().await, |source| source.contains(words)).await;
        }
        // The page that it came to stays: nothing reloads it any more.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(app.journal().arrivals(&format!("GET {path}")), 1, "{name} was loaded again");
        assert_eq!(app.journal().starts(), 1);
        assert_eq!(app.journal().arrivals(".dormouse"), 0, "a resource of the waiting page came to {name}");
    }
    let figures = Figures::new(figures);
    println!("scripts {scripts}: at the app after it listened: {figures}");
    assert!(figures.median() < 1000.0, "scripts {scripts}: {figures}");
    browser.quit().await;
}

#[tokio::test]
async fn a_browser_ends_on_the_app() {
    lands(true).await;
}

#[tokio::test]
async fn a_browser_without_scripts_ends_on_the_app() {
    lands(false).await;
}

#[tokio::test]
async fn what_a_page_asks_for_by_itself_is_held() {
    let Some(browser) = Browser::start(true).await else { return };
    let first = App::new("first").idle("idle_timeout: 1h");
    let [fetched, image] =
        ["fetched", "image"].map(|name| App::new(name).options(&["--delay-listen", "1s"]).idle("idle_timeout: 1h"));
    let dormouse = Dormouse::start(&config(&[&first, &fetched, &image])).await;
    let port = dormouse.http.port();
    browser.open(&format!("http://first.localhost:{port}/")).await;
    until("the app's page", async || browser.source().await, |source| source.contains("hello from")).await;
    let script = format!(
        "return fetch('http://fetched.localhost:{port}/echo', {{ mode: 'no-cors' }}).then(answer => answer.type)"
    );
    assert_eq!(browser.run(&script).await, "opaque");
    let script = format!(
        "return new Promise(done => {{ const image = new Image(); image.onload = image.onerror = () => done('ended'); \
         image.src = 'http://image.localhost:{port}/picture'; }})"
    );
    assert_eq!(browser.run(&script).await, "ended");
    // They ended only when the app itself had answered.
    assert_eq!(fetched.journal().arrivals("/echo"), 1);
    assert_eq!(image.journal().arrivals("/picture"), 1);
    browser.quit().await;
}
