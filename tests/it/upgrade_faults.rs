//! An upgrade that comes to nothing, and one whose processes end while they have something to do.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nix::sys::signal::{Signal, kill};
use tokio::net::TcpStream;

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    line::{Line, is_answered, pid},
    streams::connect,
    wait::until,
};

#[tokio::test]
async fn with_a_broken_configuration_nothing_changes_and_with_a_good_one_it_is_used() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let other = App::new("other").idle("idle_timeout: 1h");
    let stream = App::echoing("stream", "tcp").idle("idle_timeout: 1h");
    let mut line = Line::of(Dormouse::start(&config(&[&app, &stream])).await);
    line.serves("app").await;
    drop(connect(stream.front()).await);
    line.dormouse.configure(&(config(&[&app]) + "nonsense: 1\n"));
    let complaint = line.is_not_upgraded().await;
    assert!(complaint.contains("all is as before") && complaint.contains("nonsense"), "{complaint}");
    assert_eq!(complaint.matches("error:").count(), 1, "{complaint}");
    assert!(line.dormouse.log().contains("not upgraded"), "{}", line.dormouse.log());
    assert_eq!(line.living(), 1);
    line.serves("app").await;
    assert_eq!(line.dormouse.state("app").await, "awake");
    // An address that the old one can not change to while it runs.
    let moved = crate::support::apps::free_port();
    line.dormouse.http.set_port(moved);
    line.dormouse.configure(&config(&[&app, &other]));
    line.upgrade().await;
    line.is_one_process().await;
    for name in ["app", "other"] {
        line.serves(name).await;
    }
    // Of what is not wanted any more, nothing is held open.
    let refused = async || TcpStream::connect(stream.front()).await.map(drop).map_err(|error| error.kind());
    let _ = until("a closed port", refused, |answer| *answer == Err(std::io::ErrorKind::ConnectionRefused)).await;
    assert_eq!(app.journal().starts(), 1);
    line.end().await;
}

#[tokio::test]
async fn a_changed_address_is_told_by_a_reload_and_taken_by_the_next_process_once_it_is_let_go() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut line = Line::of(Dormouse::start(&config(&[&app])).await);
    line.serves("app").await;
    let at = line.dormouse.http;
    // Somebody who is about to leave has it, as a process before may.
    let moved = std::net::SocketAddr::from(([127, 0, 0, 1], crate::support::apps::free_port()));
    let leaving = std::net::TcpListener::bind(moved).unwrap();
    line.dormouse.http = moved;
    line.dormouse.configure(&config(&[&app]));
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_dormouse"));
    let said = command.args(["reload", "--state-dir"]).arg(line.dormouse.state_dir()).output().await.unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(
        said,
        "change setting `listen.http`: only with `dormouse upgrade` (or a new start), the running process can not change \
         to it\n"
    );
    assert!(TcpStream::connect(at).await.is_ok(), "it goes on where it is");
    let leaves = async {
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        drop(leaving);
    };
    tokio::join!(line.upgrade(), leaves);
    line.serves("app").await;
    assert!(!line.dormouse.log().contains("not upgraded"), "{}", line.dormouse.log());
    line.is_one_process().await;
    line.end().await;
}

fn write_program(path: &Path, text: &str) {
    // As an installer does: the program that runs is not written to.
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_new_process_that_fails_at_any_point_leaves_all_as_it_was() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let short = App::new("short").idle("idle_timeout: 1s");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("dormouse");
    let mut line = Line::of(Dormouse::start_as(&config(&[&app, &short]), &program).await);
    line.serves("app").await;
    let slow = line.slow(&app, 3000).await;
    let cases = [
        ("exit 3", "exit status: 3"),
        // It is told to go on, and has all that it asked for.
        ("printf '\"Ready\"\\n' >&0; read go; exit 7", "exit status: 7"),
        ("printf '\"Taken\"\\n' >&0; read go", "not its turn"),
        ("printf 'nonsense\\n' >&0; read go", "not understood"),
    ];
    for (script, why) in cases {
        write_program(&program, &format!("#!/bin/sh\n{script}\n"));
        let complaint = line.is_not_upgraded().await;
        assert!(complaint.contains("all is as before") && complaint.contains(why), "{script}: {complaint}");
        for name in ["app", "short"] {
            assert_eq!(line.dormouse.get(name, "/").await.status, 200, "{script}");
        }
    }
    fs::remove_file(&program).unwrap();
    let complaint = line.is_not_upgraded().await;
    assert!(complaint.contains("can not be started"), "{complaint}");
    is_answered(slow).await;
    // It still decides, and still remembers.
    line.dormouse.reaches("short", "asleep").await;
    fs::copy(env!("CARGO_BIN_EXE_dormouse"), &program).unwrap();
    line.upgrade().await;
    line.is_one_process().await;
    assert_eq!(line.dormouse.state("short").await, "asleep");
    line.serves("app").await;
    assert_eq!(app.journal().starts(), 1);
    app.journal().was_never_ended_in_use();
    line.end().await;
}

#[tokio::test]
async fn one_that_can_not_be_spoken_to_is_not_replaced_while_it_lives() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("dormouse");
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut line = Line::of(Dormouse::start_as(&config(&[&app]), &program).await);
    let script = "printf '\"Ready\"\\n' >&0; read go; printf '\"Taken\"\\nnonsense\\n' >&0; exec sleep 30 </dev/null";
    write_program(&program, &format!("#!/bin/sh\n{script}\n"));
    line.upgrade().await;
    line.logs("lives on, though it can not be spoken to").await;
    assert!(!line.dormouse.log().contains("another one is to take its place"), "{}", line.dormouse.log());
    assert_eq!(line.heirs.len(), 1);
    kill(pid(line.heirs[0]), Signal::SIGKILL).unwrap();
    until("the end", async || line.living(), |living| *living == 0).await;
}

#[tokio::test]
async fn when_the_new_one_ends_the_old_one_has_its_time_and_keeps_what_it_uses() {
    let app = App::new("app").idle("idle_timeout: 1s");
    let mut line = Line::awake(&[&app]).await;
    let slow = line.slow(&app, 4000).await;
    line.upgrade().await;
    line.end().await;
    is_answered(slow).await;
    app.journal().was_never_ended_in_use();
    assert!(app.journal().living().is_empty(), "it outlives Dormouse");
}

#[tokio::test]
async fn when_the_new_one_is_killed_what_the_old_one_has_in_use_goes_on() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut line = Line::awake(&[&app]).await;
    let slow = line.slow(&app, 8000).await;
    line.upgrade().await;
    line.logs("is on its own").await;
    kill(pid(line.heirs[0]), Signal::SIGKILL).unwrap();
    is_answered(slow).await;
    until("the end", async || line.living(), |living| *living == 0).await;
    // The next one finds what runs.
    line.dormouse.has_ended();
    line.dormouse.start_again().await;
    line.heirs.clear();
    line.serves("app").await;
    assert_eq!((app.journal().starts(), app.journal().ends()), (1, 0));
}

#[tokio::test]
async fn one_that_is_killed_as_soon_as_it_serves_is_replaced_and_nobody_is_refused() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let other = App::new("other").idle("idle_timeout: 1h");
    let mut line = Line::awake(&[&app, &other]).await;
    let slow = line.slow(&app, 5000).await;
    line.upgrade().await;
    kill(pid(line.heirs[0]), Signal::SIGKILL).unwrap();
    // Who comes while nobody is there waits for the next one.
    for name in ["app", "other"] {
        line.serves(name).await;
    }
    let told = line.logs("another process has taken over").await;
    line.heirs.push(told.rsplit("pid=").next().unwrap().trim().parse().unwrap());
    assert!(line.dormouse.log().contains("SIGKILL"), "{}", line.dormouse.log());
    is_answered(slow).await;
    line.is_one_process().await;
    for app in [&app, &other] {
        assert_eq!((app.journal().starts(), app.journal().ends()), (1, 0), "{}", app.name);
        assert_eq!(line.told(app).await["wakes"]["count"], 1);
    }
    line.end().await;
}

#[tokio::test]
async fn of_two_orders_at_once_the_second_is_told_of_the_first() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut line = Line::awake(&[&app]).await;
    let order = || line.dormouse.api_with("POST", "/api/v1/upgrade", "");
    let (one, other) = tokio::join!(order(), order());
    let (done, denied) = if one["pid"].is_u64() { (one, other) } else { (other, one) };
    let heir = done["pid"].as_u64().unwrap_or_else(|| panic!("{done} and {denied}"));
    line.heirs.push(u32::try_from(heir).unwrap());
    let why = denied["title"].to_string() + &denied["detail"].to_string();
    assert!(why.contains(&format!("process {heir} has just taken over")), "{denied}");
    line.is_one_process().await;
    line.serves("app").await;
    line.end().await;
}
