//! Real clients of other makers, to servers of other makers that sleep as containers on a real engine: each client finds
//! its server asleep, and wakes it with one start.

use std::{
    ffi::OsStr,
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::support::{
    apps::free_port,
    docker::DockerCli,
    dormouse::Dormouse,
    host_image::HostImage,
    programs::{ask_by_ssh, is_root, programs, run},
    streams::talk,
};

/// A server in a container, and Dormouse in front of it.
struct Served {
    cli: DockerCli,
    container: String,
    dormouse: Dormouse,
    front: u16,
}

impl Served {
    /// Creates a container that never ran. Its one route is `server`; `labels` are more of it.
    async fn new(cli: DockerCli, image: &str, how: &[&str], port: u16, labels: &[&str], command: &[&str]) -> Self {
        let front = free_port();
        let (listen, aliases) = (format!("server.port={front}:{port}"), "aliases=server");
        let labels = [&[aliases, &listen, "idle_timeout=2s", "flow_timeout=1s"], labels].concat();
        let labels: Vec<_> = labels.iter().map(|label| format!("--label={}.{label}", cli.prefix)).collect();
        let options: Vec<_> = how.iter().copied().chain(labels.iter().map(String::as_str)).collect();
        let container = cli.container_of(image, &["create"], "server", &options, command).await;
        let dormouse = Dormouse::start(&cli.config()).await;
        // These clients do not try twice.
        dormouse.serves_at(SocketAddr::from(([127, 0, 0, 1], front))).await;
        Self { cli, container, dormouse, front }
    }

    fn at(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.front))
    }

    async fn starts(&self) -> usize {
        self.cli.count(&self.container, "start").await
    }

    /// It was started so often, and sleeps again.
    async fn sleeps_after(&self, starts: usize) {
        assert_eq!(self.starts().await, starts, "{}", self.dormouse.log());
        self.dormouse.comes_to(&self.container, "stopped").await;
    }
}

#[tokio::test]
async fn redis() {
    let Some(cli) = DockerCli::new() else { return };
    let Some([server, client]) = programs(["redis-server", "redis-cli"]) else { return };
    let image = HostImage::of(&[&server]).import(&cli, "redis");
    let server = server.display().to_string();
    let command = [server.as_str(), "--protected-mode", "no", "--dir", "/tmp", "--appendonly", "yes"];
    // It listens before it has read its data.
    let labels = ["server.scheme=tcp", "ready.log=Ready to accept connections"];
    let it = Served::new(cli, &image, &[], 6379, &labels, &command).await;
    let front = it.front.to_string();
    assert_eq!(run(&client, &["-p", &front, "set", "word", "dormouse"]).await, "OK");
    it.sleeps_after(1).await;
    assert_eq!(run(&client, &["-p", &front, "get", "word"]).await, "dormouse");
    let value = "x".repeat(100_000);
    assert_eq!(run(&client, &["-p", &front, "set", "long", &value]).await, "OK");
    assert_eq!(run(&client, &["-p", &front, "strlen", "long"]).await, "100000");
    it.sleeps_after(2).await;
}

#[tokio::test]
async fn postgres_which_only_its_own_clients_wake() {
    let Some(cli) = DockerCli::new() else { return };
    let Some([server, initdb, client]) = programs(["postgres", "initdb", "psql"]) else { return };
    // It looks for its files beside the place where it really is.
    let server = fs::canonicalize(server).unwrap();
    let version = server.ancestors().nth(2).and_then(Path::file_name).and_then(OsStr::to_str).unwrap();
    let image = HostImage::of(&[&server, &PathBuf::from(format!("/usr/share/postgresql/{version}/timezonesets"))]);
    // It wants the place of its libraries to be there, and none of them.
    fs::create_dir_all(image.path(&format!("usr/lib/postgresql/{version}/lib"))).unwrap();
    // It does not run as root: then as the user that its package brings. The time zone is one without a file.
    let (data, initdb) = (image.path("data").display().to_string(), initdb.display().to_string());
    fs::create_dir(&data).unwrap();
    let make = ["TZ=GMT", &initdb, "-D", &data, "-U", "me", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C"];
    if is_root() {
        for path in [image.path(""), data.clone().into()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let postgres = ["-u", "postgres", "--"].as_slice();
        run(Path::new("chown"), &["postgres:", &data]).await;
        run(Path::new("/sbin/runuser"), &[postgres, &["env"], &make].concat()).await;
    } else {
        run(Path::new("env"), &make).await;
    }
    image.write("data/pg_hba.conf", "host all me all trust\n");
    let owner = fs::metadata(&data).unwrap();
    run(Path::new("chown"), &[&format!("{}:{}", owner.uid(), owner.gid()), &format!("{data}/pg_hba.conf")]).await;
    let user = format!("--user={}:{}", owner.uid(), owner.gid());
    let image = image.import(&cli, "postgres");
    let server = server.display().to_string();
    let command = [server.as_str(), "-D", "/data", "-k", "/tmp", "-c", "listen_addresses=*", "-c", "jit=off", "-F"];
    let labels = [
        "server.scheme=tcp",
        "server.wake_on=data",
        "server.match=postgres",
        "ready.log=ready to accept connections",
        "stop_signal=INT",
    ];
    let it = Served::new(cli, &image, &[&user], 5432, &labels, &command).await;
    // Nobody is there who says nothing, or something else.
    for stranger in [&b""[..], b"GET / HTTP/1.1\r\nHost: server.test\r\n\r\n"] {
        assert!(talk(it.at(), stranger).await.unwrap_or_default().is_empty());
    }
    assert_eq!(it.starts().await, 0);
    let front = it.front.to_string();
    let ask = async |query: &str| {
        run(&client, &["-h", "127.0.0.1", "-p", &front, "-U", "me", "-d", "postgres", "-AtXc", query]).await
    };
    assert_eq!(ask("create table t as select generate_series(1, 10000) as n").await, "SELECT 10000");
    it.sleeps_after(1).await;
    assert_eq!(ask("select sum(n) from t").await, "50005000");
    it.sleeps_after(2).await;
}

#[tokio::test]
async fn dns() {
    let Some(cli) = DockerCli::new() else { return };
    let Some([server, client]) = programs(["dnsmasq", "dig"]) else { return };
    let image = HostImage::of(&[&server]).import(&cli, "dns");
    let server = server.display().to_string();
    let command = [
        server.as_str(),
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--address=/app.test/192.0.2.7",
        "--user=root",
        "--pid-file=/tmp/pid",
    ];
    let it = Served::new(cli, &image, &[], 53, &["server.scheme=tcp+udp"], &command).await;
    let front = it.front.to_string();
    // One datagram must do: it is asked once.
    let words = ["@127.0.0.1", "-p", &front, "app.test", "+short", "+tries=1", "+time=30"];
    assert_eq!(run(&client, &words).await, "192.0.2.7");
    it.sleeps_after(1).await;
    assert_eq!(run(&client, &[&words[..], &["+tcp"]].concat()).await, "192.0.2.7");
    it.sleeps_after(2).await;
}

#[tokio::test]
async fn ssh() {
    let Some(cli) = DockerCli::new() else { return };
    let Some([server, client, keys]) = programs(["sshd", "ssh", "ssh-keygen"]) else { return };
    let Some(tools) = programs(["sh", "head", "tr", "wc"]) else { return };
    let mut parts: Vec<&Path> = [&server].into_iter().chain(&tools).map(PathBuf::as_path).collect();
    // Of later versions, what it becomes for a session.
    let sessions = ["/usr/lib/openssh/sshd-session", "/usr/lib/openssh/sshd-auth"].map(Path::new);
    parts.extend(sessions.iter().filter(|path| path.exists()));
    parts.push(Path::new("/bin/sh"));
    let image = HostImage::of(&parts);
    let (host_key, own_key) = (image.path("etc/host"), tempfile::tempdir().unwrap());
    let own_key = own_key.path().join("own");
    for key in [&host_key, &own_key] {
        run(&keys, &["-q", "-t", "ed25519", "-N", "", "-f", &key.display().to_string()]).await;
    }
    image.write("etc/keys", &fs::read_to_string(own_key.with_extension("pub")).unwrap());
    image.write(
        "etc/sshd",
        "Port 22\nHostKey /etc/host\nAuthorizedKeysFile /etc/keys\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
         PidFile none\n",
    );
    // Where it keeps its own apart.
    fs::create_dir_all(image.path("run/sshd")).unwrap();
    let image = image.import(&cli, "ssh");
    let server = server.display().to_string();
    let command = [server.as_str(), "-D", "-e", "-f", "/etc/sshd"];
    let it = Served::new(cli, &image, &[], 22, &["server.scheme=tcp"], &command).await;
    let (front, own_key) = (it.front.to_string(), own_key.display().to_string());
    let say = async |command: &str| ask_by_ssh(&client, &own_key, &front, command).await;
    // It speaks first.
    assert_eq!(say("echo hello").await, "hello");
    it.sleeps_after(1).await;
    assert_eq!(say("head -c 3000000 /dev/zero | tr '\\0' x").await.len(), 3_000_000);
    it.sleeps_after(2).await;
}
