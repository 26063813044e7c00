//! The database file: made whole, looked at before it is trusted, moved aside when it is no good.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::rows::{self, Read};
use crate::model::{Place, Problem};

/// The steps from nothing to the present form of the database; `user_version` counts those that are done.
const MIGRATIONS: [&str; 2] = [include_str!("migrations/1.sql"), include_str!("migrations/2.sql")];

/// Marks the file as ours.
const APPLICATION_ID: u32 = 0x444f_524d;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// It is damaged, or not ours: it goes aside.
    #[error("{0}")]
    Broken(String),
    /// The place does not let us work: it stays where it is.
    #[error("{0}")]
    Place(String),
}

/// Makes the directory, for nobody else to read. One that is there already is left as it is.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A warning when others may write to the directory.
pub(super) fn open_to_others(dir: &Path) -> Option<Problem> {
    let mode = fs::metadata(dir).ok()?.permissions().mode();
    (mode & 0o022 != 0).then(|| {
        Problem::warning(place(dir), format!("other users may write to the state directory (mode {:o})", mode & 0o7777))
            .with_hint("make it writable for its owner only: `chmod go-w`")
    })
}

/// Opens the file, or makes it when there is none, and reads it.
pub(super) async fn open(path: &Path) -> Result<(SqliteConnection, Read), Unusable> {
    if !path.try_exists().map_err(|error| Unusable::Place(error.to_string()))? {
        create(path).await?;
    }
    check_header(path)?;
    let mut connection = options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("wal_autocheckpoint", "200")
        .connect()
        .await
        .map_err(|error| sort(&error))?;
    match look(&mut connection).await {
        Ok(read) => Ok((connection, read)),
        Err(why) => {
            // Closed before the file is moved: the last connection writes its log back.
            let _ = connection.close_hard().await;
            Err(why)
        }
    }
}

/// Looks at the first bytes before SQLite does, which takes a very short file for a new one and writes to it, and does
/// not mind when the last page is not whole.
fn check_header(path: &Path) -> Result<(), Unusable> {
    let mut header = Vec::with_capacity(100);
    let length = File::open(path)
        .and_then(|file| {
            let length = file.metadata()?.len();
            file.take(100).read_to_end(&mut header)?;
            Ok(length)
        })
        .map_err(|error| Unusable::Place(error.to_string()))?;
    let broken = |why: &str| Err(Unusable::Broken(why.to_owned()));
    let Some(Header { application_id, length: expected }) = Header::parse(&header) else {
        return broken(if header.len() < 100 { "it is cut short" } else { "it is not a database" });
    };
    // What is missing may be in the log, when there is one.
    let has_log = fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    if application_id != APPLICATION_ID {
        broken("it was made by another program")
    } else if length < expected && !has_log {
        broken("it is cut short")
    } else {
        Ok(())
    }
}

/// The parts of SQLite's file header that are looked at.
struct Header {
    application_id: u32,
    /// Of the whole file in bytes.
    length: u64,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let page = u16::from_be_bytes(bytes.get(16..18)?.try_into().ok()?);
        // 1 stands for the size that does not fit.
        let page = if page == 1 { 65536 } else { u64::from(page) };
        let ours = bytes.len() >= 100 && bytes.starts_with(b"SQLite format 3\0");
        ours.then_some(Self { application_id: number(68)?, length: page * u64::from(number(28)?) })
    }
}

/// Checks that the file is whole, brings it to the present form and reads all of it.
async fn look(connection: &mut SqliteConnection) -> Result<Read, Unusable> {
    let found: String = sqlx::query_scalar("PRAGMA integrity_check(1)")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| sort(&error))?;
    if found != "ok" {
        return Err(Unusable::Broken(found.replace('\n', " ")));
    }
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(|error| sort(&error))?;
    let known = MIGRATIONS.len();
    match usize::try_from(version) {
        Ok(version) if version <= known => migrate(connection, version).await.map_err(|error| sort(&error))?,
        Ok(_) | Err(_) => {
            return Err(Unusable::Broken(format!(
                "it is of version {version}, written by a newer dormouse; this one knows versions up to {known}"
            )));
        }
    }
    rows::read_all(connection).await.map_err(|error| sort(&error))
}

/// Makes a new file under another name and gives it its own name when it is whole, so that being killed meanwhile
/// never leaves half a database behind.
async fn create(path: &Path) -> Result<(), Unusable> {
    let unfinished = beside(path, ".new");
    let prepare = || -> io::Result<()> {
        for leftover in [unfinished.clone(), beside(&unfinished, "-journal")] {
            match fs::remove_file(leftover) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        // The log files beside it get the same mode from SQLite.
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map(drop)
    };
    prepare().map_err(|error| Unusable::Place(error.to_string()))?;
    let fill = async {
        let mut connection =
            options(&unfinished).pragma("application_id", APPLICATION_ID.to_string()).connect().await?;
        migrate(&mut connection, 0).await?;
        connection.close().await
    };
    fill.await.map_err(|error: sqlx::Error| Unusable::Place(error.to_string()))?;
    fs::rename(&unfinished, path).map_err(|error| Unusable::Place(error.to_string()))
}

async fn migrate(connection: &mut SqliteConnection, done: usize) -> Result<(), sqlx::Error> {
    for (index, step) in MIGRATIONS.iter().enumerate().skip(done) {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
        let version = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", index + 1));
        sqlx::raw_sql(version).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    Ok(())
}

/// Moves the file and its logs aside. Returns the new name.
pub(super) fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ").to_string();
    let aside = beside(path, &format!(".broken-{time}"));
    for log in ["-wal", "-shm"] {
        match fs::rename(beside(path, log), beside(&aside, log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(path, &aside)?;
    Ok(aside)
}

pub(super) fn place(path: &Path) -> Place {
    Place::File { path: path.display().to_string().into(), line: None, column: None }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Tells damage from a place that does not let us work. What is neither is taken for damage: the file goes aside and
/// nothing is lost.
fn sort(error: &sqlx::Error) -> Unusable {
    // SQLite's result codes: perm, busy, locked, read-only, I/O error, full, can't open.
    const PLACE: [i32; 7] = [3, 5, 6, 8, 10, 13, 14];
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
    match code {
        Some(code) if PLACE.contains(&(code & 0xff)) => Unusable::Place(error.to_string()),
        Some(_) | None => Unusable::Broken(error.to_string()),
    }
}
