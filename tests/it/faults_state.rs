//! What is kept on disk, damaged, and Dormouse killed while it writes there or serves.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, get},
    history::{Dice, History},
    wait::until,
};

type Damage = fn(&Path, u64);

fn cut(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// What is done to the file, given its length.
const DAMAGES: [(&str, Damage); 8] = [
    ("empty", |path, _| cut(path, 0)),
    ("one byte", |path, _| cut(path, 1)),
    ("half a header", |path, _| cut(path, 50)),
    ("half", |path, length| cut(path, length / 2)),
    ("all but the last byte", |path, length| cut(path, length - 1)),
    ("zeroed", |path, length| fs::write(path, vec![0; length as usize]).unwrap()),
    ("another file", |path, _| fs::write(path, "# no database\n".repeat(500)).unwrap()),
    ("newer", |path, _| {
        // The version of the form, in the header of the file.
        use std::os::unix::fs::FileExt;
        fs::File::options().write(true).open(path).unwrap().write_all_at(&99_u32.to_be_bytes(), 60).unwrap();
    }),
];

fn state_file(dormouse: &Dormouse) -> PathBuf {
    let is_database = |path: &Path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3"));
    let entries = fs::read_dir(dormouse.state_dir()).unwrap().map(|entry| entry.unwrap().path());
    entries
        .into_iter()
        .find(|path| path.extension().is_some_and(|end| end == "db" || end == "sqlite") && is_database(path))
        .unwrap_or_else(|| {
            panic!("no state file: {:?}", fs::read_dir(dormouse.state_dir()).unwrap().collect::<Vec<_>>())
        })
}

#[tokio::test]
async fn a_state_directory_that_others_may_write_to_is_a_warning_of_the_log() {
    use std::os::unix::fs::PermissionsExt;
    let app = App::new("app");
    let mut dormouse = Dormouse::start(&config(&[&app])).await;
    dormouse.end().await;
    fs::set_permissions(dormouse.state_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    dormouse.start_again().await;
    let log = dormouse.log();
    let line = log.lines().find(|line| line.contains("other users may write")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(" WARN ") && !line.contains("ERROR") && !line.contains("warning:"), "{line}");
}

#[tokio::test]
async fn a_damaged_state_file_is_told_loudly_and_keeps_nothing_down() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut dormouse = Dormouse::start(&config(&[&app])).await;
    for (name, damage) in DAMAGES {
        assert_eq!(dormouse.get("app", "/").await.status, 200);
        dormouse.end().await;
        let file = state_file(&dormouse);
        damage(&file, fs::metadata(&file).unwrap().len());
        let told = dormouse.log().len();
        dormouse.start_again().await;
        assert_eq!(dormouse.get("app", "/").await.status, 200, "{name}");
        let log = dormouse.log().split_off(told);
        let line = log.lines().find(|line| line.contains("ERROR") && line.contains(file.to_str().unwrap()));
        println!("{name}: {}", line.unwrap_or_else(|| panic!("{name} was not told:\n{log}")));
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let apps: Vec<App> = (0..4).map(|number| App::new(&format!("app{number}")).idle("idle_timeout: 1h")).collect();
    let mut dormouse = Dormouse::start(&config(&apps.iter().collect::<Vec<_>>())).await;
    let mut dice = Dice::new();
    // Each kill costs a start of the program: all of them only where a test may take long.
    let rounds = if std::env::var_os("DORMOUSE_TEST_LONG").is_some() { 200 } else { 20_u64 };
    for round in 0..rounds {
        let name = &apps[dice.below(4) as usize].name;
        let until = format!("2031-01-{:02}T{:02}:{:02}:00Z", 1 + dice.below(28), round / 60, round % 60);
        let body = format!("{{\"until\":\"{until}\"}}");
        let answer = dormouse.api_with("POST", &format!("/api/v1/backends/jobs/{name}/pin"), &body).await;
        assert_eq!(answer["result"], "done", "{answer}");
        tokio::time::sleep(dice.time(Duration::from_millis(20))).await;
        dormouse.kill();
        dormouse.start_again().await;
        let told = dormouse.api("GET", &format!("/api/v1/backends/jobs/{name}")).await;
        assert_eq!(told["pinned_until"], until.as_str(), "round {round}: an acknowledged pin was lost");
    }
}

#[tokio::test]
async fn what_is_known_is_kept_before_the_last_requests_have_ended() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut dormouse = Dormouse::start_in(&config(&[&app]), &[("DORMOUSE_LOG", "debug")]).await;
    let wakes = async |dormouse: &Dormouse| {
        let told = dormouse.api("GET", "/api/v1/backends/jobs/app").await;
        told["wakes"]["count"].as_u64().unwrap_or_else(|| panic!("no number of wakes in {told}"))
    };
    let http = dormouse.http;
    let mut last = tokio::spawn(async move { get(http, "app", "/slow?ms=60000", "").await });
    dormouse.reaches("app", "awake").await;
    dormouse.signal(libc::SIGTERM);
    let is_kept = |log: &String| log.contains("what is known of the backends has been kept");
    until("what is known is kept", async || dormouse.log(), is_kept).await;
    assert!(!last.is_finished(), "it should still be under way");
    dormouse.kill();
    (&mut last).await.unwrap().unwrap_err();
    dormouse.start_again().await;
    assert_eq!(wakes(&dormouse).await, 1);
}

#[tokio::test]
async fn killed_under_load_it_is_back_at_once_and_ends_or_starts_nothing_that_runs() {
    let apps: Vec<App> = (0..3).map(|number| App::new(&format!("app{number}")).idle("idle_timeout: 10s")).collect();
    let mut dormouse = Dormouse::start(&config(&apps.iter().collect::<Vec<_>>())).await;
    for app in &apps {
        assert_eq!(dormouse.get(&app.name, "/").await.status, 200);
    }
    let history = History::new(dormouse.http);
    for round in 0..5 {
        let load = futures_util::future::join_all((0..60).map(|number| {
            let (history, app) = (&history, &apps[number % 3]);
            async move { history.ask(app, if number % 2 == 0 { "GET" } else { "POST" }).await }
        }));
        load.await;
        // Those in flight at the kill are cut: nobody is left to answer them.
        let mut cut = tokio::task::JoinSet::new();
        for number in 0..30 {
            let (at, name) = (dormouse.http, apps[number % 3].name.clone());
            cut.spawn(async move { get(at, &name, "/slow?ms=200", "").await });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = std::time::Instant::now();
        dormouse.kill();
        cut.shutdown().await;
        dormouse.start_again().await;
        let ask = async || dormouse.get("app0", "/").await.status;
        until("an answer", ask, |status| *status == 200).await;
        println!("round {round}: answers {:?} after the kill", begun.elapsed());
    }
    history.check(&apps.iter().collect::<Vec<_>>(), &[]);
    for app in &apps {
        assert_eq!((app.journal().starts(), app.journal().ends()), (1, 0), "{} was touched", app.name);
    }
}
