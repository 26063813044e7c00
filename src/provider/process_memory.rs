//! The memory of a process group: each member's own, and its share of what it has in common with others.

use std::fs;

use super::process_group::members;

/// In bytes; absent when no member could be read.
pub(super) fn of_group(group: i32) -> Option<u64> {
    members(group).filter_map(|member| proportional(member.pid)).reduce(|a, b| a + b)
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
        let own = nix::unistd::getpgrp().as_raw();
        assert!(of_group(own).unwrap() >= 1 << 20, "we use more than a mebibyte");
        assert_eq!(of_group(i32::MAX), None);
    }
}
