//! The grammar of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A reverse proxy that lets services sleep and wakes them on the first request.
#[derive(Debug, Parser)]
#[command(name = "dormouse", version, propagate_version = true, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// The state directory, which also holds the socket of a running Dormouse. Otherwise DORMOUSE_STATE_DIR or
    /// STATE_DIRECTORY, else `/var/lib/dormouse` for root and `~/.local/state/dormouse` for others.
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until told to end
    Serve(Serve),
    /// Check a configuration file; without one, show the problems of the running Dormouse
    Check(Check),
    /// Say what is made of containers and processes, and why; ends with 2 where an error refuses a route
    Explain(Explain),
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Try it on this machine, with apps of its own
    Demo(Demo),
    /// List the backends
    Ps(Json),
    /// Wake a backend and wait until it is awake
    Wake(Wake),
    /// Let a backend sleep once nobody uses it
    Sleep(Sleep),
    /// Keep a backend awake until a time
    Pin(Pin),
    /// End a pin
    Unpin(Name),
    /// Let a backend down and wake it again
    Restart(Name),
    /// Show what happened, and why
    Events(Events),
    /// List the routes
    Routes(Json),
    /// List the certificates
    Certificates(Json),
    /// Have the configuration read again
    Reload(Json),
    /// Have a new process take over, from the program file and the configuration of now; nobody is refused or cut.
    /// SIGUSR2 does the same
    Upgrade(Json),
    /// Print the completions of a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print a man page: of the whole, or of one command
    Man {
        /// The command
        command: Option<String>,
    },
    /// An app of the demo
    #[command(hide = true)]
    DemoApp(DemoApp),
}

/// `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file; without one, everything is discovered
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Serve only containers that have labels
    #[arg(long, conflicts_with = "config")]
    pub explicit: bool,
    /// How logs look
    #[arg(long, value_enum, default_value_t = LogStyle::Text)]
    pub log: LogStyle,
}

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogStyle {
    /// For people.
    Text,
    /// One JSON object for each line.
    Json,
}

/// `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Run the apps in containers of the Docker Engine, from an image made of this program and removed at the end
    #[arg(long)]
    pub docker: bool,
}

/// `demo-app`.
#[derive(Debug, Args)]
pub struct DemoApp {
    /// Which.
    pub name: String,
    /// Where it listens.
    #[arg(long)]
    pub port: u16,
    /// Listen on all addresses rather than the loopback, as an app in a container does.
    #[arg(long)]
    pub in_container: bool,
}

/// `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration file
    pub file: Option<PathBuf>,
    /// Also show what it would change in the running Dormouse
    #[arg(long, requires = "file")]
    pub diff: bool,
    #[command(flatten)]
    pub(super) output: Json,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The container or process, by its name or `node/name`; all of them without it
    pub container: Option<String>,
    /// Read containers from a file in the form of `docker inspect` (`-`: standard input) and ask no engine
    #[arg(long, value_name = "FILE")]
    pub inspect: Option<PathBuf>,
    /// With this configuration instead of that of the running Dormouse
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: Json,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct Json {
    /// Print JSON, in the shapes of the API
    #[arg(long)]
    pub json: bool,
}

/// A backend.
#[derive(Debug, Args)]
pub struct Name {
    /// The backend: `node/name`, its name alone, or the alias of a route that leads to it
    pub name: String,
    #[command(flatten)]
    pub(super) output: Json,
}

/// `wake`.
#[derive(Debug, Args)]
pub struct Wake {
    /// The backend: `node/name`, its name alone, or the alias of a route that leads to it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub name: Option<String>,
    /// Every backend that Dormouse put to sleep, and every paused one. They sleep again once nobody uses them: end
    /// Dormouse before, or let it do this itself with `on_exit: wake_all`
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub(super) output: Json,
}

/// `sleep`.
#[derive(Debug, Args)]
pub struct Sleep {
    /// The backend: `node/name`, its name alone, or the alias of a route that leads to it
    pub name: String,
    /// At once, whoever uses it
    #[arg(long)]
    pub now: bool,
    #[command(flatten)]
    pub(super) output: Json,
}

/// `pin`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("end").required(true).args(["duration", "until"]))]
pub struct Pin {
    /// The backend: `node/name`, its name alone, or the alias of a route that leads to it
    pub name: String,
    /// For so long, such as `2h`
    #[arg(long = "for", value_name = "DURATION")]
    pub duration: Option<String>,
    /// Until then, such as `2030-01-01T18:00:00Z`
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    #[command(flatten)]
    pub(super) output: Json,
}

/// `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Only those of this backend
    pub name: Option<String>,
    /// Go on with new ones as they come
    #[arg(long, short)]
    pub follow: bool,
    #[command(flatten)]
    pub(super) output: Json,
}
