//! What a run tells on stderr while it lasts.

use std::cell::Cell;
use std::time::Instant;

/// Steps done, and how long the rest may take.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    /// Seconds that all steps were planned to take.
    planned: f64,
    /// Those of the steps that are done.
    done: Cell<f64>,
}

impl Progress {
    pub(crate) fn new(planned: f64) -> Self {
        Self {
            began: Instant::now(),
            planned,
            done: Cell::new(0.0),
        }
    }

    /// A step that was planned to take `planned` seconds is done; `text` says what it showed.
    pub(crate) fn step(&self, planned: f64, text: &str) {
        self.done.set(self.done.get() + planned);
        // The machine may be slower than planned: the rest is then taken to be so as well.
        let pace = self.began.elapsed().as_secs_f64() / self.done.get().max(0.1);
        let left = (self.planned - self.done.get()).max(0.0) * pace;
        eprintln!(
            "[{:3.0} %, {:>7} left] {text}",
            100.0 * (self.done.get() / self.planned).min(1.0),
            rounded(left)
        );
    }

    /// Something that is no step of its own.
    pub(crate) fn note(text: &str) {
        eprintln!("{text}");
    }
}

fn rounded(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{:.0} s", (seconds / 10.0).round() * 10.0)
    } else {
        format!("{:.0} min", (seconds / 60.0).round())
    }
}
