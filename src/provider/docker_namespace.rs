//! The network namespace of a container that is on no network, by the process that lives there.
//!
//! A number says little about a process: it may be another one's by now, and in a container of our own we count
//! otherwise than the engine does. So the process must bear the mark of its container, and all that is read of it is
//! read through one handle, which leads nowhere once it has ended.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::Path,
};

use super::docker_own;
use crate::model::{Namespace, Process};

/// Where processes are seen.
pub(super) const PROCESSES: &str = "/proc";

/// The namespace of the container with this id, whose first process has that number by the engine's word.
pub(super) fn find(processes: &Path, pid: u32, id: &str) -> Namespace {
    match process(processes, pid, id) {
        Ok(process) => Namespace::Of(process),
        Err(why) => closed(
            &why,
            "let Dormouse see the machine's processes, by `--pid=host` in a container or by CAP_SYS_PTRACE, or ",
        ),
    }
}

/// The namespace of one whose engine runs on another machine.
pub(super) fn far() -> Namespace {
    closed("its node is another machine", "")
}

fn closed(why: &str, what_helps: &str) -> Namespace {
    let words = format!("it is on no network, and {why} (hint: {what_helps}put it on a network, or name a `host`)");
    Namespace::Closed(words.into())
}

fn process(processes: &Path, pid: u32, id: &str) -> Result<Process, String> {
    let unseen = |error: io::Error| format!("its process {pid} is not seen from here: {error}");
    let handle = File::open(processes.join(pid.to_string())).map_err(unseen)?;
    let read = |name| fs::read_to_string(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()));
    let started =
        started(&read("stat").map_err(unseen)?).ok_or_else(|| format!("of its process {pid} no start is told"))?;
    let in_group = read("cgroup").is_ok_and(|groups| groups.contains(id));
    if in_group || read("mountinfo").is_ok_and(|mounts| docker_own::around(&mounts) == Some(id)) {
        return Ok(Process { pid, started });
    }
    Err(format!("process {pid}, as it is counted here, is none of its own"))
}

/// When a process was started, by `/proc/PID/stat`. The name before may hold anything, also brackets.
fn started(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f";
    const STAT: &str = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 9";

    /// A process as it is seen with these files.
    fn seen(files: &[(&str, &str)]) -> Namespace {
        let processes = tempfile::tempdir().unwrap();
        let own = processes.path().join("7");
        fs::create_dir(&own).unwrap();
        for (name, text) in files {
            fs::write(own.join(name), text).unwrap();
        }
        find(processes.path(), 7, ID)
    }

    #[test]
    fn a_process_is_known_by_the_mark_of_its_container() {
        let known = Namespace::Of(Process { pid: 7, started: 123_456 });
        let group = format!("0::/system.slice/docker-{ID}.scope\n");
        assert_eq!(seen(&[("stat", STAT), ("cgroup", &group)]), known);
        let mounts = format!("700 1 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/sda1 rw");
        assert_eq!(seen(&[("stat", STAT), ("cgroup", "0::/\n"), ("mountinfo", &mounts)]), known);
    }

    #[test]
    fn what_is_not_its_own_process_is_not_entered_and_why_is_said() {
        let check = |files: &[(&str, &str)], words: &str| {
            let Namespace::Closed(why) = seen(files) else { panic!("{files:?}") };
            assert!(why.contains(words) && why.contains("hint: ") && why.ends_with("name a `host`)"), "{why}");
        };
        check(&[], "process 7 is not seen from here");
        check(&[("stat", "7 (sleep")], "no start is told");
        let other = ID.replace('4', "5");
        let mounts =
            format!("7 1 8:1 /var/lib/docker/containers/{other}/hostname /etc/hostname rw - ext4 /dev/sda1 rw");
        check(&[("stat", STAT), ("cgroup", &format!("0::/{other}")), ("mountinfo", &mounts)], "is none of its own");
    }

    #[test]
    fn our_own_process_is_seen_and_is_nobody_elses() {
        let Namespace::Closed(why) = find(Path::new(PROCESSES), std::process::id(), ID) else { panic!("it is ours") };
        assert!(why.contains("is none of its own"), "{why}");
    }
}
