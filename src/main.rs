//! The `dormouse` program.
use std::{path::PathBuf, process::ExitCode};

use dormouse::app::{ServeOptions, serve};

fn main() -> ExitCode {
    let _ = dormouse::telemetry::init("info", dormouse::telemetry::LogFormat::Text);
    let mut arguments = std::env::args().skip(1);
    let config = arguments.next().map(PathBuf::from);
    let state_dir = arguments.next().map_or_else(|| PathBuf::from("/tmp/dormouse-state"), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    match runtime.block_on(serve(ServeOptions { config, state_dir, explicit: false })) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(2)
        }
    }
}
