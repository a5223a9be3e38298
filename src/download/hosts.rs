//! What is known of the hosts that files lie on: which of them worked lately, and which are left alone for a while.
//!
//! Two questions are answered from it. *Whose fault is it* that a host cannot be reached: if others that worked lately
//! cannot be reached either, it is our network's, and no download pays for it. *Should anybody else try*: a host that fails
//! again and again is left alone (a circuit breaker), so that its downloads do not use up their attempts one after the
//! other, and then only one of them tries; and one that asks for patience gets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Millis, millis};

/// So many failures in a row open the circuit.
const TROUBLES: u32 = 5;
/// For how long at first; doubled with each further failure, up to the longest.
const OPEN_FOR: Duration = Duration::from_secs(2);
const OPEN_LONGEST: Duration = Duration::from_mins(2);
/// For how long a host that worked tells something of our network.
pub(super) const LATELY: Duration = Duration::from_hours(1);
/// How many hosts are asked whether our network is at fault.
const WITNESSES: usize = 3;
/// How many hosts are remembered: providers use one to five.
const MOST: usize = 1024;

/// The hosts, by the name in the download's row. Cheap to clone; clones know the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts(Arc<Mutex<HashMap<String, Host>>>);

#[derive(Debug, Default)]
struct Host {
    /// When it last answered, and under which URL.
    worked: Option<(Millis, String)>,
    /// Failures in a row.
    troubles: u32,
    /// Since when and until when it is left alone.
    open: (Millis, Millis),
}

impl Host {
    /// Before the moment at which that began, the clock was set back since, and nobody waits for it to catch up.
    fn is_left_alone(&self, now: Millis) -> bool {
        let (since, until) = self.open;
        (since..until).contains(&now)
    }

    fn leave_alone(&mut self, wait: Duration, now: Millis) {
        let until = now.saturating_add(millis(wait));
        if !self.is_left_alone(now) || until > self.open.1 {
            self.open = (now, until);
        }
    }
}

impl Hosts {
    /// It did its work when it was asked for `url`, whatever the answer was.
    pub(super) fn answered(&self, host: &str, url: &str, now: Millis) {
        self.reached(host, url, now);
        self.change(host, now, |host| host.troubles = 0);
    }

    /// It could be reached when it was asked for `url`, if no more.
    pub(super) fn reached(&self, host: &str, url: &str, now: Millis) {
        self.change(host, now, |host| host.worked = Some((now, url.to_owned())));
    }

    /// It could not be reached, or could not do its work; `Some` if it is left alone for so long from now on.
    pub(super) fn troubled(&self, host: &str, now: Millis) -> Option<Duration> {
        self.change(host, now, |host| {
            host.troubles = host.troubles.saturating_add(1);
            let more = host.troubles.checked_sub(TROUBLES)?;
            let pause = OPEN_FOR
                .saturating_mul(2_u32.saturating_pow(more))
                .min(OPEN_LONGEST);
            host.leave_alone(pause, now);
            Some(pause)
        })
    }

    /// It asked to be left alone for so long.
    pub(super) fn asked_to_wait(&self, host: &str, wait: Duration, now: Millis) {
        self.change(host, now, |host| host.leave_alone(wait, now));
    }

    /// It was not their fault: every host may be asked again.
    pub(super) fn forgive(&self) {
        for host in self.lock().values_mut() {
            (host.troubles, host.open) = (0, (0, 0));
        }
    }

    /// How many downloads may run at one time from hosts for which that is not the usual number: none from one that is left
    /// alone, and one from one that was.
    pub(super) fn caps(&self, now: Millis) -> HashMap<String, u32> {
        let cap = |host: &Host| match host {
            host if host.is_left_alone(now) => Some(0),
            host if host.troubles >= TROUBLES => Some(1),
            _ => None,
        };
        let all = self.lock();
        all.iter()
            .filter_map(|(name, host)| Some((name.clone(), cap(host)?)))
            .collect()
    }

    /// When the next host that is left alone may be asked again. One for which that moment came only just now is among
    /// them: whoever asked for the caps before may not have seen it.
    pub(super) fn next_turn(&self, now: Millis) -> Option<Millis> {
        let just_now = now - 1000;
        let all = self.lock();
        let left_alone = all
            .values()
            .filter(|host| host.is_left_alone(now) || host.is_left_alone(just_now));
        left_alone.map(|host| host.open.1).min()
    }

    /// Under which URLs the hosts answered that worked lately, the latest first; but not that of `but`.
    pub(super) fn witnesses(&self, but: Option<&str>, now: Millis) -> Vec<String> {
        let all = self.lock();
        let mut worked: Vec<_> = all
            .iter()
            .filter(|(name, _)| Some(name.as_str()) != but)
            .filter_map(|(_, host)| host.worked.as_ref())
            .filter(|(at, _)| (now - millis(LATELY)..=now).contains(at))
            .collect();
        worked.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        worked
            .into_iter()
            .take(WITNESSES)
            .map(|(_, url)| url.clone())
            .collect()
    }

    fn change<T>(&self, name: &str, now: Millis, change: impl FnOnce(&mut Host) -> T) -> T {
        let mut all = self.lock();
        if all.len() >= MOST && !all.contains_key(name) {
            all.retain(|_, host| host.is_left_alone(now));
        }
        change(all.entry(name.to_owned()).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Host>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_800_000_000_000;

    #[test]
    fn a_host_that_fails_again_and_again_is_left_alone_and_then_tried_by_one() {
        let hosts = Hosts::default();
        for _ in 1..TROUBLES {
            assert_eq!(hosts.troubled("a", NOW), None);
        }
        assert_eq!(hosts.caps(NOW), HashMap::new());
        assert_eq!(hosts.troubled("a", NOW), Some(OPEN_FOR));
        assert_eq!(hosts.caps(NOW), HashMap::from([("a".to_owned(), 0)]));
        let later = hosts.next_turn(NOW).unwrap();
        assert_eq!(later, NOW + 2_000);
        assert_eq!(hosts.caps(later), HashMap::from([("a".to_owned(), 1)]));
        assert_eq!(hosts.troubled("a", later), Some(2 * OPEN_FOR));
        for _ in 0..40 {
            hosts.troubled("a", later);
        }
        assert_eq!(hosts.next_turn(later), Some(later + 120_000));
        hosts.answered("a", "http://a/", later + 120_000);
        assert_eq!(hosts.caps(later + 120_000), HashMap::new());
    }

    #[test]
    fn a_host_that_asks_for_patience_gets_it_even_if_it_answers_meanwhile() {
        let hosts = Hosts::default();
        hosts.asked_to_wait("a", Duration::from_mins(1), NOW);
        hosts.answered("a", "http://a/", NOW);
        assert_eq!(hosts.caps(NOW + 59_999), HashMap::from([("a".to_owned(), 0)]));
        assert_eq!(hosts.caps(NOW + 60_000), HashMap::new());
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_nobody_alone() {
        let hosts = Hosts::default();
        hosts.asked_to_wait("a", Duration::from_mins(1), NOW);
        for ago in [1, 3_600_000, 43_200_000] {
            assert_eq!(hosts.caps(NOW - ago), HashMap::new());
        }
        hosts.asked_to_wait("a", Duration::from_secs(1), NOW - 3_600_000);
        assert_eq!(hosts.next_turn(NOW - 3_600_000), Some(NOW - 3_599_000));
    }

    #[test]
    fn witnesses_are_those_that_worked_within_the_hour() {
        let hosts = Hosts::default();
        for (name, ago) in [("a", 10), ("b", 5), ("c", 3_600_001), ("d", 20), ("e", 30)] {
            hosts.answered(name, &format!("http://{name}/"), NOW - ago);
        }
        hosts.troubled("f", NOW);
        assert_eq!(
            hosts.witnesses(None, NOW),
            ["http://b/", "http://a/", "http://d/"]
        );
        assert_eq!(
            hosts.witnesses(Some("b"), NOW),
            ["http://a/", "http://d/", "http://e/"]
        );
    }

    #[test]
    fn no_more_than_so_many_hosts_are_remembered() {
        let hosts = Hosts::default();
        hosts.asked_to_wait("patience", Duration::from_mins(1), NOW);
        for n in 0..2 * MOST {
            hosts.answered(&n.to_string(), "", NOW);
        }
        assert!(hosts.lock().len() <= MOST);
        assert!(hosts.lock().contains_key("patience"));
    }
}
