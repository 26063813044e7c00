//! Bringing a child into the world: argv, a minimal environment, directory, user, its own group, its log file.
//!
//! The child writes its own identity into a birth note before it becomes the given program. Should Dormouse be
//! killed in the moment between starting a child and writing its record, the note still tells of it.

use std::{
    env, fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::unistd::{Gid, Uid, User};

use super::{
    children,
    process_os::{Identity, parse_stat},
};
use crate::model::Command;

/// Variables that every child gets where Dormouse has them.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a child that has just been forked may take to write its note.
const NOTE_PATIENCE: Duration = Duration::from_millis(500);

/// Starts the command. Blocks for about a millisecond, and for a look into the user database.
pub(super) fn give_birth(command: &Command, log: fs::File, note: &Path) -> io::Result<tokio::process::Child> {
    let mut child = prepare(command)?;
    let unwritten = |error: &io::Error| {
        io::Error::new(error.kind(), format!("its note `{}` can not be written: {error}", note.display()))
    };
    let note_file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(note);
    let note_file = note_file.map_err(|error| unwritten(&error))?;
    child.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    write_note_before_exec(&mut child, note_file);
    children::spawn(&mut child).map_err(|error| {
        // Running a program writes nothing: its note did.
        let of_note = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if of_note { unwritten(&error) } else { with_program(&error, command) }
    })
}

/// Ends a child that was just born, with its group, and waits for it.
pub(super) async fn undo_birth(child: &mut tokio::process::Child) {
    if let Some(group) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // Not yet waited for, the number is still its own.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
    }
    let _ = child.wait().await;
}

/// The kernel says only what went wrong, not with which program.
fn with_program(error: &io::Error, command: &Command) -> io::Error {
    let program = command.argv.first().map_or("", String::as_str);
    let text = if error.kind() != io::ErrorKind::NotFound {
        format!("its program `{program}` can not be run: {error}")
    } else if program.contains('/') {
        format!("there is no program `{program}`")
    } else {
        format!("there is no program `{program}` in any folder of its `PATH`")
    };
    io::Error::new(error.kind(), text)
}

fn prepare(command: &Command) -> io::Result<tokio::process::Command> {
    let [program, arguments @ ..] = command.argv.as_slice() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
    };
    let mut child = tokio::process::Command::new(program);
    child.args(arguments).env_clear().env("PATH", DEFAULT_PATH);
    child.envs(INHERITED.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    if let Some(wanted) = &command.user {
        let user = find_user(wanted)?;
        child.uid(user.uid.as_raw()).gid(user.gid.as_raw()).env("HOME", user.home);
    }
    if let Some(directory) = &command.directory {
        if !directory.is_dir() {
            let text = format!("its directory `{}` does not exist", directory.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        child.current_dir(directory);
    }
    child.envs(&command.env);
    Ok(child)
}

struct Wanted {
    uid: Uid,
    gid: Gid,
    home: PathBuf,
}

fn find_user(wanted: &str) -> io::Result<Wanted> {
    let number = wanted.parse().ok().map(Uid::from_raw);
    let found = match number {
        Some(uid) => User::from_uid(uid)?,
        None => User::from_name(wanted)?,
    };
    match (found, number) {
        (Some(user), _) => Ok(Wanted { uid: user.uid, gid: user.gid, home: user.dir }),
        (None, Some(uid)) => Ok(Wanted { uid, gid: Gid::from_raw(uid.as_raw()), home: PathBuf::from("/") }),
        (None, None) => Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no user `{wanted}`"))),
    }
}

#[allow(unsafe_code)]
fn write_note_before_exec(child: &mut tokio::process::Command, mut note: fs::File) {
    let write = move || {
        let mut text = [0; 1024];
        let stat = nix::fcntl::open(c"/proc/self/stat", nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty())?;
        let length = nix::unistd::read(&stat, &mut text)?;
        note.write_all(text.get(..length).unwrap_or_default())
    };
    // SAFETY: between fork and exec the closure only opens, reads and writes through system calls; it takes no
    // lock and no memory (an open by `CStr` and arrays on the stack), and its file was opened before the fork.
    unsafe { child.pre_exec(write) };
}

/// Reads a birth note, waiting a little for a child that is about to write it. The note is of this boot.
pub(super) fn read_note(note: &Path) -> Option<Identity> {
    let since = Instant::now();
    loop {
        let text = fs::read_to_string(note).ok()?;
        if let Some((pid, _, start_time)) = parse_stat(&text) {
            return Some(Identity { pid, start_time });
        }
        if since.elapsed() > NOTE_PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
