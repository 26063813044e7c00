//! What keeps a file of the access log from being opened, as far as can be told without opening it.

use std::{fs, io, os::unix::fs::FileTypeExt, path::Path};

use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{AccessFlags, faccessat},
};

/// What keeps a file from being written, and what to do.
#[derive(Debug)]
pub(super) struct Obstacle {
    pub(super) what: String,
    pub(super) hint: String,
}

/// What stands in the way of this file. None: nothing that can be seen; opening it may fail all the same, for want of
/// descriptors or of room. Looks at the disk.
pub(super) fn obstacle(path: &Path) -> Option<Obstacle> {
    let shown = path.display();
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return of_missing(path),
        Err(error) => return Some(unreachable(path, &error)),
    };
    let kind = facts.file_type();
    let what = if kind.is_dir() { "a directory" } else { "a socket" };
    if kind.is_dir() || kind.is_socket() {
        let hint = "write the path of a file".to_owned();
        return Some(Obstacle { what: format!("`{shown}` is {what}"), hint });
    }
    let error = may(path, AccessFlags::W_OK).err()?;
    Some(unreachable(path, &error))
}

/// What keeps a file that is not there from being made. A link that leads nowhere has it made where it leads to.
fn of_missing(path: &Path) -> Option<Obstacle> {
    let folder = path.parent()?;
    let Ok(target) = fs::read_link(path) else { return of_folder(folder) };
    // The kernel follows so many links and no more, and calls the rest no missing file: this comes to an end.
    let Obstacle { what, hint } = obstacle(&folder.join(target))?;
    Some(Obstacle { what: format!("`{}` is a link: {what}", path.display()), hint })
}

/// What keeps a file from being made in a folder.
fn of_folder(folder: &Path) -> Option<Obstacle> {
    let shown = folder.display();
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Obstacle {
            what: format!("there is no folder `{shown}`"),
            hint: format!("make it, writable by the user that Dormouse runs as: `install -d -o USER {shown}`"),
        }),
        Err(error) => Some(unreachable(folder, &error)),
        Ok(_) => may(folder, AccessFlags::W_OK | AccessFlags::X_OK).err().map(|error| unreachable(folder, &error)),
    }
}

fn unreachable(path: &Path, error: &io::Error) -> Obstacle {
    let hint = if error.kind() == io::ErrorKind::PermissionDenied {
        let user = nix::unistd::geteuid();
        format!("let the user that Dormouse runs as write there (this was tried as user {user})")
    } else {
        "write the path of a file that can be made".to_owned()
    };
    Obstacle { what: format!("`{}`: {error}", path.display()), hint }
}

/// Whether this program may do that with it.
fn may(path: &Path, what: AccessFlags) -> io::Result<()> {
    faccessat(AT_FDCWD, path, what, AtFlags::AT_EACCESS).map_err(io::Error::from)
}
