//! Uploads to a backend that sleeps arrive once and whole, and cost no memory while they are held.

use std::{fs, process::Stdio, time::Duration};

use sha2::{Digest, Sha256};
use tokio::process::{Child, Command};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    wait::until,
};

const LENGTH: usize = 8 << 20;

/// Eight MiB in which no two pieces are alike.
fn body() -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..LENGTH).map(|_| next()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Resident memory of a process, in KiB, without what it has of files: that is its own code, which comes back from the
/// disk as it is used.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let figure = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    println!("resident: {} KiB, of files: {} KiB", figure("VmRSS:"), figure("RssFile:"));
    figure("RssAnon:") + figure("RssShmem:")
}

fn upload(dormouse: &Dormouse, file: &str, mark: &str, way: &[&str]) -> Child {
    let url = format!("http://{}/echo?mark={mark}.", dormouse.http);
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "120", "-H", "Host: app.test", "-X", "POST"]).args(way);
    command.args(["--upload-file", file]).arg(url);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

const BY_LENGTH: &[&str] = &["-H", "Expect:"];
const CHUNKED: &[&str] = &["-H", "Expect:", "-H", "Transfer-Encoding: chunked"];
const EXPECTING: &[&str] = &["-H", "Expect: 100-continue", "--expect100-timeout", "120"];

#[tokio::test]
async fn uploads_of_8_mib_arrive_once_and_whole_and_are_not_kept_in_memory() {
    let app = App::new("app").options(&["--delay-listen", "6s"]).idle("idle_timeout: 1s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("body");
    fs::write(&file, body()).unwrap();
    let file = file.display().to_string();
    let sum = hex(&Sha256::digest(body()));

    let before = memory(dormouse.pid());
    let ways = [("length", BY_LENGTH), ("chunked", CHUNKED), ("expecting", EXPECTING)];
    let mut uploads = Vec::new();
    for (name, way) in ways {
        for number in 0..8 {
            let mark = format!("{name}-{number}");
            uploads.push((upload(&dormouse, &file, &mark, way), mark));
        }
    }
    let count = uploads.len() as u64;
    let held = async || dormouse.api("GET", "/api/v1/backends/jobs/app").await["held"].as_u64();
    until("all are held", held, |held| *held == Some(count)).await;
    // Time to send what can be sent, and still in the six seconds before the app listens.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let growth = memory(dormouse.pid()).saturating_sub(before);
    assert_eq!(held().await, Some(count), "they were no longer held when memory was looked at");
    println!("{count} held uploads of 8 MiB: {growth} KiB more memory, {} KiB each", growth / count);
    assert!(growth < 1024 * count, "{growth} KiB for {count} held uploads");

    for (child, mark) in uploads {
        let output = child.wait_with_output().await.unwrap();
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{mark}: {error}");
        assert!(answer.contains(&format!("\"length\":{LENGTH},\"sha256\":\"{sum}\"")), "{mark}: {answer}");
        assert_eq!(app.journal().arrivals(&format!("mark={mark}.")), 1, "{mark}");
    }
    assert_eq!(app.journal().starts(), 1);
    let after = memory(dormouse.pid()).saturating_sub(before);
    println!("after all of them: {after} KiB more than before");
}
