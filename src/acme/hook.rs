//! The command that puts records into the DNS and takes them out.

use std::{process::Stdio, time::Duration};

use tokio::process::Command;

use super::{failed::Failed, schedule::Kind};
use crate::{model::DnsHook, provider};

/// A command may take this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// So much of what it said is told when it fails.
const TOLD: usize = 300;

/// Why the command has not done what it was to do.
pub(super) enum Undone {
    /// It did not run at all.
    NotRun(Failed),
    /// It ran: it may have done that all the same, or a part of it.
    Ran(Failed),
}

impl Undone {
    fn into_failed(self) -> Failed {
        match self {
            Self::NotRun(failed) | Self::Ran(failed) => failed,
        }
    }
}

/// Has the command put a record in. What stands behind it is not known: whatever failed may go well the next time.
pub(super) async fn put(hook: &DnsHook, name: &str, value: &str) -> Result<(), Undone> {
    let passing = |failed| Failed { kind: Kind::Unreachable, ..failed };
    run(hook, "present", name, value).await.map_err(|undone| match undone {
        Undone::NotRun(failed) => Undone::NotRun(passing(failed)),
        Undone::Ran(failed) => Undone::Ran(passing(failed)),
    })
}

/// Has the command take a record out. One that ran and failed has said no, and another one may go well the next time.
pub(super) async fn take(hook: &DnsHook, name: &str, value: &str) -> Result<(), Failed> {
    run(hook, "cleanup", name, value).await.map_err(Undone::into_failed)
}

/// Runs the command with what it is to do, the record's name and its value.
async fn run(hook: &DnsHook, what: &str, name: &str, value: &str) -> Result<(), Undone> {
    let Some((program, arguments)) = hook.command.split_first() else {
        return Err(Undone::NotRun(Failed::refused("no command is set that puts records into the DNS")));
    };
    let mut command = Command::new(program);
    command.args(arguments).args([what, name, value]).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("`{program} {what} {name}`");
    let child = provider::spawn(&mut command)
        .map_err(|error| Undone::NotRun(Failed::passing(format!("{what} could not be run: {error}"))))?;
    let failed = match tokio::time::timeout(PATIENCE, child.wait_with_output()).await {
        Err(_) => Failed::passing(format!("{what} did not end within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => Failed::passing(format!("{what}: its end could not be waited for: {error}")),
        Ok(Ok(output)) if output.status.success() => return Ok(()),
        Ok(Ok(output)) => {
            let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(TOLD).collect();
            Failed::refused(format!("{what} failed ({}): {said}", output.status))
        }
    };
    Err(Undone::Ran(failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_is_away_or_fails_may_go_well_the_next_time_unless_it_was_to_take_a_record_out() {
        let check = async |command: &[&str], taking_passes: bool, expected: &str| {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            let hook = DnsHook { command, wait: Duration::ZERO };
            let name = "_acme-challenge.a.test.";
            let (put, taken) = (put(&hook, name, "v").await, take(&hook, name, "v").await);
            let put = put.map_err(Undone::into_failed);
            for (what, done, passes) in [("present", put, true), ("cleanup", taken, taking_passes)] {
                let failed = done.unwrap_err();
                let words = [format!("`{} {what} {name}` ", hook.command[0]), expected.to_owned()];
                assert!(words.iter().all(|word| failed.why.contains(word)), "{failed:?}");
                assert_eq!(failed.passes(), passes, "{failed:?}");
            }
        };
        check(&["/nonexistent/hook"], true, "could not be run").await;
        check(&["sh", "-c", "echo nobody answers >&2; exit 3"], false, "(exit status: 3): nobody answers").await;
    }
}
