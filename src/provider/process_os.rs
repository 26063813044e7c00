//! What the kernel tells of a process, and signals to its group. Linux only: `/proc` and pid descriptors.

use std::{
    fs, io,
    os::fd::{FromRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::process_group::members;

/// How often a process is looked at where the kernel has no pid descriptors.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A process that cannot be mistaken for another: a number that is used again has another start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pid: i32,
    /// In clock ticks since the machine started.
    pub(super) start_time: u64,
}

/// What a living process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Running,
    Frozen,
    Ended,
}

impl Identity {
    /// Of a process that has this number now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let (_, start_time) = stat(pid).ok()??;
        Some(Self { pid, start_time })
    }

    pub(super) fn activity(self) -> Activity {
        match stat(self.pid) {
            Ok(Some((state, start_time))) if start_time == self.start_time => match state {
                'T' => Activity::Frozen,
                'Z' | 'X' => Activity::Ended,
                _ => Activity::Running,
            },
            Ok(_) => Activity::Ended,
            // Not to be read now (no descriptor is free, say) does not mean that it has ended; a signal needs nothing.
            Err(_) if self.group_lives() => Activity::Running,
            Err(_) => Activity::Ended,
        }
    }

    /// Whether it still has its number, dead or alive, as far as can be told.
    pub(super) fn is_there(self) -> bool {
        stat(self.pid).map_or(true, |found| found.is_some_and(|(_, start_time)| start_time == self.start_time))
    }

    /// Sends a signal to the whole group. A group that is gone is no error.
    pub(super) fn signal_group(self, number: i32) -> io::Result<()> {
        let sent = match Signal::try_from(number) {
            Ok(signal) => killpg(Pid::from_raw(self.pid), signal),
            Err(_) => raw_killpg(self.pid, number),
        };
        match sent {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether anybody of the group is left who has not ended. Those that have keep the group until their parents ask how
    /// they ended, which some never do.
    pub(super) fn group_lives(self) -> bool {
        if matches!(killpg(Pid::from_raw(self.pid), None::<Signal>), Err(Errno::ESRCH)) {
            return false;
        }
        let mut members = members(self.pid).peekable();
        // Nobody that can be read now does not mean that nobody is there.
        members.peek().is_none() || members.any(|member| !member.has_ended)
    }

    /// Waits for the end of a process that is not our child.
    pub(super) async fn ended(self) {
        if let Ok(descriptor) = open_pid(self.pid) {
            if self.activity() != Activity::Ended {
                let _ = descriptor.readable().await;
            }
            return;
        }
        while self.activity() != Activity::Ended {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The id of this boot of the machine; process numbers mean nothing beyond it.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// State letter and start time; `None` when there is no such process, an error when that could not be found out.
fn stat(pid: i32) -> io::Result<Option<(char, u64)>> {
    let text = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(parse_stat(&String::from_utf8_lossy(&text)).map(|(_, state, start_time)| (state, start_time)))
}

/// Process number, state letter and start time from the text of `/proc/PID/stat`.
pub(super) fn parse_stat(text: &str) -> Option<(i32, char, u64)> {
    let pid = text.split_ascii_whitespace().next()?.parse().ok()?;
    // The name in parentheses may hold anything, spaces and parentheses too.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((pid, state, start_time))
}

/// For the real-time signals, for which `nix` has no names.
#[allow(unsafe_code)]
fn raw_killpg(group: i32, number: i32) -> Result<(), Errno> {
    // SAFETY: `killpg` takes two numbers and touches no memory of ours.
    Errno::result(unsafe { libc::killpg(group, number) }).map(drop)
}

/// A descriptor that becomes readable when the process ends.
#[allow(unsafe_code)]
fn open_pid(pid: i32) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the call takes two numbers and returns a new descriptor or -1.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let number = i32::try_from(answer).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: an `OwnedFd` always gives the same open descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let text = "42 (a) S (b) T 1 42 42 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 9876 1 1";
        assert_eq!(parse_stat(text), Some((42, 'T', 9876)));
    }

    #[test]
    fn we_know_ourselves() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = Identity::of(pid).unwrap();
        assert_eq!(me.activity(), Activity::Running);
        assert_eq!(Identity { start_time: me.start_time + 1, ..me }.activity(), Activity::Ended);
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let identity = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        let watch = tokio::spawn(identity.ended());
        assert_eq!(identity.activity(), Activity::Running);
        child.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(20), watch).await.unwrap().unwrap();
        child.wait().unwrap();
        assert_eq!(identity.activity(), Activity::Ended);
    }
}
