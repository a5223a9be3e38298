//! One queued file, from claim to settlement.
//!
//! Claim → fetch into the spool ([`fetch`]) → stage → renew → publish → settle. What a failure leads to is decided in [`failure`], whether a
//! body is media in [`content`], when a cut transfer may go on in [`resume`], and whose fault a failure is in `watch`. The store is asked before and after, never held in between.

use std::collections::HashMap;
use std::convert::identity;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock::{Clock, Millis};
use crate::config::Live;
use crate::failpoint::{self, Step};
use crate::provider::naming::{file_name, guess_extension};
use crate::retry::Backoff;
use crate::store::downloads::{Caps, ClaimedDownload, Lease, Settled, Settlement};
use crate::store::{Store, StoreError};
use crate::worker;

pub mod content;
pub mod failure;
pub mod fetch;
mod hosts;
mod meters;
mod pause;
mod progress;
mod remedy;
pub mod resume;
mod span;
#[cfg(test)]
mod tests;
mod watch;

pub use meters::{Attempts, Counted, Meters};
pub use pause::{Pause, Reason};
pub use progress::{Progress, Shown, Transfer};
pub use remedy::{is_retryable, remedy};

use failure::{FetchError, Terms};
use fetch::{Fetched, Fetcher};
use watch::Watch;

/// Between two tries to settle while the store fails.
const SETTLE_BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(5),
};

/// How often settling is tried. After that the lease runs out, and the file is fetched again.
const SETTLE_TRIES: u32 = 6;

/// How downloads are claimed and tried again.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most downloads at once.
    pub concurrency: usize,
    /// Most downloads at once from one host.
    pub per_host: u32,
    /// How long a claim stands without renewal; it is renewed every third of it.
    pub lease: Duration,
    /// Attempts that count, after which a download is failed.
    pub max_attempts: u32,
    /// How long after it was queued a download is not tried again, if its deadline has passed, too.
    pub give_up_after: Duration,
    /// The wait before the next attempt.
    pub backoff: Backoff,
}

/// What holds for the downloads of one source.
#[derive(Debug, Clone, Default)]
pub struct SourceRules {
    /// From where they may be fetched; empty: any public host.
    pub allowed_hosts: Vec<String>,
    /// Whether the provider's API can be asked for another URL of a file.
    pub can_refresh: bool,
}

/// The rules by source. Of one that is not listed, the default.
pub type Rules = HashMap<String, SourceRules>;

/// Carries out queued downloads.
#[derive(Debug)]
pub struct Downloader {
    store: Store,
    fetcher: Fetcher,
    clock: Clock,
    settings: Settings,
    rules: Live<Rules>,
    watch: Watch,
}

impl Downloader {
    /// Claims from `store` and fetches by `fetcher`, under rules that may be replaced while downloads run and hold for those
    /// that start afterwards.
    pub fn new(store: Store, clock: Clock, fetcher: Fetcher, settings: Settings, rules: Live<Rules>) -> Self {
        Self {
            watch: Watch::new(&fetcher, clock.clone()),
            store,
            fetcher,
            clock,
            settings,
            rules,
        }
    }

    /// Tells how far running downloads are, also while this runs.
    pub fn progress(&self) -> Progress {
        self.fetcher.progress.clone()
    }

    /// Tells what was counted, also while this runs.
    pub fn meters(&self) -> Meters {
        self.fetcher.meters.clone()
    }

    /// Tells whether the queue is paused, also while this runs.
    pub fn pause(&self) -> Pause {
        self.watch.pause.clone()
    }

    /// Claims and carries out downloads as they fall due, until the soft stop; what runs then goes on until the hard
    /// stop.
    pub async fn run(self) {
        let (concurrency, clock, tasks) = (
            self.settings.concurrency,
            self.clock.clone(),
            self.fetcher.tasks.clone(),
        );
        worker::run(Arc::new(self), concurrency, clock, tasks).await;
    }

    /// Fetches and publishes the file; `None` if the lease was lost on the way.
    async fn obtain(&self, claim: &ClaimedDownload, shown: &Shown) -> Option<Result<Settlement, FetchError>> {
        let fetched = match self.fetch(claim, shown).await {
            Ok(fetched) => fetched,
            Err(error) => return Some(Err(error)),
        };
        // What is whole in the spool stays there, and is published without another transfer.
        tokio::select! {
            biased;
            () = self.fetcher.tasks.stopping() => Some(Err(FetchError::Stopped)),
            published = self.publish(claim, fetched) => published.transpose(),
        }
    }

    async fn fetch(&self, claim: &ClaimedDownload, shown: &Shown) -> Result<Fetched, FetchError> {
        let rules = self.rules_of(&claim.source);
        let fetched = self.fetcher.fetch(claim, &rules.allowed_hosts, shown).await;
        self.watch.learn(claim, fetched).await
    }

    fn rules_of(&self, source: &str) -> SourceRules {
        self.rules.now().get(source).cloned().unwrap_or_default()
    }

    /// Makes the file visible if the lease still stands, else `None`. Where nobody can say, the file stays in the spool, and
    /// the download goes back into the queue.
    async fn publish(
        &self,
        claim: &ClaimedDownload,
        fetched: Fetched,
    ) -> Result<Option<Settlement>, FetchError> {
        let Fetched { file, content } = fetched;
        let name = name_of(claim, content.extension);
        let (bytes, sha256) = (file.bytes, file.sha256);
        let storage = &self.fetcher.storage;
        let (source, task_id) = (claim.source.as_str(), claim.task_id.as_str());
        let storage_key = storage.key_of(source, task_id, &name);
        let staged = storage.stage(file, &storage_key, content.content_type).await?;
        failpoint::step(Step::FileStaged);
        let files = storage.task_files(source, task_id).await;
        // Asked under the lock on the task's files: a deletion, or the publication of a later claim, comes either before
        // and is noticed, or after the rename.
        match self.still_holds(claim.lease, &storage_key).await {
            Some(true) => {}
            Some(false) => return Ok(None),
            None => return Err(FetchError::Stopped),
        }
        failpoint::step(Step::LeaseRenewed);
        files.publish(staged).await?;
        failpoint::step(Step::FilePublished);
        Ok(Some(Settlement::Stored {
            name,
            bytes,
            sha256,
            facts: content,
            storage_key,
        }))
    }

    /// Whether the lease stands, however often the store has to be asked; if so, the store knows the key. `None` if it could
    /// not say.
    async fn still_holds(&self, lease: Lease, key: &str) -> Option<bool> {
        let renew = || self.store.renew_to_publish(lease, self.settings.lease, key);
        for tried in 1..SETTLE_TRIES {
            match renew().await {
                Ok(held) => return Some(held),
                Err(_) => tokio::time::sleep(SETTLE_BACKOFF.random_delay(tried)).await,
            }
        }
        renew().await.ok()
    }

    /// Whether the lease still stands; `None` if the store could not say.
    async fn renew(&self, lease: Lease) -> Option<bool> {
        self.store.renew_download(lease, self.settings.lease).await.ok()
    }

    /// Settles, however often the store has to be asked, and logs the one line about this claim.
    async fn settle(
        &self,
        claim: &ClaimedDownload,
        settlement: Settlement,
        (took, received): (Duration, Option<u64>),
    ) {
        for tried in 1..=SETTLE_TRIES {
            let settle = self
                .store
                .settle_attempt(claim.lease, settlement.clone(), received);
            match settle.await {
                Ok(Settled::Done) => {
                    failpoint::step(Step::DownloadSettled);
                    self.fetcher.meters.settled(&settlement, took);
                    span::tell(&self.fetcher.tracer, claim, (Some(&settlement), took));
                    if matches!(settlement, Settlement::Stored { .. } | Settlement::Failed { .. }) {
                        self.forget_spooled(claim);
                    }
                    return log(claim, &settlement, took);
                }
                // A file that was published belongs to whoever holds the row now, or went with the deleted task.
                Ok(Settled::LeaseLost) => return self.lost(claim, took),
                Ok(Settled::Gone) => {
                    self.forget_spooled(claim);
                    return self.lost(claim, took);
                }
                Err(error) if tried == SETTLE_TRIES => {
                    let (task, download) = (claim.task_id.as_str(), claim.lease.download);
                    tracing::error!(
                        task.id = task,
                        download.id = download,
                        %error,
                        "download {download} of task {task} could not be settled, it will be fetched again: {error}"
                    );
                }
                Err(_) => tokio::time::sleep(SETTLE_BACKOFF.random_delay(tried)).await,
            }
        }
    }

    fn lost(&self, claim: &ClaimedDownload, took: Duration) {
        self.fetcher.meters.lost(took);
        span::tell(&self.fetcher.tracer, claim, (None, took));
        log_lost(claim, took);
    }

    fn forget_spooled(&self, claim: &ClaimedDownload) {
        self.fetcher.storage.forget_spooled(claim.lease.download);
    }

    fn settlement_of(&self, failure: &FetchError, claim: &ClaimedDownload, is_paused: bool) -> Settlement {
        let terms = Terms {
            settings: &self.settings,
            can_refresh: self.rules_of(&claim.source).can_refresh,
            is_paused,
            now: self.clock.now(),
            jitter: getrandom::u64().unwrap_or(u64::MAX),
        };
        failure::settlement(failure, claim, terms)
    }
}

impl worker::Queue for Downloader {
    type Job = ClaimedDownload;
    type Error = StoreError;

    async fn claim(&self) -> Result<Option<ClaimedDownload>, StoreError> {
        let exceptions = tokio::select! {
            exceptions = self.watch.exceptions() => exceptions,
            () = self.fetcher.tasks.draining() => None,
        };
        let Some(exceptions) = exceptions else {
            return Ok(None);
        };
        let caps = Caps {
            per_host: self.settings.per_host,
            exceptions,
        };
        self.store.claim_download(self.settings.lease, caps).await
    }

    async fn next_due(&self) -> Result<Option<Millis>, StoreError> {
        if let Some(probe_at) = self.watch.next_probe() {
            return Ok(Some(probe_at));
        }
        let due = self.store.next_download_due().await?;
        Ok(due.into_iter().chain(self.watch.next_turn()).min())
    }

    async fn bring_forward(&self, by: Duration) -> Result<(), StoreError> {
        self.store.bring_downloads_forward(by).await
    }

    fn ring(&self) -> &Notify {
        self.store.downloads_queued()
    }

    async fn carry_out(&self, claim: ClaimedDownload) {
        failpoint::step(Step::DownloadClaimed);
        let started = Instant::now();
        let shown = self.fetcher.progress.begin(claim.lease.download);
        let renew = || self.renew(claim.lease);
        let obtained = worker::while_leased(self.settings.lease / 3, renew, self.obtain(&claim, &shown));
        let settlement = match obtained.await.and_then(identity) {
            Some(Ok(stored)) => stored,
            Some(Err(failure)) => {
                self.fetcher.meters.failed(&failure);
                let is_paused = self.watch.pause_for(&failure, &claim);
                self.settlement_of(&failure, &claim, is_paused)
            }
            None => {
                // Whoever holds the row now has begun a file of his own; or it went with its task, and so does what is left.
                self.forget_spooled(&claim);
                return self.lost(&claim, started.elapsed());
            }
        };
        let came = (started.elapsed(), Some(shown.count()));
        self.settle(&claim, settlement, came).await;
    }

    async fn after_panic(&self, claim: ClaimedDownload) {
        // Costs an attempt like a fault of the server: a file that crashes us each time must come to an end.
        self.fetcher.meters.failed(&FetchError::Panicked);
        let settlement = self.settlement_of(&FetchError::Panicked, &claim, false);
        self.settle(&claim, settlement, (Duration::ZERO, None)).await;
    }
}

fn name_of(claim: &ClaimedDownload, extension: &str) -> String {
    file_name(&claim.kind, claim.index, claim.role, claim.n, extension)
}

/// The one line about a settled claim.
fn log(claim: &ClaimedDownload, settlement: &Settlement, took: Duration) {
    let (task, download, source) = (
        claim.task_id.as_str(),
        claim.lease.download,
        claim.source.as_str(),
    );
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let file = name_of(claim, guess_extension(&claim.url, claim.role));
    let (outcome, error) = match settlement {
        Settlement::Stored { name, bytes, .. } => {
            tracing::info!(
                task.id = task,
                download.id = download,
                source,
                file = name,
                size_bytes = bytes,
                duration_ms,
                "stored {name} of task {task}: {bytes} bytes in {duration_ms} ms"
            );
            return;
        }
        Settlement::Released { error: None, .. } => {
            tracing::info!(
                task.id = task,
                download.id = download,
                source,
                file,
                duration_ms,
                "{file} of task {task} was put back into the queue"
            );
            return;
        }
        Settlement::Retry { error, .. } => ("will be tried again", error),
        Settlement::Expired { error, .. } => ("waits for another URL", error),
        Settlement::Failed { error, .. } => ("failed for good", error),
        Settlement::Released {
            error: Some(error), ..
        } => ("waits for this machine, at no cost", error),
    };
    tracing::warn!(
        task.id = task,
        download.id = download,
        source,
        file,
        duration_ms,
        error.code,
        "{file} of task {task} {outcome}: {}",
        error.detail
    );
}

fn log_lost(claim: &ClaimedDownload, took: Duration) {
    let (task, download) = (claim.task_id.as_str(), claim.lease.download);
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(
        task.id = task,
        download.id = download,
        duration_ms,
        "download {download} of task {task} was let go: its lease was lost or its task deleted"
    );
}
