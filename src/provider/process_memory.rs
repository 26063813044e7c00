//! The memory of a process group: each member's own, and its share of what it has in common with others.

use std::fs;

/// In bytes; absent when no member could be read.
pub(super) fn of_group(group: i32) -> Option<u64> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let members = pids.filter(|pid| group_of(*pid) == Some(group));
    members.filter_map(proportional).reduce(|a, b| a + b)
}

fn group_of(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat);
    // After the name in parentheses: state, parent, group.
    text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().nth(2)?.parse().ok()
}

fn proportional(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_the_memory_of_its_members() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = group_of(pid).unwrap();
        assert!(of_group(own).unwrap() >= 1 << 20, "we use more than a mebibyte");
        assert_eq!(of_group(i32::MAX), None);
    }
}
