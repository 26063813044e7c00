//! Which command does what.

use std::{path::PathBuf, process::ExitCode};

use clap::CommandFactory;

use super::{
    arguments::{Arguments, Command},
    certificates, check,
    client::Client,
    events, explain, orders,
    output::{Output, complain},
    state_dir as place,
    trouble::Trouble,
};

/// The state directory, as said on the command line or as usual.
pub fn state_dir(said: Option<PathBuf>) -> Result<PathBuf, String> {
    let root = nix::unistd::geteuid().is_root();
    place::find(said, &|name| std::env::var(name).ok(), root)
        .ok_or_else(|| "error: there is no state directory: name one with `--state-dir`".to_owned())
}

/// Carries out a command that needs nothing, or a running Dormouse. Says what went wrong on standard error.
pub async fn run(command: Command, state_dir: PathBuf) -> ExitCode {
    match carry_out(command, Client::new(state_dir), Output::new()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            let text = trouble.to_string();
            if !text.is_empty() {
                complain(&text);
            }
            trouble.code()
        }
    }
}

async fn carry_out(command: Command, client: Client, output: Output) -> Result<(), Trouble> {
    match &command {
        Command::Check(options) => check::check(options, &client, &output).await,
        Command::Explain(options) => explain::explain(options, &client, &output).await,
        Command::Schema => check::schema(&output),
        Command::Ps(options) => orders::ps(options.json, &client, &output).await,
        Command::Wake(options) => orders::wake(options, &client, &output).await,
        Command::Sleep(options) => orders::sleep(options, &client, &output).await,
        Command::Pin(options) => orders::pin(options, &client, &output).await,
        Command::Unpin(options) => orders::unpin(options, &client, &output).await,
        Command::Restart(options) => orders::restart(options, &client, &output).await,
        Command::Events(options) => events::events(options, &client, &output).await,
        Command::Certificates(options) => certificates::certificates(options.json, &client, &output).await,
        Command::Routes(options) => orders::routes(options.json, &client, &output).await,
        Command::Reload(options) => check::reload(options.json, &client, &output).await,
        Command::Upgrade(options) => check::upgrade(options.json, &client, &output).await,
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "dormouse", &mut text);
            output.line(String::from_utf8_lossy(&text).trim_end())
        }
        Command::Man { command } => man(command.as_deref(), &output),
        Command::Serve(_) | Command::Demo(_) | Command::DemoApp(_) => {
            Err(Trouble::Failed("this command is carried out by the program itself".to_owned()))
        }
    }
}

/// Prints the page of the whole, or of one command.
fn man(command: Option<&str>, output: &Output) -> Result<(), Trouble> {
    let mut whole = Arguments::command();
    whole.build();
    let page = match command {
        None => whole,
        Some(name) => {
            let found = whole.find_subcommand(name).cloned();
            found.ok_or_else(|| Trouble::Wrong(format!("there is no command `{name}`")))?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    output.line(String::from_utf8_lossy(&text).trim_end())
}
