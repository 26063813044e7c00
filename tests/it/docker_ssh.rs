//! An engine that is reached through a real SSH server.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::{apps::free_port, docker::DockerCli, dormouse::Dormouse, wait::until};

/// A server on the loopback with keys of its own; `docker` on its side asks the engine of the tests.
struct SshServer {
    directory: TempDir,
    child: Child,
}

impl SshServer {
    async fn start(engine: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().expect("a directory"), free_port());
        let path = directory.path().display().to_string();
        for key in ["host", "client"] {
            let words = ["-q", "-t", "ed25519", "-N", "", "-f", &format!("{path}/{key}")];
            let made = Command::new("ssh-keygen").args(words).status().expect("ssh-keygen (package openssh-client)");
            assert!(made.success(), "a key");
        }
        let server = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {path}/host\nAuthorizedKeysFile {path}/client.pub\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nStrictModes no\nPidFile none\n\
             SetEnv DOCKER_HOST={engine}\n"
        );
        fs::write(format!("{path}/server"), server).unwrap();
        let client = format!(
            "IdentityFile {path}/client\nIdentitiesOnly yes\nStrictHostKeyChecking accept-new\n\
             UserKnownHostsFile {path}/known\nHost lab-of-the-tests\nHostName 127.0.0.1\nPort {port}\nUser root\n"
        );
        fs::write(format!("{path}/config"), client).unwrap();
        // The program takes its own configuration from the home of the user, which is not ours to touch.
        let wrapper = format!("{path}/ssh");
        fs::write(&wrapper, format!("#!/bin/sh\nexec /usr/bin/ssh -F {path}/config \"$@\"\n")).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let log = fs::File::create(format!("{path}/log")).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &format!("{path}/server")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("/usr/sbin/sshd (package openssh-server)");
        let server = Self { directory, child };
        let listens = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        until("the SSH server", listens, |listens| *listens).await;
        server
    }

    /// How often somebody has logged in.
    fn logins(&self) -> usize {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.starts_with("Accepted publickey")).count()
    }

    /// Ends the login that those who came to this host with this directory share.
    fn log_out(&self, shared: &Path, host: &str) {
        let path = format!("ControlPath={}/%C", shared.display());
        let ssh = self.directory.path().join("ssh");
        let ended = Command::new(ssh).args(["-O", "exit", "-o", &path, host]).status().expect("ssh");
        assert!(ended.success(), "a shared login");
    }

    /// A search path in which `ssh` is the one with our keys.
    fn search_path(&self) -> String {
        format!("{}:{}", self.directory.path().display(), std::env::var("PATH").unwrap_or_default())
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("the SSH server: {}", fs::read_to_string(self.directory.path().join("log")).unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn containers_of_an_engine_behind_ssh_sleep_and_wake() {
    let Some(cli) = DockerCli::new() else { return };
    let server = SshServer::start(&cli.address).await;
    let name = cli.sleeper(&["create"], "app", &["idle_timeout=1s"], &[]).await;
    // An alias: nobody but the configuration of `ssh` knows where that is.
    let config = cli.config().replace(&cli.address, "ssh://lab-of-the-tests");
    let dormouse = Dormouse::start_in(&config, &[("PATH", &server.search_path())]).await;
    dormouse.knows(&name).await;
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
    dormouse.comes_to(&name, "stopped").await;
    assert_eq!(cli.status(&name).await, "exited");
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
    assert_eq!(cli.count(&name, "start").await, 2);
    // Those that begin at once log in each for itself; all that come later share a login.
    let before = server.logins();
    for _ in 0..5 {
        dormouse.comes_to(&name, "stopped").await;
        assert_eq!(dormouse.get(&name, "/").await.status, 200);
    }
    assert_eq!(server.logins(), before);
    server.log_out(&dormouse.state_dir().join("ssh"), "lab-of-the-tests");
}
