//! Where the access logs go, of the whole program and of routes.

use std::sync::Arc;

use super::View;
use crate::{
    config::Loaded,
    model::{AccessLog, AccessOutput, Problems, RouteLog, RouteSpec, Settings},
    telemetry::check_access_outputs,
};

impl View {
    /// Where the access logs in force go.
    pub fn access_outputs(&self) -> Vec<Arc<AccessOutput>> {
        outputs(&self.settings, self.catalog.routes.values())
    }
}

/// Where those of a configuration go.
pub fn access_outputs(loaded: &Loaded) -> Vec<Arc<AccessOutput>> {
    outputs(&loaded.settings, &loaded.routes)
}

/// Warns in the log of those that can not be written, and returns the warnings. Looks at the disk.
pub fn tell_of_access_logs(outputs: &[Arc<AccessOutput>]) -> Problems {
    let problems = check_access_outputs(outputs);
    problems.0.iter().for_each(|problem| tracing::warn!("{problem:#}"));
    problems
}

fn outputs<'a>(settings: &Settings, routes: impl IntoIterator<Item = &'a Arc<RouteSpec>>) -> Vec<Arc<AccessOutput>> {
    let usual = settings.access_log.as_ref();
    let of_routes = routes.into_iter().flat_map(|route| {
        let members = route.group().into_iter().flat_map(|group| &group.members);
        [route].into_iter().chain(members.map(|member| &member.route)).filter_map(|one| own(&one.options.access_log))
    });
    let to_stdout = || Arc::new(AccessOutput { stdout: true, file: None });
    let of_usual = || usual.and_then(|log| log.output.clone()).unwrap_or_else(to_stdout);
    usual.into_iter().chain(of_routes).map(|log| log.output.clone().unwrap_or_else(of_usual)).collect()
}

fn own(log: &RouteLog) -> Option<&Arc<AccessLog>> {
    match log {
        RouteLog::Own(log) => Some(log),
        RouteLog::Usual | RouteLog::Off => None,
    }
}
