//! Tests for which this machine lacks something.

use std::{fs::File, io::Write};

/// Says that the calling test is not run. Where a variable of this name does not allow that, the test fails, so that
/// nobody takes it for passed; where `DORMOUSE_TEST_NOT_RUN` names a file, it is noted there, so that it is not counted.
pub(crate) fn not_run(allowed_by: &str, what: &str) {
    assert!(std::env::var_os(allowed_by).is_some(), "this test needs {what}, or {allowed_by}=1 to be left out");
    let thread = std::thread::current();
    let line = format!("{}: it needs {what}", thread.name().unwrap_or("a test"));
    println!("NOT RUN: {line}");
    if let Some(path) = std::env::var_os("DORMOUSE_TEST_NOT_RUN") {
        let mut notes = File::options().create(true).append(true).open(path).expect("the notes of what was not run");
        writeln!(notes, "{line}").expect("the notes of what was not run");
    }
}
