//! Where log lines go: into memory, and on from there by a thread of its own, many at a time.
//!
//! A thread that waited for each single line would have to be woken for each, which costs whoever logs it many times
//! what the line does.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait; further lines are dropped, for no callback waits for whoever reads the log.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// How long a line waits for others.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes for which memory is kept from one time to the next.
const USUAL: usize = 64 * 1024;
/// How long the last lines may take, should nobody read them.
const FAREWELL: Duration = Duration::from_secs(1);

/// Takes lines.
#[derive(Debug)]
pub(super) struct Output(Arc<Shared>);

/// Has the last lines written when it is dropped.
#[must_use = "the last lines are written when it is dropped"]
#[derive(Debug)]
pub struct Guard(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    ending: bool,
    ended: bool,
}

impl Output {
    /// Writes to `target` until the guard is dropped.
    pub(super) fn start(target: impl Write + Send + 'static) -> (Self, Guard) {
        let shared = Arc::new(Shared::default());
        let writing = shared.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writing.write_to(target))
            .expect("a program that starts can have a thread");
        (Self(shared.clone()), Guard(shared))
    }
}

impl<'o> MakeWriter<'o> for Output {
    type Writer = &'o Self;

    fn make_writer(&'o self) -> &'o Self {
        self
    }
}

impl Write for &Output {
    /// Takes one line, or drops it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lines();
        let is_first = lines.waiting.is_empty();
        if lines.waiting.len() + line.len() <= MOST_WAITING {
            lines.waiting.extend_from_slice(line);
        }
        drop(lines);
        if is_first {
            self.0.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what gathers until the end.
    fn write_to(&self, mut target: impl Write) {
        let mut written = Vec::new();
        while self.take(&mut written) {
            // There is nobody whom to tell that nobody listens.
            let _ = target.write_all(&written).and_then(|()| target.flush());
            written.clear();
            written.shrink_to(USUAL);
        }
        self.lines().ended = true;
        self.changed.notify_all();
    }

    /// Exchanges `empty` for lines, once there are some; false at the end.
    fn take(&self, empty: &mut Vec<u8>) -> bool {
        let idle = |lines: &mut Lines| lines.waiting.is_empty() && !lines.ending;
        let lines = self.changed.wait_while(self.lines(), idle);
        let lines = lines.unwrap_or_else(PoisonError::into_inner);
        let more = self
            .changed
            .wait_timeout_while(lines, PAUSE, |lines| !lines.ending);
        let (mut lines, _) = more.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut lines.waiting, empty);
        !empty.is_empty()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut lines = self.0.lines();
        lines.ending = true;
        self.0.changed.notify_all();
        // Whether they were written or not: there is nothing else to try.
        let _ = self
            .0
            .changed
            .wait_timeout_while(lines, FAREWELL, |lines| !lines.ended);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Keeps what is written to it, one batch in a message, and can be held up.
    struct Reader {
        batches: Sender<Vec<u8>>,
        held_up: Arc<Mutex<()>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _free = self.held_up.lock().unwrap();
            self.batches.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn started(held_up: &Arc<Mutex<()>>) -> (Output, Guard, Receiver<Vec<u8>>) {
        let (batches, receiver) = channel();
        let held_up = held_up.clone();
        let (output, guard) = Output::start(Reader { batches, held_up });
        (output, guard, receiver)
    }

    fn log(mut output: &Output, line: &[u8]) {
        output.write_all(line).unwrap();
    }

    #[test]
    fn a_line_is_written_without_another_and_before_the_end() {
        let (output, _guard, batches) = started(&Arc::default());
        for line in [b"a\n", b"b\n"] {
            log(&output, line);
            assert_eq!(batches.recv_timeout(Duration::from_secs(10)).unwrap(), line);
        }
    }

    #[test]
    fn the_last_lines_are_written_before_the_guard_is_gone() {
        let (output, guard, batches) = started(&Arc::default());
        for line in [b"a\n", b"b\n"] {
            log(&output, line);
        }
        drop(guard);
        assert_eq!(batches.try_iter().collect::<Vec<_>>().concat(), b"a\nb\n");
    }

    #[test]
    fn nobody_waits_for_a_reader_and_no_line_is_cut() {
        let held_up = Arc::default();
        let (output, guard, batches) = started(&held_up);
        let free = held_up.lock().unwrap();
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        for _ in 0..3 * MOST_WAITING / line.len() {
            log(&output, &line);
        }
        drop(free);
        drop(guard);
        let written: usize = batches.try_iter().map(|batch| whole_lines(&batch, &line)).sum();
        let bound = MOST_WAITING / line.len();
        assert!((bound..=2 * bound).contains(&written), "{written} lines");
    }

    fn whole_lines(batch: &[u8], line: &[u8]) -> usize {
        assert!(batch.chunks(line.len()).all(|chunk| chunk == line));
        batch.len() / line.len()
    }
}
