//! What the server counts as it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Live;
use crate::provider::rules::Verdict;
use crate::telemetry::{Beat, Counter, Counts, Histogram, Pulse};

/// Upper bounds of the buckets of microseconds that an acknowledgement takes. A provider waits fifteen seconds.
const MICROS: &[u64] = &[
    100, 200, 350, 500, 750, 1_000, 1_500, 2_000, 3_500, 5_000, 7_500, 10_000, 15_000, 25_000, 50_000,
    100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 15_000_000,
];

/// Why callbacks are refused: the codes of the answers, in the order in which they are looked for.
const REASONS: &[&str] = &[
    "unknown_source",
    "method_not_allowed",
    "loopback_only",
    "too_large",
    "too_slow",
    "bad_request",
    "missing_token",
    "bad_token",
    "missing_signature",
    "bad_query",
    "not_json",
    "no_task_id",
    "task_ids_differ",
    "duplicate_key",
    "bad_task_id",
    "stale",
    "bad_signature",
    "busy",
    "draining",
    "store_unavailable",
    "other",
];

/// Stands for the name of a source that is not configured. No configured one can be called so.
const UNKNOWN: &str = "(unknown)";

/// What the server counts.
#[derive(Debug)]
pub(super) struct Meters {
    pulse: Pulse,
    clock: Clock,
    /// By name. Those that were configured once stay: a count that vanished would look like a restart.
    sources: Live<BTreeMap<String, Arc<OfSource>>>,
    unknown: Arc<OfSource>,
    /// How long callbacks that were answered 200 took, from the end of their heads to the answer.
    pub(super) acks: Histogram,
    /// Stored files that could not be read for somebody.
    pub(super) unserved: Counter,
}

/// The callbacks of one source.
#[derive(Debug)]
pub(super) struct OfSource {
    pub(super) accepted: Counter,
    pub(super) duplicate: Counter,
    pub(super) conflict: Counter,
    pub(super) rejected: Counts,
}

impl OfSource {
    fn nothing() -> Arc<Self> {
        Arc::new(Self {
            accepted: Counter::default(),
            duplicate: Counter::default(),
            conflict: Counter::default(),
            rejected: Counts::of(REASONS),
        })
    }

    /// Each verdict, with how many got it.
    pub(super) fn verdicts(&self) -> [(&'static str, u64); 4] {
        [
            (Verdict::Accepted.as_str(), self.accepted.now()),
            (Verdict::Duplicate.as_str(), self.duplicate.now()),
            (Verdict::Conflict.as_str(), self.conflict.now()),
            (
                Verdict::Rejected.as_str(),
                self.rejected.now().map(|(_, count)| count).sum(),
            ),
        ]
    }
}

impl Meters {
    pub(super) fn new(pulse: Pulse, clock: Clock) -> Self {
        Self {
            pulse,
            clock,
            sources: Live::new(BTreeMap::new()),
            unknown: OfSource::nothing(),
            acks: Histogram::of_durations(MICROS),
            unserved: Counter::default(),
        }
    }

    /// Counts by these names from now on, too.
    pub(super) fn add_sources<'n>(&self, names: impl Iterator<Item = &'n str>) {
        let mut sources = BTreeMap::clone(&self.sources.now());
        for name in names {
            sources.entry(name.to_owned()).or_insert_with(OfSource::nothing);
        }
        self.sources.replace(sources);
    }

    /// Notes a callback that was recorded, and will be answered 200 now.
    pub(super) fn recorded(&self, source: &str, verdict: Verdict, took: Duration) {
        let counts = self.of(source);
        let (count, beat) = match verdict {
            Verdict::Accepted => (&counts.accepted, Beat::Accepted),
            Verdict::Duplicate => (&counts.duplicate, Beat::Duplicate),
            Verdict::Conflict => (&counts.conflict, Beat::Conflict),
            // What is recorded as rejected is answered as a refusal, and counted as one.
            Verdict::Rejected => return self.refused(source, "other"),
        };
        count.increment();
        self.acks.observe_duration(took);
        self.pulse.note(self.clock.now(), beat, 1);
    }

    /// Notes a callback that was refused, by the code of its answer.
    pub(super) fn refused(&self, source: &str, reason: &str) {
        self.of(source).rejected.increment(reason);
        self.pulse.note(self.clock.now(), Beat::Rejected, 1);
    }

    /// All sources, and last what stands for those that are not configured.
    pub(super) fn sources(&self) -> Vec<(String, Arc<OfSource>)> {
        let known = self.sources.now();
        let known = known.iter().map(|(name, counts)| (name.clone(), counts.clone()));
        known
            .chain([(UNKNOWN.to_owned(), self.unknown.clone())])
            .collect()
    }

    fn of(&self, source: &str) -> Arc<OfSource> {
        self.sources.now().get(source).unwrap_or(&self.unknown).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(counts: &OfSource, reason: &str) -> Option<u64> {
        let mut all = counts.rejected.now();
        all.find(|(listed, _)| *listed == reason).map(|(_, count)| count)
    }

    #[test]
    fn a_name_that_is_not_configured_makes_no_series_of_its_own() {
        let meters = Meters::new(Pulse::default(), Clock::manual(0));
        meters.add_sources(["kie"].into_iter());
        meters.refused("kie", "stale");
        meters.refused("' OR 1=1", "unknown_source");
        meters.refused("another", "unknown_source");
        let sources = meters.sources();
        let names: Vec<_> = sources.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["kie", UNKNOWN]);
        assert_eq!(rejected(&sources[0].1, "stale"), Some(1));
        assert_eq!(rejected(&sources[1].1, "unknown_source"), Some(2));
    }

    #[test]
    fn a_source_keeps_its_counts_when_others_come() {
        let meters = Meters::new(Pulse::default(), Clock::manual(0));
        meters.add_sources(["kie"].into_iter());
        meters.recorded("kie", Verdict::Accepted, Duration::from_millis(1));
        meters.add_sources(["apikley"].into_iter());
        meters.recorded("kie", Verdict::Conflict, Duration::from_millis(1));
        let sources = meters.sources();
        let (name, kie) = &sources[1];
        assert_eq!(
            (name.as_str(), kie.accepted.now(), kie.conflict.now()),
            ("kie", 1, 1)
        );
        assert_eq!(meters.acks.now().count, 2);
    }

    #[test]
    fn what_is_counted_is_in_the_pulse() {
        let (pulse, clock) = (Pulse::default(), Clock::manual(60_000));
        let meters = Meters::new(pulse.clone(), clock.clone());
        let took = Duration::from_millis(1);
        meters.recorded("kie", Verdict::Accepted, took);
        meters.recorded("kie", Verdict::Duplicate, took);
        meters.recorded("kie", Verdict::Conflict, took);
        meters.refused("kie", "stale");
        let minute = *pulse.minutes(clock.now()).last().unwrap();
        let counted = [
            minute.accepted,
            minute.duplicate,
            minute.conflict,
            minute.rejected,
        ];
        assert_eq!(counted, [1; 4]);
    }
}
