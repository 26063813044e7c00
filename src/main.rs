//! The `dormouse` program.
use std::{path::PathBuf, process::ExitCode};

use dormouse::app::{ServeOptions, serve};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["demo"] => {
            runtime.block_on(dormouse::app::demo()).unwrap();
            ExitCode::SUCCESS
        }
        ["demo-app", name, "--port", port] => {
            runtime.block_on(dormouse::demo::run_app(name, port.parse().unwrap())).unwrap();
            ExitCode::SUCCESS
        }
        [config, state_dir] => {
            let _ = dormouse::telemetry::init("info", dormouse::telemetry::LogFormat::Text);
            let options = ServeOptions {
                config: Some(PathBuf::from(config)),
                state_dir: PathBuf::from(state_dir),
                explicit: false,
            };
            match runtime.block_on(serve(options)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("{error}");
                    ExitCode::from(2)
                }
            }
        }
        _ => ExitCode::from(2),
    }
}
