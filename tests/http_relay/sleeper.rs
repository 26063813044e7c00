//! A backend that sleeps, on the simulated engine, with an app that listens on a real socket.

use std::{
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dormouse::{
    backend::Backend,
    model::{BackendId, Endpoint, IdlePolicy, RouteOptions, RouteSpec, RouteTarget, Scheme},
    provider::{Script, Simulated},
    proxy::ProxySettings,
};

use crate::{sleeping::Sleeping, support::*};

/// What an app does with a connection; the number counts connections over all runs.
type App = Arc<dyn Fn(usize, &mut TcpStream) + Send + Sync>;

/// A sleeping backend behind a proxy.
pub(crate) struct Sleeper {
    pub(crate) engine: Simulated,
    pub(crate) backend: Backend,
    pub(crate) proxy: Proxy,
    _runtime: tokio::runtime::Runtime,
}

/// An app that listens while this lives.
struct Listening {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the accept, so that the port is free.
        let _ = TcpStream::connect(self.address);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn move_in(address: SocketAddr, app: App, count: Arc<AtomicUsize>) -> Listening {
    let listener = TcpListener::bind(address).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let (end, open) = (Arc::clone(&ended), Arc::<Mutex<Vec<TcpStream>>>::default());
    let keep = Arc::clone(&open);
    thread::spawn(move || {
        for stream in listener.incoming() {
            if end.load(Ordering::SeqCst) {
                return;
            }
            let (app, mut stream) = (Arc::clone(&app), stream.unwrap());
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            keep.lock().unwrap().push(stream.try_clone().unwrap());
            let index = count.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                app(index, &mut stream);
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    });
    Listening { address, ended, open }
}

/// What is to be known of a sleeping backend and its route.
pub(crate) struct Asleep {
    pub(crate) scheme: Scheme,
    pub(crate) policy: IdlePolicy,
    pub(crate) script: Script,
    pub(crate) settings: ProxySettings,
    pub(crate) options: RouteOptions,
    /// Others beside it.
    pub(crate) routes: Vec<RouteSpec>,
}

impl Default for Asleep {
    fn default() -> Self {
        Self {
            scheme: Scheme::Http,
            policy: policy(),
            script: slow_start(),
            settings: settings(),
            options: RouteOptions::default(),
            routes: Vec::new(),
        }
    }
}

impl Asleep {
    /// With this app in it.
    pub(crate) fn with(self, app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> Sleeper {
        let Self { scheme, policy, script, settings, options, routes } = self;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (app, count): (App, _) = (Arc::new(app), Arc::new(AtomicUsize::new(0)));
        let inhabitant = move |ip: IpAddr| -> Box<dyn std::any::Any + Send> {
            Box::new(move_in(SocketAddr::new(ip, port), Arc::clone(&app), Arc::clone(&count)))
        };
        let script = Script { inhabitant: Some(Arc::new(inhabitant)), ..script };
        let Sleeping { engine, backend, runtime } = Sleeping::new(script, policy);
        let mut route = spec_of(Sleeping::id(), scheme, port);
        route.options = Arc::new(RouteOptions { title: Some("My App".into()), ..options });
        let mut all = vec![(route, Some(backend.clone()))];
        all.extend(routes.into_iter().map(|route| (route, None)));
        let proxy = proxy_of(all, settings);
        Sleeper { engine, backend, proxy, _runtime: runtime }
    }
}

fn spec_of(id: BackendId, scheme: Scheme, port: u16) -> RouteSpec {
    let mut route = spec(SocketAddr::from(([127, 0, 0, 1], port)));
    route.target = RouteTarget::Backend { id, endpoint: Endpoint { scheme, port } };
    route
}

pub(crate) fn policy() -> IdlePolicy {
    IdlePolicy { idle_timeout: Some(Duration::from_secs(3600)), ..IdlePolicy::default() }
}

pub(crate) fn slow_start() -> Script {
    Script { start_delay: Duration::from_millis(150), ..Script::default() }
}

/// A sleeping backend as most are.
pub(crate) fn sleeper(app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> Sleeper {
    Asleep::default().with(app)
}

impl Sleeper {
    pub(crate) fn starts(&self) -> usize {
        self.engine.start_calls("app")
    }

    pub(crate) fn ask(&self, request: &str) -> (String, Vec<u8>) {
        ask(&mut connect(&self.proxy), request)
    }
}

/// Waits for a condition, for a long time.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never came: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
