//! Where the access logs go, of the whole program and of routes.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, task, time::timeout};

use super::{Control, View};
use crate::{
    config::Loaded,
    model::{AccessLog, AccessOutput, Place, Problem, Problems, RouteLog, RouteSpec, Settings},
    telemetry::check_access_outputs,
};

/// A look at the disk takes no longer, for those who wait for it.
const LOOK: Duration = Duration::from_secs(2);

/// Looks at the disk beneath access logs, one at a time: one at a disk that hangs keeps a thread until that answers, and
/// those after it are not to keep one each. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Looks(pub(super) Arc<Mutex<()>>);

impl Looks {
    /// What a look finds. One that does not end in time, or has a fault, is a warning.
    pub(super) async fn look(&self, look: impl FnOnce() -> Problems + Send + 'static) -> Problems {
        let turn = Arc::clone(&self.0);
        let looked = async {
            let turn = turn.lock_owned().await;
            let look = move || {
                let _turn = turn;
                look()
            };
            task::spawn_blocking(look).await
        };
        match timeout(LOOK, looked).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => unseen("can not be looked at", "a fault in Dormouse ended the look, see its log"),
            Err(_) => unseen("can not be looked at in time", "see to the disk that it is on: lines may be lost"),
        }
    }
}

fn unseen(what: &str, hint: &str) -> Problems {
    let place = Place::File { path: "access_log".into(), line: None, column: None };
    Problems(vec![Problem::warning(place, format!("the access log {what}")).with_hint(hint)])
}

impl Control {
    /// What a look at the disk beneath the access logs in force finds. One that does not end within two seconds is a
    /// warning itself.
    pub async fn look_at_access_logs(
        &self,
        look: impl FnOnce(&[Arc<AccessOutput>]) -> Problems + Send + 'static,
    ) -> Problems {
        let outputs = self.view().access_outputs();
        self.looks.look(move || look(&outputs)).await
    }
}

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

/// Warns in the log of those that can not be written. Looks at the disk.
pub fn tell_of_access_logs(outputs: &[Arc<AccessOutput>]) {
    warn_of(&check_access_outputs(outputs));
}

/// Has each in the log.
pub(super) fn warn_of(problems: &Problems) {
    problems.0.iter().for_each(|problem| tracing::warn!("{problem:#}"));
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_keeps_nobody_waiting() {
        let looks = Looks::default();
        let (answers, answered) = mpsc::channel::<()>();
        let hanging = looks.look(move || {
            let _ = answered.recv();
            Problems::default()
        });
        let told = hanging.await.to_string();
        assert!(told.starts_with("warning: ") && told.contains("can not be looked at in time"), "{told}");
        let (begun, others) = mpsc::channel();
        let second = looks.look(move || {
            let _ = begun.send(());
            Problems::default()
        });
        assert_eq!(second.await.to_string(), told);
        assert!(others.try_recv().is_err(), "while one hangs no other begins");
        drop(answers);
        assert_eq!(looks.look(Problems::default).await, Problems::default(), "it answers again");
    }

    #[tokio::test]
    async fn a_panic_while_looking_is_a_warning() {
        let looks = Looks::default();
        let told = looks.look(|| panic!("on purpose")).await.to_string();
        assert!(told.starts_with("warning: ") && told.contains("a fault in Dormouse"), "{told}");
        assert_eq!(looks.look(Problems::default).await, Problems::default(), "the next one is as ever");
    }
}
