//! Chance that can be repeated: every decision follows from the seed, the task's number and the question.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// Decides by a seed. Neither time nor the order of questions matters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dice {
    seed: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// 32 bytes that nobody without the seed foretells.
    pub(super) fn digest(self, question: &str) -> [u8; 32] {
        Sha256::digest(format!("{}|{question}", self.seed)).into()
    }

    /// Evenly from 0 up to, not including, 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a fraction holds")]
    fn fraction(self, number: u64, question: &str) -> f64 {
        let digest = self.digest(&format!("{number}|{question}"));
        let bytes = digest[..8].try_into().expect("eight bytes of thirty-two");
        (u64::from_be_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something of this share of all cases is so in this one.
    pub(super) fn says(self, number: u64, question: &str, share: f64) -> bool {
        self.fraction(number, question) < share
    }

    /// Anything up to `most`.
    pub(super) fn up_to(self, number: u64, question: &str, most: Duration) -> Duration {
        most.mul_f64(self.fraction(number, question))
    }

    /// `usual`, give or take a share of it.
    pub(super) fn around(self, number: u64, question: &str, usual: Duration, share: f64) -> Duration {
        let share = share.clamp(0.0, 1.0);
        usual.mul_f64(1.0 - share + 2.0 * share * self.fraction(number, question))
    }

    /// One of several, all equally likely.
    pub(super) fn one_of<'a, T>(self, number: u64, question: &str, all: &'a [T]) -> &'a T {
        let digest = self.digest(&format!("{number}|{question}"));
        &all[usize::from(digest[0]) % all.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_and_a_seed_repeats_itself() {
        let dice = Dice::new(7);
        let dropped = |dice: Dice| {
            (0..10_000)
                .filter(|n| dice.says(*n, "drop", 0.3))
                .collect::<Vec<u64>>()
        };
        let count = dropped(dice).len();
        assert!((2_800..3_200).contains(&count), "{count} of 10,000 at 0.3");
        assert_eq!(dropped(dice), dropped(Dice::new(7)));
        assert_ne!(dropped(dice), dropped(Dice::new(8)));
        assert!((0..1_000).all(|n| dice.says(n, "x", 1.0) && !dice.says(n, "x", 0.0)));
    }

    #[test]
    fn durations_stay_within_their_bounds() {
        let dice = Dice::new(7);
        let second = Duration::from_secs(1);
        for number in 0..1_000 {
            assert!(dice.up_to(number, "delay", second) < second);
            let around = dice.around(number, "takes", second, 0.2).as_millis();
            assert!((799..=1_200).contains(&around), "{around} ms");
        }
        assert_eq!(dice.around(1, "takes", second, 0.0), second);
    }
}
