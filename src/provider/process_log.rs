//! The log file of a child: written by the child itself, so that it never blocks and survives Dormouse.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A log longer than this is cut.
const BOUND: u64 = 4 << 20;

/// So much of its end is kept beside it, as `NAME.log.1`, when it is cut.
const KEPT: u64 = 256 << 10;

/// Read at once.
const PIECE: usize = 64 << 10;

/// A line is cut here.
const LONGEST_LINE: usize = 16 << 10;

/// Where the log of this unit is.
pub(super) fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.log"))
}

/// Opens it for a child to write, and tells where the new run begins. Its directory may have been removed meanwhile.
pub(super) fn open(path: &Path) -> io::Result<(fs::File, u64)> {
    let open = || {
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let begin = file.metadata()?.len();
        Ok((file, begin))
    };
    let told = |error: io::Error| {
        io::Error::new(error.kind(), format!("its log `{}` can not be written: {error}", path.display()))
    };
    open().map_err(told)
}

/// Cuts a log that has grown too long. The writer appends, so it goes on at the new end.
pub(super) fn cut_if_long(path: &Path) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if length <= BOUND {
        return Ok(());
    }
    file.seek(SeekFrom::Start(length - KEPT))?;
    let mut kept = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path.with_extension("log.1"))?;
    io::copy(&mut file.by_ref().take(KEPT), &mut kept)?;
    file.set_len(0)
}

/// Reads the lines of a log as it grows.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    at: u64,
    begun: Vec<u8>,
}

impl Reader {
    pub(super) fn new(path: PathBuf, from: u64) -> Self {
        Self { path, at: from, begun: Vec::new() }
    }

    /// The lines that were added since the last call; empty when there is nothing new.
    pub(super) fn more(&mut self) -> io::Result<Vec<String>> {
        let mut file = fs::File::open(&self.path)?;
        if file.metadata()?.len() < self.at {
            self.at = 0;
        }
        file.seek(SeekFrom::Start(self.at))?;
        let mut piece = vec![0; PIECE];
        let mut lines = Vec::new();
        while lines.is_empty() {
            let length = file.read(&mut piece)?;
            if length == 0 {
                break;
            }
            self.at += length as u64;
            for byte in piece.iter().take(length) {
                match byte {
                    b'\n' => lines.push(self.rest()),
                    _ if self.begun.len() < LONGEST_LINE => self.begun.push(*byte),
                    _ => {}
                }
            }
        }
        Ok(lines)
    }

    /// What stands after the last line break.
    pub(super) fn rest(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.begun).trim_end_matches('\r').to_owned();
        self.begun.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_once_and_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), "app");
        let (mut file, begin) = open(&path).unwrap();
        let mut reader = Reader::new(path, begin);
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(reader.more().unwrap(), ["one"]);
        file.write_all(b"o\r\n").unwrap();
        assert_eq!(reader.more().unwrap(), ["two"]);
        assert!(reader.more().unwrap().is_empty());
    }

    #[test]
    fn a_directory_that_is_gone_is_made_again_and_what_can_not_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let gone = directory.path().join("gone");
        open(&path(&gone, "app")).unwrap();
        assert!(path(&gone, "app").exists());
        fs::create_dir(path(&gone, "other")).unwrap();
        let error = open(&path(&gone, "other")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("its log `{}/other.log` can not be written: ", gone.display())), "{error}");
    }

    #[test]
    fn a_long_log_is_cut_and_its_writer_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), "my.app");
        let (mut file, begin) = open(&path).unwrap();
        let mut reader = Reader::new(path.clone(), begin);
        file.write_all(&vec![b'x'; usize::try_from(BOUND).unwrap() + 1]).unwrap();
        file.write_all(b"\n").unwrap();
        while reader.more().unwrap().is_empty() {}
        cut_if_long(&path).unwrap();
        file.write_all(b"after\n").unwrap();
        assert_eq!(reader.more().unwrap(), ["after"]);
        assert_eq!(fs::metadata(directory.path().join("my.app.log.1")).unwrap().len(), KEPT);
        assert_eq!(fs::metadata(&path).unwrap().len(), 6);
    }
}
