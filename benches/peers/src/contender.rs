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

use crate::{load, process};

/// Proxies run on this core, the load and the upstream on the other.
pub(crate) const PROXY_CORE: &str = "0";
pub(crate) const LOAD_CORE: &str = "1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dormouse,
    Nginx,
    HaProxy,
}

/// What the contender has to route to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routes {
    /// So many hosts, all to the one upstream.
    Fixed(usize),
    /// One host, to an upstream of its own that sleeps until it is asked for; Dormouse alone can do that.
    Sleeping,
}

/// A program with its arguments, ready to be started under something else.
pub(crate) struct Recipe {
    program: PathBuf,
    arguments: Vec<String>,
    libraries: Option<PathBuf>,
}

/// A contender that runs; ended when dropped.
pub(crate) struct Running {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    child: Child,
}

impl Kind {
    /// Those whose program is there; the script beside this package sets the variables.
    pub(crate) fn available() -> Vec<Self> {
        [Self::HaProxy, Self::Nginx, Self::Dormouse].into_iter().filter(|kind| kind.program().is_some()).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dormouse => "dormouse",
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
        }
    }

    fn program(self) -> Option<PathBuf> {
        let variable = format!("PEERS_{}", self.name().to_uppercase());
        env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file())
    }

    /// What the program says about its own version.
    pub(crate) fn version(self) -> String {
        let flag = match self {
            Self::Dormouse => "--version",
            Self::Nginx | Self::HaProxy => "-v",
        };
        let Some(recipe) = self.recipe(vec![flag.to_owned()]) else { return "absent".to_owned() };
        let Ok(output) = recipe.command(&[]).output() else { return "unknown".to_owned() };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        let word = line.split_whitespace().find(|word| word.contains('.')).unwrap_or(line);
        word.trim_start_matches("nginx/").split('-').next().unwrap_or(word).to_owned()
    }

    fn recipe(self, arguments: Vec<String>) -> Option<Recipe> {
        let program = self.program()?;
        // The wheel carries its own libraries beside the program.
        let libraries =
            program.parent().map(|parent| parent.join("lib")).filter(|lib| lib.join("libcrypto.so.3").is_file());
        Some(Recipe { program, arguments, libraries })
    }

    /// Writes the configuration for these routes, and says how to start with it.
    fn prepare(self, directory: &Path, port: u16, upstream: u16, routes: Routes) -> io::Result<Recipe> {
        fs::create_dir_all(directory)?;
        let count = if let Routes::Fixed(count) = routes { count } else { 1 };
        let hosts: Vec<String> = (0..count).map(host).collect();
        let text = match self {
            Self::Dormouse if routes == Routes::Sleeping => sleeping(port)?,
            Self::Dormouse => dormouse(port, upstream, &hosts),
            Self::Nginx => nginx(directory, port, upstream, &hosts),
            Self::HaProxy => {
                let map: String = hosts.iter().fold(String::new(), |mut map, host| {
                    let _ = writeln!(map, "{host} app");
                    map
                });
                fs::write(directory.join("hosts.map"), map)?;
                haproxy(directory, port, upstream)
            }
        };
        let file = directory.join(match self {
            Self::Dormouse => "dormouse.yaml",
            Self::Nginx => "nginx.conf",
            Self::HaProxy => "haproxy.cfg",
        });
        fs::write(&file, text)?;
        let (file, place) = (file.display().to_string(), directory.display().to_string());
        let arguments: Vec<String> = match self {
            Self::Dormouse => {
                vec!["serve".into(), "--config".into(), file, "--state-dir".into(), format!("{place}/state")]
            }
            Self::Nginx => vec!["-p".into(), place, "-e".into(), "stderr".into(), "-c".into(), file],
            Self::HaProxy => vec!["-db".into(), "-f".into(), file],
        };
        self.recipe(arguments).ok_or_else(|| io::Error::other(format!("{} is not there", self.name())))
    }
}

impl Recipe {
    /// The command, under a wrapper such as a tracer.
    pub(crate) fn command(&self, wrapper: &[String]) -> Command {
        let mut words = wrapper.iter().map(String::as_str).chain([self.program.to_str().unwrap_or_default()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(&self.arguments).stdin(Stdio::null());
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
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
    let port = free_port()?;
    let recipe = kind.prepare(directory, port, upstream, routes)?;
    let pinned: Vec<String> =
        ["taskset", "-c", PROXY_CORE].into_iter().map(str::to_owned).chain(wrapper.iter().cloned()).collect();
    let log = fs::File::create(directory.join("log"))?;
    let child = recipe.command(&pinned).stdout(log.try_clone()?).stderr(log).spawn()?;
    let mut running = Running { kind, port, child };
    let deadline = Instant::now() + Duration::from_secs(120);
    while !load::answers(port, &request("/1k", &host(0), "")) {
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

fn dormouse_listens(port: u16) -> String {
    format!("listen:\n  http: \"127.0.0.1:{port}\"\n  api: \"127.0.0.1:0\"\n")
}

fn dormouse(port: u16, upstream: u16, hosts: &[String]) -> String {
    let mut text = format!("{}nodes: {{}}\nroutes:\n", dormouse_listens(port));
    for (number, host) in hosts.iter().enumerate() {
        let _ = writeln!(text, "  app-{number}: {{ hosts: [\"{host}\"], host: 127.0.0.1, port: {upstream} }}");
    }
    text
}

/// The route leads to a backend that is started by the first request, and is this program again.
fn sleeping(port: u16) -> io::Result<String> {
    let (own, app) = (env::current_exe()?, free_port()?);
    let command = format!("[\"taskset\", \"-c\", \"{LOAD_CORE}\", \"{}\", \"upstream\", \"{app}\"]", own.display());
    let (listens, host) = (dormouse_listens(port), host(0));
    Ok(format!(
        "{listens}nodes: {{ jobs: process }}\nbackends:\n  jobs/app: {{ command: {command} }}\nroutes:\n  \
         app: {{ hosts: [\"{host}\"], backend: jobs/app, port: {app}, idle: {{ idle_timeout: 1h }} }}\n"
    ))
}

fn nginx(directory: &Path, port: u16, upstream: u16, hosts: &[String]) -> String {
    let place = directory.display();
    let mut map = String::new();
    for host in hosts {
        let _ = writeln!(map, "    {host} app;");
    }
    format!(
        "daemon off;
worker_processes 1;
user root;
pid {place}/pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 16000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_body_buffer_size 128k;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
  map_hash_max_size 262144;
  map_hash_bucket_size 128;
  map $host $target {{
{map}    default none;
  }}
  map $http_upgrade $hop {{ default upgrade; '' ''; }}
  upstream app {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h; }}
  upstream none {{ server 127.0.0.1:9; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://$target;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection $hop;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"
    )
}

fn haproxy(directory: &Path, port: u16, upstream: u16) -> String {
    let place = directory.display();
    format!(
        "global
  nbthread 1
  maxconn 8000
defaults
  mode http
  http-reuse always
  timeout client 1h
  timeout server 1h
  timeout connect 5s
  timeout tunnel 1h
frontend front
  bind 127.0.0.1:{port} backlog 4096
  http-request set-header X-Forwarded-Proto http
  option forwardfor
  use_backend %[req.hdr(host),field(1,:),lower,map({place}/hosts.map,none)]
backend app
  server one 127.0.0.1:{upstream}
backend none
  server one 127.0.0.1:9
"
    )
}
