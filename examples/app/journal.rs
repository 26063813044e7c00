//! What happens, as tests read it afterwards.

use std::{
    fs,
    io::{self, Write},
    process,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    options::{Options, time},
    system,
};

/// Requests in hand. What is answered in one piece is put down before it is answered: the client may know the answer
/// before this program runs on.
static IN_HAND: AtomicU64 = AtomicU64::new(0);

/// A request in hand, until it is dropped.
pub(crate) struct InHand;

impl InHand {
    pub(crate) fn take() -> Self {
        IN_HAND.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        IN_HAND.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A line in the journal, if one is kept.
pub(crate) fn note(options: &Options, what: &str) {
    let Some(path) = options.get("journal") else { return };
    let line = format!("{} {} {what}\n", now(), process::id());
    let file = fs::File::options().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("app: {path}: {error}");
    }
}

/// Does what the options say when a signal comes.
pub(crate) fn watch_signals(options: &Options) {
    let ignore = options.contains_key("ignore-term");
    let delay = time(options, "term-delay");
    let file = options.get("term-file").cloned();
    let options = options.clone();
    system::hold_back_signals();
    thread::spawn(move || {
        loop {
            let signal = system::next_signal();
            let name = match signal {
                system::SIGTERM => "TERM",
                system::SIGINT => "INT",
                _ => "HUP",
            };
            say(&format!("got {name}"));
            if signal == system::SIGTERM {
                note(&options, &format!("term {}", IN_HAND.load(Ordering::SeqCst)));
            }
            if signal == system::SIGHUP || (ignore && signal == system::SIGTERM) {
                continue;
            }
            if let Some(file) = &file
                && let Err(error) = fs::write(file, format!("got {name}\n"))
            {
                eprintln!("app: {file}: {error}");
            }
            thread::sleep(delay);
            process::exit(0);
        }
    });
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// A line in the log.
pub(crate) fn say(text: &str) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}
