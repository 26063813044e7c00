//! Whether an access log can be written: before its first line, and while it has lines.

use std::{collections::BTreeSet, fs, os::unix::fs::FileTypeExt, path::Path, sync::Arc};

use super::{
    AccessWriter,
    access_obstacle::{Obstacle, obstacle},
    access_writer::{Failing, WhyFailing},
};
use crate::model::{AccessFile, AccessOutput, Place, Problem, Problems};

/// Warnings of the files among these that can not be written, each told once. No errors: a log keeps nobody from being
/// served, and what is missing may yet come. Looks at the disk.
pub fn check_access_outputs(outputs: &[Arc<AccessOutput>]) -> Problems {
    told(outputs, &Failing::new())
}

/// The same of now: errors of those that lines were lost of the last time, warnings of the others. Looks at the disk.
pub fn access_troubles(outputs: &[Arc<AccessOutput>], writer: &AccessWriter) -> Problems {
    told(outputs, &writer.failing())
}

fn told(outputs: &[Arc<AccessOutput>], failing: &Failing) -> Problems {
    let mut problems = Problems::default();
    let why = failing.get(&None).filter(|_| outputs.iter().any(|output| output.stdout));
    problems.0.extend(why.map(|why| lost(place_of("standard output"), None, why)));
    let mut seen = BTreeSet::new();
    for file in outputs.iter().filter_map(|output| output.file.as_ref()).filter(|file| seen.insert(&file.path)) {
        let place = file.place.clone().unwrap_or_else(|| place_of(&file.path.display().to_string()));
        let (obstacle, why) = (obstacle(&file.path), failing.get(&Some(file.path.clone())));
        problems.0.extend(match (obstacle, why) {
            (Some(Obstacle { what, hint }), Some(_)) => {
                let what = format!("lines of the access log are lost: {what}");
                Some(Problem::error(place, what).with_hint(hint))
            }
            (Some(Obstacle { what, hint }), None) => {
                let what = format!("the access log can not be written: {what}");
                Some(Problem::warning(place, what).with_hint(hint))
            }
            // What kept it from being opened is gone.
            (None, Some(why)) if why.is_in_the_way => None,
            (None, Some(why)) => Some(lost(place, Some(&file.path), why)),
            (None, None) => never_begun_anew(file, place),
        });
    }
    problems
}

fn place_of(name: &str) -> Place {
    Place::File { path: name.into(), line: None, column: None }
}

fn lost(place: Place, path: Option<&Path>, why: &WhyFailing) -> Problem {
    let of_path = path.map(|path| format!("`{}`: ", path.display())).unwrap_or_default();
    let hint = match path.and_then(|path| fs::metadata(path).ok()) {
        Some(facts) if facts.file_type().is_fifo() => "have somebody read the pipe",
        _ => "make room for it, or write another path",
    };
    let problem = Problem::error(place, format!("lines of the access log are lost: {of_path}{}", why.error));
    problem.with_hint(format!("{hint}: this is told until a line is written again"))
}

/// What is no regular file is written to as it is.
fn never_begun_anew(file: &AccessFile, place: Place) -> Option<Problem> {
    let wanted = file.rotate_size.is_some() || file.rotate_interval.is_some();
    let what = format!("`{}` is no regular file: it is never begun anew", file.path.display());
    let hint = "take `rotate_size` and `rotate_interval` out, or write the path of a file";
    (wanted && is_special(&file.path)).then(|| Problem::warning(place, what).with_hint(hint))
}

fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| !facts.is_file())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        time::Duration,
    };

    use super::*;

    fn output(path: &Path) -> Arc<AccessOutput> {
        Arc::new(AccessOutput { stdout: false, file: Some(AccessFile::new(path)) })
    }

    fn check(path: &Path, expected: &str) {
        let told = check_access_outputs(&[output(path), output(path)]);
        let told: Vec<String> = told.0.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), usize::from(!expected.is_empty()), "{told:?}");
        assert!(told.concat().contains(expected), "{expected}: {told:?}");
    }

    #[test]
    fn what_can_not_be_written_is_told_before_the_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for good in ["file", "new", "pipe"] {
            check(&at(good), "");
        }
        check(Path::new("/dev/null"), "");
        check(&at("missing/access.log"), "there is no folder");
        check(&at("file/access.log"), "Not a directory (os error 20)\n  hint: write the path of a file");
        check(folder.path(), "is a directory");
        check(&at("socket"), "is a socket");
        for (name, to) in [("to-missing", "missing/access.log"), ("to-link", "to-missing"), ("to-new", "new")] {
            symlink(to, at(name)).unwrap();
        }
        for bad in ["to-missing", "to-link"] {
            check(&at(bad), &format!("is a link: there is no folder `{}`", at("missing").display()));
        }
        check(&at("to-new"), "");
        assert!(!at("missing").exists() && !at("new").exists(), "nothing is made");
    }

    #[test]
    fn what_belongs_to_others_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("logs"), folder.path().join("access.log"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "").unwrap();
        for (path, mode) in [(folder.path(), 0o755), (inner.as_path(), 0o555), (file.as_path(), 0o444)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Of this thread alone. Root may write anywhere.
                nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
                check(&inner.join("access.log"), "logs`: Permission denied");
                check(&file, "access.log`: Permission denied");
            });
        });
    }

    #[test]
    fn what_is_no_regular_file_is_never_begun_anew() {
        let turned = AccessFile { rotate_size: Some(1), ..AccessFile::new("/dev/null") };
        let told = check_access_outputs(&[Arc::new(AccessOutput { stdout: false, file: Some(turned) })]);
        assert!(told.to_string().contains("never begun anew"), "{told}");
    }

    #[test]
    fn what_lost_lines_is_told_until_it_can_be_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, writer) = (folder.path().join("logs"), AccessWriter::default());
        let (missing, full) = (output(&inner.join("access.log")), output(Path::new("/dev/full")));
        let outputs = [Arc::clone(&missing), Arc::clone(&full)];
        let now = || access_troubles(&outputs, &writer).to_string();
        assert!(now().starts_with("warning: "), "{}", now());
        for to in &outputs {
            writer.write(to, b"lost\n".to_vec());
        }
        writer.flush(Duration::from_secs(60));
        assert_eq!(now().matches("error: ").count(), 2, "{}", now());
        assert!(
            now().contains("there is no folder") && now().contains("lost: `/dev/full`: No space left"),
            "{}",
            now()
        );
        assert!(access_troubles(&[], &writer).0.is_empty(), "what is no longer wanted is no trouble");
        fs::create_dir(&inner).unwrap();
        assert!(now().matches("error: ").count() == 1 && now().contains("No space left"), "{}", now());
        writer.write(&missing, b"kept\n".to_vec());
        writer.flush(Duration::from_secs(60));
        assert!(!now().contains("folder"), "{}", now());
        // Removed with what it holds, and there again.
        fs::remove_dir_all(&inner).unwrap();
        std::thread::sleep(Duration::from_millis(600));
        writer.write(&missing, b"lost\n".to_vec());
        writer.flush(Duration::from_secs(60));
        assert!(now().contains("lines of the access log are lost: there is no folder"), "{}", now());
        fs::create_dir(&inner).unwrap();
        assert_eq!(now().matches("error: ").count(), 1, "{}", now());
    }

    #[test]
    fn what_a_link_to_nowhere_loses_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("missing/access.log", at("a")).unwrap();
        // It could be made where it leads to, by what can be seen: but with a slash at its end no file is ever made.
        symlink("new/", at("b")).unwrap();
        let (writer, outputs) = (AccessWriter::default(), [output(&at("a")), output(&at("b"))]);
        let lose = || {
            outputs.iter().for_each(|to| writer.write(to, b"lost\n".to_vec()));
            writer.flush(Duration::from_secs(60));
        };
        let now = || access_troubles(&outputs, &writer).to_string();
        lose();
        assert_eq!(now().matches("lines of the access log are lost").count(), 2, "{}", now());
        assert!(now().contains("there is no folder") && now().contains("Is a directory"), "{}", now());
        fs::create_dir(at("missing")).unwrap();
        assert!(!now().contains("there is no folder") && now().contains("Is a directory"), "{}", now());
        lose();
        assert_eq!(fs::read_to_string(at("missing/access.log")).unwrap(), "lost\n");
    }
}
