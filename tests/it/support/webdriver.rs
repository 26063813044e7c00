//! A real browser, driven through `chromedriver` by the WebDriver protocol.

use std::{
    fs, io,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{
    apps::free_port,
    not_run::not_run,
    wait::{must, until},
};

/// A headless Chromium with a profile of its own. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Browser {
    driver: Child,
    at: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// None where there is no browser.
    pub(crate) async fn start(scripts: bool) -> Option<Self> {
        let profile = tempfile::tempdir().expect("a directory");
        let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = fs::File::create(profile.path().join("driver.log")).expect("a log file");
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", at.port()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn();
        let Ok(driver) = driver else {
            not_run("DORMOUSE_TEST_NO_BROWSER", "Chromium and its `chromedriver`");
            return None;
        };
        let mut browser = Self { driver, at, session: String::new(), _profile: profile };
        until("chromedriver listens", async || TcpStream::connect(at).await.is_ok(), |listens| *listens).await;
        let data = format!("--user-data-dir={}", browser._profile.path().join("data").display());
        let allowed = if scripts { 1 } else { 2 };
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", data.as_str()];
        let options = json!({
            "args": arguments,
            "prefs": { "profile.managed_default_content_settings.javascript": allowed },
        });
        let always = json!({ "browserName": "chrome", "pageLoadStrategy": "none", "goog:chromeOptions": options });
        let answer = browser.command("POST", "/session", &json!({ "capabilities": { "alwaysMatch": always } })).await;
        browser.session = answer["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}")).to_owned();
        Some(browser)
    }

    async fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}",
            self.at
        );
        let body = must("an answer of chromedriver", self.talk(&text)).await.expect("chromedriver");
        let answer: Value = serde_json::from_slice(&body).expect("JSON of chromedriver");
        answer["value"].clone()
    }

    /// Its server keeps the connection open whatever it is asked: the length tells where the answer ends.
    async fn talk(&self, text: &str) -> io::Result<Vec<u8>> {
        let mut stream = BufReader::new(TcpStream::connect(self.at).await?);
        stream.write_all(text.as_bytes()).await?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? <= 2 {
                break;
            }
            let number = line.to_ascii_lowercase().strip_prefix("content-length:").and_then(|n| n.trim().parse().ok());
            length = number.unwrap_or(length);
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(body)
    }

    /// Opens a page and does not wait for it.
    pub(crate) async fn open(&self, url: &str) {
        self.command("POST", &format!("/session/{}/url", self.session), &json!({ "url": url })).await;
    }

    /// Where it is.
    pub(crate) async fn url(&self) -> String {
        let url = self.command("GET", &format!("/session/{}/url", self.session), &Value::Null).await;
        url.as_str().unwrap_or_default().to_owned()
    }

    /// What it shows, as a document.
    pub(crate) async fn source(&self) -> String {
        let source = self.command("GET", &format!("/session/{}/source", self.session), &Value::Null).await;
        source.as_str().unwrap_or_default().to_owned()
    }

    /// Runs a script in the page; its promise is waited for.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.command("POST", &format!("/session/{}/execute/sync", self.session), &body).await
    }

    /// Ends the browser in order.
    pub(crate) async fn quit(self) {
        self.command("DELETE", &format!("/session/{}", self.session), &json!({})).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser when it is told to end.
        if let Ok(pid) = libc::pid_t::try_from(self.driver.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.driver.wait();
    }
}
