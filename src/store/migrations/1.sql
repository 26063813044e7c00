-- Times are milliseconds since the Unix epoch, durations are milliseconds.
CREATE TABLE backend (
    id               TEXT PRIMARY KEY,
    idle_for         INTEGER,
    idle_at          INTEGER,
    pinned_until     INTEGER,
    cooling_attempts INTEGER,
    cooling_until    INTEGER,
    put_to_sleep     INTEGER NOT NULL,
    asleep_since     INTEGER,
    asleep_for       INTEGER NOT NULL,
    wakes            INTEGER NOT NULL,
    wakes_day        TEXT NOT NULL,
    wakes_today      INTEGER NOT NULL,
    last_wake_at     INTEGER,
    last_wake_cause  TEXT,
    last_wake_took   INTEGER,
    recent_wakes     TEXT NOT NULL,
    process_pid      INTEGER,
    process_started  INTEGER,
    process_boot     TEXT
) STRICT, WITHOUT ROWID;
