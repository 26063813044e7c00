//! Answers that survive a restart, in the state directory. What is read is judged like what comes by the network.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::responder::LARGEST;
use crate::net::Fingerprint;

/// The answer of a certificate that is not there any more is kept for so long: it may come back.
const ABSENT: Duration = Duration::from_secs(14 * 24 * 3600);

/// The end of the name of an answer, and of one that is being written.
const ENDINGS: [&str; 2] = ["der", "new"];

/// Where answers are kept.
#[derive(Debug)]
pub(super) struct Drawer {
    directory: PathBuf,
}

impl Drawer {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("ocsp") }
    }

    fn file(&self, of: Fingerprint) -> PathBuf {
        self.directory.join(format!("{of}.{}", ENDINGS[0]))
    }

    /// The answer about a certificate, if there is one.
    pub(super) fn kept(&self, of: Fingerprint) -> Option<Vec<u8>> {
        let path = self.file(of);
        let small = fs::metadata(&path).is_ok_and(|data| data.len() <= LARGEST as u64);
        if small { fs::read(path).ok() } else { None }
    }

    /// Keeps an answer, in place of one before.
    pub(super) fn keep(&self, of: Fingerprint, answer: &[u8]) {
        let path = self.file(of);
        let unfinished = path.with_extension(ENDINGS[1]);
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
            fs::write(&unfinished, answer)?;
            fs::rename(&unfinished, &path)
        };
        if let Err(error) = write() {
            let path = path.display();
            tracing::warn!(%error, "`{path}` can not be written: the next start has no OCSP answer to show at once");
        }
    }

    /// Forgets what was said of a certificate.
    pub(super) fn forget(&self, of: Fingerprint) {
        match fs::remove_file(self.file(of)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "`{}` can not be removed", self.file(of).display());
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Removes what belongs to none of these and is old.
    pub(super) fn tidy(&self, known: &HashSet<Fingerprint>) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let known: HashSet<PathBuf> = known.iter().map(|of| self.file(*of)).collect();
        for entry in entries.flatten() {
            let path = entry.path();
            let ours = path.extension().is_some_and(|ending| ENDINGS.iter().any(|one| ending == *one));
            let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
            if ours && !known.contains(&path) && age.is_some_and(|age| age > ABSENT) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{super::samples::fingerprint, *};

    #[test]
    fn an_answer_is_kept_until_it_is_forgotten_or_old_and_of_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let drawer = Drawer::new(directory.path());
        let [known, old, young] = [1, 2, 3].map(fingerprint);
        assert_eq!(drawer.kept(known), None);
        drawer.forget(known);
        for of in [known, old, young] {
            drawer.keep(of, b"first");
            drawer.keep(of, b"second");
        }
        assert_eq!(drawer.kept(known).as_deref(), Some(&b"second"[..]));
        for of in [known, old] {
            let file = fs::File::options().append(true).open(drawer.file(of)).unwrap();
            file.set_modified(SystemTime::now() - ABSENT - Duration::from_secs(60)).unwrap();
        }
        drawer.tidy(&HashSet::from([known]));
        assert_eq!([known, old, young].map(|of| drawer.kept(of).is_some()), [true, false, true]);
        drawer.forget(known);
        assert_eq!(drawer.kept(known), None);
        fs::write(drawer.file(known), vec![0; LARGEST + 1]).unwrap();
        assert_eq!(drawer.kept(known), None, "too large to be one");
        // In the way: told, and nothing else.
        fs::remove_dir_all(&drawer.directory).unwrap();
        fs::write(&drawer.directory, "").unwrap();
        drawer.keep(known, b"third");
        assert_eq!(drawer.kept(known), None);
    }
}
