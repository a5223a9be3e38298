//! One queued file, from claim to settlement.
//!
//! Claim → fetch into the spool ([`fetch`]) → stage → renew → publish → settle. What a failure leads to is decided in [`failure`], whether a
//! body is media in [`content`]. The store is asked before and after, never held in between.

use std::collections::HashMap;
use std::convert::identity;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock::{Clock, Millis};
use crate::config::Live;
use crate::egress::GuardedClient;
use crate::failpoint::{self, Step};
use crate::provider::naming::{file_name, guess_extension};
use crate::retry::Backoff;
use crate::shutdown::Tasks;
use crate::storage::{Storage, StorageError};
use crate::store::downloads::{ClaimedDownload, Lease, Settled, Settlement};
use crate::store::{Store, StoreError};
use crate::worker;

pub mod content;
pub mod failure;
pub mod fetch;
#[cfg(test)]
mod tests;

use failure::FetchError;
use fetch::{Fetched, Target, fetch_to_spool};

/// Between two tries to settle while the store fails.
const SETTLE_BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(5),
};

/// How often settling is tried. After that the lease runs out, and the file is fetched again.
const SETTLE_TRIES: u32 = 6;

/// How downloads are done. The waits for a connection and for each piece of a body belong to the client's
/// [`EgressPolicy`](crate::egress::EgressPolicy).
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most downloads at once.
    pub concurrency: usize,
    /// Most downloads at once from one host.
    pub per_host: u32,
    /// Largest file, in bytes.
    pub max_size: u64,
    /// Longest time for one attempt, everything included.
    pub total_timeout: Duration,
    /// How long a claim stands without renewal; it is renewed every third of it.
    pub lease: Duration,
    /// Attempts that count, after which a download is failed.
    pub max_attempts: u32,
    /// The wait before the next attempt.
    pub backoff: Backoff,
}

/// By source: the hosts it may fetch from. A source that is not listed, or with an empty list: any public host.
pub type AllowedHosts = HashMap<String, Vec<String>>;

/// Carries out queued downloads. Cheap to clone, apart from the settings.
#[derive(Debug, Clone)]
pub struct Downloader {
    /// Where downloads are claimed and settled.
    pub store: Store,
    /// Where files go.
    pub storage: Storage,
    /// What fetches them.
    pub client: GuardedClient,
    /// When they fall due.
    pub clock: Clock,
    /// Under which they run, and which tells them to stop.
    pub tasks: Tasks,
    /// Within which limits.
    pub settings: Settings,
    /// From which hosts; may be replaced while downloads run, and holds for those that start afterwards.
    pub allowed_hosts: Live<AllowedHosts>,
}

impl Downloader {
    /// Claims and carries out downloads as they fall due, until the soft stop; what runs then goes on until the hard
    /// stop.
    pub async fn run(self) {
        let (concurrency, clock, tasks) = (self.settings.concurrency, self.clock.clone(), self.tasks.clone());
        worker::run(Arc::new(self), concurrency, clock, tasks).await;
    }

    /// Claims and carries out one due download, if there is one, and says whether there was.
    pub async fn step(&self) -> Result<bool, StoreError> {
        worker::step(self).await
    }

    /// Fetches and publishes the file; `None` if the lease was lost on the way, or nobody could say whether it stands.
    async fn obtain(&self, claim: &ClaimedDownload) -> Option<Result<Settlement, FetchError>> {
        let fetched = match self.fetch(claim).await {
            Ok(fetched) => fetched,
            Err(error) => return Some(Err(error)),
        };
        self.publish(claim, fetched)
            .await
            .map_err(FetchError::from)
            .transpose()
    }

    async fn fetch(&self, claim: &ClaimedDownload) -> Result<Fetched, FetchError> {
        let allowed_hosts = self.allowed_hosts_of(&claim.source);
        let target = Target {
            lease: claim.lease,
            url: &claim.url,
            allowed_hosts: &allowed_hosts,
            max_size: self.settings.max_size,
            total_timeout: self.settings.total_timeout,
        };
        fetch_to_spool(&self.client, &self.storage, &target).await
    }

    fn allowed_hosts_of(&self, source: &str) -> Vec<String> {
        self.allowed_hosts.now().get(source).cloned().unwrap_or_default()
    }

    /// Makes the file visible if the lease still stands, else removes it: `None`.
    async fn publish(
        &self,
        claim: &ClaimedDownload,
        fetched: Fetched,
    ) -> Result<Option<Settlement>, StorageError> {
        let Fetched { file, content } = fetched;
        let name = name_of(claim, content.extension);
        let (bytes, sha256) = (file.bytes, file.sha256);
        let staged = self.storage.stage(file).await?;
        failpoint::step(Step::FileStaged);
        let files = self
            .storage
            .task_files(&claim.source, claim.task_id.as_str())
            .await;
        // Asked under the lock on the task's files: a deletion, or the publication of a later claim, comes either before
        // and is noticed, or after the rename.
        if !self.still_holds(claim.lease).await {
            return Ok(None);
        }
        failpoint::step(Step::LeaseRenewed);
        let storage_key = files.publish(staged, &name).await?;
        failpoint::step(Step::FilePublished);
        Ok(Some(Settlement::Stored {
            name,
            bytes,
            sha256,
            content_type: content.content_type.to_owned(),
            storage_key,
        }))
    }

    /// Whether the lease stands for sure, however often the store has to be asked.
    async fn still_holds(&self, lease: Lease) -> bool {
        for tried in 1..SETTLE_TRIES {
            match self.renew(lease).await {
                Some(held) => return held,
                None => tokio::time::sleep(SETTLE_BACKOFF.random_delay(tried)).await,
            }
        }
        self.renew(lease).await == Some(true)
    }

    /// Whether the lease still stands; `None` if the store could not say.
    async fn renew(&self, lease: Lease) -> Option<bool> {
        self.store.renew_download(lease, self.settings.lease).await.ok()
    }

    /// Settles, however often the store has to be asked, and logs the one line about this claim.
    async fn settle(&self, claim: &ClaimedDownload, settlement: Settlement, took: Duration) {
        for tried in 1..=SETTLE_TRIES {
            match self.store.settle_download(claim.lease, settlement.clone()).await {
                Ok(Settled::Done) => {
                    failpoint::step(Step::DownloadSettled);
                    return log(claim, &settlement, took);
                }
                // A file that was published belongs to whoever holds the row now, or went with the deleted task.
                Ok(Settled::LeaseLost | Settled::Gone) => return log_lost(claim, took),
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

    fn settlement_of(&self, failure: &FetchError, claim: &ClaimedDownload) -> Settlement {
        let jitter = getrandom::u64().unwrap_or(u64::MAX);
        failure::settlement(failure, claim, &self.settings, self.clock.now(), jitter)
    }
}

impl worker::Queue for Downloader {
    type Job = ClaimedDownload;
    type Error = StoreError;

    async fn claim(&self) -> Result<Option<ClaimedDownload>, StoreError> {
        let Settings { lease, per_host, .. } = self.settings;
        self.store.claim_download(lease, per_host).await
    }

    async fn next_due(&self) -> Result<Option<Millis>, StoreError> {
        self.store.next_download_due().await
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
        let renew = || self.renew(claim.lease);
        let obtained = worker::while_leased(self.settings.lease / 3, renew, self.obtain(&claim));
        let settlement = tokio::select! {
            biased;
            // Dropping `obtained` closes the connection and removes the spool file.
            () = self.tasks.stopping() => Settlement::Released { at: self.clock.now(), error: None },
            obtained = obtained => match obtained.and_then(identity) {
                Some(Ok(stored)) => stored,
                Some(Err(failure)) => self.settlement_of(&failure, &claim),
                None => return log_lost(&claim, started.elapsed()),
            },
        };
        self.settle(&claim, settlement, started.elapsed()).await;
    }

    async fn after_panic(&self, claim: ClaimedDownload) {
        // Costs an attempt like a fault of the server: a file that crashes us each time must come to an end.
        let settlement = self.settlement_of(&FetchError::Panicked, &claim);
        self.settle(&claim, settlement, Duration::ZERO).await;
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
        Settlement::Failed { error } => ("failed for good", error),
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
