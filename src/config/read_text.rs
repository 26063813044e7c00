//! Reads the text of a file, and waits for nobody where it is none.

use std::{
    fs::{self, File, FileType},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::Path,
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A file that is larger is no configuration.
const LARGEST: u64 = 64 << 20;

/// What may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinds {
    /// Regular files.
    Files,
    /// Those, and pipes without a name, which a shell makes for `<(command)` and somebody writes to.
    FilesAndPipes,
}

/// Reads a text up to the bound.
///
/// # Errors
/// What keeps it from being read. What is no file is told at once, as what it is: a pipe with a name, a device, a
/// directory.
pub(super) fn read_text(path: &Path, kinds: Kinds) -> io::Result<String> {
    // A socket can not be opened at all.
    is_readable(fs::metadata(path)?.file_type())?;
    // A pipe with a name would be opened once somebody writes to it. What is there may be another thing by now.
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let kind = file.metadata()?.file_type();
    is_readable(kind)?;
    if kind.is_fifo() {
        if kinds == Kinds::Files || !has_no_name(&file) {
            return Err(io::Error::other("it is a pipe, and not a regular file"));
        }
        // Its writer may take its time.
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    }
    let mut text = String::new();
    file.by_ref().take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other("it is too large to be a configuration"));
    }
    if kind.is_fifo() && text.is_empty() {
        return Err(io::Error::other("it is a pipe with nothing in it; what was in it can be read once only"));
    }
    Ok(text)
}

fn is_readable(kind: FileType) -> io::Result<()> {
    let what = if kind.is_dir() {
        "a directory"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if kind.is_socket() {
        "a socket"
    } else {
        return Ok(());
    };
    Err(io::Error::other(format!("it is {what}, and not a regular file")))
}

/// Whether a pipe was made without a name: the kernel says so where it would say its path.
fn has_no_name(pipe: &File) -> bool {
    let link = fs::read_link(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    link.is_ok_and(|link| link.to_string_lossy().starts_with("pipe:"))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::mpsc::channel, time::Duration};

    use super::*;

    /// What reading leads to, in words. It must not wait.
    fn read(path: &Path, kinds: Kinds) -> String {
        let (told, heard) = channel();
        let path = path.to_owned();
        std::thread::spawn(move || {
            let read = read_text(&path, kinds).unwrap_or_else(|error| format!("error: {error}"));
            told.send(read).unwrap();
        });
        heard.recv_timeout(Duration::from_secs(60)).expect("it waits")
    }

    #[test]
    fn what_is_no_file_is_told_as_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, socket, file] = ["pipe", "socket", "file"].map(|name| folder.path().join(name));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        fs::write(&file, "routes: {}").unwrap();
        for kinds in [Kinds::Files, Kinds::FilesAndPipes] {
            assert_eq!(read(&pipe, kinds), "error: it is a pipe, and not a regular file");
            assert_eq!(read(folder.path(), kinds), "error: it is a directory, and not a regular file");
            assert_eq!(read(Path::new("/dev/zero"), kinds), "error: it is a device, and not a regular file");
            assert_eq!(read(&socket, kinds), "error: it is a socket, and not a regular file");
            assert_eq!(read(&file, kinds), "routes: {}");
        }
    }

    #[test]
    fn what_a_command_writes_is_read_once() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let path = Path::new(&path);
        assert_eq!(read(path, Kinds::Files), "error: it is a pipe, and not a regular file");
        let slow = std::thread::spawn(move || {
            writer.write_all(b"routes: ").unwrap();
            std::thread::sleep(Duration::from_millis(50));
            writer.write_all(b"{}").unwrap();
        });
        assert_eq!(read(path, Kinds::FilesAndPipes), "routes: {}");
        slow.join().unwrap();
        assert!(read(path, Kinds::FilesAndPipes).contains("once only"), "a reload takes it for no empty file");
    }
}
