//! A job that others need done before they start: run to its end, once.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    model::{BackendSpec, ContainerState, format_duration},
    provider::Provider,
    telemetry::chain,
};

/// A job that runs is looked at so often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Returns once it has ended with exit code 0, now or in an earlier run; starts it where it has not. One that does not end
/// within its `wake_timeout` is left running.
pub(super) async fn run(provider: &dyn Provider, spec: &BackendSpec) -> Result<(), Arc<str>> {
    let patience = spec.policy.wake_timeout;
    let late = |_| Arc::from(format!("it has not ended within {}", format_duration(patience)));
    timeout(patience, ended(provider, spec)).await.map_err(late)?
}

async fn ended(provider: &dyn Provider, spec: &BackendSpec) -> Result<(), Arc<str>> {
    let mut started = false;
    loop {
        match provider.look(&spec.unit).await.map_err(|error| chain(&error))? {
            ContainerState::Stopped { exit_code: Some(0), .. } => return Ok(()),
            ContainerState::Stopped { exit_code, error } if started => {
                let code = exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
                return Err(error.unwrap_or_else(|| format!("it ended{code}")).into());
            }
            ContainerState::Stopped { .. } | ContainerState::Paused(_) => {
                provider.start(&spec.unit).await.map_err(|error| chain(&error))?;
                started = true;
            }
            ContainerState::Running(_) | ContainerState::Changing => {
                started = true;
                sleep(LOOK_AGAIN).await;
            }
            ContainerState::Gone => return Err("the engine knows no such unit".into()),
        }
    }
}
