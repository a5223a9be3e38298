//! What counts: counters, levels and distributions that cost an atomic addition or two, and neither lock nor allocate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by word, of a set that does not grow: the last one stands for every word that is not listed.
#[derive(Debug)]
pub struct Counts(&'static [&'static str], Box<[Counter]>);

impl Counts {
    /// Of these words.
    pub fn of(words: &'static [&'static str]) -> Self {
        Self(words, words.iter().map(|_| Counter::default()).collect())
    }

    /// One more of a word.
    pub fn increment(&self, word: &str) {
        let place = self.0.iter().position(|listed| *listed == word);
        if let Some(count) = place.map_or(self.1.last(), |place| self.1.get(place)) {
            count.increment();
        }
    }

    /// All words, each with how many so far.
    pub fn now(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().copied().zip(self.1.iter().map(Counter::now))
    }
}

/// What is seen of a histogram at one moment. Counts are of each bucket alone; the last one has no bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// All values together.
    pub sum: f64,
    /// How many they are.
    pub count: u64,
    /// Upper bound, included, and how many are in the bucket.
    pub buckets: Vec<(f64, u64)>,
}

/// How values are distributed over fixed buckets.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in whole units, the bounds included, ascending.
    bounds: &'static [u64],
    /// Units in one of what is told.
    scale: f64,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// Microseconds in a second: durations are counted in them.
const MICROS: f64 = 1e6;

impl Histogram {
    /// Of plain numbers.
    pub fn of_numbers(bounds: &'static [u64]) -> Self {
        Self::new(bounds, 1.0)
    }

    /// Of durations, by bounds in microseconds. They are told in seconds.
    pub fn of_durations(bounds: &'static [u64]) -> Self {
        Self::new(bounds, MICROS)
    }

    fn new(bounds: &'static [u64], scale: f64) -> Self {
        debug_assert!(bounds.is_sorted(), "bounds ascend");
        Self {
            bounds,
            scale,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Takes a number into account.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Takes a duration into account.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// What was observed so far.
    pub fn now(&self) -> Distribution {
        let bounds = self.bounds.iter().map(|bound| self.told(*bound));
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        Distribution {
            sum: self.told(self.sum.load(Ordering::Relaxed)),
            // Added up, not counted by itself: so it agrees with the buckets, whoever counts meanwhile.
            count: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "past 2^53 units nobody looks at the last digit"
    )]
    fn told(&self, units: u64) -> f64 {
        units as f64 / self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_in_the_first_bucket_that_takes_it() {
        let histogram = Histogram::of_numbers(&[1, 2, 4]);
        for value in [0, 1, 2, 3, 4, 5, 900] {
            histogram.observe(value);
        }
        let expected = Distribution {
            sum: 915.0,
            count: 7,
            buckets: vec![(1.0, 2), (2.0, 1), (4.0, 2), (f64::INFINITY, 2)],
        };
        assert_eq!(histogram.now(), expected);
    }

    #[test]
    fn durations_are_told_in_seconds() {
        let histogram = Histogram::of_durations(&[100, 1_500_000]);
        histogram.observe_duration(Duration::from_micros(100));
        histogram.observe_duration(Duration::from_millis(1_500));
        let now = histogram.now();
        assert_eq!(now.buckets, [(0.0001, 1), (1.5, 1), (f64::INFINITY, 0)]);
        assert!((now.sum - 1.5001).abs() < 1e-9, "{}", now.sum);
    }

    #[test]
    fn a_word_that_is_not_listed_counts_as_the_last() {
        let counts = Counts::of(&["stale", "other"]);
        counts.increment("stale");
        counts.increment("what the next version says");
        counts.increment("other");
        assert!(counts.now().eq([("stale", 1), ("other", 2)]));
    }
}
