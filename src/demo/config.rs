//! What the demo is made of, and what to try with it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use crate::model::{
    BackendId, BackendSpec, BadName, Command, Condition, Dependency, Discover, DockerAddress, Endpoint, EngineAddress,
    HostPattern, IdlePolicy, Listen, NodeName, NodeSpec, Place, Provenance, Readiness, RouteMatch, RouteOptions,
    RouteSpec, RouteTarget, Scheme, Settings, SleepMethod, Unit,
};

/// The ports of the demo, all on the loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoPorts {
    /// The proxy.
    pub http: u16,
    /// The management API.
    pub api: u16,
    /// The app that starts slowly.
    pub slow: u16,
    /// The app with streams.
    pub live: u16,
    /// The app that is frozen.
    pub nap: u16,
}

/// What the apps run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Housing<'a> {
    /// Processes of this program, whose file this is.
    Processes(&'a Path),
    /// Containers of the Docker Engine whose names begin so.
    Containers(&'a str),
}

/// A container of the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoContainer {
    /// Its name.
    pub name: String,
    /// What it runs: the words after the program.
    pub arguments: [String; 5],
    /// Where it listens.
    pub port: u16,
}

/// The demo's streams never end by themselves: nobody waits long for them.
pub const SHUTDOWN: Duration = Duration::from_secs(5);

/// Where apps in containers listen: each has an address of its own.
const CONTAINER_PORT: u16 = 80;

/// One app of the demo.
struct App {
    name: &'static str,
    title: &'static str,
    port: u16,
    idle: Duration,
    method: SleepMethod,
    needs: Option<&'static str>,
}

fn apps(ports: DemoPorts) -> [App; 3] {
    let app = |name, title, port, idle, method, needs| {
        let idle = Duration::from_secs(idle);
        App { name, title, port, idle, method, needs }
    };
    [
        app("slow", "The slow starter", ports.slow, 12, SleepMethod::Stop, Some("nap")),
        app("live", "The live wire", ports.live, 10, SleepMethod::Stop, None),
        app("nap", "The napper", ports.nap, 8, SleepMethod::Pause, None),
    ]
}

/// The containers of the demo, which are to be made before it begins.
pub fn containers(prefix: &str) -> [DemoContainer; 3] {
    ["slow", "live", "nap"].map(|app| DemoContainer {
        name: format!("{prefix}-{app}"),
        arguments: ["demo-app", app, "--port", &CONTAINER_PORT.to_string(), "--in-container"].map(str::to_owned),
        port: CONTAINER_PORT,
    })
}

/// The configuration of the demo, whose apps are run by this program (`demo-app NAME --port PORT`).
pub fn config(housing: Housing<'_>, ports: DemoPorts) -> Result<(Settings, Vec<RouteSpec>, Vec<BackendSpec>), BadName> {
    let (engine, ports) = match housing {
        Housing::Processes(_) => (EngineAddress::Process, ports),
        Housing::Containers(_) => {
            let (slow, live, nap) = (CONTAINER_PORT, CONTAINER_PORT, CONTAINER_PORT);
            (EngineAddress::Docker(DockerAddress::default()), DemoPorts { slow, live, nap, ..ports })
        }
    };
    let apps = apps(ports);
    let node: NodeName = "demo".parse()?;
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let settings = Settings {
        listen: Listen { http: vec![loopback(ports.http)], https: Vec::new(), api: Some(loopback(ports.api)) },
        domains: vec!["localhost".to_owned()],
        nodes: BTreeMap::from([(node.clone(), NodeSpec::from(engine))]),
        // The containers of others are not ours to serve.
        discover: Discover::Labelled,
        prefixes: vec!["dormouse-demo".to_owned()],
        shutdown_timeout: SHUTDOWN,
        ..Settings::default()
    };
    let routes = apps.iter().map(|app| route(app, &node, housing)).collect::<Result<_, _>>()?;
    let backends = apps.iter().map(|app| backend(app, &node, housing)).collect::<Result<_, _>>()?;
    Ok((settings, routes, backends))
}

fn route(app: &App, node: &NodeName, housing: Housing<'_>) -> Result<RouteSpec, BadName> {
    let host: HostPattern = format!("{}.localhost", app.name).parse()?;
    let matches = RouteMatch { hosts: [host].into(), ..RouteMatch::default() };
    let endpoint = Endpoint { scheme: Scheme::Http, port: app.port };
    let target = RouteTarget::Backend { id: BackendId::new(node.clone(), &housing.unit(app.name))?, endpoint };
    let route = RouteSpec::new(app.name.parse()?, Place::Body("demo".to_owned()), matches, target);
    let options = RouteOptions { title: Some(app.title.to_owned()), ..RouteOptions::default() };
    Ok(RouteSpec { options: options.shared(), ..route })
}

impl Housing<'_> {
    /// The name of an app at its engine.
    fn unit(self, app: &str) -> String {
        match self {
            Self::Processes(_) => app.to_owned(),
            Self::Containers(prefix) => format!("{prefix}-{app}"),
        }
    }

    fn command(self, app: &App) -> Option<Command> {
        let Self::Processes(exe) = self else { return None };
        let argv = [&exe.to_string_lossy(), "demo-app", app.name, "--port", &app.port.to_string()].map(str::to_owned);
        Some(Command { argv: argv.into(), env: BTreeMap::new(), directory: None, user: None })
    }
}

fn backend(app: &App, node: &NodeName, housing: Housing<'_>) -> Result<BackendSpec, BadName> {
    let needs = app.needs.map(|name| BackendId::new(node.clone(), &housing.unit(name))).transpose()?;
    Ok(BackendSpec {
        id: BackendId::new(node.clone(), &housing.unit(app.name))?,
        unit: Unit { name: housing.unit(app.name), network: None, command: housing.command(app) },
        policy: IdlePolicy {
            idle_timeout: Some(app.idle),
            stop_method: app.method,
            stop_timeout: Duration::from_secs(5),
            wake_timeout: Duration::from_secs(30),
            ..IdlePolicy::default()
        },
        ready: Readiness::Tcp,
        ports: vec![app.port],
        depends_on: needs.map(|on| Dependency { on, condition: Condition::Started }).into_iter().collect(),
        provenance: Provenance::Configured,
    })
}

/// What to try, for the terminal.
pub fn intro(http_port: u16, program: &str, state_dir: &Path) -> String {
    let port = if http_port == 80 { String::new() } else { format!(":{http_port}") };
    format!(
        "Three small apps are asleep behind a proxy on 127.0.0.1{port}. Each wakes on the first request\n\
         and goes back to sleep when nobody uses it.\n\
         \n\
         \x20 In a browser:\n\
         \x20   http://slow.localhost{port}/   takes 3 s to start: a page waits with you; wakes nap first\n\
         \x20   http://live.localhost{port}/   a clock and an echo: stays awake while the page is open\n\
         \x20   http://nap.localhost{port}/    a number in memory: frozen after 8 s, and it goes on counting\n\
         \n\
         \x20 With curl:\n\
         \x20   curl -i http://slow.localhost{port}/         held until the app listens, then answered\n\
         \x20   curl -N http://live.localhost{port}/clock    a stream that is never cut\n\
         \x20   curl http://nap.localhost{port}/             wait 10 s between two of them\n\
         \x20   (a curl that does not know these names: curl -H 'Host: nap.localhost' http://127.0.0.1{port}/)\n\
         \n\
         \x20 In another terminal, what runs, what sleeps, and when it sleeps next; who woke what, and why:\n\
         \x20   {program} --state-dir {state_dir} ps\n\
         \x20   {program} --state-dir {state_dir} events\n\
         \n\
         Ctrl-C ends it all and leaves nothing behind.\n",
        state_dir = state_dir.display(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PORTS: DemoPorts = DemoPorts { http: 8080, api: 8000, slow: 1, live: 2, nap: 3 };

    #[test]
    fn every_app_has_a_route_and_a_backend_that_fit() {
        let (settings, routes, backends) = config(Housing::Processes(Path::new("/bin/dormouse")), PORTS).unwrap();
        assert!(settings.listen.http.iter().chain(&settings.listen.api).all(|at| at.ip().is_loopback()));
        let ids: BTreeSet<&BackendId> = backends.iter().map(|backend| &backend.id).collect();
        assert_eq!((routes.len(), ids.len()), (3, 3));
        for (route, backend) in routes.iter().zip(&backends) {
            assert_eq!(route.backend(), Some(&backend.id));
            assert!(settings.nodes.contains_key(backend.id.node()));
            let RouteTarget::Backend { endpoint, .. } = &route.target else { panic!("{route:?}") };
            assert_eq!(backend.ports, [endpoint.port]);
            let argv = &backend.unit.command.as_ref().unwrap().argv;
            let port = endpoint.port.to_string();
            assert_eq!(argv[..], ["/bin/dormouse", "demo-app", backend.id.name(), "--port", port.as_str()]);
            assert!(backend.depends_on.iter().all(|dependency| ids.contains(&dependency.on)));
        }
        assert!(backends.iter().any(|backend| backend.policy.stop_method == SleepMethod::Pause));
        assert!(backends.iter().any(|backend| !backend.depends_on.is_empty()));
    }

    #[test]
    fn in_containers_each_app_has_one_of_its_own_that_listens_where_it_is_dialled() {
        let (settings, _, backends) = config(Housing::Containers("demo-7"), PORTS).unwrap();
        assert_eq!(settings.discover, Discover::Labelled);
        for (backend, container) in backends.iter().zip(containers("demo-7")) {
            assert_eq!(backend.unit.name, container.name);
            assert_eq!(backend.unit.command, None);
            assert_eq!(backend.ports, [container.port]);
            assert_eq!(container.arguments[3], container.port.to_string());
            assert!(container.name.ends_with(&format!("-{}", container.arguments[1])));
        }
    }

    #[test]
    fn the_text_names_every_host_with_its_port() {
        let text = intro(8080, "target/release/dormouse", Path::new("/tmp/demo/state"));
        assert!(text.contains("target/release/dormouse --state-dir /tmp/demo/state ps\n"), "{text}");
        for name in ["slow", "live", "nap"] {
            assert!(text.matches(&format!("http://{name}.localhost:8080/")).count() >= 2, "{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(!intro(80, "dormouse", Path::new("/tmp")).contains(":80"));
    }
}
