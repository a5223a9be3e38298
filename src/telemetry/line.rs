//! A log line without colours: the text of `tracing_subscriber`'s compact format, at less than half its cost, since every
//! callback is a line.
//!
//! What is common is written here. All else is left to that crate: spans, errors with their sources, texts with
//! something to escape.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::format::{Compact, DefaultVisitor, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// Writes an event as a line.
#[derive(Debug)]
pub(super) struct Line {
    compact: Format<Compact>,
}

impl Line {
    pub(super) fn new() -> Self {
        Self {
            compact: Format::default().compact().with_target(false).with_ansi(false),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if context.event_scope().is_some() {
            return self.compact.format_event(context, line, event);
        }
        write_time(&mut line)?;
        line.write_str(match *event.metadata().level() {
            Level::ERROR => " ERROR ",
            Level::WARN => "  WARN ",
            Level::INFO => "  INFO ",
            Level::DEBUG => " DEBUG ",
            Level::TRACE => " TRACE ",
        })?;
        context.format_fields(line.by_ref(), event)?;
        line.write_char('\n')
    }
}

/// The time in UTC, in microseconds.
fn write_time(line: &mut Writer<'_>) -> fmt::Result {
    thread_local! {
        /// The latest second since 1970, and how it is written.
        static LATEST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let now = clock::since_1970();
    LATEST.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() {
            *second = now.as_secs();
            *text = clock::rfc3339(clock::millis(now));
            text.truncate("2026-11-21T18:07:26".len());
        }
        write!(line, "{text}.{:06}Z", now.subsec_micros())
    })
}

/// Writes the fields of an event, and of spans.
#[derive(Debug)]
pub(super) struct LineFields;

impl<'w> FormatFields<'w> for LineFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldVisitor {
            line: writer,
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct FieldVisitor<'w> {
    line: Writer<'w>,
    is_first: bool,
    result: fmt::Result,
}

impl FieldVisitor<'_> {
    /// Writes a field, unless one before it failed.
    fn field(&mut self, field: &Field, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let is_first = std::mem::take(&mut self.is_first);
        self.result = self.result.and_then(|()| {
            if !is_first {
                self.line.write_char(' ')?;
            }
            if field.name() != MESSAGE {
                let name = field.name();
                self.line.write_str(name.strip_prefix("r#").unwrap_or(name))?;
                self.line.write_char('=')?;
            }
            write(&mut self.line)
        });
    }

    /// Has a field written by the crate.
    fn other(&mut self, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        let is_first = std::mem::take(&mut self.is_first);
        self.result = self.result.and_then(|()| {
            let mut visitor = DefaultVisitor::new(self.line.by_ref(), is_first);
            record(&mut visitor);
            visitor.finish()
        });
    }
}

/// The field that has no name in a line.
const MESSAGE: &str = "message";

/// Whether nobody would escape any of `text`, neither in quotes nor against terminals.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

impl Visit for FieldVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE || !is_plain(value) {
            return self.other(|visitor| visitor.record_str(field, value));
        }
        self.field(field, |line| {
            line.write_char('"')?;
            line.write_str(value)?;
            line.write_char('"')
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |line| write!(line, "{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.other(|visitor| visitor.record_error(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == MESSAGE {
            self.field(field, |line| write!(Sanitised { line, field }, "{value:?}"));
        } else {
            self.field(field, |line| write!(line, "{value:?}"));
        }
    }
}

/// Passes on a message without what could deceive a terminal.
struct Sanitised<'l, 'w> {
    line: &'l mut Writer<'w>,
    field: &'l Field,
}

impl fmt::Write for Sanitised<'_, '_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if is_plain(piece) {
            return self.line.write_str(piece);
        }
        let mut visitor = DefaultVisitor::new(self.line.by_ref(), true);
        visitor.record_str(self.field, piece);
        visitor.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// What was logged.
    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Lines {
        /// The lines, with nought in the place of every digit of their times.
        fn text(&self) -> String {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let lines = text.lines().map(|line| {
                let (time, rest) = line
                    .split_at_checked("2026-11-21T18:07:26.250000Z".len())
                    .unwrap_or((line, ""));
                time.replace(|c: char| c.is_ascii_digit(), "0") + rest + "\n"
            });
            lines.collect()
        }
    }

    fn log() {
        let missing: Option<&str> = None;
        let cause = io::Error::other("c\u{1b}ause");
        let outer = io::Error::other(toml::from_str::<toml::Table>("=").unwrap_err());
        tracing::error!(error = &cause as &(dyn std::error::Error + 'static), "a {}", "b");
        tracing::warn!(error = &outer as &(dyn std::error::Error + 'static), "outer");
        tracing::info!(
            source = "kie",
            task.id = Some("t1"),
            reason = missing,
            n = 3_usize,
            "callback {}",
            "new"
        );
        tracing::info!(
            a = "quo\"te",
            b = "back\\slash",
            c = "é\n\u{1b}[31m",
            d = "",
            e = "'",
            "m"
        );
        tracing::debug!(%cause, debug = ?cause, yes = true, less = -1, more = 1.5, r#type = "x", r#move = 1_u64);
        tracing::trace!("\u{1b}[31m\u{7f}é\n \u{9b} {}\"\\", "a\u{7}b");
        tracing::info!(late = 1, message = "said \u{1b}");
        tracing::info!(empty = "");
        let span = tracing::info_span!("outside", task = "t1", n = 1);
        span.in_scope(|| tracing::info!("inside"));
        tracing::info!(parent: &span, a = 1, "beside");
    }

    #[test]
    fn lines_are_those_of_the_compact_format() {
        let (ours, theirs) = (Lines::default(), Lines::default());
        let lines = || {
            tracing_subscriber::fmt()
                .with_max_level(Level::TRACE)
                .with_ansi(false)
        };
        let compact = lines().compact().with_target(false).with_writer(theirs.clone());
        tracing::subscriber::with_default(compact.finish(), log);
        let plain = lines()
            .event_format(Line::new())
            .fmt_fields(LineFields)
            .with_writer(ours.clone());
        tracing::subscriber::with_default(plain.finish(), log);
        let expected = "0000-00-00T00:00:00.000000Z  INFO callback new source=\"kie\" task.id=\"t1\" n=3\n";
        assert!(ours.text().contains(expected), "{}", ours.text());
        assert_eq!(ours.text(), theirs.text());
    }
}
