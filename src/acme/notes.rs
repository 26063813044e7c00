//! What is in the DNS because of an order, noted in the state directory before it is put there: whatever ends the order,
//! also the end of the program, it is known what to take out. One file for each record; there are no secrets in them.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    dns_ask::Spot,
    vault::{hash, write},
};

/// The form of a note. One of another form was written by a newer program, and is left to it.
const VERSION: u64 = 1;

/// A record that is in the DNS, or may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// What put it there, as `DnsAccess::name` has it.
    pub(super) by: String,
    pub(super) spot: Spot,
    pub(super) value: String,
}

/// Where notes are.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    directory: PathBuf,
}

impl Notes {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("dns-records") }
    }

    /// Keeps a note.
    pub(super) fn keep(&self, note: &Note) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        write(&self.file(note), note.written().to_string().as_bytes())
    }

    /// The record is not there any more.
    pub(super) fn forget(&self, note: &Note) {
        match fs::remove_file(self.file(note)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "`{}` can not be removed", self.file(note).display());
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// All that is noted. What can not be read is told and left out.
    pub(super) fn all(&self) -> Vec<Note> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        paths.sort();
        let read = |path: &PathBuf| {
            let told =
                |why: &str| tracing::warn!(path = %path.display(), why, "a note of a record in the DNS is left out");
            Note::read(path).inspect_err(|why| told(why)).ok()
        };
        paths.iter().filter_map(read).collect()
    }

    fn file(&self, note: &Note) -> PathBuf {
        let Spot { name, zone } = &note.spot;
        self.directory.join(format!("{:016x}.json", hash(&format!("{}\n{name}\n{zone}\n{}", note.by, note.value))))
    }
}

impl Note {
    fn written(&self) -> Value {
        let Self { by, spot: Spot { name, zone }, value } = self;
        json!({ "version": VERSION, "by": by, "name": name, "zone": zone, "value": value })
    }

    fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|error| error.to_string())?;
        let written: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        match written.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(version) => return Err(format!("it is of version {version}, written by a newer dormouse")),
            None => return Err("it has no version".to_owned()),
        }
        let field = |key: &str| {
            let text = written.get(key).and_then(Value::as_str).map(str::to_owned);
            text.ok_or_else(|| format!("it has no `{key}`"))
        };
        let spot = Spot { name: field("name")?, zone: field("zone")? };
        Ok(Self { by: field("by")?, spot, value: field("value")? })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_note_is_kept_until_it_is_forgotten_and_what_is_none_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let notes = Notes::new(directory.path());
        assert_eq!(notes.all(), []);
        let note = |value: &str| Note {
            by: "rfc2136".to_owned(),
            spot: Spot { name: "_acme-challenge.a.test".to_owned(), zone: "a.test".to_owned() },
            value: value.to_owned(),
        };
        let (one, other) = (note("one"), note("other"));
        for _ in 0..2 {
            notes.keep(&one).unwrap();
        }
        notes.keep(&other).unwrap();
        assert_eq!(notes.all().len(), 2);
        assert!([&one, &other].iter().all(|note| notes.all().contains(note)), "{:?}", notes.all());
        assert_eq!(fs::metadata(notes.file(&one)).unwrap().permissions().mode() & 0o777, 0o600);
        let newer = json!({ "version": 2, "records": [] }).to_string();
        for (name, text) in [("newer.json", newer.as_str()), ("broken.json", "{"), ("half.json", "{\"version\":1}")] {
            fs::write(notes.directory.join(name), text).unwrap();
        }
        notes.forget(&one);
        notes.forget(&one);
        assert_eq!(Notes::new(directory.path()).all(), [other]);
        assert_eq!(fs::read_to_string(notes.directory.join("newer.json")).unwrap(), newer);
    }
}
