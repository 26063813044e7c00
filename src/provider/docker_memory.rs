//! The memory that a container uses, as `docker stats` shows it: without the file cache that can be dropped.

use hyper::Method;
use serde_json::Value;

use super::{
    deadlines,
    docker_client::{Client, Version, escape},
};

/// Engines before this version take a second to answer: they measure twice.
const ONE_SHOT: Version = Version(1, 41);

pub(super) async fn used(client: &Client, name: &str) -> Option<u64> {
    if !client.speaks(ONE_SHOT) {
        return None;
    }
    let path = format!("/containers/{}/stats?stream=false&one-shot=true", escape(name));
    let answer = client.call(Method::GET, &path, deadlines::LOOK).await.ok()?;
    answer.status.is_success().then(|| read(&answer.json()?)).flatten()
}

/// Control groups of the first version call it otherwise than those of the second.
fn read(answer: &Value) -> Option<u64> {
    let memory = answer.get("memory_stats")?;
    let cache =
        ["/stats/total_inactive_file", "/stats/inactive_file"].iter().find_map(|at| memory.pointer(at)?.as_u64());
    Some(memory.get("usage")?.as_u64()?.saturating_sub(cache.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::read;

    #[test]
    fn the_file_cache_is_no_use() {
        let first = json!({"memory_stats": {"usage": 100, "stats": {"total_inactive_file": 30, "inactive_file": 1}}});
        assert_eq!(read(&first), Some(70));
        assert_eq!(read(&json!({"memory_stats": {"usage": 100, "stats": {"inactive_file": 30}}})), Some(70));
        assert_eq!(read(&json!({"memory_stats": {"usage": 100}})), Some(100));
        assert_eq!(read(&json!({"memory_stats": {}})), None, "it does not run");
    }
}
