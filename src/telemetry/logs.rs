//! Logs: one line for each event on standard error, as text or JSON.

use std::{io::IsTerminal, panic::PanicHookInfo};

use tracing_subscriber::{EnvFilter, fmt, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people; coloured on a terminal only.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// Why logging did not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is no filter.
    #[error("`{text}` is no log filter: write a level such as `debug`, or for example `info,dormouse::proxy=debug`")]
    Filter {
        /// As given.
        text: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something logs already.
    #[error("logging has begun already")]
    Begun(#[from] tracing_subscriber::util::TryInitError),
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is no log format: use `text` or `json`")),
        }
    }
}

/// Begins to log for the whole program, panics too. The filter is a level or directives in the manner of `RUST_LOG`.
pub fn init(filter: &str, format: LogFormat) -> Result<(), LogError> {
    let colours = std::io::stderr().is_terminal();
    subscriber(filter, format, colours, std::io::stderr)?.try_init()?;
    std::panic::set_hook(Box::new(tell_of_panic));
    Ok(())
}

/// A panic ends the task that it happened in, and nothing else. It is a fault of the program, and told as one.
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let what = panic.payload_as_str().unwrap_or("no words");
    tracing::error!(place, thread, "a fault in Dormouse ended one of its tasks: {what}");
}

fn subscriber<W>(
    filter: &str,
    format: LogFormat,
    colours: bool,
    writer: W,
) -> Result<impl tracing::Subscriber + Send + Sync, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let refused = |source| LogError::Filter { text: filter.to_owned(), source };
    // What strangers can make this crate warn of, a line for each frame, is no warning to us; it can be asked for.
    let filter = EnvFilter::builder().parse(format!("h2=error,{filter}")).map_err(refused)?;
    let lines = fmt::layer().with_writer(writer).with_ansi(colours);
    let lines: Box<dyn tracing_subscriber::Layer<_> + Send + Sync> = match format {
        LogFormat::Text => Box::new(lines),
        LogFormat::Json => Box::new(lines.json().flatten_event(true)),
    };
    Ok(tracing_subscriber::registry().with(filter).with(lines))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use super::*;
    use crate::{
        model::Cause,
        telemetry::{Happening, Journal},
    };

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat) -> String {
        logged_by(filter, format, || {
            tracing::info!(backend = "local/a", "woke");
            tracing::debug!("looked again");
        })
    }

    fn logged_by(filter: &str, format: LogFormat, act: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(filter, format, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, act);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn the_filter_chooses_and_text_has_no_colours() {
        let text = logged("info", LogFormat::Text);
        assert!(text.contains("woke") && text.contains("local/a"), "{text}");
        assert!(!text.contains("looked again") && !text.contains('\u{1b}'), "{text}");
        assert!(logged("dormouse=debug", LogFormat::Text).contains("looked again"));
        assert_eq!(logged("error", LogFormat::Text), "");
    }

    #[test]
    fn json_is_one_object_for_each_line() {
        let text = logged("debug", LogFormat::Json);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!((&lines[0]["message"], &lines[0]["backend"]), (&"woke".into(), &"local/a".into()));
    }

    #[test]
    fn a_wake_that_failed_is_a_warning_and_one_that_begins_is_none() {
        let text = logged_by("info", LogFormat::Json, || {
            let (journal, app) = (Journal::default(), "local/a".parse().unwrap());
            let failed = Happening::WakeFailed { why: "no".to_owned(), retry_after: Duration::ZERO };
            journal.record(Some(&app), Happening::Waking, Cause::Schedule);
            journal.record(Some(&app), failed, Cause::Schedule);
        });
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: Vec<_> = lines.iter().map(|line| (&line["level"], &line["message"], &line["backend"])).collect();
        let app = &"local/a".into();
        assert_eq!(told, [(&"INFO".into(), &"wakes".into(), app), (&"WARN".into(), &"did not wake: no".into(), app)]);
    }

    #[test]
    fn a_panic_is_one_line_of_the_log_with_its_place() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber("info", LogFormat::Json, false, move || writer.clone()).unwrap();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(tell_of_panic));
        let line = line!() + 1;
        let fault = || tracing::subscriber::with_default(subscriber, || panic!("off by one"));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fault));
        std::panic::set_hook(before);
        assert!(ended.is_err());
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        let place = format!("{}:{line}:", file!());
        assert!(told["place"].as_str().is_some_and(|told| told.starts_with(&place)), "{text}");
        assert_eq!(told["message"], "a fault in Dormouse ended one of its tasks: off by one");
        assert_eq!(told["level"], "ERROR");
    }

    #[test]
    fn a_bad_filter_says_what_to_write() {
        let Err(error) = subscriber("dormouse=loud", LogFormat::Text, false, std::io::sink) else {
            panic!("it was taken")
        };
        assert!(error.to_string().starts_with("`dormouse=loud` is no log filter"), "{error}");
    }
}
