//! What Dormouse costs beside its peers: processor time, instructions and system calls per request, and memory.
//!
//! `run` beside this package builds everything and starts it; `README.md` says how to read what it prints.

mod attack;
mod check;
mod configs;
mod contender;
mod counters;
mod http2;
mod load;
mod loads;
mod memory;
mod pairs;
mod process;
mod scenario;
mod table;
mod upstream;
mod wire;

use std::{env, io, path::PathBuf, process::ExitCode};

/// What the command line asks for.
struct Options {
    quick: bool,
    check: bool,
    only: Option<String>,
    contenders: Vec<contender::Kind>,
    directory: PathBuf,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        quick: false,
        check: false,
        only: None,
        contenders: contender::Kind::available(),
        directory: env::temp_dir(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--check" => options.check = true,
            "--scenario" => options.only = Some(value()?),
            "--directory" => options.directory = PathBuf::from(value()?),
            _ => return Err(format!("unknown option `{argument}`")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).peekable();
    let outcome = match arguments.next_if(|verb| verb == "upstream") {
        Some(_) => arguments
            .next()
            .and_then(|port| port.parse().ok())
            .map_or_else(|| Err(io::Error::other("usage: upstream PORT")), upstream::serve),
        None => options(arguments)
            .map_err(io::Error::other)
            .and_then(|options| if options.check { check::run(&options) } else { scenario::run_all(&options) }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}
