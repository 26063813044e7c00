//! Images made of programs of this machine, so that real servers run in containers without a registry.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::docker::DockerCli;

/// The tree of an image: programs with the libraries that they need, and files.
#[derive(Debug)]
pub(crate) struct HostImage {
    tree: TempDir,
}

impl HostImage {
    /// The programs at the places that they have here, and whatever else is named, as files and not as links to them.
    /// Beside them a place for passing files, and users who are called as here.
    pub(crate) fn of(paths: &[&Path]) -> Self {
        let image = Self { tree: tempfile::tempdir().expect("a directory") };
        let script = r#"
            tree=$1; shift
            for path; do
                echo "$path"
                [ -d "$path" ] || ldd "$path" 2>/dev/null | grep -o '/[^ ]*'
            done | sort -u | tar -C / -ch --files-from=- 2>/dev/null | tar -C "$tree" -x
            mkdir -p "$tree/tmp" "$tree/etc" "$tree/root" && chmod 1777 "$tree/tmp" && chmod 755 "$tree""#;
        image.sh(script, paths);
        // Without passwords, and with a shell that is there.
        let users = fs::read_to_string("/etc/passwd").expect("the users").replace("/bin/bash", "/bin/sh");
        image.write("etc/passwd", &users);
        image.write("etc/group", &fs::read_to_string("/etc/group").expect("the groups"));
        image
    }

    /// Where a file of the image is until it is imported.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.tree.path().join(inside)
    }

    pub(crate) fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file of an image");
    }

    /// Imports it into an engine, where it goes with the test, and returns its name.
    pub(crate) fn import(&self, cli: &DockerCli, name: &str) -> String {
        let image = cli.name(name);
        let script = r#"tar -C "$1" -c . | docker -H "$2" import --change "LABEL $3" - "$4" >/dev/null"#;
        self.sh(script, &[cli.address.as_ref(), cli.label().as_ref(), image.as_ref()]);
        image
    }

    fn sh(&self, script: &str, words: &[&Path]) {
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c", script, "bash"]).arg(self.tree.path()).args(words).stdin(Stdio::null());
        let status = command.status();
        assert!(status.is_ok_and(|status| status.success()), "{script} {words:?}");
    }
}
