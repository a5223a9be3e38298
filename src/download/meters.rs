//! What downloads count, for those who watch.

use std::sync::Arc;
use std::time::Duration;

use super::failure::FetchError;
use crate::clock::Clock;
use crate::store::downloads::Settlement;
use crate::telemetry::{Beat, Counter, Counts, Histogram, Pulse};

/// Upper bounds of the buckets of microseconds that an attempt takes.
const MICROS: &[u64] = &[
    10_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
];

/// The codes of failures, as [`FetchError::code`] says them.
const CODES: &[&str] = &[
    "blocked",
    "expired",
    "http_status",
    "internal",
    "local",
    "network",
    "not_media",
    "stalled",
    "too_large",
    "truncated",
    "other",
];

/// Counts what downloads bring and how they end. Cheap to clone; clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Meters {
    pulse: Pulse,
    clock: Clock,
    counted: Arc<Counted>,
}

/// What downloads did since the start.
#[derive(Debug)]
pub struct Counted {
    /// Bytes that came from hosts, of files that did not get whole, too.
    pub received: Counter,
    /// Bytes of files that were stored.
    pub stored: Counter,
    /// Attempts that failed, by the code of the failure.
    pub failures: Counts,
    /// Failures of the storage among them.
    pub storage_failures: Counter,
    /// How long attempts took, by how they ended.
    pub attempts: Attempts,
}

/// How long attempts took, by how they ended.
#[derive(Debug)]
pub struct Attempts([(&'static str, Histogram); 6]);

impl Default for Counted {
    fn default() -> Self {
        let attempts = ["stored", "retry", "expired", "released", "failed", "lost"];
        Self {
            received: Counter::default(),
            stored: Counter::default(),
            failures: Counts::of(CODES),
            storage_failures: Counter::default(),
            attempts: Attempts(attempts.map(|ended| (ended, Histogram::of_durations(MICROS)))),
        }
    }
}

impl Attempts {
    /// Each way to end, with the durations of the attempts that ended so.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        self.0.iter().map(|(ended, durations)| (*ended, durations))
    }

    fn observe(&self, how: &str, took: Duration) {
        if let Some((_, durations)) = self.0.iter().find(|(ended, _)| *ended == how) {
            durations.observe_duration(took);
        }
    }
}

impl Meters {
    /// Counts into `pulse`, too.
    pub fn new(pulse: Pulse, clock: Clock) -> Self {
        Self {
            pulse,
            clock,
            counted: Arc::default(),
        }
    }

    /// What was counted since the start.
    pub fn counted(&self) -> &Counted {
        &self.counted
    }

    /// Notes bytes that came from a host.
    pub(super) fn received(&self, bytes: u64) {
        self.counted.received.add(bytes);
        self.pulse.note(self.clock.now(), Beat::Byte, bytes);
    }

    /// Notes that an attempt failed.
    pub(super) fn failed(&self, error: &FetchError) {
        // Being told to stop is no failure.
        if matches!(error, FetchError::Stopped) {
            return;
        }
        self.counted.failures.increment(error.code());
        if matches!(error, FetchError::Storage(_)) {
            self.counted.storage_failures.increment();
        }
    }

    /// Notes how an attempt ended, as it was recorded.
    pub(super) fn settled(&self, settlement: &Settlement, took: Duration) {
        let now = self.clock.now();
        match settlement {
            Settlement::Stored { bytes, .. } => {
                self.counted.stored.add(*bytes);
                self.pulse.note(now, Beat::Stored, 1);
            }
            Settlement::Failed { .. } => self.pulse.note(now, Beat::Failed, 1),
            Settlement::Retry { .. } | Settlement::Expired { .. } | Settlement::Released { .. } => {}
        }
        self.counted.attempts.observe(settlement.result(), took);
    }

    /// Notes an attempt whose download somebody else has by now, or nobody any more.
    pub(super) fn lost(&self, took: Duration) {
        self.counted.attempts.observe("lost", took);
    }
}
