//! Real clients and servers of other makers, asleep at first: each kind of conversation once.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path};

use crate::support::{
    apps::free_port,
    dormouse::Dormouse,
    not_run::not_run,
    programs::{ask_by_ssh, is_root, programs, run},
    tls::{Authority, YEAR},
};

/// A server of another maker behind a stream route.
struct Server {
    port: u16,
    front: u16,
    directory: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        Self { port: free_port(), front: free_port(), directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Dormouse in front of it.
    async fn behind(&self, scheme: &str, command: &[&str], keys: &str) -> Dormouse {
        let (port, front) = (self.port, self.front);
        let command = serde_json::to_string(command).unwrap();
        let config = format!(
            "nodes: {{ jobs: process }}\nroutes:\n  \
             server: {{ scheme: {scheme}, port: \"{front}:{port}\", backend: jobs/server }}\nbackends:\n  \
             jobs/server: {{ command: {command}, idle: {{ idle_timeout: 2s, flow_timeout: 2s }}{keys} }}\n"
        );
        let dormouse = Dormouse::start(&config).await;
        // These clients do not try twice.
        dormouse.serves_at(SocketAddr::from(([127, 0, 0, 1], front))).await;
        dormouse
    }
}

#[tokio::test]
async fn redis() {
    let Some([server, client]) = programs(["redis-server", "redis-cli"]) else { return };
    let it = Server::new();
    let (port, directory) = (it.port.to_string(), it.path(""));
    let server = server.display().to_string();
    let words = [server.as_str(), "--port", &port, "--bind", "127.0.0.1", "--dir", &directory, "--appendonly", "yes"];
    // It listens before it has read its data.
    let dormouse = it.behind("tcp", &words, ", ready: { log: Ready to accept connections }").await;
    let front = it.front.to_string();
    assert_eq!(run(&client, &["-p", &front, "set", "word", "dormouse"]).await, "OK");
    dormouse.reaches("server", "asleep").await;
    assert_eq!(run(&client, &["-p", &front, "get", "word"]).await, "dormouse");
    // A MiB as one value, in pieces as the kernel cuts them.
    let value = "x".repeat(100_000);
    assert_eq!(run(&client, &["-p", &front, "set", "long", &value]).await, "OK");
    assert_eq!(run(&client, &["-p", &front, "strlen", "long"]).await, "100000");
}

#[tokio::test]
async fn redis_through_tls_that_ends_on_the_port_of_https() {
    let Some([server, client]) = programs(["redis-server", "redis-cli"]) else { return };
    let it = Server::new();
    let (port, directory, https) = (it.port, it.path(""), free_port());
    let server = server.display().to_string();
    let words = [server.as_str(), "--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", &directory];
    let command = serde_json::to_string(&words).unwrap();
    let authority = Authority::new("an authority of tests");
    authority.issue("redis", &["redis.test"], YEAR);
    let config = format!(
        "nodes: {{ jobs: process }}\nroutes:\n  server: {{ scheme: tcp, port: \"{https}:{port}\", backend: jobs/server, \
         sni: [redis.test], tls_termination: true }}\nbackends:\n  jobs/server: {{ command: {command}, \
         idle: {{ idle_timeout: 2s }}, ready: {{ log: Ready to accept connections }} }}\ntls: {{ certificates: [{}] }}\n",
        authority.entry("redis")
    );
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let dormouse = Dormouse::start_at(&config, at(free_port()), at(https)).await;
    let (front, ca) = (https.to_string(), authority.path("ca.pem").display().to_string());
    let words = |name, rest: [&'static str; 3]| {
        let options = ["-h", "127.0.0.1", "-p", &front, "--tls", "--sni", name, "--cacert", &ca];
        options.iter().chain(&rest[..]).map(|word| (*word).to_owned()).collect::<Vec<_>>()
    };
    let ask = async |rest| {
        let words = words("redis.test", rest);
        run(&client, &words.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    assert_eq!(ask(["set", "word", "dormouse"]).await, "OK");
    dormouse.reaches("server", "asleep").await;
    assert_eq!(ask(["exists", "word", "word"]).await, "2");
}

#[tokio::test]
async fn postgres() {
    let names = ["postgres", "initdb", "pg_isready", "psql"];
    let Some([server, initdb, ready, client]) = programs(names) else { return };
    let it = Server::new();
    let (port, data) = (it.port.to_string(), it.path("data"));
    // It does not run as root: then as the user that its package brings.
    fs::set_permissions(it.directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (initdb, server) = (initdb.display().to_string(), server.display().to_string());
    let make = [initdb.as_str(), "-D", &data, "-U", "me", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C"];
    let user = if is_root() {
        run(Path::new("/sbin/runuser"), &[&["-u", "postgres", "--"][..], &make].concat()).await;
        ", user: postgres"
    } else {
        run(Path::new(make[0]), &make[1..]).await;
        ""
    };
    let sockets = it.path("");
    let words = [server.as_str(), "-D", &data, "-p", &port, "-k", &sockets, "-c", "listen_addresses=127.0.0.1", "-F"];
    let ready = ready.display();
    let keys = format!("{user}, ready: {{ command: [\"{ready}\", \"-h\", \"127.0.0.1\", \"-p\", \"{port}\"] }}");
    let dormouse = it.behind("tcp", &words, &keys).await;
    let front = it.front.to_string();
    let ask = async |query: &str| {
        run(&client, &["-h", "127.0.0.1", "-p", &front, "-U", "me", "-d", "postgres", "-AtXc", query]).await
    };
    assert_eq!(ask("create table t as select generate_series(1, 10000) as n").await, "SELECT 10000");
    dormouse.reaches("server", "asleep").await;
    assert_eq!(ask("select sum(n) from t").await, "50005000");
}

#[tokio::test]
async fn dns() {
    let Some([server, client]) = programs(["dnsmasq", "dig"]) else { return };
    let it = Server::new();
    let (port, pid) = (format!("--port={}", it.port), format!("--pid-file={}", it.path("pid")));
    let server = server.display().to_string();
    let user = if is_root() { "--user=root" } else { "--log-facility=-" };
    let words = [
        server.as_str(),
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--address=/app.test/192.0.2.7",
        user,
        &port,
        &pid,
    ];
    let dormouse = it.behind("tcp+udp", &words, "").await;
    let front = it.front.to_string();
    let words = ["@127.0.0.1", "-p", &front, "app.test", "+short", "+tries=3", "+time=20"];
    assert_eq!(run(&client, &words).await, "192.0.2.7");
    dormouse.reaches("server", "asleep").await;
    assert_eq!(run(&client, &[&words[..], &["+tcp"]].concat()).await, "192.0.2.7");
    dormouse.reaches("server", "asleep").await;
    assert_eq!(run(&client, &words).await, "192.0.2.7");
    assert!(dormouse.logged("server", "wakes").len() >= 3, "{}", dormouse.log());
}

#[tokio::test]
async fn ssh() {
    let Some([server, client, keys]) = programs(["sshd", "ssh", "ssh-keygen"]) else { return };
    if !is_root() {
        return not_run("DORMOUSE_TEST_NO_TOOLS", "root: sshd lets nobody in who is not its own user");
    }
    let it = Server::new();
    let (host_key, own_key, config) = (it.path("host"), it.path("own"), it.path("config"));
    for key in [&host_key, &own_key] {
        run(&keys, &["-q", "-t", "ed25519", "-N", "", "-f", key]).await;
    }
    // Where it keeps its own apart, as its service would.
    fs::create_dir_all("/run/sshd").unwrap();
    let text = format!(
        "Port {}\nListenAddress 127.0.0.1\nHostKey {host_key}\nAuthorizedKeysFile {own_key}.pub\nStrictModes no\n\
         UsePAM no\nPermitRootLogin yes\nPidFile none\n",
        it.port
    );
    fs::write(&config, text).unwrap();
    let server = server.display().to_string();
    let dormouse = it.behind("tcp", &[&server, "-D", "-e", "-f", &config], "").await;
    let front = it.front.to_string();
    let say = async |command: &str| ask_by_ssh(&client, &own_key, &front, command).await;
    // It speaks first.
    assert_eq!(say("echo hello").await, "hello");
    dormouse.reaches("server", "asleep").await;
    assert_eq!(say("head -c 3000000 /dev/zero | wc -c; echo again").await, "3000000\nagain");
    assert_eq!(say("head -c 3000000 /dev/zero | tr '\\0' x").await.len(), 3_000_000);
}
