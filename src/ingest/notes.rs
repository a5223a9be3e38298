//! Which refused callbacks are noted, in the log and among the rejected deliveries: outsiders may cause them at any
//! rate, and we note them at a bounded one.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::record::MAX_KEPT_BODY;
use crate::telemetry::Sparse;

/// What one network may have noted: a burst somewhat above the quarter of the ring that it can fill, then a trickle.
const NETWORK: Rate = Rate {
    burst: 3_000,
    pause: Duration::from_millis(200),
};
/// What all networks together may have noted, likewise.
const ALL: Rate = Rate {
    burst: 12_000,
    pause: Duration::from_millis(20),
};
/// Bytes of a kept body that count as one more delivery: their mean in a full ring.
const BYTES_OF_ONE: usize = 6 * 1024;
/// Accounts of networks. Networks that meet in one share its rate, so that no number of them buys anybody more.
const ACCOUNTS: usize = 1024;

/// So many at once, and one more after each pause.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    pause: Duration,
}

/// When all that was noted will be paid off, at one a pause; anything in the past is nothing owed.
#[derive(Debug, Clone, Copy)]
struct Account(Instant);

impl Account {
    /// The account after `cost` more, if its rate allows that.
    fn charged(self, cost: u32, rate: Rate, now: Instant) -> Option<Self> {
        let paid_off = self.0.max(now) + rate.pause * cost;
        (paid_off - now <= rate.pause * rate.burst).then_some(Self(paid_off))
    }
}

/// The accounts of everybody, of a fixed size.
#[derive(Debug)]
struct Accounts {
    networks: Vec<Account>,
    all: Account,
    /// Random, so that nobody can choose whose account he shares.
    places: RandomState,
    unnoted: Sparse,
}

/// What is said of the refusals that are not noted, once a minute.
#[derive(Debug, PartialEq, Eq)]
struct Unnoted {
    count: u64,
    latest: Network,
}

impl Accounts {
    fn new(now: Instant) -> Self {
        Self {
            networks: vec![Account(now); ACCOUNTS],
            all: Account(now),
            places: RandomState::new(),
            unnoted: Sparse::default(),
        }
    }

    /// Whether a refusal with this body is noted; if not, perhaps what to say.
    fn charge(&mut self, addr: IpAddr, body: usize, now: Instant) -> Result<(), Option<Unnoted>> {
        let kept = if body > MAX_KEPT_BODY { 0 } else { body };
        let cost = 1 + u32::try_from(kept / BYTES_OF_ONE).unwrap_or(u32::MAX);
        let latest = Network::of(addr);
        let [low, high, ..] = self.places.hash_one(latest.0).to_le_bytes();
        let place = usize::from(u16::from_le_bytes([low, high])) % ACCOUNTS;
        let charged = self.networks[place]
            .charged(cost, NETWORK, now)
            .zip(self.all.charged(cost, ALL, now));
        if let Some((network, all)) = charged {
            self.networks[place] = network;
            self.all = all;
            return Ok(());
        }
        let said = self.unnoted.say(now);
        Err(said.map(|unsaid| Unnoted {
            count: unsaid + 1,
            latest,
        }))
    }
}

/// A /24 of IPv4 addresses or a /64 of IPv6 ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network(IpAddr);

impl Network {
    fn of(addr: IpAddr) -> Self {
        Self(match addr.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() >> 8 << 8).into()),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.0.is_ipv4() { 24 } else { 64 };
        write!(f, "{}/{bits}", self.0)
    }
}

/// Who decides which refusals are noted.
#[derive(Debug)]
pub(super) struct Notes(Mutex<Accounts>);

impl Notes {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Accounts::new(Instant::now())))
    }

    /// Whether a refusal of so many bytes is noted. Those that are not are counted, which is said now and then.
    pub(super) fn admit(&self, addr: IpAddr, body: usize) -> bool {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let charged = accounts.charge(addr, body, Instant::now());
        drop(accounts);
        if let Err(Some(Unnoted { count, latest })) = &charged {
            tracing::warn!(
                count, %latest,
                "too many callbacks are refused, the latest from {latest}: {count} were neither logged one by one nor \
                 recorded since this was last said"
            );
        }
        charged.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `count` refusals from an address are noted.
    fn noted(accounts: &mut Accounts, from: &str, count: u32, now: Instant) -> u32 {
        let admitted = (0..count).filter(|_| accounts.charge(addr(from), 100, now).is_ok());
        u32::try_from(admitted.count()).unwrap()
    }

    #[test]
    fn a_network_has_a_burst_noted_and_then_a_trickle() {
        let start = Instant::now();
        let mut accounts = Accounts::new(start);
        assert_eq!(noted(&mut accounts, "192.0.2.1", 5_000, start), 3_000);
        assert_eq!(noted(&mut accounts, "192.0.2.2", 10, start), 0, "a neighbour");
        let later = start + Duration::from_secs(10);
        assert_eq!(noted(&mut accounts, "192.0.2.1", 5_000, later), 50);
        let much_later = start + Duration::from_hours(24);
        assert_eq!(noted(&mut accounts, "192.0.2.1", 5_000, much_later), 3_000);
    }

    #[test]
    fn all_networks_together_have_a_bound_too() {
        let start = Instant::now();
        let mut accounts = Accounts::new(start);
        let mut flood = |now| -> u32 {
            (0..=255)
                .map(|n| noted(&mut accounts, &format!("2001:db8:0:{n:x}::1"), 100, now))
                .sum()
        };
        assert_eq!(flood(start), 12_000);
        assert_eq!(flood(start + Duration::from_secs(10)), 500);
    }

    #[test]
    fn large_bodies_count_for_more_unless_they_are_not_kept() {
        let start = Instant::now();
        let many = |body| {
            let mut accounts = Accounts::new(start);
            (0..5_000)
                .filter(|_| accounts.charge(addr("192.0.2.1"), body, start).is_ok())
                .count()
        };
        assert_eq!(many(MAX_KEPT_BODY), 3_000 / 11);
        assert_eq!(many(MAX_KEPT_BODY + 1), 3_000);
    }

    #[test]
    fn what_is_not_noted_is_counted_and_said_once_a_minute() {
        let start = Instant::now();
        let mut accounts = Accounts::new(start);
        noted(&mut accounts, "192.0.2.1", 3_000, start);
        let mut charge = |seconds| {
            accounts.charge(
                addr("192.0.2.1"),
                MAX_KEPT_BODY,
                start + Duration::from_secs(seconds),
            )
        };
        let said = |count| {
            Err(Some(Unnoted {
                count,
                latest: Network::of(addr("192.0.2.0")),
            }))
        };
        assert_eq!(charge(0), said(1));
        assert_eq!(charge(1), Err(None));
        assert_eq!(charge(1), Err(None));
        assert_eq!(charge(61), Ok(()));
        assert_eq!(Network::of(addr("192.0.2.9")).to_string(), "192.0.2.0/24");
        let after: Vec<_> = (0..30).map(|_| charge(62)).filter(Result::is_err).collect();
        assert_eq!(after[0], said(3));
        assert!(after[1..].iter().all(|charged| *charged == Err(None)));
    }

    #[test]
    fn neighbours_share_an_account() {
        let network = |text: &str| Network::of(addr(text)).to_string();
        assert_eq!(network("::ffff:192.0.2.9"), "192.0.2.0/24");
        assert_eq!(network("2001:db8:1:2:ffff::1"), "2001:db8:1:2::/64");
    }
}
