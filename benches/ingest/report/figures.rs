//! What the parts of a run showed, a type for each, and the medians over its rounds.

use serde::{Deserialize, Serialize};

use crate::load::{Bursts, Measured};
use crate::rig::numbers::percentile;

/// One server under one load: the medians over its rounds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Side {
    pub(crate) per_second: f64,
    pub(crate) p50_us: u32,
    pub(crate) p99_us: u32,
    pub(crate) p999_us: u32,
    /// The longest of all rounds.
    pub(crate) max_us: u32,
    pub(crate) cpu_us: f64,
    /// Of all rounds, in bytes.
    pub(crate) peak_memory: u64,
    /// All callbacks answered 200; for reelhook, each was found in its database afterwards.
    pub(crate) acknowledged: u64,
    /// Callbacks a second of each round.
    pub(crate) rounds: Vec<f64>,
}

/// Both servers, whose rounds took turns.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) reelhook: Side,
    pub(crate) ceiling: Side,
}

/// The closed loop.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Closed {
    pub(crate) connections: u16,
    #[serde(flatten)]
    pub(crate) pair: Pair,
}

/// The open loop.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    /// The rate that callbacks were due at.
    pub(crate) per_second: u32,
    /// Which share of the closed loop's rate that is, in per cent, if it was chosen so.
    pub(crate) share: Option<u8>,
    #[serde(flatten)]
    pub(crate) pair: Pair,
}

/// Bursts at both servers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BurstPair {
    /// Callbacks at once.
    pub(crate) size: u16,
    pub(crate) times: u16,
    pub(crate) reelhook: BurstSide,
    pub(crate) ceiling: BurstSide,
}

/// Bursts at one server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BurstSide {
    pub(crate) all_answered_median_us: u32,
    pub(crate) all_answered_max_us: u32,
    /// Of the single callbacks.
    pub(crate) p50_us: u32,
    pub(crate) p99_us: u32,
    pub(crate) peak_memory: u64,
    pub(crate) acknowledged: u64,
}

/// What outsiders cost good callbacks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hostile {
    /// The rate that good callbacks were due at.
    pub(crate) per_second: u32,
    pub(crate) quiet: Side,
    pub(crate) besieged: Vec<Besieged>,
}

/// Good callbacks while outsiders were at work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Besieged {
    pub(crate) by: String,
    pub(crate) side: Side,
}

/// What those who follow the events cost.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Followed {
    /// The rate that callbacks were due at.
    pub(crate) per_second: u32,
    pub(crate) readers: u16,
    /// Those of them who took nothing.
    pub(crate) stalled: u16,
    /// What all of them heard in all rounds.
    pub(crate) bytes: u64,
    pub(crate) events: u64,
    pub(crate) alone: Side,
    pub(crate) watched: Side,
}

/// What many stored tasks cost.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) tasks: u64,
    pub(crate) seeded_ms: u32,
    pub(crate) database_bytes: u64,
    /// From the start of the process to the first 200 of `/readyz`, in microseconds, sorted.
    pub(crate) ready_us: Vec<u32>,
    /// Once it is ready, in bytes.
    pub(crate) resident_memory: u64,
    /// After queries and after ingest, in bytes.
    pub(crate) peak_memory: u64,
    pub(crate) queries: Vec<Query>,
    /// The closed loop on an empty database, on this one, and against the ceiling.
    pub(crate) without: Side,
    pub(crate) with: Side,
    pub(crate) ceiling: Side,
}

/// A request of the query API, with a thousand tasks stored and with many.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) few_p50_us: u32,
    pub(crate) few_p99_us: u32,
    pub(crate) many_p50_us: u32,
    pub(crate) many_p99_us: u32,
}

/// Other receivers, and ours in the same rounds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Peers {
    pub(crate) reelhook: Side,
    pub(crate) ceiling: Side,
    pub(crate) others: Vec<PeerFigures>,
    /// Why others are not there.
    pub(crate) missing: Vec<String>,
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PeerFigures {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) verifies: bool,
    pub(crate) keeps: String,
    pub(crate) dedupes: String,
    /// Whether what it kept was counted.
    pub(crate) checked: bool,
    pub(crate) side: Side,
}

impl Side {
    pub(crate) fn of(rounds: &[Measured]) -> Self {
        let at = |percent| {
            let each = rounds
                .iter()
                .map(|round| percentile(&round.latencies_us, percent));
            median(each)
        };
        let longest = rounds.iter().filter_map(|round| round.latencies_us.last());
        Self {
            per_second: median_f64(rounds.iter().map(Measured::per_second)),
            p50_us: at(50.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            max_us: longest.copied().max().unwrap_or_default(),
            cpu_us: median_f64(rounds.iter().map(|round| round.cpu_us)),
            peak_memory: rounds
                .iter()
                .map(|round| round.peak_memory)
                .max()
                .unwrap_or_default(),
            acknowledged: rounds.iter().map(|round| round.acknowledged).sum(),
            rounds: rounds.iter().map(Measured::per_second).collect(),
        }
    }
}

impl Pair {
    /// The median of one over the median of the other.
    pub(crate) fn ratio(&self) -> f64 {
        self.reelhook.per_second / self.ceiling.per_second
    }

    /// The lowest and the highest ratio of two rounds that followed each other.
    pub(crate) fn ratio_range(&self) -> (f64, f64) {
        let rounds = self.reelhook.rounds.iter().zip(&self.ceiling.rounds);
        let ratios = rounds.map(|(ours, theirs)| ours / theirs);
        ratios.fold((f64::MAX, 0.0), |(lowest, highest), ratio| {
            (lowest.min(ratio), highest.max(ratio))
        })
    }
}

impl BurstSide {
    pub(crate) fn of(bursts: &Bursts) -> Self {
        Self {
            all_answered_median_us: percentile(&bursts.all_answered_us, 50.0),
            all_answered_max_us: percentile(&bursts.all_answered_us, 100.0),
            p50_us: percentile(&bursts.latencies_us, 50.0),
            p99_us: percentile(&bursts.latencies_us, 99.0),
            peak_memory: bursts.peak_memory,
            acknowledged: bursts.acknowledged,
        }
    }
}

impl Followed {
    /// How much longer the slowest hundredth of callbacks waits.
    pub(crate) fn ratio(&self) -> f64 {
        f64::from(self.watched.p99_us) / f64::from(self.alone.p99_us)
    }
}

impl Stored {
    /// What is left of the rate with nothing stored.
    pub(crate) fn kept_rate(&self) -> f64 {
        self.with.per_second / self.without.per_second
    }

    /// The slowest start.
    pub(crate) fn slowest_start_us(&self) -> u32 {
        self.ready_us.last().copied().unwrap_or_default()
    }
}

fn median(values: impl Iterator<Item = u32>) -> u32 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn median_f64(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
