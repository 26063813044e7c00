//! What plain processes promise beyond the common verbs: they are found again, never started twice, and end whole.

use std::{sync::Arc, time::Duration};

use dormouse::{
    model::{SleepMethod, Unit},
    provider::{Changed, FileBook, Process, ProcessBook, ProcessRecord, Provider, StopOrder},
};

use crate::support::{
    rig::{Kind, ProcessRig, node, paused, running, shell, stopped},
    wait::{LONG, until},
};

const STOP: StopOrder = StopOrder { method: SleepMethod::Stop, signal: None, grace: LONG };

async fn up(processes: &ProcessRig) -> Unit {
    let unit = processes.rig.hand.make("app", Kind::Good).await;
    assert_eq!(processes.rig.provider.start(&unit).await.unwrap(), Changed::Done);
    processes.rig.see_in_log(&unit, "ready").await;
    unit
}

fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_later_life_adopts_what_runs_and_does_not_start_it_again() {
    let processes = ProcessRig::new();
    let unit = up(&processes).await;
    let next = processes.next_life();
    assert!(running(&next.look(&unit).await.unwrap()));
    assert_eq!(next.start(&unit).await.unwrap(), Changed::Already);
    assert_eq!(next.list().await.unwrap().len(), 1);
    assert_eq!(processes.rig.hand.runs(&unit).await, Some(1));
    assert_eq!(next.stop(&unit, STOP).await.unwrap(), Changed::Done);
    assert!(stopped(&next.look(&unit).await.unwrap()));
    processes.rig.see_in_log(&unit, "got TERM").await;
    processes.finish().await;
}

/// A book that is lost in the moment of writing, as when Dormouse is killed between a start and its record.
#[derive(Debug)]
struct LostBook;

impl ProcessBook for LostBook {
    fn load(&self) -> std::io::Result<Vec<ProcessRecord>> {
        Ok(Vec::new())
    }

    fn save(&self, _record: &ProcessRecord) -> std::io::Result<()> {
        Err(std::io::Error::other("lost"))
    }

    fn remove(&self, _name: &str) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_process_whose_record_was_never_written_is_found_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let first = Process::open(node(), path.clone(), Arc::new(LostBook)).unwrap();
    let unit = shell("app", &path.join("runs"), "sleep 100");
    assert_eq!(first.start(&unit).await.unwrap(), Changed::Done);
    let next = Process::open(node(), path.clone(), Arc::new(FileBook::open(&path).unwrap())).unwrap();
    assert!(running(&next.look(&unit).await.unwrap()));
    assert_eq!(next.start(&unit).await.unwrap(), Changed::Already);
    next.end_all(Duration::ZERO).await;
    until("the first life", async || first.look(&unit).await.unwrap(), stopped).await;
}

#[tokio::test]
async fn a_note_or_record_of_another_boot_is_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let book = FileBook::open(&path).unwrap();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start_time = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().parse().unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    book.save(&ProcessRecord { name: "us".to_owned(), pid, start_time, boot_id: "before".to_owned() }).unwrap();
    std::fs::write(path.join("we.before.birth"), stat).unwrap();
    let provider = Process::open(node(), path.clone(), Arc::new(book)).unwrap();
    assert!(provider.list().await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0, "what means nothing any more is removed");
}

#[tokio::test]
async fn the_end_of_an_adopted_process_is_seen() {
    let processes = ProcessRig::new();
    let unit = up(&processes).await;
    let next = processes.next_life();
    assert!(processes.rig.hand.end(&unit).await);
    until("the adopted process", async || next.look(&unit).await.unwrap(), stopped).await;
    assert_eq!(next.start(&unit).await.unwrap(), Changed::Done);
    next.end_all(Duration::ZERO).await;
    processes.finish().await;
}

#[tokio::test]
async fn a_paused_process_is_adopted_paused() {
    let processes = ProcessRig::new();
    let unit = up(&processes).await;
    let pause = StopOrder { method: SleepMethod::Pause, ..STOP };
    processes.rig.provider.stop(&unit, pause).await.unwrap();
    let next = processes.next_life();
    assert!(paused(&next.look(&unit).await.unwrap()));
    assert_eq!(next.start(&unit).await.unwrap(), Changed::Done);
    assert!(running(&next.look(&unit).await.unwrap()));
    processes.finish().await;
}

#[tokio::test]
async fn what_has_ended_meanwhile_is_not_adopted() {
    let processes = ProcessRig::new();
    let unit = up(&processes).await;
    processes.rig.provider.stop(&unit, STOP).await.unwrap();
    let next = processes.next_life();
    assert!(next.list().await.unwrap().is_empty());
    processes.finish().await;
}

#[tokio::test]
async fn the_whole_group_ends() {
    let processes = ProcessRig::new();
    let directory = tempfile::tempdir().unwrap();
    let runs = directory.path().join("runs");
    // A grandchild that ignores every polite signal, and a leader that leaves it behind.
    let script = r#"(trap '' TERM; while :; do sleep 0.05; done) & echo child $!; wait"#;
    let unit = shell("family", &runs, script);
    let provider = &processes.rig.provider;
    for order in [STOP, StopOrder { method: SleepMethod::Kill, ..STOP }] {
        provider.start(&unit).await.unwrap();
        let line = processes.rig.see_in_log(&unit, "child ").await;
        let grandchild = line.strip_prefix("child ").unwrap().to_owned();
        assert!(lives(&grandchild));
        provider.stop(&unit, StopOrder { grace: Duration::from_millis(300), ..order }).await.unwrap();
        until("the grandchild", async || lives(&grandchild), |lives| !lives).await;
    }
    processes.finish().await;
}

#[tokio::test]
async fn a_leader_that_dies_takes_its_group_along() {
    let processes = ProcessRig::new();
    let unit = shell(
        "family",
        &tempfile::tempdir().unwrap().path().join("runs"),
        "sleep 100 & echo child $!; echo pid $$; wait",
    );
    processes.rig.provider.start(&unit).await.unwrap();
    let line = processes.rig.see_in_log(&unit, "child ").await;
    let grandchild = line.strip_prefix("child ").unwrap().to_owned();
    assert!(processes.rig.hand.end(&unit).await);
    processes.rig.see(&unit, stopped).await;
    until("the grandchild", async || lives(&grandchild), |lives| !lives).await;
    processes.finish().await;
}

#[tokio::test]
async fn a_child_has_a_small_environment_its_directory_and_no_input() {
    let processes = ProcessRig::new();
    let directory = tempfile::tempdir().unwrap();
    let mut unit = shell("env", &directory.path().join("runs"), "pwd; cat; env; echo done; sleep 100");
    let command = unit.command.as_mut().unwrap();
    command.directory = Some(directory.path().to_owned());
    command.env.insert("GREETING".to_owned(), "hello you".to_owned());
    processes.rig.provider.start(&unit).await.unwrap();
    let pwd = processes.rig.see_in_log(&unit, "/").await;
    assert_eq!(std::path::Path::new(&pwd), directory.path());
    processes.rig.see_in_log(&unit, "GREETING=hello you").await;
    processes.rig.see_in_log(&unit, "done").await;
    let lines: Vec<String> = {
        use futures_util::StreamExt;
        let upto = processes.rig.provider.log_lines(&unit);
        upto.take_while(|line| std::future::ready(line != "done")).collect().await
    };
    assert!(!lines.iter().any(|line| line.starts_with("CARGO")), "{lines:?}");
    processes.finish().await;
}

#[tokio::test]
async fn a_missing_directory_or_user_is_named() {
    let processes = ProcessRig::new();
    let mut unit = shell("lost", std::path::Path::new("/tmp/unused"), ":");
    unit.command.as_mut().unwrap().directory = Some("/no/such/directory".into());
    let error = processes.rig.provider.start(&unit).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/directory"), "{error}");
    let command = unit.command.as_mut().unwrap();
    command.directory = None;
    command.user = Some("no-such-user".to_owned());
    let error = processes.rig.provider.start(&unit).await.unwrap_err().to_string();
    assert!(error.contains("`no-such-user`"), "{error}");
    processes.finish().await;
}
