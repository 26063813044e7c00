//! A real ACME server on the loopback: `pebble`, with the DNS of the tests.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    apps::free_port,
    tls::{Authority, YEAR, curl},
    wait::until,
};

/// A running authority. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Pebble {
    directory: TempDir,
    /// Vouches for the authority's own address.
    own: Authority,
    port: u16,
    management: u16,
    dns: u16,
    dns_management: u16,
    validates_at: (u16, u16),
    options: Options,
    children: Vec<Child>,
}

/// How it behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Its certificates are good for so long.
    pub(crate) good: Duration,
    /// Only for accounts that belong to one of its own.
    pub(crate) bound: bool,
    /// It asks this DNS server of the loopback instead of its own.
    pub(crate) dns: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self { good: Duration::from_secs(90 * 24 * 3600), bound: false, dns: None }
    }
}

/// The key of the account that others belong to.
pub(crate) const KEY: (&str, &str) = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

impl Pebble {
    /// Starts it. It looks at hosts on these ports of the loopback: of HTTP and of HTTPS.
    pub(crate) async fn start(http: SocketAddr, https: SocketAddr, options: Options) -> Self {
        let own = Authority::new("the authority behind pebble");
        own.issue("pebble", &["localhost"], YEAR);
        let mut pebble = Self {
            directory: tempfile::tempdir().expect("a directory"),
            own,
            port: free_port(),
            management: free_port(),
            dns: free_port(),
            dns_management: free_port(),
            validates_at: (http.port(), https.port()),
            options,
            children: Vec::new(),
        };
        pebble.start_again().await;
        pebble
    }

    /// Starts it anew, without anything that it knew.
    pub(crate) async fn start_again(&mut self) {
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": self.own.path("pebble.pem"),
            "privateKey": self.own.path("pebble.key"),
            "httpPort": self.validates_at.0,
            "tlsPort": self.validates_at.1,
            "ocspResponderURL": "",
            "certificateValidityPeriod": self.options.good.as_secs(),
            "externalAccountBindingRequired": self.options.bound,
            "externalAccountMACKeys": { KEY.0: KEY.1 },
        }});
        let file = self.directory.path().join("pebble.json");
        fs::write(&file, config.to_string()).expect("a file");
        let mut dns = Command::new("pebble-challtestsrv");
        dns.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        dns.args(["-dns01", &format!("127.0.0.1:{}", self.dns)]);
        dns.args(["-management", &format!("127.0.0.1:{}", self.dns_management)]);
        let mut server = Command::new("pebble");
        server
            .arg("-config")
            .arg(&file)
            .args(["-dnsserver", &format!("127.0.0.1:{}", self.options.dns.unwrap_or(self.dns))]);
        server.env("PEBBLE_VA_NOSLEEP", "1");
        for mut command in [dns, server] {
            let log = fs::File::options().create(true).append(true).open(self.log_file()).expect("a log");
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
            let child = command.spawn();
            self.children.push(child.unwrap_or_else(|error| panic!("{command:?}: {error} (Debian package pebble)")));
        }
        for port in [self.port, self.management, self.dns_management] {
            let listens = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
            until("pebble listens", listens, |up| *up).await;
        }
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// All that it said.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// The beginning of `acme:`, for a flow mapping that goes on.
    pub(crate) fn settings(&self) -> String {
        format!("directory: \"https://localhost:{}/dir\", root: \"{}\"", self.port, self.own.path("ca.pem").display())
    }

    /// Writes the certificate of those for whom it signs, and returns the file.
    pub(crate) async fn root(&self) -> PathBuf {
        let at = SocketAddr::from(([127, 0, 0, 1], self.management));
        let url = format!("https://localhost:{}/roots/0", self.management);
        let trust = vec!["--cacert".to_owned(), self.own.path("ca.pem").display().to_string()];
        let reply = curl(&url, "localhost", at, trust).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let file = self.directory.path().join("root.pem");
        fs::write(&file, &reply.body).expect("a file");
        file
    }

    /// A command that puts records into the DNS of the tests, as `acme: dns: command` wants it. It notes its calls.
    pub(crate) fn hook(&self) -> PathBuf {
        let file = self.directory.path().join("hook");
        let text = format!(
            "#!/bin/sh\necho \"$@\" >>'{}'\ncase $1 in\n  present) word=set-txt ;;\n  *) word=clear-txt ;;\nesac\n\
             exec curl --silent --noproxy '*' --fail -d \"{{\\\"host\\\":\\\"$2\\\",\\\"value\\\":\\\"$3\\\"}}\" http://127.0.0.1:{}/$word\n",
            self.hook_notes().display(),
            self.dns_management
        );
        fs::write(&file, text).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&file, mode).expect("a program");
        file
    }

    /// The calls of the hook.
    pub(crate) fn hook_notes(&self) -> PathBuf {
        self.directory.path().join("hook.log")
    }

    /// Where its DNS is asked.
    pub(crate) fn dns(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.dns).into()
    }

    /// Where its DNS is told what to answer.
    pub(crate) fn dns_management(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.dns_management).into()
    }

    /// Has the DNS answer so for a host.
    pub(crate) async fn set_address(&self, host: &str, address: &str) {
        let answer = serde_json::json!({ "host": host, "addresses": [address] });
        tell(self.dns_management(), "add-a", &answer).await;
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            println!("the log of pebble:\n{}", self.log());
        }
    }
}

/// Tells the DNS of the tests what to answer.
pub(crate) async fn tell(at: SocketAddr, word: &str, what: &serde_json::Value) {
    let body = what.to_string();
    let request = format!(
        "POST /{word} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(at).await.expect("the DNS of the tests");
    stream.write_all(request.as_bytes()).await.expect("the DNS of the tests");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the DNS of the tests");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
