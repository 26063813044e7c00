//! The command that puts records into the DNS and takes them out.

use std::{process::Stdio, time::Duration};

use tokio::process::Command;

use super::failed::Failed;
use crate::{model::DnsHook, provider};

/// A command may take this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// So much of what it said is told when it fails.
const TOLD: usize = 300;

/// Runs the command with `present` or `cleanup`, the record's name and its value. What stands behind it is not known:
/// whatever failed may go well the next time.
pub(super) async fn run(hook: &DnsHook, what: &str, name: &str, value: &str) -> Result<(), Failed> {
    let Some((program, arguments)) = hook.command.split_first() else {
        return Err(Failed::refused("no command is set that puts records into the DNS"));
    };
    let mut command = Command::new(program);
    command.args(arguments).args([what, name, value]).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = async { provider::spawn(&mut command)?.wait_with_output().await };
    let ran = tokio::time::timeout(PATIENCE, run).await;
    let failed = |why: String| Failed::passing(format!("`{program} {what} {name}` {why}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_is_away_or_fails_may_go_well_the_next_time() {
        let check = async |command: &[&str], expected: &str| {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            let hook = DnsHook { command, wait: Duration::ZERO };
            let failed = run(&hook, "present", "_acme-challenge.a.test.", "v").await.unwrap_err();
            assert!(failed.passes() && failed.why.contains(expected), "{failed:?}");
        };
        check(&["/nonexistent/hook"], "`/nonexistent/hook present _acme-challenge.a.test.` could not be run").await;
        check(&["sh", "-c", "echo nobody answers >&2; exit 3"], "(exit status: 3): nobody answers").await;
    }
}
