//! How far a backfill is: a bar on a terminal, else a line every now and then.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::super::Session;

/// How often a line is written where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Drawn on standard error.
pub(super) struct Progress {
    bar: ProgressBar,
    total: u64,
    line_at: Instant,
    /// When answers were first looked for, and how many tasks were settled then.
    began: Option<(Instant, u64)>,
}

impl Progress {
    pub(super) fn of(total: usize) -> anyhow::Result<Self> {
        let template = "{bar:24} {pos} of {len} {wide_msg}";
        let total = total as u64;
        Ok(Self {
            bar: ProgressBar::new(total).with_style(ProgressStyle::with_template(template)?),
            total,
            line_at: Instant::now() + LINE_EVERY,
            began: None,
        })
    }

    /// So many were announced.
    pub(super) fn announced(&mut self, count: u64, session: &mut Session) {
        self.show(count, "announced", session);
    }

    /// So many are settled; why others wait.
    pub(super) fn settled(&mut self, count: u64, waits: Option<&str>, session: &mut Session) {
        let now = Instant::now();
        // What was known before says nothing of how fast answers come.
        let (began, at_first) = *self.began.get_or_insert((now, count));
        let came = count.saturating_sub(at_first);
        let pace = pace(came, now - began, self.total - count);
        let waits = waits.map(|waits| format!(" ({waits})")).unwrap_or_default();
        self.show(count, &format!("settled{pace}{waits}"), session);
    }

    fn show(&mut self, count: u64, what: &str, session: &mut Session) {
        self.bar.set_message(what.to_owned());
        self.bar.set_position(count);
        let now = Instant::now();
        if self.bar.is_hidden() && now >= self.line_at {
            session.note(&format!("{count} of {} {what}", self.total));
            self.line_at = now + LINE_EVERY;
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// `, 9.8/s, 1m 40s left`; nothing while none came.
fn pace(came: u64, took: Duration, left: u64) -> String {
    if came == 0 || took.is_zero() {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
    let (came, left) = (came as f64, left as f64);
    let rate = came / took.as_secs_f64();
    let left = Duration::try_from_secs_f64(left / rate).unwrap_or(Duration::MAX);
    let left = Duration::from_secs(left.as_secs());
    let left = jiff::fmt::friendly::SpanPrinter::new().unsigned_duration_to_string(&left);
    format!(", {rate:.1}/s, {left} left")
}
