//! `events`: the journal, line by line.

use std::time::Duration;

use http_body_util::BodyExt;
use jiff::{Timestamp, tz::TimeZone};

use super::{
    arguments::Events,
    client::{Client, segment},
    output::{Output, Tone, complain},
    trouble::Trouble,
};
use crate::api::wire;

/// The pause before a broken stream is taken up again.
const AGAIN: Duration = Duration::from_secs(1);

/// Prints the kept events, and new ones as they come when asked to follow.
pub(super) async fn events(options: &Events, client: &Client, output: &Output) -> Result<(), Trouble> {
    let mut query = format!("follow={}", options.follow);
    if let Some(name) = &options.name {
        query.push_str("&backend=");
        query.push_str(&segment(name));
    }
    let path = format!("/api/v1/events?{query}");
    let mut last: Option<String> = None;
    let (mut seen_any, mut told) = (false, false);
    loop {
        match read(&path, &mut last, &mut told, options, client, output).await {
            Err(trouble @ Trouble::Failed(_)) if !(options.follow && seen_any) => return Err(trouble),
            Err(trouble @ (Trouble::Wrong(_) | Trouble::Told(_) | Trouble::Closed)) => return Err(trouble),
            Ok(()) if !options.follow => return Ok(()),
            // A stream that was open has broken off: the program is restarted, perhaps.
            Ok(()) | Err(Trouble::Failed(_)) => seen_any = true,
        }
        if !std::mem::replace(&mut told, true) {
            complain("Dormouse has ended the stream; waiting for it to come back (Ctrl-C ends this)");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn read(
    path: &str,
    last: &mut Option<String>,
    told: &mut bool,
    options: &Events,
    client: &Client,
    output: &Output,
) -> Result<(), Trouble> {
    let mut body = client.stream(path, last.as_deref()).await?;
    if std::mem::take(told) {
        complain("it is back");
    }
    let mut buffer = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            if let Some(id) = line.strip_prefix("id: ") {
                *last = Some(id.to_owned());
            } else if let Some(json) = line.strip_prefix("data: ").or((!options.follow).then_some(line)) {
                print(json, options.output.json, output)?;
            }
        }
    }
    Ok(())
}

fn print(json: &str, as_json: bool, output: &Output) -> Result<(), Trouble> {
    if json.is_empty() {
        return Ok(());
    }
    if as_json {
        return output.line(json);
    }
    let event: wire::Event = serde_json::from_str(json)
        .map_err(|error| Trouble::Failed(format!("the answer is not understood: {error}")))?;
    output.line(&in_words(&event, output))
}

fn in_words(event: &wire::Event, output: &Output) -> String {
    let at = event.at.parse::<Timestamp>().map_or_else(
        |_| event.at.clone(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    );
    let tone = match event.what.as_str() {
        "woke" | "found_running" => Tone::Good,
        "wake_failed" | "sleep_failed" | "ended" | "gone" => Tone::Bad,
        "slept" => Tone::Quiet,
        _ => Tone::Plain,
    };
    let subject = event.backend.as_ref().map_or_else(String::new, |backend| format!("{backend} "));
    let cause = output.paint(&format!("({})", event.cause.text), Tone::Quiet);
    format!("{}  {subject}{}  {cause}", output.paint(&at, Tone::Quiet), output.paint(&event.text, tone))
}
