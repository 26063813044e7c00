//! The access log's one writer: lines come through a bounded queue, and who brings one never waits.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use super::{access_file::LogFile, access_obstacle::obstacle};
use crate::model::{AccessFile, AccessOutput};

/// Lines that wait to be written, at most.
const QUEUE: usize = 8192;

/// Bytes of those lines, at most.
const QUEUE_BYTES: usize = 16 << 20;

/// Bytes that are written at once.
const BATCH: usize = 256 << 10;

/// A file that has had no line for so long is closed.
const UNUSED: Duration = Duration::from_secs(60);

/// The same trouble is told again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The way to the writer, which begins with the first line. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct AccessWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: OnceLock<SyncSender<Message>>,
    /// Bytes of the lines in it.
    bytes: Arc<AtomicUsize>,
    /// Lines that were not written.
    dropped: Arc<AtomicU64>,
    failing: Arc<Mutex<Failing>>,
}

/// What could not be written the last time that there were lines for it, by path; none: standard output.
pub(super) type Failing = BTreeMap<Option<PathBuf>, WhyFailing>;

/// Why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WhyFailing {
    pub(super) error: String,
    /// What kept it from being opened can be seen without a line. Of all else only more lines show whether it is over.
    pub(super) is_in_the_way: bool,
}

#[derive(Debug)]
enum Message {
    Line(Arc<AccessOutput>, Vec<u8>),
    /// Everything before it is to be written, and then told.
    Flush(SyncSender<()>),
    /// Somebody may have moved files away.
    Look,
}

impl AccessWriter {
    /// Hands a line over. One for which there is no room is dropped and counted.
    pub fn write(&self, to: &Arc<AccessOutput>, line: Vec<u8>) {
        let (queue, bytes) = (self.queue(), line.len());
        let room = self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= QUEUE_BYTES;
        if !room || queue.try_send(Message::Line(Arc::clone(to), line)).is_err() {
            self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were not written, for want of room in the queue or on the disk.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// What can not be written.
    pub(super) fn failing(&self) -> Failing {
        self.0.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until what was handed over is written, but no longer than this. Blocks.
    pub fn flush(&self, patience: Duration) {
        let Some(queue) = self.0.queue.get() else { return };
        let (done, written) = sync_channel(1);
        let until = Instant::now() + patience;
        while queue.try_send(Message::Flush(done.clone())).is_err() {
            if Instant::now() >= until {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = until.saturating_duration_since(Instant::now());
        if matches!(written.recv_timeout(left), Err(RecvTimeoutError::Timeout)) {
            tracing::warn!("the last lines of the access log could not be written in time");
        }
    }

    /// Has files that were moved away opened anew: lines that are handed over from now on go to the new ones.
    pub fn look(&self) {
        let looks = self.0.queue.get().is_some_and(|queue| queue.try_send(Message::Look).is_ok());
        tracing::debug!(looks, "files of the access log that were moved away are opened anew");
    }

    fn queue(&self) -> &SyncSender<Message> {
        self.0.queue.get_or_init(|| {
            let (queue, lines) = sync_channel(QUEUE);
            let writer = self.writer();
            let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&lines));
            if let Err(error) = thread {
                tracing::error!(%error, "the access log can not be written");
            }
            queue
        })
    }

    fn writer(&self) -> Writer {
        let (dropped, queued) = (Arc::clone(&self.0.dropped), Arc::clone(&self.0.bytes));
        Writer { dropped, queued, failing: Arc::clone(&self.0.failing), ..Writer::default() }
    }
}

#[derive(Debug, Default)]
struct Writer {
    files: HashMap<AccessFile, Sink>,
    stdout: Sink,
    dropped: Arc<AtomicU64>,
    /// For those who ask. A std mutex: held for a change or a copy.
    failing: Arc<Mutex<Failing>>,
    /// Bytes of the lines in the queue.
    queued: Arc<AtomicUsize>,
    /// Of those dropped, how many were told, and when.
    told: (u64, Option<Instant>),
    /// When it was looked at last which files are unused.
    looked: Option<Instant>,
}

/// One place that lines go to.
#[derive(Debug, Default)]
struct Sink {
    file: Option<LogFile>,
    waiting: Vec<u8>,
    lines: u64,
    /// When it had a line last.
    used: Option<Instant>,
    /// It could not be written to, as was told then.
    failing: Option<Instant>,
    /// Why it could not be the last time.
    why: Option<WhyFailing>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>) {
        while let Some(first) = self.next(queue) {
            let mut flushed = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            // What else is there already is written with it.
            while let Some(message) = next {
                match message {
                    Message::Line(to, line) => {
                        bytes += line.len();
                        self.queued.fetch_sub(line.len(), Ordering::Relaxed);
                        self.add(&to, &line);
                    }
                    Message::Flush(done) => flushed.push(done),
                    Message::Look => {
                        self.write();
                        self.look();
                    }
                }
                next = if bytes < BATCH { queue.try_recv().ok() } else { None };
            }
            self.write();
            self.tell_of_dropped();
            self.close_unused(Instant::now());
            for done in flushed {
                let _ = done.try_send(());
            }
        }
    }

    /// What comes next, however long that takes. None when nothing can come any more.
    fn next(&mut self, queue: &Receiver<Message>) -> Option<Message> {
        while !self.files.is_empty() {
            match queue.recv_timeout(UNUSED) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Timeout) => self.close_unused(Instant::now()),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        queue.recv().ok()
    }

    /// Now and then closes what has had no line for long: a reload may have left it without a log, or somebody may have
    /// moved it away. What could not be written is kept, to be told of when it can be again.
    fn close_unused(&mut self, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.looked.is_some_and(|at| since(at) < UNUSED) {
            return;
        }
        self.looked = Some(now);
        self.files.retain(|_, sink| sink.failing.is_some() || sink.used.is_some_and(|used| since(used) < UNUSED));
    }

    /// Opens anew what was moved away. What can not be is told of with its next line.
    fn look(&mut self) {
        for sink in self.files.values_mut() {
            sink.file.take_if(|file| file.look().is_err());
        }
    }

    fn add(&mut self, to: &AccessOutput, line: &[u8]) {
        if to.stdout {
            self.stdout.add(line);
        }
        if let Some(spec) = &to.file {
            if !self.files.contains_key(spec) {
                // Other rules for this file, which are no longer in force; what waits is written under the new ones.
                let mut sink = Sink::default();
                for (_, old) in self.files.extract_if(|known, _| known.path == spec.path) {
                    sink.take_over(old);
                }
                self.files.insert(spec.clone(), sink);
            }
            if let Some(sink) = self.files.get_mut(spec) {
                sink.add(line);
            }
        }
    }

    fn write(&mut self) {
        let mut lost = self.stdout.write(None, |_, lines| {
            let mut out = io::stdout().lock();
            out.write_all(lines)?;
            out.flush()
        });
        for (spec, sink) in &mut self.files {
            lost += sink.write(Some(&spec.path), |file, lines| {
                let file = match file {
                    Some(file) => file,
                    None => file.insert(LogFile::open(spec.clone())?),
                };
                file.write(lines)
            });
        }
        self.tell_of_failing();
        if lost > 0 {
            // Those were told by their sink.
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            self.told.0 += lost;
        }
    }

    fn tell_of_failing(&self) {
        let of_files = self.files.iter().map(|(spec, sink)| (Some(spec.path.clone()), sink));
        let all = of_files.chain([(None, &self.stdout)]);
        let now: Failing = all.filter_map(|(path, sink)| Some((path, sink.why.clone()?))).collect();
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn tell_of_dropped(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let lately = self.told.1.is_some_and(|at| at.elapsed() < TELL_AGAIN);
        if dropped > self.told.0 && !lately {
            let lines = dropped - self.told.0;
            tracing::warn!(lines, "lines of the access log were dropped: they came faster than they could be written");
            self.told = (dropped, Some(Instant::now()));
        }
    }
}

impl Sink {
    fn add(&mut self, line: &[u8]) {
        self.waiting.extend_from_slice(line);
        self.lines += 1;
        self.used = Some(Instant::now());
    }

    /// Takes what waits for the same place, and what was told of it.
    fn take_over(&mut self, old: Self) {
        self.waiting.extend(old.waiting);
        self.lines += old.lines;
        self.failing = self.failing.max(old.failing);
        self.why = self.why.take().or(old.why);
    }

    /// Writes what waits, to a file or standard output. Returns how many lines were lost.
    fn write(&mut self, to: Option<&Path>, write: impl FnOnce(&mut Option<LogFile>, &[u8]) -> io::Result<()>) -> u64 {
        if self.waiting.is_empty() {
            return 0;
        }
        let result = write(&mut self.file, &self.waiting);
        let name = to.unwrap_or(Path::new("standard output")).display();
        let lines = std::mem::take(&mut self.lines);
        self.waiting.clear();
        self.waiting.shrink_to(BATCH);
        match result {
            Ok(()) => {
                self.why = None;
                if self.failing.take().is_some() {
                    tracing::info!(file = %name, "the access log is written again");
                }
                0
            }
            Err(error) => {
                if self.failing.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                    tracing::error!(file = %name, %error, "the access log can not be written: its lines are dropped meanwhile");
                    self.failing = Some(Instant::now());
                }
                let is_open = self.file.as_ref().is_some_and(LogFile::is_at_its_path);
                let is_in_the_way = !is_open && to.and_then(obstacle).is_some();
                self.why = Some(WhyFailing { error: error.to_string(), is_in_the_way });
                lines
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AccessKeep;

    fn output(path: impl Into<std::path::PathBuf>) -> Arc<AccessOutput> {
        Arc::new(AccessOutput { stdout: false, file: Some(AccessFile::new(path)) })
    }

    #[test]
    fn lines_are_written_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, path) = (AccessWriter::default(), folder.path().join("a.log"));
        writer.flush(Duration::from_secs(60));
        for line in 0..1000 {
            writer.write(&output(&path), format!("{line}\n").into_bytes());
        }
        writer.flush(Duration::from_secs(60));
        let expected: String = (0..1000).map(|line| format!("{line}\n")).collect();
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn two_rules_for_one_path_lose_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let one = output(folder.path().join("a.log"));
        let mut other = AccessOutput::clone(&one);
        other.file.as_mut().unwrap().keep = Some(AccessKeep::Count(1));
        let mut writer = Writer::default();
        writer.add(&one, b"one\n");
        writer.add(&other, b"two\n");
        writer.add(&one, b"three\n");
        writer.write();
        assert_eq!(std::fs::read_to_string(folder.path().join("a.log")).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(writer.files.len(), 1);
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, path) = (AccessWriter::default(), folder.path().join("a.log"));
        for _ in 0..3 {
            writer.write(&output("/dev/full"), b"lost\n".to_vec());
            writer.write(&output(&path), b"kept\n".to_vec());
        }
        writer.flush(Duration::from_secs(60));
        assert_eq!(writer.dropped(), 3);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "kept\n".repeat(3));
    }

    /// A writer that writes nothing until it is let go.
    fn held() -> (AccessWriter, impl FnOnce()) {
        let writer = AccessWriter::default();
        let (queue, lines) = sync_channel(QUEUE);
        writer.0.queue.set(queue).unwrap();
        let of_queue = writer.writer();
        let go = move || drop(std::thread::spawn(move || of_queue.run(&lines)));
        (writer, go)
    }

    #[test]
    fn long_lines_wait_up_to_so_many_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let ((writer, go), path) = (held(), folder.path().join("a.log"));
        let mut line = vec![b'x'; 1 << 20];
        line[(1 << 20) - 1] = b'\n';
        for _ in 0..20 {
            writer.write(&output(&path), line.clone());
        }
        assert_eq!(writer.dropped(), 4);
        go();
        writer.flush(Duration::from_secs(60));
        writer.write(&output(&path), line);
        writer.flush(Duration::from_secs(60));
        assert_eq!(writer.dropped(), 4, "there is room again");
        assert_eq!(std::fs::metadata(path).unwrap().len(), 17 << 20);
    }

    #[test]
    fn who_brings_a_line_never_waits() {
        let folder = tempfile::tempdir().unwrap();
        let ((writer, go), path) = (held(), folder.path().join("a.log"));
        let (all_brought, brought) = sync_channel(1);
        let (lines, to) = (writer.clone(), output(&path));
        std::thread::spawn(move || {
            for _ in 0..3 * QUEUE {
                lines.write(&to, b"a\n".to_vec());
            }
            all_brought.send(()).unwrap();
        });
        brought.recv_timeout(Duration::from_secs(60)).expect("nothing is written, and nobody waits for that");
        assert_eq!(writer.dropped(), 2 * QUEUE as u64);
        go();
        writer.flush(Duration::from_secs(60));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "a\n".repeat(QUEUE));
    }

    #[test]
    fn a_file_without_lines_is_closed_and_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let [busy, quiet] = ["busy", "quiet"].map(|name| output(folder.path().join(name)));
        let mut writer = Writer::default();
        let begun = Instant::now();
        writer.close_unused(begun);
        for (to, line) in [(&quiet, b"one\n"), (&busy, b"one\n")] {
            writer.add(to, line);
        }
        writer.add(&output("/dev/full"), b"lost\n");
        writer.write();
        writer.close_unused(begun + UNUSED / 2);
        assert_eq!(writer.files.len(), 3);
        // As if these had had their line a minute ago.
        for sink in writer.files.values_mut() {
            sink.used = Some(begun);
        }
        writer.add(&busy, b"two\n");
        writer.write();
        writer.close_unused(begun + UNUSED);
        let mut open: Vec<_> = writer.files.keys().map(|file| file.path.clone()).collect();
        open.sort();
        assert_eq!(open, ["/dev/full".into(), folder.path().join("busy")]);
        writer.add(&quiet, b"two\n");
        writer.write();
        assert_eq!(std::fs::read_to_string(folder.path().join("quiet")).unwrap(), "one\ntwo\n");
    }
}
