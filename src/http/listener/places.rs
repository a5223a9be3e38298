//! Places for peers, so many in all and so many for one address: nobody is turned away, but when it gets crowded
//! whoever has kept us waiting longest is asked to leave.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long nobody is asked to leave for the sake of his own address: a burst of callbacks that we have not come to
/// read yet, or a TLS handshake across the world, waits for us and not we for it.
const GRACE: Duration = Duration::from_secs(1);
/// How long to wait for whoever was asked to leave: if a request of his was complete meanwhile, he stays.
const SECOND_LOOK: Duration = Duration::from_millis(20);

/// Places that are held, and their bounds. Clones share them.
#[derive(Debug, Clone)]
pub(in crate::http) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    most_per_address: usize,
    held: Mutex<Held>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    /// Number of the next place.
    next: u64,
    /// By number of the place: a flood leaves as fast as it comes.
    by_holder: HashMap<Holder, BTreeMap<u64, Arc<Occupant>>>,
}

/// Whom a place is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::http) struct Holder {
    /// One IPv4 address, or the /64 of an IPv6 one: a single customer has all of that.
    net: IpAddr,
    /// Whether the bound for one address holds for it.
    bounded: bool,
}

impl Holder {
    pub(in crate::http) fn new(addr: IpAddr, bounded: bool) -> Self {
        let net = match addr.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        };
        Self { net, bounded }
    }
}

/// A place that is held; given back when dropped.
#[derive(Debug)]
pub(in crate::http) struct Place {
    pub(in crate::http) occupant: Arc<Occupant>,
    number: u64,
    holder: Holder,
    places: Places,
}

impl Places {
    /// So many in all, so many for one address.
    pub(in crate::http) fn new(most: usize, most_per_address: usize) -> Self {
        Self(Arc::new(Shared {
            most,
            most_per_address,
            held: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// Takes a place, waiting for one if all are held by peers that are being served.
    pub(super) async fn enter(&self, holder: Holder) -> Place {
        loop {
            if let Some(place) = self.try_enter(holder) {
                return place;
            }
            let _ = tokio::time::timeout(SECOND_LOOK, self.0.freed.notified()).await;
        }
    }

    /// Takes a place if one is free; if none is, somebody was asked to leave.
    pub(in crate::http) fn try_enter(&self, holder: Holder) -> Option<Place> {
        self.try_enter_at(Instant::now(), holder)
    }

    fn try_enter_at(&self, now: Instant, holder: Holder) -> Option<Place> {
        let mut held = self.held();
        if held.total >= self.0.most {
            held.make_room(now);
            return None;
        }
        held.total += 1;
        let number = held.next;
        held.next += 1;
        let same = held.by_holder.entry(holder).or_default();
        if holder.bounded && same.len() >= self.0.most_per_address {
            let oldest = same
                .values()
                .filter(|occupant| occupant.may_be_asked() && !occupant.is_proven())
                .max_by_key(|occupant| occupant.quiet_for(now))
                .filter(|oldest| oldest.quiet_for(now) >= GRACE);
            if let Some(oldest) = oldest {
                oldest.ask(Wish::Leave);
            }
        }
        let occupant = Arc::new(Occupant::new(now));
        same.insert(number, occupant.clone());
        Some(Place {
            occupant,
            number,
            holder,
            places: self.clone(),
        })
    }

    /// Asks everybody.
    pub(super) fn ask_all(&self, wish: Wish) {
        for occupant in self.held().by_holder.values().flat_map(BTreeMap::values) {
            occupant.ask(wish);
        }
    }

    /// Resolves once nobody is left.
    pub(super) async fn emptied(&self) {
        while self.held().total > 0 {
            self.0.freed.notified().await;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Asks some to leave: the oldest of those addresses that keep us waiting with most connections. Who has proved
    /// himself comes last.
    fn make_room(&self, now: Instant) {
        let mut waiting = self.waiting(now, false);
        if waiting.is_empty() {
            waiting = self.waiting(now, true);
        }
        if waiting.is_empty() {
            return;
        }
        // Several at a time: a flood must not have us look through all of them for each newcomer.
        let leaving = waiting.len() / 64;
        waiting.select_nth_unstable_by_key(leaving, |(rank, _)| Reverse(*rank));
        for (_, occupant) in &waiting[..=leaving] {
            occupant.ask(Wish::Leave);
        }
    }

    /// All who wait on their peer, proven or not, with what ranks them: how many of their address do, and how long.
    fn waiting(&self, now: Instant, proven: bool) -> Vec<((usize, Duration), &Arc<Occupant>)> {
        let mut waiting = Vec::new();
        for same in self.by_holder.values() {
            let first = waiting.len();
            waiting.extend(
                same.values()
                    .filter(|occupant| occupant.may_be_asked() && occupant.is_proven() == proven)
                    .map(|occupant| ((0, occupant.quiet_for(now)), occupant)),
            );
            let count = waiting.len() - first;
            for ((rank, _), _) in &mut waiting[first..] {
                *rank = count;
            }
        }
        waiting
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        held.total -= 1;
        if let Some(same) = held.by_holder.get_mut(&self.holder) {
            same.remove(&self.number);
            if same.is_empty() {
                held.by_holder.remove(&self.holder);
            }
        }
        drop(held);
        self.places.0.freed.notify_one();
    }
}

/// What the holder of a place is asked for; the later ones outweigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Wish {
    /// Make room, unless a request became complete meanwhile.
    Leave = 1,
    /// Finish what was begun.
    Drain,
    /// End at once.
    Stop,
}

/// What is known of whoever holds a place. Updated once or twice a request, by one atomic operation each.
#[derive(Debug)]
pub(in crate::http) struct Occupant {
    began: Instant,
    /// Milliseconds from `began` to the last time that something moved.
    moved: AtomicU64,
    /// Three counts of requests: [`OPEN`], [`ARRIVING`], [`ANSWERED`].
    requests: AtomicU64,
    /// Whether a verified callback came from here.
    proven: AtomicBool,
    wish: AtomicU8,
    wished: Notify,
}

/// Requests from their head to the end of their answer.
const OPEN: u64 = 1;
/// Those of them that have not arrived whole.
const ARRIVING: u64 = 1 << 20;
/// Those of them whose answer is on its way.
const ANSWERED: u64 = 1 << 40;

fn count(requests: u64, of: u64) -> u64 {
    requests / of % ARRIVING
}

impl Occupant {
    fn new(began: Instant) -> Self {
        Self {
            began,
            moved: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            proven: AtomicBool::new(false),
            wish: AtomicU8::new(0),
            wished: Notify::new(),
        }
    }

    /// The head of a request is there.
    pub(super) fn begin_request(&self) {
        self.requests.fetch_add(OPEN + ARRIVING, Ordering::Relaxed);
        self.move_on();
    }

    /// A request is there whole, or the rest of it does not matter.
    pub(super) fn end_arrival(&self) {
        self.requests.fetch_sub(ARRIVING, Ordering::Relaxed);
    }

    /// The answer to a request is known.
    pub(super) fn begin_answer(&self) {
        self.requests.fetch_add(ANSWERED, Ordering::Relaxed);
    }

    /// An answer was handed over whole, or its request was given up.
    pub(super) fn end_request(&self, answered: bool) {
        let ended = if answered { OPEN + ANSWERED } else { OPEN };
        self.requests.fetch_sub(ended, Ordering::Relaxed);
        self.move_on();
    }

    /// Something moved.
    pub(super) fn move_on(&self) {
        self.moved_at(Instant::now());
    }

    fn moved_at(&self, now: Instant) {
        let moved = now.saturating_duration_since(self.began).as_millis();
        let moved = u64::try_from(moved).unwrap_or(u64::MAX);
        self.moved.store(moved, Ordering::Relaxed);
    }

    /// A verified callback came from here.
    pub(in crate::http) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        count(self.requests.load(Ordering::Relaxed), OPEN) == 0
    }

    /// Whether the next move is the peer's alone: it is idle, sends a head, or sends bodies.
    pub(super) fn is_waiting(&self) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        count(requests, OPEN) <= count(requests, ARRIVING)
    }

    /// Whether all there is to do is to hand over answers.
    pub(super) fn only_answers(&self) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        count(requests, OPEN) > 0 && count(requests, OPEN) == count(requests, ANSWERED)
    }

    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long nothing has moved.
    pub(super) fn quiet_for(&self, now: Instant) -> Duration {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began + moved)
    }

    fn ask(&self, wish: Wish) {
        self.wish.fetch_max(wish as u8, Ordering::Relaxed);
        self.wished.notify_one();
    }

    /// Whether it waits on its peer and was not asked to leave yet.
    fn may_be_asked(&self) -> bool {
        self.is_waiting() && !self.is_asked()
    }

    fn is_asked(&self) -> bool {
        self.wish.load(Ordering::Relaxed) != 0
    }

    /// Resolves with what is asked for, once.
    pub(in crate::http) async fn asked(&self) -> Wish {
        loop {
            self.wished.notified().await;
            match self.wish.swap(0, Ordering::Relaxed) {
                0 => {}
                1 => return Wish::Leave,
                2 => return Wish::Drain,
                _ => return Wish::Stop,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places and the time that passes there.
    struct Scene {
        places: Places,
        start: Instant,
    }

    impl Scene {
        fn new(most: usize, most_per_address: usize) -> Self {
            Self {
                places: Places::new(most, most_per_address),
                start: Instant::now(),
            }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn try_enter(&self, ms: u64, addr: &str) -> Option<Place> {
            let holder = Holder::new(addr.parse().unwrap(), addr != "127.0.0.1");
            self.places.try_enter_at(self.at(ms), holder)
        }

        fn enter(&self, ms: u64, addr: &str) -> Place {
            self.try_enter(ms, addr).expect("a place is free")
        }
    }

    /// Which of them were asked to leave.
    fn asked<const N: usize>(places: [&Place; N]) -> [bool; N] {
        places.map(|place| place.occupant.is_asked())
    }

    #[test]
    fn at_its_bound_an_address_loses_its_oldest_that_waits_and_gets_the_newcomer() {
        let scene = Scene::new(100, 3);
        let (served, old, active) = (
            scene.enter(0, "192.0.2.1"),
            scene.enter(1, "192.0.2.1"),
            scene.enter(2, "192.0.2.1"),
        );
        served.occupant.begin_request();
        served.occupant.end_arrival();
        active.occupant.moved_at(scene.at(900));
        let other = scene.enter(0, "192.0.2.2");
        let first = scene.enter(1_500, "192.0.2.1");
        assert_eq!(
            asked([&served, &old, &active, &other, &first]),
            [false, true, false, false, false]
        );
        let second = scene.enter(2_000, "192.0.2.1");
        assert_eq!(
            asked([&served, &active, &first, &second]),
            [false, true, false, false]
        );
    }

    #[test]
    fn nobody_is_asked_within_the_grace_period_nor_after_a_verified_callback() {
        let scene = Scene::new(100, 1);
        let proven = scene.enter(0, "192.0.2.1");
        proven.occupant.prove();
        let burst = [9_100, 9_200, 9_999].map(|ms| scene.enter(ms, "192.0.2.1"));
        assert_eq!(asked([&proven, &burst[0], &burst[1], &burst[2]]), [false; 4]);
        let late = scene.enter(10_100, "192.0.2.1");
        assert_eq!(
            asked([&proven, &burst[0], &burst[1], &late]),
            [false, true, false, false]
        );
    }

    #[test]
    fn a_slow_body_counts_as_waiting_until_it_is_whole() {
        let scene = Scene::new(100, 1);
        let slow = scene.enter(0, "192.0.2.1");
        slow.occupant.requests.store(OPEN + ARRIVING, Ordering::Relaxed);
        let newcomer = scene.enter(2_000, "192.0.2.1");
        assert_eq!(asked([&slow, &newcomer]), [true, false]);
        slow.occupant.end_arrival();
        assert!(
            !slow.occupant.is_waiting(),
            "whoever was asked looks again, and stays"
        );
        slow.occupant.begin_answer();
        assert!(slow.occupant.only_answers() && !slow.occupant.is_waiting());
        slow.occupant.end_request(true);
        assert!(slow.occupant.is_idle() && slow.occupant.is_waiting());
    }

    #[test]
    fn neighbours_in_a_64_count_as_one_and_this_machine_does_not_count() {
        let scene = Scene::new(100, 1);
        let v6 = scene.enter(0, "2001:db8::1");
        let local = scene.enter(0, "127.0.0.1");
        let _next = (
            scene.enter(2_000, "2001:db8::ffff:2"),
            scene.enter(2_000, "127.0.0.1"),
        );
        assert_eq!(asked([&v6, &local]), [true, false]);
        let mapped = scene.enter(3_000, "::ffff:192.0.2.1");
        let _next = scene.enter(5_000, "192.0.2.1");
        assert_eq!(asked([&mapped]), [true]);
    }

    #[test]
    fn when_all_is_held_the_address_that_keeps_us_waiting_most_gives_way() {
        let scene = Scene::new(6, 100);
        let lone = scene.enter(0, "192.0.2.1");
        let many = [10, 11, 12].map(|ms| scene.enter(ms, "192.0.2.2"));
        // More of them, but proven or served: they keep nobody waiting.
        let proven = scene.enter(0, "192.0.2.3");
        proven.occupant.prove();
        let served = scene.enter(0, "192.0.2.3");
        served.occupant.begin_request();
        served.occupant.end_arrival();
        assert!(scene.try_enter(13, "192.0.2.4").is_none());
        assert!(scene.try_enter(13, "192.0.2.4").is_none());
        assert_eq!(asked([&many[0], &many[1], &many[2]]), [true, true, false]);
        let [gone, ..] = many;
        drop(gone);
        let newcomer = scene.enter(14, "192.0.2.4");
        assert_eq!(asked([&lone, &proven, &served, &newcomer]), [false; 4]);
    }

    #[test]
    fn the_proven_give_way_when_nobody_else_does_and_the_served_never() {
        let scene = Scene::new(2, 100);
        let proven = scene.enter(0, "192.0.2.1");
        proven.occupant.prove();
        let served = scene.enter(0, "192.0.2.2");
        served.occupant.begin_request();
        served.occupant.end_arrival();
        assert!(scene.try_enter(1, "192.0.2.3").is_none());
        assert!(scene.try_enter(2, "192.0.2.3").is_none());
        assert_eq!(asked([&proven, &served]), [true, false]);
    }

    #[tokio::test]
    async fn a_newcomer_waits_until_somebody_left_and_the_stop_until_all_have() {
        let scene = Scene::new(1, 1);
        let place = scene.enter(0, "192.0.2.1");
        let entering = scene.places.enter(Holder::new([192, 0, 2, 2].into(), true));
        let leaving = async {
            assert_eq!(place.occupant.asked().await, Wish::Leave);
            drop(place);
        };
        let (newcomer, ()) = tokio::join!(entering, leaving);
        scene.places.ask_all(Wish::Drain);
        scene.places.ask_all(Wish::Stop);
        assert_eq!(
            newcomer.occupant.asked().await,
            Wish::Stop,
            "the last wish outweighs"
        );
        drop(newcomer);
        scene.places.emptied().await;
    }
}
