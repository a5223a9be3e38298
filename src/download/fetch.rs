//! From a URL to a whole, checked file in the spool: one attempt, which goes on where an earlier one was cut.

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::content;
use super::failure::FetchError;
use super::meters::Meters;
use super::progress::{Pace, Progress, Shown};
use super::resume::{self, Answer};
use crate::egress::{EgressError, GuardedClient, Request};
use crate::media::Facts;
use crate::shutdown::Tasks;
use crate::storage::{Finished, Note, Promise, SpoolFile, Storage, StorageError};
use crate::store::downloads::ClaimedDownload;
use crate::telemetry::traces::Tracer;

/// A connection that brought so much of a file is followed by another at once, within the same attempt: a transfer that is cut
/// now and then but gets on has not failed.
const GETS_ON: u64 = 1 << 20;
/// Before it.
const BETWEEN_CONNECTIONS: Duration = Duration::from_secs(1);
/// How often it is looked whether the reserve of the disk is still free, by bytes.
const LOOK_EVERY: u64 = 8 << 20;
/// A write that takes so long has nothing to do with the pace of the transfer.
const SLOW_DISK: Duration = Duration::from_secs(1);

/// With what files are fetched.
#[derive(Debug, Clone)]
pub struct Fetcher {
    /// What asks for them.
    pub client: GuardedClient,
    /// Where they go.
    pub storage: Storage,
    /// Tells when to let go.
    pub tasks: Tasks,
    /// Where their progress is shown.
    pub progress: Progress,
    /// Where what they do is counted.
    pub meters: Meters,
    /// Whom they are told to.
    pub tracer: Tracer,
    /// Within which limits.
    pub limits: Limits,
}

/// What one attempt is held to. The waits for a connection and for each piece of a body belong to the client's
/// [`EgressPolicy`](crate::egress::EgressPolicy).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest file, in bytes.
    pub max_size: u64,
    /// Longest time for one attempt, everything included.
    pub total_timeout: Duration,
    /// Bytes a second that a transfer must bring, on average over each stretch of `stall_timeout`.
    pub min_speed: u64,
    /// Length of that stretch.
    pub stall_timeout: Duration,
}

/// A file that is worth storing.
#[derive(Debug)]
pub struct Fetched {
    /// The file, whole and synced.
    pub file: Finished,
    /// What it is.
    pub content: Facts,
}

impl Fetcher {
    /// Fetches a claimed file into the spool: status, length, size limit and content are checked, in that order. Hosts that
    /// may be asked are those of `allowed_hosts`; none: any public host.
    ///
    /// How far it is shows in `shown`. If it fails for a reason that may pass, or is told to let go, what is there of the file
    /// is left to the next attempt; if it is dropped on the way, nothing is left.
    pub async fn fetch(
        &self,
        claim: &ClaimedDownload,
        allowed_hosts: &[String],
        shown: &Shown,
    ) -> Result<Fetched, FetchError> {
        let mut spool = self.spool(claim).await?;
        let attempt = Attempt {
            with: self,
            claim,
            allowed_hosts,
            shown,
        };
        let limit = self.limits.total_timeout;
        let transferred = tokio::select! {
            biased;
            () = self.tasks.stopping() => Err(FetchError::Stopped),
            transferred = tokio::time::timeout(limit, attempt.transfer(&mut spool)) => {
                transferred.unwrap_or(Err(FetchError::TooSlow { limit }))
            }
        };
        if let Err(error) = transferred {
            if leaves_a_part(&error, &spool) {
                // What cannot be kept is fetched again; why not is told by the next write.
                spool.keep().await.ok();
            }
            return Err(error);
        }
        let file = spool.finish().await?;
        match content::examine(&file, &claim.url).await {
            Ok(content) => Ok(Fetched { file, content }),
            Err(error) => {
                file.discard();
                Err(error)
            }
        }
    }

    async fn spool(&self, claim: &ClaimedDownload) -> Result<SpoolFile, FetchError> {
        let download = claim.lease.download;
        if let Some(spool) = self.storage.resume_spool(download, &claim.url).await? {
            return Ok(spool);
        }
        Ok(self.storage.create_spool(download, claim.lease.token).await?)
    }
}

/// One attempt at one file.
struct Attempt<'a> {
    with: &'a Fetcher,
    claim: &'a ClaimedDownload,
    allowed_hosts: &'a [String],
    shown: &'a Shown,
}

/// An answer that goes on where the spool file ends.
struct Body {
    response: Response,
    /// Bytes that it brings, if the server told.
    brings: Option<u64>,
}

impl Attempt<'_> {
    /// Until the file is whole, over as many connections as it takes while each gets on.
    async fn transfer(&self, spool: &mut SpoolFile) -> Result<(), FetchError> {
        loop {
            let before = spool.bytes();
            match self.connection(spool).await {
                Err(error) if error.is_cut() && spool.bytes() >= before + GETS_ON && can_go_on(spool) => {
                    tracing::debug!(
                        task.id = self.claim.task_id.as_str(),
                        download.id = self.claim.lease.download,
                        bytes = spool.bytes(),
                        "the transfer was cut and goes on: {error}"
                    );
                    tokio::time::sleep(BETWEEN_CONNECTIONS).await;
                }
                ended => return ended,
            }
        }
    }

    async fn connection(&self, spool: &mut SpoolFile) -> Result<(), FetchError> {
        if spool.is_whole() {
            // An earlier attempt got all of it, but could not hand it over.
            return Ok(());
        }
        let body = match self.rest(spool).await? {
            Some(body) => body,
            None => self.whole(spool).await?,
        };
        let promise = self.room(body.brings.unwrap_or(0))?;
        let announced = body.brings.map(|brings| spool.bytes() + brings);
        self.stream(body.response, announced, spool, promise).await?;
        let received = spool.bytes();
        match announced.max(spool.note().and_then(|note| note.total)) {
            // The HTTP library sees to it already, for HTTP/1 by breaking off; a file is not left to that alone.
            Some(announced) if announced != received => Err(FetchError::Length { announced, received }),
            _ => Ok(()),
        }
    }

    /// Asks for what is missing of a file that can be gone on with. `None` if it cannot, or the answer is of no use.
    async fn rest(&self, spool: &mut SpoolFile) -> Result<Option<Body>, FetchError> {
        let bytes = spool.bytes();
        let Some(note) = spool.note().filter(|_| bytes > 0).cloned() else {
            return Ok(None);
        };
        let Some(headers) = resume::ask_for_rest(&note, bytes) else {
            return Ok(None);
        };
        let response = self.ask(headers).await?;
        match resume::judge(response.status(), response.headers(), &note, bytes) {
            Answer::Rest { total, brings } => {
                check_encoding(&response)?;
                check_size(Some(total), self.with.limits.max_size)?;
                spool.set_total(total);
                self.shown.total(Some(total));
                let brings = Some(brings);
                Ok(Some(Body { response, brings }))
            }
            Answer::Plain => Ok(Some(self.begin(response, spool).await?)),
            Answer::Useless => Ok(None),
        }
    }

    /// Asks for the whole file.
    async fn whole(&self, spool: &mut SpoolFile) -> Result<Body, FetchError> {
        let response = self.ask(HeaderMap::new()).await?;
        self.begin(response, spool).await
    }

    async fn ask(&self, headers: HeaderMap) -> Result<Response, FetchError> {
        let request = Request {
            url: &self.claim.url,
            allowed_hosts: self.allowed_hosts,
            headers,
        };
        Ok(self.with.client.get(&request).await?)
    }

    /// Takes an answer for the whole file: what there was of it goes.
    async fn begin(&self, response: Response, spool: &mut SpoolFile) -> Result<Body, FetchError> {
        check_status(&response)?;
        check_encoding(&response)?;
        let brings = response.content_length();
        check_size(brings, self.with.limits.max_size)?;
        let note = Note {
            source: self.claim.source.clone(),
            task_id: self.claim.task_id.to_string(),
            url: self.claim.url.clone(),
            validator: resume::validator(response.headers(), brings),
            total: brings,
        };
        spool.restart(note).await?;
        self.shown.total(brings);
        Ok(Body { response, brings })
    }

    /// Room for so many bytes; where there is none, what waits in the spool makes room first.
    fn room(&self, bytes: u64) -> Result<Promise, FetchError> {
        let storage = &self.with.storage;
        match storage.admit(bytes) {
            Err(StorageError::NoRoom { fits: true, .. }) if storage.forget_all_spooled() > 0 => {
                Ok(storage.admit(bytes)?)
            }
            admitted => Ok(admitted?),
        }
    }

    /// Writes what the answer brings, up to where it said that the file `ends`.
    async fn stream(
        &self,
        mut response: Response,
        ends: Option<u64>,
        spool: &mut SpoolFile,
        mut promise: Promise,
    ) -> Result<(), FetchError> {
        let limits = self.with.limits;
        let mut pace = Pace::from(
            self.shown,
            spool.bytes(),
            (limits.min_speed, limits.stall_timeout),
        );
        let mut looked_at = spool.bytes();
        loop {
            let judged_at = pace.judged_at().into();
            let chunk = match tokio::time::timeout_at(judged_at, response.chunk()).await {
                Err(_) => {
                    self.keeps_up(&mut pace, spool.bytes())?;
                    continue;
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Err(error)) => {
                    let host = response.url().host_str().unwrap_or_default();
                    return Err(EgressError::from_transport(error, host).into());
                }
            };
            let received = spool.bytes() + chunk.len() as u64;
            check_size(Some(received), limits.max_size)?;
            if let Some(announced) = ends.filter(|announced| received > *announced) {
                return Err(FetchError::Length { announced, received });
            }
            let began = Instant::now();
            spool.write(&chunk).await?;
            if began.elapsed() >= SLOW_DISK {
                // That was not the server's fault.
                pace = Pace::from(self.shown, received, (limits.min_speed, limits.stall_timeout));
            }
            promise.used(chunk.len() as u64);
            self.with.meters.received(chunk.len() as u64);
            self.keeps_up(&mut pace, received)?;
            if received - looked_at >= LOOK_EVERY {
                looked_at = received;
                self.with.storage.has_reserve()?;
            }
        }
    }

    fn keeps_up(&self, pace: &mut Pace<'_>, bytes: u64) -> Result<(), FetchError> {
        let limits = self.with.limits;
        pace.note(bytes).map_err(|speed| FetchError::Stalled {
            speed,
            least: limits.min_speed,
            over: limits.stall_timeout,
        })
    }
}

/// Whether what is there of a file is worth going on with. What grows without having told how far would make the disk full for
/// all others.
fn leaves_a_part(error: &FetchError, spool: &SpoolFile) -> bool {
    let is_bounded = spool.note().is_some_and(|note| note.total.is_some());
    error.leaves_a_part() && (is_bounded || !matches!(error, FetchError::Storage(error) if error.is_full()))
}

/// Whether the next connection can go on where this one ended.
fn can_go_on(spool: &SpoolFile) -> bool {
    spool.note().is_some_and(|note| note.validator.is_some())
}

fn check_status(response: &Response) -> Result<(), FetchError> {
    // No range was asked for, or none that this answers: 206 is as wrong as any other status.
    if response.status() == StatusCode::OK {
        return Ok(());
    }
    Err(FetchError::Status {
        status: response.status().as_u16(),
        retry_after: text_of(response, &RETRY_AFTER),
    })
}

fn check_encoding(response: &Response) -> Result<(), FetchError> {
    let plain =
        |encoding: &str| encoding.trim().is_empty() || encoding.trim().eq_ignore_ascii_case("identity");
    match text_of(response, &CONTENT_ENCODING).filter(|encoding| !plain(encoding)) {
        Some(encoding) => Err(FetchError::Encoded { encoding }),
        None => Ok(()),
    }
}

fn check_size(bytes: Option<u64>, limit: u64) -> Result<(), FetchError> {
    if bytes.is_some_and(|bytes| bytes > limit) {
        return Err(FetchError::TooLarge { limit });
    }
    Ok(())
}

fn text_of(response: &Response, name: &HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}
