//! Whose fault a failure is, and what follows from that for all other downloads: nothing, a host that is left alone, or a queue
//! that is paused.

use std::collections::HashMap;

use super::failure::{FetchError, OfHost, wait_of_host};
use super::fetch::{Fetched, Fetcher};
use super::hosts::{Hosts, LATELY};
use super::pause::{Cause, Pause};
use crate::clock::{Clock, Millis, millis};
use crate::egress::{EgressError, GuardedClient};
use crate::storage::{AMPLE, Storage};
use crate::store::downloads::ClaimedDownload;

/// What is known of the hosts and of this machine.
#[derive(Debug)]
pub(super) struct Watch {
    client: GuardedClient,
    storage: Storage,
    clock: Clock,
    hosts: Hosts,
    pub(super) pause: Pause,
}

impl Watch {
    pub(super) fn new(fetcher: &Fetcher, clock: Clock) -> Self {
        Self {
            client: fetcher.client.clone(),
            storage: fetcher.storage.clone(),
            clock,
            hosts: Hosts::default(),
            pause: Pause::default(),
        }
    }

    /// How many downloads may be claimed of hosts for which that is not the usual number; `None` if nothing may be claimed at
    /// all. While the queue is paused, this finds out from time to time whether it still has to be.
    pub(super) async fn exceptions(&self) -> Option<HashMap<String, u32>> {
        let now = self.clock.now();
        if let Some(probe_at) = self.pause.probe_at(&self.clock) {
            if now < probe_at {
                return None;
            }
            let cause = self.pause.due(now)?;
            if self.is_over(&cause).await {
                self.go_on();
            } else if !matches!(cause, Cause::Network(_)) {
                return None;
            }
            // Of a network one download may try each time: hosts that nobody has asked yet may be there.
        }
        Some(self.hosts.caps(now))
    }

    /// When something may be claimable that is not now, whatever the store says; or `None`, and the store knows.
    pub(super) fn next_probe(&self) -> Option<Millis> {
        self.pause.probe_at(&self.clock)
    }

    /// When a host that is left alone may be asked again.
    pub(super) fn next_turn(&self) -> Option<Millis> {
        self.hosts.next_turn(self.clock.now())
    }

    /// Learns from how fetching a file ended; says whose fault it is, where that was open.
    pub(super) async fn learn(
        &self,
        claim: &ClaimedDownload,
        fetched: Result<Fetched, FetchError>,
    ) -> Result<Fetched, FetchError> {
        let (host, url, now) = (&claim.host, &claim.url, self.clock.now());
        let failure = match fetched {
            Ok(fetched) => {
                self.answered(claim);
                return Ok(fetched);
            }
            Err(FetchError::Egress(seen)) => self.judge(claim, seen).await,
            Err(failure) => failure,
        };
        match failure.of_host() {
            OfHost::Nothing => {}
            OfHost::Works => self.answered(claim),
            OfHost::Struggles => {
                self.hosts.reached(host, url, now);
                self.leave_alone(claim, &failure);
            }
            OfHost::Gone => self.leave_alone(claim, &failure),
        }
        if matches!(failure, FetchError::Offline { .. }) {
            // Whoever tries next tries another host.
            self.hosts.troubled(host, now);
        }
        Err(failure)
    }

    /// Pauses the queue if a failure is this machine's and concerns every download; whether it is paused.
    pub(super) fn pause_for(&self, failure: &FetchError, claim: &ClaimedDownload) -> bool {
        failure.pause_cause().is_some_and(|cause| {
            let culprit = claim.lease.download;
            self.pause
                .begin(cause, &failure.to_string(), (self.clock.now(), culprit))
        })
    }

    fn answered(&self, claim: &ClaimedDownload) {
        self.hosts.answered(&claim.host, &claim.url, self.clock.now());
        if self.pause.is_for_the_network() {
            self.go_on();
        }
    }

    /// Tells a host that cannot be reached from a network that leads nowhere: then hosts that worked lately cannot be reached
    /// either. A name that worked lately and is unknown now is no less a witness than another host.
    async fn judge(&self, claim: &ClaimedDownload, seen: EgressError) -> FetchError {
        let itself = matches!(seen, EgressError::Resolve { .. });
        let other_than = (!itself).then_some(claim.host.as_str());
        let witnesses = self.hosts.witnesses(other_than, self.clock.now());
        if !seen.is_unreachable() || witnesses.is_empty() || self.reaches_any(&witnesses).await {
            return seen.into();
        }
        FetchError::Offline { seen, witnesses }
    }

    /// Has other downloads leave a host alone that fails again and again, or that asked for it.
    fn leave_alone(&self, claim: &ClaimedDownload, failure: &FetchError) {
        let (host, now) = (claim.host.as_str(), self.clock.now());
        if let Some(wait) = wait_of_host(failure, claim, now) {
            self.hosts.asked_to_wait(host, wait, now);
        }
        if let Some(pause) = self.hosts.troubled(host, now) {
            let seconds = pause.as_secs();
            tracing::warn!(
                host,
                "{host} keeps failing and is left alone for {seconds} s: {failure}"
            );
        }
    }

    /// Whether what the queue is paused for is over.
    async fn is_over(&self, cause: &Cause) -> bool {
        match cause {
            Cause::Full(needed) => {
                let has_room = self.storage.admit((*needed).min(AMPLE)).is_ok();
                has_room && self.storage.probe().await.is_ok()
            }
            Cause::Storage | Cause::Machine => self.storage.probe().await.is_ok(),
            Cause::Network(witnesses) => self.are_outdated() || self.reaches_any(witnesses).await,
        }
    }

    /// Witnesses may have gone for good, and their word holds for no longer than they worked lately.
    fn are_outdated(&self) -> bool {
        let since = self.pause.reason().map(|reason| reason.since);
        since.is_none_or(|since| self.clock.now() - since > millis(LATELY))
    }

    async fn reaches_any(&self, witnesses: &[String]) -> bool {
        for witness in witnesses {
            if self.client.reaches(witness).await {
                return true;
            }
        }
        false
    }

    fn go_on(&self) {
        if self.pause.is_for_the_network() {
            self.hosts.forgive();
        }
        self.pause.end(self.clock.now());
    }
}
