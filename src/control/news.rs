//! What the nodes tell the keeper: lists of their units, hints, and that they are away.

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Away,
    keeper::{DEPARTED, Keeper},
    watcher::News,
};
use crate::{
    backend::Backend,
    model::{BackendId, Cause, Container, NodeName},
    telemetry::Happening,
};

impl Keeper {
    pub(super) async fn heard(&mut self, news: News) {
        match news {
            News::Listed(node, units) => self.node_listed(node, units).await,
            News::Hint(node, name) => {
                if let Some(backend) = self.backend_of(node, &name) {
                    backend.hint().await;
                }
            }
            News::Started(node, name) => {
                if let Some(backend) = self.backend_of(node, &name) {
                    backend.started().await;
                }
            }
            News::Ended(node, name, exit_code) => {
                if let Some(backend) = self.backend_of(node, &name) {
                    backend.ended(exit_code).await;
                }
            }
            News::HintAll(node) => {
                for backend in self.backends_of(&node) {
                    backend.hint().await;
                }
            }
            News::Away(node, why) => self.node_away(node, why),
        }
    }

    fn backend_of(&self, node: NodeName, name: &str) -> Option<Backend> {
        BackendId::new(node, name).ok().and_then(|id| self.control.backend(&id))
    }

    fn backends_of(&self, node: &NodeName) -> Vec<Backend> {
        self.control.backends().into_iter().filter(|backend| backend.id().node() == node).collect()
    }

    fn node_away(&mut self, node: NodeName, why: String) {
        let note = format!("node `{node}` is away: {why}");
        match self.away.get_mut(&node) {
            Some(away) if away.why == why => return,
            Some(away) => {
                away.why = why;
                tracing::debug!("{note}");
            }
            None => {
                let now = Timestamp::now();
                let since = Timestamp::from_second(now.as_second()).unwrap_or(now);
                self.away.insert(node, Away { why, since });
                self.control.journal.record(None, Happening::Note(note), Cause::Engine("away".to_owned()));
            }
        }
        self.publish();
    }

    async fn node_listed(&mut self, node: NodeName, units: Vec<Container>) {
        let back = self.away.remove(&node).is_some();
        if back {
            let note = format!("node `{node}` is back");
            self.control.journal.record(None, Happening::Note(note), Cause::Engine("back".to_owned()));
        }
        let expired = self.note_departed(&node, &units);
        if expired || self.listed.get(&node) != Some(&units) || self.catalog.routes.is_empty() {
            self.listed.insert(node.clone(), units);
            self.rebuild().await;
        } else if back {
            self.publish();
        }
        for unit in self.listed.get(&node).map(Vec::as_slice).unwrap_or_default() {
            if let Some(backend) = self.backend_of(node.clone(), &unit.name) {
                backend.seen(unit.state.clone()).await;
            }
        }
        for (_, name) in self.departed.keys().filter(|(of, _)| *of == node) {
            if let Some(backend) = self.backend_of(node.clone(), name) {
                backend.hint().await;
            }
        }
    }

    /// Keeps in mind what this list lacks, and forgets what is there again or has been gone for long. Returns whether
    /// any was forgotten: what was made of it is to go, though no list tells of that.
    fn note_departed(&mut self, node: &NodeName, units: &[Container]) -> bool {
        let now = Instant::now();
        let present = |name: &str| units.iter().any(|unit| unit.name == name);
        let known = self.departed.len();
        self.departed.retain(|(of, name), (_, since)| now - *since < DEPARTED && !(of == node && present(name)));
        let expired = self.departed.len() < known;
        for gone in self.listed.get(node).into_iter().flatten().filter(|unit| !present(&unit.name)) {
            self.departed.insert((node.clone(), gone.name.clone()), (gone.clone(), now));
        }
        expired
    }
}
