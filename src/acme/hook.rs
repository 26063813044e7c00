//! The command that puts records into the DNS and takes them out.

use std::{process::Stdio, time::Duration};

use tokio::process::Command;

use crate::{model::DnsHook, provider};

/// A command may take this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// So much of what it said is told when it fails.
const TOLD: usize = 300;

/// Runs the command with `present` or `cleanup`, the record's name and its value.
pub(super) async fn run(hook: &DnsHook, what: &str, name: &str, value: &str) -> Result<(), String> {
    let Some((program, arguments)) = hook.command.split_first() else {
        return Err("no command is set that puts records into the DNS".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).args([what, name, value]).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = async { provider::spawn(&mut command)?.wait_with_output().await };
    let ran = tokio::time::timeout(PATIENCE, run).await;
    let failed = |why: String| format!("`{program} {what} {name}` {why}");
    match ran {
        Err(_) => Err(failed(format!("did not end within {} s", PATIENCE.as_secs()))),
        Ok(Err(error)) => Err(failed(format!("could not be run: {error}"))),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(TOLD).collect();
            Err(failed(format!("failed ({}): {said}", output.status)))
        }
    }
}
