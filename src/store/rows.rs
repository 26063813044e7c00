//! Memories to and from rows.

use std::time::Duration;

use jiff::{Timestamp, civil::Date};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{BackendMemory, CoolDown, IdleSoFar, LastWake, ProcessRecord, WakeMemory};
use crate::{
    model::BackendId,
    telemetry::{WakeDurations, WakesToday},
};

/// What reading gave: the memories, and how many rows made no sense.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) memories: Vec<BackendMemory>,
    pub(super) unreadable: usize,
}

pub(super) async fn read_all(connection: &mut SqliteConnection) -> Result<Read, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM backend ORDER BY id").fetch_all(connection).await?;
    let mut read = Read::default();
    for row in &rows {
        match from_row(row)? {
            Some(memory) => read.memories.push(memory),
            None => read.unreadable += 1,
        }
    }
    Ok(read)
}

pub(super) async fn write(connection: &mut SqliteConnection, memory: &BackendMemory) -> Result<(), sqlx::Error> {
    let (idle, last, process) = (memory.idle, memory.wakes.last.as_ref(), memory.process.as_ref());
    let recent: Vec<String> = memory.wakes.recent.iter().map(|took| millis(took).to_string()).collect();
    let (day, today) = memory.wakes.today.last().unwrap_or_default();
    sqlx::query("INSERT OR REPLACE INTO backend VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")
        .bind(memory.id.to_string())
        .bind(idle.map(|idle| millis(idle.idle)))
        .bind(idle.map(|idle| idle.at.as_millisecond()))
        .bind(memory.pinned_until.map(Timestamp::as_millisecond))
        .bind(memory.cool_down.map(|cool| i64::from(cool.attempts)))
        .bind(memory.cool_down.map(|cool| cool.until.as_millisecond()))
        .bind(i64::from(memory.put_to_sleep))
        .bind(memory.asleep_since.map(Timestamp::as_millisecond))
        .bind(millis(memory.asleep_for))
        .bind(i64::try_from(memory.wakes.total).unwrap_or(i64::MAX))
        .bind(day.to_string())
        .bind(i64::try_from(today).unwrap_or(i64::MAX))
        .bind(last.map(|last| last.at.as_millisecond()))
        .bind(last.map(|last| last.cause.clone()))
        .bind(last.map(|last| millis(last.took)))
        .bind(recent.join(" "))
        .bind(process.map(|process| i64::from(process.pid)))
        .bind(process.map(|process| process.started.cast_signed()))
        .bind(process.map(|process| process.boot.clone()))
        .bind(memory.counted_since.map(Timestamp::as_millisecond))
        .bind(memory.memory.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn delete(connection: &mut SqliteConnection, id: &BackendId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM backend WHERE id = ?").bind(id.to_string()).execute(connection).await?;
    Ok(())
}

/// `None` when a value makes no sense.
fn from_row(row: &SqliteRow) -> Result<Option<BackendMemory>, sqlx::Error> {
    let number = |column: &str| row.try_get::<Option<i64>, _>(column);
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let (idle_for, idle_at) = (number("idle_for")?, number("idle_at")?);
    let pinned = number("pinned_until")?;
    let (attempts, cooling) = (number("cooling_attempts")?, number("cooling_until")?);
    let (put_to_sleep, asleep_since) = (number("put_to_sleep")?, number("asleep_since")?);
    let (asleep_for, wakes, today) = (number("asleep_for")?, number("wakes")?, number("wakes_today")?);
    let (last_at, last_took) = (number("last_wake_at")?, number("last_wake_took")?);
    let (counted, memory) = (number("counted_since")?, number("memory")?);
    let (pid, started) = (number("process_pid")?, number("process_started")?);
    let (id, day, cause) = (text("id")?, text("wakes_day")?, text("last_wake_cause")?);
    let (recent, boot) = (text("recent_wakes")?, text("process_boot")?);

    let read = || -> Option<BackendMemory> {
        Some(BackendMemory {
            id: id?.parse().ok()?,
            idle: both(idle_for, idle_at, |idle, at| Some(IdleSoFar { idle: duration(idle)?, at: moment(at)? }))?,
            pinned_until: maybe(pinned, moment)?,
            cool_down: both(attempts, cooling, |attempts, until| {
                Some(CoolDown { attempts: u32::try_from(attempts).ok()?, until: moment(until)? })
            })?,
            put_to_sleep: put_to_sleep? != 0,
            asleep_since: maybe(asleep_since, moment)?,
            asleep_for: duration(asleep_for?)?,
            counted_since: maybe(counted, moment)?,
            memory: maybe(memory, |bytes| u64::try_from(bytes).ok())?,
            wakes: WakeMemory {
                total: u64::try_from(wakes?).ok()?,
                today: WakesToday::new(day?.parse::<Date>().ok()?, u64::try_from(today?).ok()?),
                last: both(last_at, last_took.zip(cause), |at, (took, cause)| {
                    Some(LastWake { at: moment(at)?, cause, took: duration(took)? })
                })?,
                recent: recent?
                    .split_whitespace()
                    .map(|word| word.parse().ok().map(Duration::from_millis))
                    .collect::<Option<WakeDurations>>()?,
            },
            process: both(pid, started.zip(boot), |pid, (started, boot)| {
                Some(ProcessRecord { pid: u32::try_from(pid).ok()?, started: started.cast_unsigned(), boot })
            })?,
        })
    };
    Ok(read())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn duration(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().map(Duration::from_millis)
}

fn moment(millis: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(millis).ok()
}

/// Absent stays absent; what is there must make sense.
fn maybe<A, T>(value: Option<A>, make: impl FnOnce(A) -> Option<T>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => make(value).map(Some),
    }
}

/// Both absent, or both there and sensible.
fn both<A, B, T>(a: Option<A>, b: Option<B>, make: impl FnOnce(A, B) -> Option<T>) -> Option<Option<T>> {
    match (a, b) {
        (None, None) => Some(None),
        (Some(a), Some(b)) => make(a, b).map(Some),
        (Some(_), None) | (None, Some(_)) => None,
    }
}
