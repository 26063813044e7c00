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
    model::{BackendId, Endpoint, IdlePolicy, Middlewares, RouteOptions, RouteSpec, RouteTarget, Scheme},
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

/// A sleeping backend that speaks HTTP/1.1.
pub(crate) fn sleeper_with(
    policy: IdlePolicy,
    script: Script,
    settings: ProxySettings,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
    sleeper_of(Scheme::Http, policy, script, settings, app)
}

/// A sleeping backend that speaks this.
pub(crate) fn sleeper_of(
    scheme: Scheme,
    policy: IdlePolicy,
    script: Script,
    settings: ProxySettings,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
    sleeper_beside(Vec::new(), scheme, policy, script, settings, app)
}

/// A sleeping backend behind these middlewares.
pub(crate) fn sleeper_behind(
    middlewares: Middlewares,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
    let options = RouteOptions { middlewares: Some(Arc::new(middlewares)), ..RouteOptions::default() };
    sleeper_whose(options, Vec::new(), (Scheme::Http, policy()), slow_start(), settings(), app)
}

/// The same, beside these routes.
pub(crate) fn sleeper_beside(
    routes: Vec<RouteSpec>,
    scheme: Scheme,
    policy: IdlePolicy,
    script: Script,
    settings: ProxySettings,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
    sleeper_whose(RouteOptions::default(), routes, (scheme, policy), script, settings, app)
}

/// The same, with these options of its route.
pub(crate) fn sleeper_whose(
    options: RouteOptions,
    routes: Vec<RouteSpec>,
    (scheme, policy): (Scheme, IdlePolicy),
    script: Script,
    settings: ProxySettings,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
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

/// The same, as most are.
pub(crate) fn sleeper(app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> Sleeper {
    sleeper_with(policy(), slow_start(), settings(), app)
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
