//! A file of the access log: begun anew when it is full or old, opened again when somebody moved it away.

use std::{
    fs::{self, File, Metadata},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;

use crate::model::{AccessFile, AccessKeep};

/// Whether the file was moved away is looked at no more often than this.
const LOOK: Duration = Duration::from_millis(500);

/// What could not be begun anew is tried again after this long.
const RETRY: Duration = Duration::from_secs(60);

/// An open file.
#[derive(Debug)]
pub(super) struct LogFile {
    spec: AccessFile,
    file: File,
    /// Device and inode, by which it is known.
    id: (u64, u64),
    size: u64,
    /// It is one that can be begun anew, and no device or pipe.
    regular: bool,
    begun: SystemTime,
    looked: Instant,
    /// The last write ended within a line.
    torn: bool,
    /// When it could not be begun anew.
    stuck: Option<Instant>,
}

impl LogFile {
    /// Opens it, and makes it where it is not there yet. Its folder is its owner's to make.
    pub(super) fn open(spec: AccessFile) -> io::Result<Self> {
        // Not to be kept waiting by a pipe that nobody reads.
        let options = File::options().create(true).append(true).mode(0o640).custom_flags(libc::O_NONBLOCK).clone();
        let file = options.open(&spec.path)?;
        let facts = file.metadata()?;
        Ok(Self {
            id: id(&facts),
            size: facts.len(),
            regular: facts.is_file(),
            begun: beginning(&facts),
            looked: Instant::now(),
            torn: false,
            stuck: None,
            spec,
            file,
        })
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK {
            self.look()?;
        }
        if self.is_due(lines.len() as u64) {
            self.try_to_rotate();
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            (self.torn, self.size) = (false, self.size + 1);
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.size += count as u64;
                    self.torn = rest.get(count - 1) != Some(&b'\n');
                    rest = rest.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens the path again when it leads to another file, or to none.
    pub(super) fn look(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        match fs::metadata(&self.spec.path) {
            Ok(facts) if id(&facts) == self.id => {
                // Somebody may have emptied it in place.
                self.size = facts.len();
                Ok(())
            }
            Ok(_) | Err(_) => {
                *self = Self::open(self.spec.clone())?;
                Ok(())
            }
        }
    }

    /// Whether its path still leads to it.
    pub(super) fn is_at_its_path(&self) -> bool {
        fs::metadata(&self.spec.path).is_ok_and(|facts| id(&facts) == self.id)
    }

    fn is_due(&self, more: u64) -> bool {
        let full = self.spec.rotate_size.is_some_and(|most| self.size + more > most);
        let old = self.spec.rotate_interval.is_some_and(|most| self.begun.elapsed().is_ok_and(|age| age >= most));
        let stuck = self.stuck.is_some_and(|since| since.elapsed() < RETRY);
        self.regular && self.size > 0 && (full || old) && !stuck
    }

    /// Begins it anew; a file that grows on is better than lines that are lost.
    fn try_to_rotate(&mut self) {
        const HINT: &str = "the folder and what is in it must be the program's to change";
        if let Err(error) = self.rotate() {
            let file = self.spec.path.display();
            tracing::warn!(%file, %error, "the access log can not be begun anew, and grows on (hint: {HINT})");
            self.stuck = Some(Instant::now());
        } else if let Some(keep) = self.spec.keep
            && let Err(error) = prune(&self.spec.path, keep)
        {
            let file = self.spec.path.display();
            tracing::warn!(%file, %error, "old files of the access log can not be removed (hint: {HINT})");
        }
    }

    /// The file goes aside under the time of its end, and a new one is begun.
    fn rotate(&mut self) -> io::Result<()> {
        self.look()?;
        if self.size > 0 {
            fs::rename(&self.spec.path, free_name(&self.spec.path))?;
            *self = Self::open(self.spec.clone())?;
        }
        Ok(())
    }
}

fn id(facts: &Metadata) -> (u64, u64) {
    (facts.dev(), facts.ino())
}

/// When it was begun: its birth where the file system knows that.
fn beginning(facts: &Metadata) -> SystemTime {
    if facts.len() == 0 {
        return SystemTime::now();
    }
    facts.created().or_else(|_| facts.modified()).unwrap_or_else(|_| SystemTime::now())
}

/// The time of a file's end, which sorts by itself: `20261122T091500.123456Z`.
const STAMP: &str = "%Y%m%dT%H%M%S%.6fZ";

/// A name of the same file that nobody has.
fn free_name(path: &Path) -> PathBuf {
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", Timestamp::now().strftime(STAMP)));
        let free = PathBuf::from(name);
        if free.symlink_metadata().is_err() {
            return free;
        }
    }
}

/// Whether what stands behind a file's name is the time of its end.
fn is_stamp(behind: &str) -> bool {
    let form = |(at, byte): (usize, u8)| match at {
        8 => byte == b'T',
        15 => byte == b'.',
        22 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    behind.len() == 23 && behind.bytes().enumerate().all(form)
}

/// Removes full files over the bound; nothing that was not named here. What can not be removed keeps no other one.
fn prune(path: &Path, keep: AccessKeep) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let mut full = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let behind = file_name.to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix('.'));
        if let Some(behind) = behind.filter(|behind| is_stamp(behind))
            && let Ok(facts) = entry.metadata()
        {
            full.push((behind.to_owned(), entry.path(), facts));
        }
    }
    // The newest first.
    full.sort_by(|(one, ..), (other, ..)| other.cmp(one));
    let (mut bytes, mut result) = (0u64, Ok(()));
    for (index, (_, path, facts)) in full.into_iter().enumerate() {
        bytes = bytes.saturating_add(facts.len());
        let kept = match keep {
            AccessKeep::Count(most) => index < most,
            AccessKeep::Bytes(most) => bytes <= most,
            AccessKeep::Age(most) => {
                facts.modified().ok().and_then(|at| at.elapsed().ok()).is_none_or(|age| age < most)
            }
        };
        if !kept {
            result = remove(&path).and(result);
        }
    }
    result
}

/// Removes a file, unless somebody else already has.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(folder: &Path) -> AccessFile {
        AccessFile::new(folder.join("access.log"))
    }

    fn files(spec: &AccessFile) -> Vec<(String, String)> {
        let read = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
        };
        let mut found: Vec<_> = fs::read_dir(spec.path.parent().unwrap()).unwrap().map(read).collect();
        found.sort();
        found
    }

    #[test]
    fn a_full_file_goes_aside_and_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let spec = AccessFile { rotate_size: Some(8), keep: Some(AccessKeep::Count(2)), ..spec(folder.path()) };
        let mut file = LogFile::open(spec.clone()).unwrap();
        let stranger = spec.path.with_file_name("access.log.mine");
        fs::write(&stranger, "x").unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n", "a very long line\n", "end\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        let found = files(&spec);
        assert_eq!(found[0], ("access.log".to_owned(), "end\n".to_owned()));
        let aside: Vec<_> = found[1..3].iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(aside, ["six\n", "a very long line\n"]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(stranger.exists(), "what is not ours is left alone");
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let spec = AccessFile::new(&path);
        let (ended, has_ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let none = LogFile::open(spec.clone()).map(|_| ()).map_err(|error| error.raw_os_error());
            // Open at both ends and never read: after its room it takes nothing.
            let _reader = File::options().read(true).write(true).open(&path).unwrap();
            let mut file = LogFile::open(spec).unwrap();
            let full = (0..100).find_map(|_| file.write(&[b'x'; 1 << 16]).err());
            ended.send((none, full.map(|error| error.kind()))).unwrap();
        });
        let (none, full) = has_ended.recv_timeout(Duration::from_secs(60)).expect("it waits for the pipe");
        assert_eq!((none, full), (Err(Some(libc::ENXIO)), Some(io::ErrorKind::WouldBlock)));
    }

    #[test]
    fn what_can_not_be_begun_anew_grows_on() {
        let folder = tempfile::tempdir().unwrap();
        // With the time of its end the name would be too long.
        let path = folder.path().join("a".repeat(250));
        let spec = AccessFile { rotate_size: Some(4), ..AccessFile::new(path) };
        let mut file = LogFile::open(spec.clone()).unwrap();
        for line in ["one\n", "two\n", "three\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        assert!(file.stuck.is_some() && !file.is_due(100));
        assert_eq!(fs::read_to_string(&spec.path).unwrap(), "one\ntwo\nthree\n");
        file.stuck = Instant::now().checked_sub(RETRY);
        assert!(file.is_due(100), "it is tried again");
    }

    #[test]
    fn what_can_not_be_removed_loses_no_line_and_keeps_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let spec = AccessFile { rotate_size: Some(4), keep: Some(AccessKeep::Count(0)), ..spec(folder.path()) };
        let mut file = LogFile::open(spec.clone()).unwrap();
        let old = |stamp: &str| spec.path.with_file_name(format!("access.log.{stamp}"));
        let (folder, file_before) = (old("20260102T000000.000000Z"), old("20260101T000000.000000Z"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file_before, "x").unwrap();
        for line in ["one\n", "two\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&spec.path).unwrap(), "two\n");
        assert!(!file_before.exists() && folder.exists());
        assert!(remove(&folder).is_err() && remove(&file_before).is_ok(), "what is gone need not be removed");
    }

    #[test]
    fn an_old_file_goes_aside() {
        let folder = tempfile::tempdir().unwrap();
        let spec = AccessFile { rotate_interval: Some(Duration::from_secs(60)), ..spec(folder.path()) };
        let mut file = LogFile::open(spec.clone()).unwrap();
        file.write(b"one\n").unwrap();
        file.begun = SystemTime::now() - Duration::from_secs(61);
        file.write(b"two\n").unwrap();
        file.write(b"three\n").unwrap();
        let texts: Vec<_> = files(&spec).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["two\nthree\n", "one\n"]);
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path());
        let mut file = LogFile::open(spec.clone()).unwrap();
        file.write(b"one\n").unwrap();
        fs::rename(&spec.path, spec.path.with_extension("1")).unwrap();
        file.looked = Instant::now().checked_sub(LOOK).unwrap();
        file.write(b"two\n").unwrap();
        assert_eq!(files(&spec), [("access.1".into(), "one\n".into()), ("access.log".into(), "two\n".into())]);
    }

    #[test]
    fn files_over_bytes_and_age_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        for stamp in ["20260101T000000.000000Z", "20260102T000000.000000Z", "20260102T000000.000001Z"] {
            fs::write(folder.path().join(format!("a.log.{stamp}")), "12345").unwrap();
        }
        prune(&path, AccessKeep::Bytes(12)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        prune(&path, AccessKeep::Age(Duration::from_secs(3600))).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        prune(&path, AccessKeep::Age(Duration::ZERO)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(is_stamp("20260101T000000.000000Z") && !is_stamp("20260101T000000.000000x") && !is_stamp("gz"));
    }
}
