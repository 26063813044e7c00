//! The `dormouse` program.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Parser;
use dormouse::{
    app::{self, Failed, Predecessor, ServeOptions},
    cli::{self, Arguments, Command},
    demo,
    net::{self, HandedWords},
    telemetry::{self, LogFormat, chain},
};

#[allow(clippy::wildcard_enum_match_arm, reason = "all other commands are the command line's own")]
fn main() -> ExitCode {
    net::use_one_provider();
    let Arguments { command, state_dir } = Arguments::parse();
    let handed = match &command {
        // Before anything else opens descriptors.
        Command::Serve(_) => net::take_handed(|name| std::env::var(name).ok()),
        _ => Vec::new(),
    };
    let predecessor = match &command {
        Command::Serve(_) => Predecessor::find(),
        _ => Ok(None),
    };
    let predecessor = match predecessor {
        Ok(predecessor) => predecessor,
        Err(error) => return fail(1, &format!("error: {}", chain(error.as_ref()))),
    };
    let told = predecessor.as_ref().and_then(|predecessor| predecessor.try_clone().ok());
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("can not start: {error}")),
    };
    let directory = match cli::state_dir(state_dir) {
        Ok(directory) => directory,
        Err(text) => return fail(2, &text),
    };
    let done = if let Command::Serve(options) = command {
        runtime.block_on(serve(options, directory, handed, predecessor))
    } else if let Command::Demo(options) = command {
        runtime.block_on(app::demo(options.docker)).map_err(Failed::Other)
    } else if let Command::DemoApp(app) = command {
        runtime.block_on(demo::run_app(&app.name, app.port, app.in_container)).map_err(Failed::Other)
    } else {
        return runtime.block_on(cli::run(command, directory));
    };
    // A disk that does not answer is not waited for.
    runtime.shutdown_background();
    let failed = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failed) => failed,
    };
    // Whoever is told of it says that it is an error.
    if let Some(told) = told {
        told.failed(&failed.why());
    }
    match failed {
        Failed::Configuration(problems) => fail(2, &problems.to_string()),
        Failed::Other(error) => fail(1, &format!("error: {}", chain(error.as_ref()))),
    }
}

async fn serve(
    options: cli::Serve,
    state_dir: PathBuf,
    handed: Vec<HandedWords>,
    predecessor: Option<Predecessor>,
) -> Result<(), Failed> {
    let format = match options.log {
        cli::LogStyle::Text => LogFormat::Text,
        cli::LogStyle::Json => LogFormat::Json,
    };
    let filter = std::env::var("DORMOUSE_LOG").unwrap_or_else(|_| "info".to_owned());
    telemetry::init(&filter, format).map_err(anyhow::Error::from)?;
    for socket in handed {
        match socket {
            Ok(socket) => tracing::info!(socket, "a socket was handed over"),
            Err(why) => tracing::warn!("a descriptor that was handed over is of no use: {why}"),
        }
    }
    app::serve(ServeOptions { config: options.config, state_dir, explicit: options.explicit, predecessor }).await
}

fn fail(code: u8, text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    ExitCode::from(code)
}
