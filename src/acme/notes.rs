//! What is in the DNS because of an order, noted in the state directory before it is put there: whatever ends the order,
//! also the end of the program, it is known what to take out. One file for each record; there are no secrets in them.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    dns_ask::Spot,
    failed::Failed,
    schedule::Counts,
    vault::{UNFINISHED, hash, write},
};

/// The form of a note. One of another form was written by a newer program, and is left to it.
const VERSION: u64 = 1;

/// So long it is tried to take out what can not be taken out, and so often when nobody says no.
const LONG: Duration = Duration::from_secs(7 * 24 * 3600);
const OFTEN: u32 = 200;

/// A record that is in the DNS, or may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// What put it there, as `DnsAccess::name` has it.
    pub(super) by: String,
    pub(super) spot: Spot,
    pub(super) value: String,
    /// When it was put there.
    pub(super) since: Timestamp,
    /// How often it could not be taken out.
    pub(super) failures: Counts,
}

/// Where notes are. A copy shares what was told.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    directory: PathBuf,
    /// Files of which it was told that they can not be read. A std mutex: never held across an await.
    told: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Notes {
    /// The notes below a state directory, without what a kill has left unfinished among them.
    pub(super) fn open(state_dir: &Path) -> Self {
        let notes = Self { directory: state_dir.join("dns-records"), told: Arc::default() };
        for unfinished in notes.files(UNFINISHED) {
            remove(&unfinished);
        }
        notes
    }

    /// Keeps a note.
    pub(super) fn keep(&self, note: &Note) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        write(&self.file(note), note.written().to_string().as_bytes())
    }

    /// The record is not there any more.
    pub(super) fn forget(&self, note: &Note) {
        remove(&self.file(note));
    }

    /// It could not be taken out. Says whether that is to be tried again: not when there were so many refusals, or it was
    /// tried long enough.
    pub(super) fn failed(&self, mut note: Note, failed: &Failed, refusals: u32) -> bool {
        note.failures.add(failed.kind);
        let (record, value, why, tries) = (&note.spot.name, &note.value, &failed.why, note.failures.sum());
        if note.is_given_up(Timestamp::now(), refusals) {
            tracing::warn!(
                record,
                value,
                why,
                tries,
                "a record could not be taken out of the DNS and is not tried again: should it be there, take it out by hand"
            );
            self.forget(&note);
            return false;
        }
        if let Err(error) = self.keep(&note) {
            tracing::warn!(record, %error, "it can not be noted how often it was tried to take a record out of the DNS");
        }
        if tries == 1 {
            tracing::warn!(record, why, "a record could not be taken out of the DNS: it is tried again");
        } else {
            tracing::debug!(record, why, tries, "a record could not be taken out of the DNS: it is tried again");
        }
        true
    }

    /// All that is noted. What can not be read is told once and left out.
    pub(super) fn all(&self) -> Vec<Note> {
        let (notes, news) = self.look();
        for (path, why) in news {
            tracing::warn!(path = %path.display(), why, "a note of a record in the DNS is left out");
        }
        notes
    }

    /// All that is noted, and what can not be read and was not before.
    fn look(&self) -> (Vec<Note>, Vec<(PathBuf, String)>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut notes, mut news) = (Vec::new(), Vec::new());
        for path in self.files("json") {
            match Note::read(&path) {
                Ok(note) => notes.push(note),
                Err(why) if told.insert(path.clone()) => news.push((path, why)),
                Err(_) => {}
            }
        }
        (notes, news)
    }

    /// The files whose names end so.
    fn files(&self, end: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|found| found == end)).collect();
        paths.sort();
        paths
    }

    fn file(&self, note: &Note) -> PathBuf {
        let Spot { name, zone } = &note.spot;
        self.directory.join(format!("{:016x}.json", hash(&format!("{}\n{name}\n{zone}\n{}", note.by, note.value))))
    }
}

fn remove(file: &Path) {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "`{}` can not be removed", file.display());
        }
        Ok(()) | Err(_) => {}
    }
}

impl Note {
    /// A record that is put there now.
    pub(super) fn new(by: &str, spot: Spot, value: String) -> Self {
        Self { by: by.to_owned(), spot, value, since: Timestamp::now(), failures: Counts::default() }
    }

    /// Whether it is not tried any more to take it out; so many refusals are enough.
    fn is_given_up(&self, now: Timestamp, refusals: u32) -> bool {
        let age = now.duration_since(self.since).try_into().unwrap_or(Duration::ZERO);
        age >= LONG || self.failures.refused >= refusals || self.failures.unreachable >= OFTEN
    }

    fn written(&self) -> Value {
        let Self { by, spot: Spot { name, zone }, value, since, failures: Counts { unreachable, refused } } = self;
        let failures = json!({ "unreachable": unreachable, "refused": refused });
        let since = since.to_string();
        json!({ "version": VERSION, "by": by, "name": name, "zone": zone, "value": value, "since": since, "failures": failures })
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
        // What is not needed to take the record out may be missing: another version may have written it.
        let count = |kind: &str| match written.get("failures").and_then(|failures| failures.get(kind)) {
            None => Ok(0),
            Some(count) => {
                let count = count.as_u64().and_then(|count| u32::try_from(count).ok());
                count.ok_or_else(|| format!("its `failures: {kind}` is no count"))
            }
        };
        let spot = Spot { name: field("name")?, zone: field("zone")? };
        let since = match written.get("since") {
            None => written_at(path),
            Some(since) => {
                let since = since.as_str().ok_or("its `since` is no time")?;
                since.parse().map_err(|error: jiff::Error| format!("its `since`: {error}"))?
            }
        };
        let failures = Counts { unreachable: count("unreachable")?, refused: count("refused")? };
        Ok(Self { by: field("by")?, spot, value: field("value")?, since, failures })
    }
}

/// When a file was written; now, where that is not known.
fn written_at(file: &Path) -> Timestamp {
    let time = fs::metadata(file).and_then(|known| known.modified()).ok();
    time.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_else(Timestamp::now)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::ToSpan;

    use super::*;

    fn note(value: &str) -> Note {
        let spot = Spot { name: "_acme-challenge.a.test".to_owned(), zone: "a.test".to_owned() };
        Note::new("rfc2136", spot, value.to_owned())
    }

    #[test]
    fn a_note_is_kept_until_it_is_forgotten_and_what_is_none_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let notes = Notes::open(directory.path());
        assert_eq!(notes.all(), []);
        let failures = Counts { unreachable: 3, refused: 2 };
        let (one, other) = (note("one"), Note { failures, ..note("other") });
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
        let notes = Notes::open(directory.path());
        let (found, news) = notes.look();
        assert_eq!(found, [other]);
        let news: Vec<_> = news.iter().filter_map(|(path, _)| path.file_name()?.to_str()).collect();
        assert_eq!(news, ["broken.json", "half.json", "newer.json"]);
        assert_eq!(fs::read_to_string(notes.directory.join("newer.json")).unwrap(), newer);
        let (found, news) = notes.look();
        assert!(found.len() == 1 && news.is_empty(), "it was told before: {news:?}");
    }

    #[test]
    fn a_note_is_read_that_lacks_what_is_not_needed_or_has_more() {
        let directory = tempfile::tempdir().unwrap();
        let notes = Notes::open(directory.path());
        notes.keep(&note("one")).unwrap();
        let check = |change: Value, expected: Result<(u32, u32), &str>| {
            let file = notes.file(&note("one"));
            let mut written = note("one").written();
            for (key, value) in change.as_object().unwrap() {
                if value.is_null() {
                    written.as_object_mut().unwrap().remove(key);
                } else {
                    written[key] = value.clone();
                }
            }
            fs::write(&file, written.to_string()).unwrap();
            let read = Note::read(&file);
            let found = read.as_ref().map(|note| (note.failures.unreachable, note.failures.refused));
            assert_eq!(found.map_err(String::as_str), expected, "{change}");
            if let Ok(read) = read {
                let age = Timestamp::now().duration_since(read.since).as_secs();
                assert!((0..3600).contains(&age), "{change}: {age} s old");
                assert_eq!((read.spot, read.value), (note("one").spot, "one".to_owned()));
            }
        };
        check(json!({ "since": null }), Ok((0, 0)));
        check(json!({ "failures": null }), Ok((0, 0)));
        check(json!({ "failures": { "refused": 3, "odd": 4 }, "more": [1] }), Ok((0, 3)));
        check(json!({ "since": 7 }), Err("its `since` is no time"));
        check(json!({ "failures": { "refused": "3" } }), Err("its `failures: refused` is no count"));
        check(json!({ "name": null }), Err("it has no `name`"));
        check(json!({ "by": null }), Err("it has no `by`"));
    }

    #[test]
    fn what_a_kill_has_left_unfinished_is_removed_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let notes = Notes::open(directory.path());
        notes.keep(&note("one")).unwrap();
        let unfinished = notes.file(&note("other")).with_extension(UNFINISHED);
        fs::write(&unfinished, "{\"vers").unwrap();
        assert_eq!(Notes::open(directory.path()).all().len(), 1);
        assert!(!unfinished.exists());
    }

    #[test]
    fn a_record_is_given_up_after_a_week_or_when_it_was_tried_often() {
        let (now, note) = (Timestamp::now(), note("one"));
        let check = |since: Timestamp, unreachable: u32, refused: u32, expected: bool| {
            let failures = Counts { unreachable, refused };
            let found = Note { since, failures, ..note.clone() }.is_given_up(now, 8);
            assert_eq!(found, expected, "{since}, {failures:?}");
        };
        check(now - (7 * 24).hours(), 1, 0, true);
        check(now - (7 * 24 - 1).hours(), 180, 7, false);
        check(now, 0, 8, true);
        // A clock that was set back.
        check(now + (365 * 24).hours(), 199, 0, false);
        check(now + (365 * 24).hours(), 200, 0, true);
    }
}
