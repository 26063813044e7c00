//! What must outlive Dormouse to find its processes again.

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A process that runs, so that it cannot be mistaken for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The unit's name.
    pub name: String,
    /// Its process number, which is that of its group too.
    pub pid: i32,
    /// When it started, in clock ticks since the machine did.
    pub start_time: u64,
    /// During which boot of the machine.
    pub boot_id: String,
}

/// Where records are kept. One record for each unit; calls are few and may touch a disk.
pub trait ProcessBook: Send + Sync + fmt::Debug {
    /// All records. One that cannot be read is left out and logged.
    fn load(&self) -> io::Result<Vec<ProcessRecord>>;

    /// Keeps a record in place of an earlier one of the same name. After a success it survives a crash.
    fn save(&self, record: &ProcessRecord) -> io::Result<()>;

    /// Forgets the record of this name; none is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A book that is a directory with one small JSON file for each process.
#[derive(Debug, Clone)]
pub struct FileBook {
    directory: PathBuf,
}

const ENDING: &str = "process.json";

impl FileBook {
    /// Uses this directory, and creates it where it is missing.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.{ENDING}"))
    }
}

impl ProcessBook for FileBook {
    fn load(&self) -> io::Result<Vec<ProcessRecord>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if !path.to_string_lossy().ends_with(&format!(".{ENDING}")) {
                continue;
            }
            match fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a process record cannot be read; ignored")
                }
            }
        }
        Ok(records)
    }

    fn save(&self, record: &ProcessRecord) -> io::Result<()> {
        let fresh = self.directory.join(format!("{}.{ENDING}.new", record.name));
        let mut file = fs::File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        // The record matters only while the machine is up, so no `fsync`: the rename alone is atomic.
        drop(file);
        fs::rename(&fresh, self.path(&record.name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_keeps_one_record_for_each_name() {
        let directory = tempfile::tempdir().unwrap();
        let book = FileBook::open(&directory.path().join("deep/down")).unwrap();
        let record = |pid| ProcessRecord { name: "web.1".to_owned(), pid, start_time: 7, boot_id: "b".to_owned() };
        assert!(book.load().unwrap().is_empty());
        book.save(&record(1)).unwrap();
        book.save(&record(2)).unwrap();
        assert_eq!(book.load().unwrap(), [record(2)]);
        book.remove("web.1").unwrap();
        book.remove("web.1").unwrap();
        assert!(book.load().unwrap().is_empty());
    }

    #[test]
    fn a_broken_record_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let book = FileBook::open(directory.path()).unwrap();
        let record = ProcessRecord { name: "a".to_owned(), pid: 1, start_time: 7, boot_id: "b".to_owned() };
        book.save(&record).unwrap();
        fs::write(directory.path().join("b.process.json"), "{\"name\":").unwrap();
        assert_eq!(book.load().unwrap(), [record]);
    }
}
