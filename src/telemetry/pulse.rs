//! What happened in each of the last sixty minutes, for people who ask whether it is alive.
//!
//! Kept in memory only, and counted without a lock: each count is one word, in which the minute it is of stands beside it.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Millis;

/// How many minutes are told, the running one included.
pub const MINUTES: usize = 60;

/// Places in the ring: a power of two past [`MINUTES`], so that the place of a minute about to be told is never taken by
/// the one that begins meanwhile.
const PLACES: usize = 64;
const MINUTE: Millis = 60_000;
/// Bits of a word that count; 40 are a tebibyte a minute. The others say which minute, and come round after 31 years.
const COUNT_BITS: u32 = 40;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// A callback that told something.
    Accepted,
    /// A callback that told what was known.
    Duplicate,
    /// A callback that contradicts what is believed.
    Conflict,
    /// A callback that was refused, whether or not it was kept.
    Rejected,
    /// A file that was stored.
    Stored,
    /// A file that failed for good.
    Failed,
    /// A byte that a download received.
    Byte,
}

/// How many kinds of [`Beat`] there are.
const BEATS: usize = Beat::Byte as usize + 1;

/// One minute. All counts are since its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Minute {
    /// When it began.
    pub at: Millis,
    /// Callbacks that told something.
    pub accepted: u64,
    /// Callbacks that told what was known.
    pub duplicate: u64,
    /// Callbacks that contradict what is believed.
    pub conflict: u64,
    /// Callbacks that were refused, whether or not they were kept.
    pub rejected: u64,
    /// Files that were stored.
    pub stored: u64,
    /// Files that failed for good.
    pub failed: u64,
    /// Bytes that downloads received, of files that are not yet whole, too.
    pub bytes: u64,
}

/// Counts by minute. Cheap to clone; clones share the counts.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<[Place; PLACES]>);

type Place = [Word; BEATS];

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(array::from_fn(|_| Place::default())))
    }
}

impl Pulse {
    /// Counts `count` of what happened now.
    pub fn note(&self, now: Millis, beat: Beat, count: u64) {
        let minute = minute_of(now);
        self.place(minute)[beat as usize].add(minute, count);
    }

    /// The last sixty minutes, the running one last; those before the start are empty.
    pub fn minutes(&self, now: Millis) -> Vec<Minute> {
        let running = minute_of(now);
        let first = running.saturating_sub(MINUTES as u64 - 1);
        (first..=running).map(|minute| self.minute(minute)).collect()
    }

    fn minute(&self, minute: u64) -> Minute {
        let place = self.place(minute);
        let count = |beat: Beat| place[beat as usize].of(minute);
        Minute {
            at: i64::try_from(minute).unwrap_or(0).saturating_mul(MINUTE),
            accepted: count(Beat::Accepted),
            duplicate: count(Beat::Duplicate),
            conflict: count(Beat::Conflict),
            rejected: count(Beat::Rejected),
            stored: count(Beat::Stored),
            failed: count(Beat::Failed),
            bytes: count(Beat::Byte),
        }
    }

    fn place(&self, minute: u64) -> &Place {
        &self.0[usize::try_from(minute % PLACES as u64).unwrap_or(0)]
    }
}

/// Minutes since 1970.
fn minute_of(now: Millis) -> u64 {
    u64::try_from(now / MINUTE).unwrap_or(0)
}

/// A count and the minute it is of. That of another minute counts for nothing: the first who counts in a new one begins it
/// anew, and whoever counts at the same moment is not lost.
#[derive(Debug, Default)]
struct Word(AtomicU64);

impl Word {
    fn add(&self, minute: u64, count: u64) {
        let add = |word| {
            Some((minute << COUNT_BITS) | (counted(word, minute).saturating_add(count)).min(MAX_COUNT))
        };
        // The function always says what to store.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn of(&self, minute: u64) -> u64 {
        counted(self.0.load(Ordering::Relaxed), minute)
    }
}

/// What a word counts, if it is of this minute.
fn counted(word: u64, minute: u64) -> u64 {
    // What is shifted out of the minute is not kept in the word either.
    if word >> COUNT_BITS == (minute << COUNT_BITS) >> COUNT_BITS {
        word & MAX_COUNT
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    /// A moment in the middle of a minute.
    const START: Millis = 29_921_407 * MINUTE + 30_000;

    #[test]
    fn what_happens_is_counted_in_its_minute() {
        let (pulse, clock) = (Pulse::default(), Clock::manual(START));
        pulse.note(clock.now(), Beat::Accepted, 1);
        clock.advance(Duration::from_secs(29));
        pulse.note(clock.now(), Beat::Accepted, 1);
        pulse.note(clock.now(), Beat::Byte, 700);
        clock.advance(Duration::from_secs(1));
        pulse.note(clock.now(), Beat::Rejected, 1);

        let minutes = pulse.minutes(clock.now());
        assert_eq!(minutes.len(), MINUTES);
        let at = START - 30_000;
        let before = Minute {
            at,
            accepted: 2,
            bytes: 700,
            ..Minute::default()
        };
        let running = Minute {
            at: at + MINUTE,
            rejected: 1,
            ..Minute::default()
        };
        assert_eq!(minutes[MINUTES - 2..], [before, running]);
        assert_eq!(minutes[0].at, running.at - 59 * MINUTE);
        let quiet = |minute: &Minute| Minute { at: 0, ..*minute } == Minute::default();
        assert!(minutes[..MINUTES - 2].iter().all(quiet));
    }

    #[test]
    fn each_beat_is_counted_on_its_own() {
        let pulse = Pulse::default();
        let beats = [
            Beat::Accepted,
            Beat::Duplicate,
            Beat::Conflict,
            Beat::Rejected,
            Beat::Stored,
            Beat::Failed,
            Beat::Byte,
        ];
        assert_eq!(beats.len(), BEATS);
        for (beat, count) in beats.into_iter().zip(1..) {
            pulse.note(START, beat, count);
        }
        let counted = Minute {
            at: START - 30_000,
            accepted: 1,
            duplicate: 2,
            conflict: 3,
            rejected: 4,
            stored: 5,
            failed: 6,
            bytes: 7,
        };
        assert_eq!(pulse.minutes(START).last(), Some(&counted));
    }

    #[test]
    fn a_minute_is_forgotten_after_an_hour_and_its_place_begins_anew() {
        let (pulse, clock) = (Pulse::default(), Clock::manual(START));
        pulse.note(clock.now(), Beat::Stored, 9);
        clock.advance(Duration::from_mins(59));
        assert_eq!(pulse.minutes(clock.now())[0].stored, 9, "the oldest that is told");
        clock.advance(Duration::from_mins(1));
        assert!(pulse.minutes(clock.now()).iter().all(|minute| minute.stored == 0));

        clock.advance(Duration::from_mins(4));
        pulse.note(clock.now(), Beat::Stored, 1);
        let stored: u64 = pulse
            .minutes(clock.now())
            .iter()
            .map(|minute| minute.stored)
            .sum();
        assert_eq!(stored, 1, "the same place, 64 minutes later");
    }

    #[test]
    fn a_count_stops_at_its_largest_and_spills_into_nothing() {
        let pulse = Pulse::default();
        pulse.note(START, Beat::Byte, u64::MAX);
        pulse.note(START, Beat::Byte, 1);
        let running = *pulse.minutes(START).last().unwrap();
        assert_eq!((running.bytes, running.at), (MAX_COUNT, START - 30_000));
    }

    #[test]
    fn nothing_is_lost_when_many_count_as_a_minute_begins() {
        let pulse = Pulse::default();
        // The place is taken by the minute of 64 minutes ago.
        pulse.note(START - 64 * MINUTE, Beat::Accepted, 5);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| pulse.note(START, Beat::Accepted, 1)));
            }
        });
        assert_eq!(
            pulse.minutes(START).last().map(|minute| minute.accepted),
            Some(8000)
        );
    }
}
