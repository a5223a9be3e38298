//! What the store counts, for those who watch.

use std::time::Duration;

use crate::telemetry::{Counter, Histogram};

/// Upper bounds of the buckets of commands in a transaction.
const COMMANDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Of the microseconds that a transaction takes.
const MICROS: &[u64] = &[
    100, 200, 350, 500, 750, 1_000, 2_000, 3_500, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// What the writer did since the start.
#[derive(Debug)]
pub struct Meters {
    /// Commands that were committed together.
    pub batches: Histogram,
    /// How long that took, from the beginning of the transaction to the return of its commit.
    pub commits: Histogram,
    /// Commands that failed because the database did.
    pub failed: Counter,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            batches: Histogram::of_numbers(COMMANDS),
            commits: Histogram::of_durations(MICROS),
            failed: Counter::default(),
        }
    }

    pub(super) fn committed(&self, commands: usize, took: Duration) {
        self.batches.observe(commands as u64);
        self.commits.observe_duration(took);
    }
}
