//! A real engine in tests, driven by the `docker` program as a person would.
//!
//! `DORMOUSE_TEST_DOCKER` names the engine, such as `unix:///run/test/docker.sock`. Without it such tests fail, so that
//! nobody takes them for passed; `DORMOUSE_TEST_NO_DOCKER=1` skips them, and they say so.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::process::Command;

const LABEL: &str = "dormouse.test";

/// The image with the app of `examples/app.rs` and nothing else.
pub(crate) const IMAGE: &str = "dormouse-test/app:1";

/// An engine, and everything that one test made on it; removed at the end, however the test ends.
#[derive(Debug)]
pub(crate) struct DockerCli {
    pub(crate) address: String,
    /// Begins the name of everything of this test.
    pub(crate) prefix: String,
}

impl DockerCli {
    /// Absent when the person at the keyboard has said that there is no engine.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if let Ok(address) = std::env::var("DORMOUSE_TEST_DOCKER") {
            let prefix = format!("dt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
            prepare_image(&address);
            return Some(Self { address, prefix });
        }
        assert!(
            std::env::var_os("DORMOUSE_TEST_NO_DOCKER").is_some(),
            "this test needs a Docker Engine: set DORMOUSE_TEST_DOCKER to its address, or DORMOUSE_TEST_NO_DOCKER=1 \
             to leave such tests out",
        );
        println!("NOT RUN: there is no Docker Engine (DORMOUSE_TEST_NO_DOCKER)");
        None
    }

    /// The name of something of this test.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Runs `docker` with these words and returns how it went.
    pub(crate) async fn try_run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.arg("-H").arg(&self.address).args(words).stdin(Stdio::null()).kill_on_drop(true);
        command.output().await.expect("the docker program")
    }

    /// Runs `docker` with these words, which must go well, and returns what it printed.
    pub(crate) async fn run(&self, words: &[&str]) -> String {
        let output = self.try_run(words).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {words:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Creates (`create`) or runs (`run -d`) a container of this test from the test image; `options` stand before
    /// the image and `arguments` after it. Returns its name.
    pub(crate) async fn container(&self, how: &[&str], name: &str, options: &[&str], arguments: &[&str]) -> String {
        let name = self.name(name);
        let label = format!("{LABEL}={}", self.prefix);
        let words = [how, &["--name", &name, "--label", &label], options, &[IMAGE], arguments].concat();
        self.run(&words).await;
        name
    }

    /// Creates a network of this test and returns its name.
    pub(crate) async fn network(&self, name: &str) -> String {
        let name = self.name(name);
        self.run(&["network", "create", "--label", &format!("{LABEL}={}", self.prefix), &name]).await;
        name
    }
}

impl Drop for DockerCli {
    fn drop(&mut self) {
        let script = r#"
            docker -H "$1" ps -aq --filter "label=$2" | xargs -r docker -H "$1" rm -fv
            docker -H "$1" network ls -q --filter "label=$2" | xargs -r docker -H "$1" network rm"#;
        let label = format!("{LABEL}={}", self.prefix);
        let removed = std::process::Command::new("sh")
            .args(["-c", script, "sh", &self.address, &label])
            .stdout(Stdio::null())
            .status();
        if !removed.is_ok_and(|status| status.success()) {
            println!("containers with the label {label} may be left on {}", self.address);
        }
    }
}

/// The app as a static program, built once for each run of the tests.
pub(crate) fn app() -> &'static PathBuf {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| {
        let app = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("app");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/app.rs");
        let built = std::process::Command::new("rustc")
            .args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"])
            .arg(&app)
            .arg(source)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "rustc could not build {source}");
        app
    })
}

fn prepare_image(address: &str) {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let script = r#"tar -C "$2" -c app | docker -H "$1" import --change 'ENTRYPOINT ["/app"]' - "$3""#;
        let directory = app().parent().expect("a directory");
        let imported = std::process::Command::new("sh")
            .args(["-c", script, "sh", address])
            .arg(directory)
            .arg(IMAGE)
            .stdout(Stdio::null())
            .status();
        assert!(imported.is_ok_and(|status| status.success()), "the test image could not be imported");
    });
}
