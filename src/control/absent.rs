//! Engines that are away, as problems: what is told of their backends is what was known before.

use super::{Away, View};
use crate::model::{NodeName, Place, Problem, Problems};

/// What can be done about any engine that is away.
const HINT: &str = "see that it runs, that its address in `nodes` is right, and that Dormouse may use it; it is asked \
                    again by itself";

impl View {
    /// All nodes whose engine is away. One that has only not been asked yet is none of them.
    pub fn absent(&self) -> Problems {
        let away = self.nodes.iter().filter_map(|(name, node)| Some((name, node.away.as_ref()?)));
        Problems(away.map(|(name, away)| problem(name, away)).collect())
    }

    /// The problem of this node, while its engine is away.
    pub fn absence(&self, node: &NodeName) -> Option<Problem> {
        self.nodes.get(node)?.away.as_ref().map(|away| problem(node, away))
    }
}

fn problem(node: &NodeName, Away { why, since }: &Away) -> Problem {
    let what = format!("{why} (since {since}); what is told of its backends may be out of date");
    Problem::warning(Place::Node(node.clone()), what).with_hint(HINT)
}
