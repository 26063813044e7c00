//! A real DNS server on the loopback: BIND, whose zones take signed changes (RFC 2136).

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{apps::free_port, wait::until};

/// The name of the key whose owner may change records, and its secret.
pub(crate) const KEY: (&str, &str) = ("dormouse", "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgbG9uZw==");

/// A record that was there before, and is none of ours.
pub(crate) const FOREIGN: &str = "somebody else's";

/// A running server. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Bind {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Bind {
    /// Starts it with the zone `wild.test`, which takes changes.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (at, port) = (directory.path().display(), free_port());
        let write = |name: &str, text: String| fs::write(directory.path().join(name), text).expect("a file");
        let zone = "$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n";
        write("wild.test", format!("{zone}_acme-challenge TXT \"{FOREIGN}\"\n"));
        write(
            "named.conf",
            format!(
                "options {{ directory \"{at}\"; pid-file none; session-keyfile \"{at}/session.key\"; recursion no;
                   listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; dnssec-validation no; notify no; }};
                 controls {{ }};
                 key \"{}\" {{ algorithm hmac-sha256; secret \"{}\"; }};
                 zone \"wild.test\" {{ type primary; file \"{at}/wild.test\"; allow-update {{ key \"{}\"; }}; }};\n",
                KEY.0, KEY.1, KEY.0
            ),
        );
        // Where the program of the machine is confined to its own directories, a copy is not.
        let program = directory.path().join("named");
        let installed = ["/usr/sbin/named", "/usr/bin/named"].into_iter().find(|path| fs::metadata(path).is_ok());
        fs::copy(installed.expect("named (Debian package bind9)"), &program).expect("a copy of named");
        let log = fs::File::create(directory.path().join("log")).expect("a log");
        let mut command = Command::new(&program);
        command.args(["-g", "-4", "-n", "1", "-c"]).arg(directory.path().join("named.conf"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn();
        let mut bind = Self { child: child.expect("named"), directory, port };
        let at = bind.address();
        let mut is_up =
            async || TcpStream::connect(at).await.is_ok() || bind.child.try_wait().is_ok_and(|end| end.is_some());
        until("named listens", &mut is_up, |is_up| *is_up).await;
        assert!(bind.child.try_wait().expect("a child").is_none(), "named has ended:\n{}", bind.log());
        bind
    }

    /// Where it is asked and told.
    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// All that it said.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// Writes a file that holds a secret.
    pub(crate) fn secret(&self, name: &str, secret: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        fs::write(&file, format!("{secret}\n")).expect("a file");
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a file of ours");
        file
    }

    /// The texts of a name, each in quotes, as `dig` shows them.
    pub(crate) async fn texts(&self, name: &str) -> Vec<String> {
        let mut dig = tokio::process::Command::new("dig");
        dig.args(["@127.0.0.1", "-p", &self.port.to_string(), "+short", "+tcp", "TXT", name]);
        let output = dig.output().await.expect("dig (Debian package bind9-dnsutils)");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("the log of named:\n{}", self.log());
        }
    }
}
