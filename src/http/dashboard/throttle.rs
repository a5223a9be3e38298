//! How often somebody may try tokens: a few times at once, and then now and then. Of a fixed size.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Attempts that may fail at once, and the pause that pays for one more: of one network, and of all together. Tokens are
/// too long to be guessed at any rate; this keeps those who try from costing more than they should.
const NETWORK: (u32, Duration) = (10, Duration::from_secs(6));
const ALL: (u32, Duration) = (300, Duration::from_millis(200));

/// Accounts of networks. Those that meet in one share it, so that no number of them buys anybody more.
const ACCOUNTS: usize = 1024;

/// Counts failed attempts to sign in.
#[derive(Debug)]
pub(in crate::http) struct Throttle {
    accounts: Mutex<Accounts>,
    /// Random, so that nobody can choose whose account he shares.
    places: RandomState,
}

/// Until when each has used up what it may, at one attempt a pause.
#[derive(Debug)]
struct Accounts {
    networks: Vec<Instant>,
    all: Instant,
}

impl Throttle {
    pub(in crate::http) fn new() -> Self {
        let now = Instant::now();
        Self {
            accounts: Mutex::new(Accounts {
                networks: vec![now; ACCOUNTS],
                all: now,
            }),
            places: RandomState::new(),
        }
    }

    /// How long whoever comes from there has to wait before the next attempt is looked at, if so.
    pub(super) fn wait(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let all = self.lock().all;
        self.wait_of_network(from, now).max(wait_for(all, ALL, now))
    }

    /// The same, however many others try.
    pub(super) fn wait_of_network(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let network = self.lock().networks[self.place(from)];
        wait_for(network, NETWORK, now)
    }

    /// Notes an attempt that failed.
    pub(super) fn note(&self, from: IpAddr, now: Instant) {
        let place = self.place(from);
        let mut accounts = self.lock();
        accounts.networks[place] = accounts.networks[place].max(now) + NETWORK.1;
        accounts.all = accounts.all.max(now) + ALL.1;
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, from: IpAddr) -> usize {
        let network = match from.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() >> 8 << 8).into()),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        };
        let [low, high, ..] = self.places.hash_one(network).to_le_bytes();
        usize::from(u16::from_le_bytes([low, high])) % ACCOUNTS
    }
}

/// What an account that is used up until then leaves to wait for.
fn wait_for(used_until: Instant, (burst, pause): (u32, Duration), now: Instant) -> Option<Duration> {
    let free_at = (used_until.max(now) + pause).checked_sub(pause * burst)?;
    let wait = free_at.saturating_duration_since(now);
    (!wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many attempts are looked at.
    fn looked_at(throttle: &Throttle, from: &str, attempts: u32, now: Instant) -> u32 {
        let from = from.parse().unwrap();
        let mut looked_at = 0;
        for _ in 0..attempts {
            if throttle.wait(from, now).is_none() {
                throttle.note(from, now);
                looked_at += 1;
            }
        }
        looked_at
    }

    #[test]
    fn a_network_has_a_few_attempts_and_then_one_now_and_then() {
        let (throttle, start) = (Throttle::new(), Instant::now() + Duration::from_hours(1));
        assert_eq!(looked_at(&throttle, "192.0.2.1", 50, start), 10);
        assert_eq!(looked_at(&throttle, "192.0.2.200", 5, start), 0, "a neighbour");
        let wait = throttle.wait("192.0.2.1".parse().unwrap(), start).unwrap();
        assert_eq!(wait, Duration::from_secs(6));
        assert_eq!(looked_at(&throttle, "192.0.2.1", 50, start + wait), 1);
        assert_eq!(
            looked_at(&throttle, "192.0.2.1", 50, start + Duration::from_mins(10)),
            10
        );
    }

    #[test]
    fn all_networks_together_have_a_bound_too() {
        let (throttle, start) = (Throttle::new(), Instant::now() + Duration::from_hours(1));
        let all: u32 = (0..200)
            .map(|n| looked_at(&throttle, &format!("2001:db8:0:{n:x}::1"), 10, start))
            .sum();
        assert_eq!(all, 300);
        let stranger = "198.51.100.7".parse().unwrap();
        assert!(throttle.wait(stranger, start).is_some());
        assert_eq!(
            throttle.wait_of_network(stranger, start),
            None,
            "with the right token"
        );
    }
}
