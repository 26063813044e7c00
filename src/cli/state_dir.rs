//! Where the state directory is.

use std::path::PathBuf;

/// The place said on the command line, or by the environment, or the usual one.
pub(super) fn find(said: Option<PathBuf>, variable: &dyn Fn(&str) -> Option<String>, root: bool) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd gives several directories joined by colons; the first is ours.
    let systemd = || variable("STATE_DIRECTORY").and_then(|all| all.split(':').next().map(PathBuf::from));
    said.or_else(|| set("DORMOUSE_STATE_DIR"))
        .or_else(|| systemd().filter(|path| !path.as_os_str().is_empty()))
        .or_else(|| root.then(|| PathBuf::from("/var/lib/dormouse")))
        .or_else(|| set("XDG_STATE_HOME").map(|home| home.join("dormouse")))
        .or_else(|| set("HOME").map(|home| home.join(".local/state/dormouse")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(said: Option<&str>, variables: &[(&str, &str)], root: bool) -> Option<String> {
        let variable = |name: &str| {
            let set = variables.iter().find(|(key, _)| *key == name);
            set.map(|(_, value)| (*value).to_owned())
        };
        find(said.map(PathBuf::from), &variable, root).map(|path| path.display().to_string())
    }

    #[test]
    fn the_nearest_word_counts() {
        let all =
            [("DORMOUSE_STATE_DIR", "/d"), ("STATE_DIRECTORY", "/s:/t"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        let check = |from: usize, root, expected: &str| assert_eq!(found(None, &all[from..], root).unwrap(), expected);
        assert_eq!(found(Some("/said"), &all, true).unwrap(), "/said");
        check(0, true, "/d");
        check(1, true, "/s");
        check(2, true, "/var/lib/dormouse");
        check(2, false, "/x/dormouse");
        check(3, false, "/h/.local/state/dormouse");
        assert_eq!(found(None, &[("DORMOUSE_STATE_DIR", "")], false), None);
    }
}
