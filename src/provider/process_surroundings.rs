//! What all processes of one node have around them: where they keep what, and which of them live on from before.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    hints::Hints,
    process::reached,
    process_book::{ProcessBook, ProcessRecord},
    process_child,
    process_os::{Activity, Identity, boot_id},
};
use crate::model::ContainerState;

/// The end of the names of birth notes.
const NOTE: &str = "birth";

/// What all units of one provider share.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) directory: PathBuf,
    pub(super) hints: Hints,
    /// Another Dormouse has the units: their ends are its to see to.
    pub(super) given: AtomicBool,
    book: Arc<dyn ProcessBook>,
    boot_id: String,
}

impl Surroundings {
    pub(super) fn new(directory: PathBuf, book: Arc<dyn ProcessBook>, hints: Hints) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { directory, hints, given: AtomicBool::new(false), book, boot_id: boot_id()? })
    }

    /// The processes of an earlier Dormouse that still run. Records and notes of all others are removed.
    pub(super) fn survivors(&self) -> io::Result<Vec<(String, Identity)>> {
        let mut found = Vec::new();
        for record in self.book.load()? {
            let identity = Identity { pid: record.pid, start_time: record.start_time };
            if record.boot_id == self.boot_id && identity.activity() != Activity::Ended {
                found.push((record.name, identity));
            } else {
                self.book.remove(&record.name)?;
            }
        }
        let this_boot = format!(".{}.{NOTE}", self.boot_id);
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(name) = file.strip_suffix(&this_boot)
                && !found.iter().any(|(known, _)| known == name)
                && let Some(identity) = process_child::read_note(&path)
                && identity.activity() != Activity::Ended
            {
                found.push((name.to_owned(), identity));
            } else if file.ends_with(&format!(".{NOTE}")) {
                fs::remove_file(&path)?;
            }
        }
        Ok(found)
    }

    /// What a unit does that another Dormouse has.
    pub(super) fn seen_from_afar(&self, name: &str) -> ContainerState {
        let records = self.book.load().unwrap_or_default();
        let record = records.into_iter().find(|record| record.name == name && record.boot_id == self.boot_id);
        let identity = record.map(|record| Identity { pid: record.pid, start_time: record.start_time });
        match identity.map(Identity::activity) {
            Some(Activity::Running) => ContainerState::Running(reached()),
            Some(Activity::Frozen) => ContainerState::Paused(reached()),
            Some(Activity::Ended) | None => ContainerState::Stopped { exit_code: None, error: None },
        }
    }

    /// Writes down which process a unit is; the note of its birth is of no more use then.
    pub(super) fn record(&self, name: &str, identity: Identity) -> io::Result<()> {
        self.book.save(&ProcessRecord {
            name: name.to_owned(),
            pid: identity.pid,
            start_time: identity.start_time,
            boot_id: self.boot_id.clone(),
        })?;
        remove_if_there(&self.note(name))
    }

    /// A unit is no process any more.
    pub(super) fn forget(&self, name: &str) -> io::Result<()> {
        self.book.remove(name)?;
        remove_if_there(&self.note(name))
    }

    /// Where the birth of a unit is noted.
    pub(super) fn note(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.{}.{NOTE}", self.boot_id))
    }
}

pub(super) fn remove_if_there(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
