//! The members of a process group, as `/proc` lists them.

use std::fs;

/// A process of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) pid: i32,
    /// It has ended, and its parent has not asked how: it keeps its number and does nothing any more.
    pub(super) has_ended: bool,
}

/// All of a group that can be read now.
pub(super) fn members(group: i32) -> impl Iterator<Item = Member> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(move |entry| member(entry.file_name().to_str()?.parse().ok()?, group))
}

fn member(pid: i32, group: i32) -> Option<Member> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat);
    // After the name in parentheses: state, parent, group.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    (fields.nth(1)?.parse() == Ok(group)).then_some(Member { pid, has_ended })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;
    use crate::provider::process_os::Identity;

    #[test]
    fn a_group_of_which_only_dead_are_left_does_not_live() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let identity = Identity::of(pid).unwrap();
        assert_eq!(members(pid).collect::<Vec<_>>(), [Member { pid, has_ended: false }]);
        assert!(identity.group_lives());
        child.kill().unwrap();
        // Nobody has asked how it ended.
        while members(pid).any(|member| !member.has_ended) {
            std::thread::yield_now();
        }
        assert_eq!(members(pid).collect::<Vec<_>>(), [Member { pid, has_ended: true }]);
        assert!(!identity.group_lives());
        child.wait().unwrap();
        assert_eq!(members(pid).next(), None);
        assert!(!identity.group_lives());
    }
}
