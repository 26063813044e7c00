//! What is said beside an answer of nodes whose engine is away.

use jiff::Timestamp;

use super::{client::Client, output::complain, trouble::Trouble, words};
use crate::api::wire;

/// Says of each node that is meant and away that what is shown of it may be out of date.
pub(super) async fn tell(client: &Client, is_meant: impl Fn(&wire::Node) -> bool) -> Result<(), Trouble> {
    let all: wire::Nodes = client.get("/api/v1/nodes").await?;
    let now = Timestamp::now();
    let meant = all.nodes.iter().filter(|node| is_meant(node));
    meant.filter_map(|node| line(node, now)).for_each(|line| complain(&line));
    Ok(())
}

fn line(node: &wire::Node, now: Timestamp) -> Option<String> {
    let why = node.away.as_ref()?;
    let since = node.away_since.as_ref().map_or_else(String::new, |at| format!(" (for {})", words::ago(at, now)));
    Some(format!("node {}: {why}{since}; what is shown of it may be out of date", node.name))
}
