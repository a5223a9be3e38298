//! When a question is asked again, and how many may be asked at one time.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::asks::About;

/// The longest wait between two questions about the same.
pub(super) const LONGEST: Duration = Duration::from_hours(6);

/// Questions to one source under way at one time: one that hangs does not hold up the others.
const AT_ONCE: usize = 4;

/// The wait before the same is asked again that has been open for `age`: an eighth of that, and no less than `every`.
///
/// What is a minute old is asked about every few seconds' time if `every` allows, what is a day old every three hours. In
/// fourteen days that makes about ninety questions.
pub(super) fn wait(age: Duration, every: Duration) -> Duration {
    (age / 8).min(LONGEST).max(every)
}

/// The turns of one source.
#[derive(Debug)]
pub(super) struct Turns {
    /// What is being asked.
    pub(super) under_way: Vec<About>,
    next: Instant,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            under_way: Vec::new(),
            next: Instant::now(),
        }
    }

    /// Whether all turns are taken; one that ends rings.
    pub(super) fn is_full(&self) -> bool {
        self.under_way.len() >= AT_ONCE
    }

    /// How long until the next question may go out.
    pub(super) fn pause(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Takes a turn, which is good for one request.
    pub(super) fn take(&mut self, about: About, max_per_second: u32) {
        self.under_way.push(about);
        self.count(max_per_second);
    }

    /// Counts one more request of a turn that was taken: the next turn comes so much later.
    pub(super) fn count(&mut self, max_per_second: u32) {
        let step = Duration::from_secs(1) / max_per_second.max(1);
        self.next = following(self.next, step, Instant::now());
    }

    /// Gives it back.
    pub(super) fn give_back(&mut self, about: &About) {
        self.under_way.retain(|other| other != about);
    }
}

/// When the next turn may be taken after the one of `next`: what was taken a little late does not put it off, and what was
/// missed is not caught up with.
fn following(next: Instant, step: Duration, now: Instant) -> Instant {
    (next + step).max(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_the_age_between_their_bounds() {
        let every = Duration::from_secs(30);
        let minutes = Duration::from_mins;
        for (age, expected) in [
            (Duration::ZERO, every),
            (minutes(3), every),
            (minutes(8), minutes(1)),
            (minutes(24 * 60), minutes(180)),
            (minutes(14 * 24 * 60), LONGEST),
        ] {
            assert_eq!(wait(age, every), expected, "{age:?}");
        }
        let (mut age, mut asks) = (minutes(3), 0);
        while age < Duration::from_hours(14 * 24) {
            age += wait(age, every);
            asks += 1;
        }
        assert!((60..120).contains(&asks), "{asks}");
    }

    #[test]
    fn a_turn_that_is_taken_late_does_not_put_off_the_next() {
        let (start, step) = (Instant::now(), Duration::from_millis(20));
        let after = |ms| start + Duration::from_millis(ms);
        for (now, expected) in [(0, 20), (7, 20), (20, 20), (70, 70)] {
            assert_eq!(following(start, step, after(now)), after(expected), "{now}");
        }
    }
}
