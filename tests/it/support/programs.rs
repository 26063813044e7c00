//! Programs of other makers that this machine has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::{not_run::not_run, wait::must};

/// These programs. Where the machine lacks one of them the calling test is not run.
pub(crate) fn programs<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let found = names.map(program);
    let missing: Vec<_> =
        names.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        not_run("DORMOUSE_TEST_NO_TOOLS", &format!("`{}`, which tests/run installs", missing.join("`, `")));
        return None;
    }
    Some(found.map(Option::unwrap_or_default))
}

fn program(name: &str) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from).to_vec();
    // Debian keeps one of each version.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(versions.map(|version| version.path().join("bin")));
    places.into_iter().map(|place| place.join(name)).find(|path| path.exists())
}

/// Runs a program to its end, which must be a good one, and returns what it printed.
pub(crate) async fn run(program: &Path, words: &[&str]) -> String {
    let (program, words) = (program.to_owned(), words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let told = format!("{} {words:?}", program.display());
    let client = tokio::task::spawn_blocking(move || Command::new(program).args(words).stdin(Stdio::null()).output());
    let Output { status, stdout, stderr } = must("the end of a program", client).await.unwrap().unwrap();
    let (out, error) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{told}: {status}\n{out}\n{error}");
    out.trim().to_owned()
}

/// Has a server at this port of the loopback run a command, by a client of OpenSSH with this key.
pub(crate) async fn ask_by_ssh(client: &Path, key: &str, port: &str, command: &str) -> String {
    let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"];
    let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
    let words = [&["-F", "none", "-i", key, "-p", port][..], &options, &["root@127.0.0.1", command]];
    run(client, &words.concat()).await
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
