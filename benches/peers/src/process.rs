//! What a process and its children have used: processor time and memory.

use std::{env, fs, path::Path};

/// The process and everything below it that is its own.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let own = env::current_exe().ok();
    // What a contender starts as its backend is this program again: what that costs is not the contender's.
    let is_backend = |pid: &u32| own.is_some() && fs::read_link(format!("/proc/{pid}/exe")).ok() == own;
    let mut all = vec![pid];
    let mut seen = 0;
    while seen < all.len() {
        let tasks = format!("/proc/{}/task", all[seen]);
        for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|child| child.parse::<u32>().ok());
            all.extend(children.filter(|child| !is_backend(child)));
        }
        seen += 1;
    }
    all
}

/// Nanoseconds on a processor of all living threads of the tree, from the scheduler's own clock.
pub(crate) fn processor_time(pid: u32) -> u64 {
    let threads = tree(pid).into_iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
    threads.flatten().map(|task| first_number(&task.path().join("schedstat"))).sum()
}

fn first_number(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// KiB of memory of the tree, shared pages counted by share.
pub(crate) fn memory(pid: u32) -> u64 {
    tree(pid)
        .into_iter()
        .filter_map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok())
        })
        .sum()
}
