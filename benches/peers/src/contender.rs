//! The contenders: how each is configured to do the same work, and started on the core of the proxies.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    configs, load, process,
    wire::{Front, Ports},
};

/// Proxies run on this core, the load and the upstream on the other.
pub(crate) const PROXY_CORE: &str = "0";
pub(crate) const LOAD_CORE: &str = "1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dormouse,
    Nginx,
    HaProxy,
    Caddy,
    /// A small proxy made with that library, in `pingora/` beside this package.
    Pingora,
}

/// What the contender has to route to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routes {
    /// So many hosts, all to the one upstream.
    Fixed(usize),
    /// One host, to an upstream of its own that sleeps until it is asked for; Dormouse alone can do that.
    Sleeping,
    /// The same beside so many other hosts, with an access log whose filters let nothing through.
    Everything(usize),
}

/// A program with its arguments, ready to be started under something else.
pub(crate) struct Recipe {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
}

/// A contender that runs; ended when dropped.
pub(crate) struct Running {
    pub(crate) kind: Kind,
    pub(crate) ports: Ports,
    child: Child,
}

impl Kind {
    /// Those whose program is there; the script beside this package sets the variables.
    pub(crate) fn available() -> Vec<Self> {
        let all = [Self::HaProxy, Self::Nginx, Self::Dormouse, Self::Caddy, Self::Pingora];
        all.into_iter().filter(|kind| kind.program().is_some()).collect()
    }

    /// Whether it takes part in that: Caddy as it comes relays no bytes, and the one of Pingora is made for HTTP in clear.
    pub(crate) fn speaks(self, front: Front) -> bool {
        match self {
            Self::Dormouse | Self::Nginx | Self::HaProxy => true,
            Self::Caddy => front != Front::Tcp,
            Self::Pingora => front == Front::Plain,
        }
    }

    /// Whether it is near enough to be worth the minutes of the long tables.
    pub(crate) fn is_close(self) -> bool {
        self.speaks(Front::Tcp)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dormouse => "dormouse",
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Caddy => "caddy",
            Self::Pingora => "pingora",
        }
    }

    fn program(self) -> Option<PathBuf> {
        let variable = format!("PEERS_{}", self.name().to_uppercase());
        env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file())
    }

    /// What the program says about its own version.
    pub(crate) fn version(self) -> String {
        let flag = match self {
            Self::Dormouse | Self::Pingora => "--version",
            Self::Nginx | Self::HaProxy => "-v",
            Self::Caddy => "version",
        };
        let Some(recipe) = self.recipe(vec![flag.to_owned()]) else { return "absent".to_owned() };
        let Ok(output) = recipe.command(&[]).output() else { return "unknown".to_owned() };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        let word = line.split_whitespace().find(|word| word.contains('.')).unwrap_or(line);
        word.trim_start_matches("nginx/").trim_start_matches('v').split('-').next().unwrap_or(word).to_owned()
    }

    fn recipe(self, arguments: Vec<String>) -> Option<Recipe> {
        let program = self.program()?;
        // The wheel carries its own libraries beside the program.
        let libraries =
            program.parent().map(|parent| parent.join("lib")).filter(|lib| lib.join("libcrypto.so.3").is_file());
        let environment = libraries.into_iter().map(|libraries| ("LD_LIBRARY_PATH", libraries)).collect();
        Some(Recipe { program, arguments, environment })
    }

    /// Writes the configuration for these routes, and says how to start with it.
    fn prepare(self, directory: &Path, ports: Ports, upstream: u16, routes: Routes) -> io::Result<Recipe> {
        fs::create_dir_all(directory)?;
        configs::write_identity(directory)?;
        let count = match routes {
            Routes::Fixed(count) | Routes::Everything(count) => count,
            Routes::Sleeping => 1,
        };
        let hosts: Vec<String> = (0..count).map(host).collect();
        let (name, text) = match self {
            Self::Dormouse => {
                let text = match routes {
                    Routes::Fixed(_) => configs::dormouse(directory, ports, upstream, &hosts),
                    Routes::Sleeping => configs::sleeping(directory, ports)?,
                    Routes::Everything(_) => configs::everything(directory, ports, upstream, &hosts)?,
                };
                ("dormouse.yaml", text)
            }
            Self::Nginx => ("nginx.conf", configs::nginx(directory, ports, upstream, &hosts)),
            Self::HaProxy => {
                let map: String = hosts.iter().fold(String::new(), |mut map, host| {
                    let _ = writeln!(map, "{host} app");
                    map
                });
                fs::write(directory.join("hosts.map"), map)?;
                ("haproxy.cfg", configs::haproxy(directory, ports, upstream))
            }
            Self::Caddy => ("Caddyfile", configs::caddy(directory, ports, upstream, &hosts)),
            Self::Pingora => ("hosts", hosts.join("\n")),
        };
        let file = directory.join(name);
        fs::write(&file, text)?;
        let (file, place) = (file.display().to_string(), directory.display().to_string());
        let arguments: Vec<String> = match self {
            Self::Dormouse => {
                vec!["serve".into(), "--config".into(), file, "--state-dir".into(), format!("{place}/state")]
            }
            Self::Nginx => vec!["-p".into(), place, "-e".into(), "stderr".into(), "-c".into(), file],
            Self::HaProxy => vec!["-db".into(), "-f".into(), file],
            Self::Caddy => vec!["run".into(), "--adapter".into(), "caddyfile".into(), "--config".into(), file],
            Self::Pingora => vec![ports.http.to_string(), upstream.to_string(), file],
        };
        let mut recipe =
            self.recipe(arguments).ok_or_else(|| io::Error::other(format!("{} is not there", self.name())))?;
        if self == Self::Caddy {
            recipe.environment.push(("HOME", directory.to_owned()));
        }
        Ok(recipe)
    }
}

impl Recipe {
    /// The command, under a wrapper such as a tracer.
    pub(crate) fn command(&self, wrapper: &[String]) -> Command {
        let mut words = wrapper.iter().map(String::as_str).chain([self.program.to_str().unwrap_or_default()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(&self.arguments).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Starts a contender and waits until it answers.
pub(crate) fn start(
    kind: Kind,
    directory: &Path,
    upstream: u16,
    routes: Routes,
    wrapper: &[String],
) -> io::Result<Running> {
    let ports = Ports { http: free_port()?, https: free_port()?, tcp: free_port()? };
    let recipe = kind.prepare(directory, ports, upstream, routes)?;
    let pinned: Vec<String> =
        ["taskset", "-c", PROXY_CORE].into_iter().map(str::to_owned).chain(wrapper.iter().cloned()).collect();
    let log = fs::File::create(directory.join("log"))?;
    let child = recipe.command(&pinned).stdout(log.try_clone()?).stderr(log).spawn()?;
    let mut running = Running { kind, ports, child };
    let deadline = Instant::now() + Duration::from_secs(120);
    while !load::answers(ports, &request("/1k", &host(0), "")) {
        let gone = running.child.try_wait()?.is_some();
        if gone || Instant::now() > deadline {
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            return Err(io::Error::other(format!("{} does not answer:\n{log}", kind.name())));
        }
        thread::sleep(Duration::from_millis(5));
    }
    running.comes_to_rest();
    Ok(running)
}

impl Running {
    /// Waits until it has done what starting still left to do: that belongs to no request. A minute at most.
    fn comes_to_rest(&self) {
        for _ in 0..120 {
            let before = process::processor_time(self.pid());
            thread::sleep(Duration::from_millis(500));
            // A hundredth of the time that passed.
            if process::processor_time(self.pid()).saturating_sub(before) < 5_000_000 {
                return;
            }
        }
    }

    /// Has it read its configuration again, and waits until that is done.
    pub(crate) fn reload(&self) -> io::Result<()> {
        if !Command::new("kill").args(["-HUP", &self.pid().to_string()]).status()?.success() {
            return Err(io::Error::other("it can not be told to reload"));
        }
        self.comes_to_rest();
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end and waits for it.
    pub(crate) fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A port below the ephemeral range, so that no outgoing connection takes it meanwhile.
pub(crate) fn free_port() -> io::Result<u16> {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let base = 20_000 + u16::try_from(std::process::id() % 8_000).unwrap_or(0);
    (0..2_000)
        .map(|_| base + NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| io::Error::other("no free port"))
}

/// The n-th host name of the routes.
pub(crate) fn host(number: usize) -> String {
    format!("app-{number}.test")
}

/// A request as a browser sends it.
pub(crate) fn request(path: &str, host: &str, extra: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.7\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\n\
         Cookie: session=6f1c9a3b5d7e8f0a1b2c3d4e5f60718293a4b5c6d7e8f901; theme=dark; lang=en\r\n{extra}\r\n"
    )
    .into_bytes()
}
