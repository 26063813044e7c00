//! Dormouse as the first process of a container: what outlives its parent comes to it, and is not left lying about dead.

use std::fs;

use crate::support::{apps::free_port, dormouse::Dormouse, wait::until};

/// The processes whose parent this is that have ended and were not asked how.
fn dead_children(parent: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let is_dead = |stat: &String| {
        let mut fields = stat[stat.rfind(')').unwrap() + 1..].split_ascii_whitespace();
        (fields.next(), fields.next().and_then(|of| of.parse().ok())) == (Some("Z"), Some(parent))
    };
    stats.filter(is_dead).collect()
}

#[tokio::test]
async fn orphans_that_have_ended_are_reaped_and_the_ends_of_its_own_are_still_known() {
    let directory = tempfile::tempdir().unwrap();
    let orphans = directory.path().join("orphans");
    // A grandchild of a session of its own that outlives its parent by a moment, and tells whose it is then.
    let script = directory.path().join("run.sh");
    let moved = directory.path().join("moved");
    let moved = moved.display();
    let told = format!("touch {moved}; sleep 0.2; cut -d\" \" -f4 /proc/$$/stat >> {}", orphans.display());
    fs::write(
        &script,
        format!("setsid sh -c '{told}' &\nuntil [ -e {moved} ]; do sleep 0.01; done\nrm {moved}\nexit 3\n"),
    )
    .unwrap();
    let (port, script) = (free_port(), script.display());
    let config = format!(
        "nodes: {{ jobs: process }}\nroutes:\n  app: {{ backend: jobs/app, port: {port} }}\nbackends:\n  \
         jobs/app: {{ command: [/bin/sh, {script}], idle: {{ idle_timeout: 1h }} }}\n"
    );
    let dormouse = Dormouse::start_adopting(&config).await;
    for round in 1..=5 {
        let told = dormouse.api("POST", "/api/v1/backends/jobs/app/wake").await;
        assert!(told.to_string().contains("exit code 3"), "{told}");
        let left = async || fs::read_to_string(&orphans).unwrap_or_default().lines().count();
        until("an orphan's word", left, |lines| *lines == round).await;
    }
    let parent = dormouse.pid();
    until("nobody lies about dead", async || dead_children(parent), Vec::is_empty).await;
    let told = fs::read_to_string(&orphans).unwrap();
    assert_eq!(told, format!("{parent}\n").repeat(5), "they have come to it");
}
