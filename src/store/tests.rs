//! The store on real files: kept, cut, zeroed, newer, locked, full, killed.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use jiff::Timestamp;

use super::*;
use crate::{model::Severity, telemetry::WakesToday};

fn memory(name: &str, count: u32) -> BackendMemory {
    let at = Timestamp::from_second(1_790_000_000).unwrap();
    let mut memory = BackendMemory::new(format!("local/{name}").parse().unwrap());
    memory.idle = Some(IdleSoFar { idle: Duration::from_millis(1234), at });
    memory.pinned_until = Some(at);
    memory.cool_down = Some(CoolDown { attempts: count, until: at });
    memory.put_to_sleep = true;
    memory.asleep_since = Some(at);
    memory.asleep_for = Duration::from_secs(77);
    memory.counted_since = Some(at);
    memory.memory = Some(123 << 20);
    memory.process = Some(ProcessRecord { pid: 4711, started: u64::MAX, boot: "b".into() });
    memory.wakes = WakeMemory {
        total: 2,
        today: WakesToday::new(jiff::civil::date(2026, 9, 21), 2),
        last: Some(LastWake { at, cause: "schedule".into(), took: Duration::from_millis(99) }),
        recent: [321, 99].map(Duration::from_millis).into_iter().collect(),
    };
    memory
}

/// Opens, saves these, closes.
async fn keep(dir: &Path, memories: &[BackendMemory]) {
    let (store, told) = Store::open(dir).await.unwrap();
    assert_eq!(told, []);
    memories.iter().cloned().for_each(|memory| store.save(memory));
    store.close().await;
    assert_eq!(store.errors(), 0);
}

async fn reopened(dir: &Path) -> (Vec<BackendMemory>, Vec<String>) {
    let (store, told) = Store::open(dir).await.unwrap();
    let loaded = store.load();
    store.close().await;
    (loaded, told.iter().map(ToString::to_string).collect())
}

/// The files beside the state that were moved aside.
fn aside(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = names.filter(|path| path.to_string_lossy().contains("state.db.broken-")).collect();
    // The file itself before its logs.
    found.sort();
    found
}

#[tokio::test]
async fn what_is_saved_is_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("new/state");
    let bare = BackendMemory::new("jobs/bare".parse().unwrap());
    keep(&dir, &[memory("a", 1), memory("b", 2), bare.clone()]).await;
    assert_eq!(reopened(&dir).await, (vec![bare.clone(), memory("a", 1), memory("b", 2)], vec![]));

    let (store, _) = Store::open(&dir).await.unwrap();
    store.save(memory("a", 9));
    store.forget(&"local/b".parse().unwrap());
    store.close().await;
    assert_eq!(reopened(&dir).await.0, [bare, memory("a", 9)]);
}

#[tokio::test]
async fn nobody_else_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("state");
    let (store, _) = Store::open(&dir).await.unwrap();
    store.save(memory("a", 1));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2);
    files.iter().for_each(|file| assert_eq!(mode(file), 0o600, "{}", file.display()));
    store.close().await;

    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let (_, told) = reopened(&dir).await;
    assert!(told[0].contains("other users may write to the state directory (mode 777)"), "{told:?}");
}

#[tokio::test]
async fn changes_are_written_without_closing_and_gathered() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open_paced(dir.path(), Duration::from_millis(20)).await.unwrap();
    for count in 0..1000 {
        store.save(memory("a", count));
    }
    let path = dir.path().join("state.db");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let (connection, read) = file::open(&path).await.unwrap();
        drop(connection);
        if read.memories.first() == Some(&memory("a", 999)) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the last change was not written");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.close().await;
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = Store::open(dir.path()).await.unwrap();
    let refused = Store::open(dir.path()).await.unwrap_err();
    assert_eq!(refused, StateInUse(dir.path().to_owned()));
    assert!(refused.to_string().contains("is in use by another running dormouse"));
    first.close().await;
    assert_eq!(reopened(dir.path()).await.1, Vec::<String>::new());
}

#[tokio::test]
async fn one_that_was_closed_is_opened_again_once_nobody_else_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).await.unwrap();
    store.save(memory("a", 1));
    store.close().await;
    let (other, _) = Store::open(dir.path()).await.unwrap();
    assert!(store.reopen(dir.path()).await.unwrap_err().to_string().contains("in use by another"));
    other.save(memory("b", 1));
    other.close().await;
    store.save(memory("c", 1));
    store.reopen(dir.path()).await.unwrap();
    store.save(memory("a", 2));
    store.flush().await.unwrap();
    store.close().await;
    // What was saved while it was closed is lost.
    assert_eq!(reopened(dir.path()).await, (vec![memory("a", 2), memory("b", 1)], Vec::new()));
}

#[tokio::test]
async fn a_file_that_is_cut_anywhere_is_told_and_replaced() {
    let whole = tempfile::tempdir().unwrap();
    let memories: Vec<BackendMemory> = (0..150).map(|index| memory(&format!("b{index:03}"), index)).collect();
    keep(whole.path(), &memories).await;
    let bytes = fs::read(whole.path().join("state.db")).unwrap();
    assert!(bytes.len() > 8192, "several pages are wanted");
    let page = 4096;
    let cuts = [0, 1, 15, 16, 99, 100, 101, 511, 512, page - 1, page, page + 1, bytes.len() - page, bytes.len() - 1];
    for cut in cuts.into_iter().chain((200..bytes.len()).step_by(1777)) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.db"), &bytes[..cut]).unwrap();
        let (loaded, told) = reopened(dir.path()).await;
        assert_eq!(loaded, [], "cut at {cut}");
        assert!(told.len() == 1 && told[0].contains("the state can not be used"), "cut at {cut}: {told:?}");
        let kept = aside(dir.path());
        assert!(fs::read(&kept[0]).unwrap() == bytes[..cut], "cut at {cut}");
        assert!(told[0].contains(kept[0].to_str().unwrap()));
        // And the fresh one works.
        keep(dir.path(), &memories[..1]).await;
        assert_eq!(reopened(dir.path()).await, (memories[..1].to_vec(), vec![]), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_zeroed_a_foreign_and_a_newer_file_are_told_and_replaced() {
    let newer = tempfile::tempdir().unwrap();
    keep(newer.path(), &[memory("a", 1)]).await;
    let mut newer = fs::read(newer.path().join("state.db")).unwrap();
    // The header's user version is at byte 60, big-endian.
    newer[60..64].copy_from_slice(&7u32.to_be_bytes());
    let mut foreign = newer.clone();
    foreign[68..72].copy_from_slice(&[0; 4]);
    let mut half_zero = newer.clone();
    half_zero[4096..].fill(0);
    let text = b"backend: a\n".repeat(1000);
    for (bytes, word) in [
        (newer, "version 7, written by a newer dormouse"),
        (foreign, "made by another program"),
        (half_zero, "can not be used"),
        (vec![0; 16384], "can not be used"),
        (text, "it is not a database"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.db"), &bytes).unwrap();
        let (store, told) = Store::open(dir.path()).await.unwrap();
        assert!(store.load().is_empty() && store.is_kept());
        assert_eq!(told[0].severity, Severity::Error);
        assert!(told[0].to_string().contains(word), "{} lacks {word}", told[0]);
        store.close().await;
        assert!(aside(dir.path()).iter().any(|path| fs::read(path).unwrap() == bytes), "{word}");
    }
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_forgotten_and_told() {
    let dir = tempfile::tempdir().unwrap();
    keep(dir.path(), &[memory("a", 1), memory("b", 1)]).await;
    let (mut connection, _) = file::open(&dir.path().join("state.db")).await.unwrap();
    sqlx::query("UPDATE backend SET idle_for = -5 WHERE id = 'local/a'").execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let (loaded, told) = reopened(dir.path()).await;
    assert_eq!(loaded, [memory("b", 1)]);
    assert!(told[0].contains("1 backends were forgotten"), "{told:?}");
}

#[tokio::test]
async fn who_waits_for_what_can_not_be_written_is_told_why_and_it_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).await.unwrap();
    let (mut other, _) = file::open(&dir.path().join("state.db")).await.unwrap();
    store.save(memory("a", 1));
    store.flush().await.unwrap();
    // Nothing can be written while there is no table.
    sqlx::query("ALTER TABLE backend RENAME TO elsewhere").execute(&mut other).await.unwrap();
    for _ in 0..2 {
        store.save(memory("a", 2));
        let told = store.flush().await.unwrap_err().to_string();
        assert!(told.starts_with("it could not be written down: ") && told.contains("no such table"), "{told}");
    }
    sqlx::query("ALTER TABLE elsewhere RENAME TO backend").execute(&mut other).await.unwrap();
    store.flush().await.unwrap();
    assert!(!store.has_changes());
    sqlx::Connection::close(other).await.unwrap();
    store.close().await;
    assert_eq!(reopened(dir.path()).await.0, [memory("a", 2)]);
}

#[tokio::test]
async fn a_place_that_can_not_be_written_degrades_to_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let (store, told) = Store::open(&file.join("state")).await.unwrap();
    assert!(told[0].to_string().contains("nothing is kept across a restart"), "{told:?}");
    store.save(memory("a", 1));
    assert!(!store.is_kept() && store.errors() == 0);
    store.close().await;
    // A directory where the file should be: it can neither be opened nor taken for damage that may be replaced.
    let odd = dir.path().join("odd");
    fs::create_dir_all(odd.join("state.db/inside")).unwrap();
    let (store, told) = Store::open(&odd).await.unwrap();
    assert!(told.iter().any(|one| one.severity == Severity::Error), "{told:?}");
    store.close().await;
    assert!(odd.join("state.db/inside").exists() || !aside(&odd).is_empty());
}

/// In a process that may not make files larger than so many blocks of 512 bytes, as on a full disk.
#[test]
fn a_full_disk_costs_nothing_but_errors() {
    if let Ok(dir) = env::var("DORMOUSE_TEST_FULL_DISK") {
        return on_runtime(fill_up(Path::new(&dir)));
    }
    let dir = tempfile::tempdir().unwrap();
    on_runtime(keep(dir.path(), &[memory("before", 1)]));
    let test = "store::tests::a_full_disk_costs_nothing_but_errors";
    let child = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 80; exec \"$0\" --exact \"$1\" --nocapture",
            exe().to_str().unwrap(),
            test,
        ])
        .env("DORMOUSE_TEST_FULL_DISK", dir.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let (loaded, told) = on_runtime(reopened(dir.path()));
    assert_eq!(told, Vec::<String>::new());
    assert!(loaded.contains(&memory("before", 1)));
}

async fn fill_up(dir: &Path) {
    let (store, told) = Store::open_paced(dir, Duration::from_millis(1)).await.unwrap();
    assert!(told.is_empty() && store.is_kept());
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let mut index = 0;
    while store.errors() == 0 {
        assert!(std::time::Instant::now() < deadline, "the disk never got full");
        for _ in 0..100 {
            index += 1;
            store.save(memory(&format!("b{index}"), index));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.close().await;
}

/// Writes without end in a child that is killed, again and again, at moments that differ.
#[test]
fn being_killed_while_writing_loses_neither_the_file_nor_what_was_written() {
    if let Ok(dir) = env::var("DORMOUSE_TEST_KILLED") {
        return on_runtime(write_for_ever(Path::new(&dir)));
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "store::tests::being_killed_while_writing_loses_neither_the_file_nor_what_was_written";
    let mut written = 0;
    for round in 0..30 {
        let mut child = Command::new(exe())
            .args(["--exact", test, "--nocapture"])
            .env("DORMOUSE_TEST_KILLED", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It says so after each write that is surely done; some rounds are killed before the first.
        let wanted = round % 5;
        let mut sure = written;
        for line in lines.by_ref().take_while(|_| wanted > 0).map(Result::unwrap) {
            if let Some(count) = line.strip_prefix("written ") {
                sure = count.parse().unwrap();
                if sure >= written + wanted {
                    break;
                }
            }
        }
        std::thread::sleep(Duration::from_micros(u64::from(round) * 977));
        child.kill().unwrap();
        child.wait().unwrap();
        let (loaded, told) = on_runtime(reopened(dir.path()));
        assert_eq!(told, Vec::<String>::new(), "round {round}");
        let counts: Vec<u32> = loaded.iter().map(|memory| memory.cool_down.unwrap().attempts).collect();
        let count = counts.first().copied().unwrap_or(0);
        assert!(counts.iter().all(|other| *other == count), "round {round}: half a transaction, {counts:?}");
        assert!(count >= sure, "round {round}: {sure} were written, {count} are there");
        written = count;
    }
    assert!(written > 0);
}

async fn write_for_ever(dir: &Path) {
    let (store, told) = Store::open_paced(dir, Duration::ZERO).await.unwrap();
    assert!(told.is_empty());
    let mut count = store.load().first().map_or(0, |memory| memory.cool_down.unwrap().attempts);
    loop {
        count += 1;
        // On this one thread the writer sees all twenty or none.
        for index in 0..20 {
            store.save(memory(&format!("b{index:02}"), count));
        }
        while store.has_changes() {
            tokio::task::yield_now().await;
        }
        // The writer took this one, so it is done with the one before.
        writeln!(std::io::stdout(), "\nwritten {}", count - 1).unwrap();
    }
}

fn exe() -> PathBuf {
    env::current_exe().unwrap()
}

fn on_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
