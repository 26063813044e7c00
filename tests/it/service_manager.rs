//! Started by a service manager: with sockets that outlive it, and telling what it does.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{net::UnixDatagram, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    apps::{App, config, free_port},
    dormouse::{self, get},
    not_run::not_run,
    streams::{echoed, talk},
    wait::{LONG, must, until},
};

/// A service manager with one service.
struct Manager {
    folder: TempDir,
    http: TcpListener,
    others: Vec<RawFd>,
    told: UnixDatagram,
    service: Option<Child>,
}

impl Manager {
    fn new(apps: &[&App], others: &[RawFd]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let http = TcpListener::bind("127.0.0.1:0").unwrap();
        let told = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        told.set_read_timeout(Some(LONG)).unwrap();
        let listen = format!("listen: {{ http: \"{}\", api: off }}\n", http.local_addr().unwrap());
        fs::write(folder.path().join("dormouse.yaml"), listen + &config(apps)).unwrap();
        Self { folder, http, others: others.to_vec(), told, service: None }
    }

    fn at(&self) -> SocketAddr {
        self.http.local_addr().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[allow(unsafe_code, reason = "descriptors are given to a child")]
    fn start(&mut self) {
        let sockets: Vec<RawFd> = [self.http.as_raw_fd()].into_iter().chain(self.others.iter().copied()).collect();
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        // The shell becomes the program, under the pid that it names.
        let words = format!("export LISTEN_PID=$$ LISTEN_FDS={}; exec \"$0\" \"$@\"", sockets.len());
        let mut command = Command::new("sh");
        command
            .args(["-c", &words, env!("CARGO_BIN_EXE_dormouse")])
            .args(dormouse::serve(&self.path("dormouse.yaml"), &self.path("state")))
            .env("NOTIFY_SOCKET", self.path("notify"))
            .env("LISTEN_FDNAMES", "http:other")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // Above those that are to be replaced, so that none is replaced before it is copied.
        let place = move || {
            let first = 100;
            for (at, socket) in sockets.iter().enumerate() {
                // SAFETY: only descriptors of this child are touched, by calls that are safe after a fork.
                if unsafe { libc::dup2(*socket, first + at as RawFd) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            for at in 0..sockets.len() as RawFd {
                // SAFETY: as above. What is copied is left open in the new program.
                if unsafe { libc::dup2(first + at, 3 + at) } < 0 || unsafe { libc::close(first + at) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: the closure allocates nothing and calls only `dup2` and `close`.
        unsafe { command.pre_exec(place) };
        self.service = Some(command.spawn().unwrap());
    }

    /// What it tells next.
    fn hears(&self) -> String {
        let mut room = [0; 500];
        let count = self.told.recv(&mut room).unwrap_or_else(|error| panic!("{error}:\n{}", self.log()));
        String::from_utf8_lossy(&room[..count]).into_owned()
    }

    /// It tells that it ends. One more reload, of a file that was seen to change twice, may be told of before.
    fn hears_the_end(&self) {
        let is_of_reloads = |heard: &String| heard.starts_with("RELOADING=1\n") || heard == "READY=1\n";
        let next = (0..5).map(|_| self.hears()).find(|heard| !is_of_reloads(heard));
        assert_eq!(next.as_deref(), Some("STOPPING=1\n"));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    #[allow(unsafe_code, reason = "a signal to our own child")]
    fn signal(&self, signal: i32) {
        let pid = self.service.as_ref().unwrap().id();
        // SAFETY: no memory is involved, and the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(libc::pid_t::try_from(pid).unwrap(), signal) }, 0);
    }

    async fn ends(&mut self) {
        let mut service = self.service.take().unwrap();
        let ended = until("its end", async || service.try_wait().unwrap(), |status| status.is_some()).await;
        assert!(ended.unwrap().success(), "{ended:?}:\n{}", self.log());
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
        if std::thread::panicking() {
            println!("the log of Dormouse:\n{}", self.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_tells_when_it_serves_reloads_and_ends() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut manager = Manager::new(&[&app], &[]);
    manager.start();
    assert_eq!(manager.hears(), "READY=1\n");
    assert_eq!(get(manager.at(), "app", "/", "").await.unwrap().status, 200);
    manager.signal(libc::SIGHUP);
    let told = manager.hears();
    assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC=") && told.len() > 32, "{told}");
    assert_eq!(manager.hears(), "READY=1\n");
    // One that nobody has asked for, and that is refused.
    let file = fs::File::options().append(true).open(manager.path("dormouse.yaml")).unwrap();
    (&file).write_all(b"nonsense: 1\n").unwrap();
    assert!(manager.hears().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(manager.hears(), "READY=1\n");
    manager.signal(libc::SIGTERM);
    manager.hears_the_end();
    manager.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_read_to_its_end_does_not_keep_it_from_ending() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut manager = Manager::new(&[&app], &[]);
    manager.start();
    assert_eq!(manager.hears(), "READY=1\n");
    // As a disk that does not answer: whoever reads it waits for what is written to this pipe.
    let (other, (reader, _writer)) = (manager.path("other"), std::io::pipe().unwrap());
    let pipe = format!("/proc/{}/fd/{}", std::process::id(), reader.as_raw_fd());
    std::os::unix::fs::symlink(pipe, &other).unwrap();
    fs::rename(other, manager.path("dormouse.yaml")).unwrap();
    manager.signal(libc::SIGHUP);
    assert!(manager.hears().starts_with("RELOADING=1\n"));
    manager.signal(libc::SIGTERM);
    manager.hears_the_end();
    manager.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_or_cut_while_it_starts_again() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut manager = Manager::new(&[&app], &[]);
    // Before it is there, clients wait.
    let at = manager.at();
    let early = tokio::spawn(async move { get(at, "app", "/echo", "").await });
    manager.start();
    assert_eq!(must("the first", early).await.unwrap().unwrap().status, 200);
    assert_eq!(manager.hears(), "READY=1\n");
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut asked = 0;
                let until = tokio::time::Instant::now() + Duration::from_secs(6);
                while tokio::time::Instant::now() < until {
                    let got = get(at, "app", "/echo", "").await.map(|reply| reply.status);
                    assert!(matches!(got, Ok(200)), "after {asked}: {got:?}");
                    asked += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                asked
            })
        })
        .collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        // A stream of events that is under way goes on to its end.
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"GET /stream?ms=100&n=10 HTTP/1.1\r\nHost: app.test\r\n\r\n").await.unwrap();
        let mut got = Vec::new();
        assert_ne!(must("an event", stream.read_buf(&mut got)).await.unwrap(), 0);
        manager.signal(libc::SIGTERM);
        assert_eq!(manager.hears(), "STOPPING=1\n");
        must("the rest", stream.read_to_end(&mut got)).await.unwrap();
        assert!(got.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&got));
        manager.ends().await;
        manager.start();
        assert_eq!(manager.hears(), "READY=1\n");
    }
    let asked = futures_util::future::join_all(clients).await;
    let counts: Vec<i32> = asked.into_iter().map(|asked| asked.unwrap()).collect();
    assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_tells_which_process_has_taken_over() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut manager = Manager::new(&[&app], &[]);
    manager.start();
    assert_eq!(manager.hears(), "READY=1\n");
    assert_eq!(get(manager.at(), "app", "/", "").await.unwrap().status, 200);
    manager.signal(libc::SIGUSR2);
    let told = manager.hears();
    let pid = told.strip_prefix("MAINPID=").and_then(|pid| pid.trim_end().parse().ok());
    let pid = nix::unistd::Pid::from_raw(pid.unwrap_or_else(|| panic!("{told}")));
    manager.ends().await;
    assert_eq!(get(manager.at(), "app", "/", "").await.unwrap().status, 200);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(manager.hears(), "STOPPING=1\n");
    until("its end", async || app.journal().living().len(), |living| *living == 0).await;
    assert_eq!(app.journal().starts(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ports_of_streams_are_open_when_it_says_that_it_serves() {
    let tcp: Vec<App> = (0..8).map(|at| App::echoing(&format!("tcp{at}"), "tcp").idle("idle_timeout: 1h")).collect();
    let mut manager = Manager::new(&tcp.iter().collect::<Vec<_>>(), &[]);
    manager.start();
    assert_eq!(manager.hears(), "READY=1\n");
    for app in tcp.iter().rev() {
        std::net::TcpStream::connect(app.front()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_routes_use_the_sockets_that_are_bound_to_their_ports() {
    let tcp = App::echoing("tcp", "tcp").idle("idle_timeout: 1h");
    let udp = App::echoing("udp", "udp").idle("idle_timeout: 1h");
    let listener = TcpListener::bind(tcp.front()).unwrap();
    let datagrams = UdpSocket::bind(udp.front()).unwrap();
    let mut manager = Manager::new(&[&tcp, &udp], &[listener.as_raw_fd(), datagrams.as_raw_fd()]);
    manager.start();
    assert_eq!(manager.hears(), "READY=1\n");
    assert_eq!(talk(tcp.front(), b"hello").await.unwrap(), echoed(b"hello"));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"hello", udp.front()).await.unwrap();
    let mut room = [0; 100];
    let count = must("an answer", socket.recv(&mut room)).await.unwrap();
    assert_eq!(&room[..count], b"hello");
    let log = manager.log();
    assert!(log.contains(&format!("TCP {} (http)", manager.at())), "{log}");
    assert!(!log.contains("can not listen"), "{log}");
}

#[tokio::test]
async fn systemd_hands_over_its_socket() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let folder = tempfile::tempdir().unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listen = format!("listen: {{ http: \"{at}\", api: off }}\n");
    fs::write(folder.path().join("dormouse.yaml"), listen + &config(&[&app])).unwrap();
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let started = Command::new("systemd-socket-activate")
        .args(["-l", &at.to_string(), "--fdname=web", env!("CARGO_BIN_EXE_dormouse")])
        .args(dormouse::serve(&folder.path().join("dormouse.yaml"), &folder.path().join("state")))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    let mut service = match started {
        Ok(service) => service,
        Err(_) => return not_run("DORMOUSE_TEST_NO_SYSTEMD", "`systemd-socket-activate`"),
    };
    let ask = async || get(at, "app", "/echo", "").await.map(|reply| reply.status).unwrap_or_default();
    let status = until("an answer", ask, |status| *status == 200).await;
    service.kill().unwrap();
    service.wait().unwrap();
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(status, 200);
    assert!(log.contains(&format!("TCP {at} (web)")), "{log}");
}
