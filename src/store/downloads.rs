//! The durable download queue: claim, renew, settle.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, ToSql, params};
use sqlx::Row as _;
use url::Url;

use super::asks::{self, FreshLink};
use super::ranges::{self, of_task};
use super::record::to_json;
use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError, attempts, deletion, summary};
use crate::clock::{Millis, millis};
use crate::media::Facts;
use crate::provider::naming::{file_name, guess_extension};
use crate::provider::{Kind, Media, MediaFault, Role, TaskId};

/// Who may change a claimed download: its row and the token of the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The download's row id.
    pub download: i64,
    /// Fencing token: unique to this claim.
    pub token: i64,
}

/// How many downloads of one host may be claimed at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caps {
    /// Of each host.
    pub per_host: u32,
    /// But of these.
    pub exceptions: HashMap<String, u32>,
}

impl From<u32> for Caps {
    /// The same of every host.
    fn from(per_host: u32) -> Self {
        Self {
            per_host,
            exceptions: HashMap::new(),
        }
    }
}

/// A download that this process may now fetch.
#[derive(Debug, Clone)]
pub struct ClaimedDownload {
    /// The right to change it.
    pub lease: Lease,
    /// The source's name.
    pub source: String,
    /// The provider's task id.
    pub task_id: TaskId,
    /// Which outcome of the task announced it.
    pub kind: Kind,
    /// The outcome's index.
    pub index: u32,
    /// What the file is to the task.
    pub role: Role,
    /// Its place among those of the role.
    pub n: u32,
    /// Where to fetch it.
    pub url: String,
    /// The host of that, as the cap per host counts it.
    pub host: String,
    /// When it was queued first.
    pub queued_at: Millis,
    /// Attempts that counted so far.
    pub attempts: u32,
    /// When the provider is expected to delete it.
    pub deadline: Millis,
}

/// A failure as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadError {
    /// Stable: `blocked`, `expired`, `not_media`, `truncated`, `too_large`, `http_status`, `network`, `local`, ….
    pub code: &'static str,
    /// One sentence for people, without secrets and without the URL's query.
    pub detail: String,
}

/// How a claimed download ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The file lies at `storage_key`, whole and synced.
    Stored {
        /// File name with its true extension.
        name: String,
        /// Length in bytes.
        bytes: u64,
        /// SHA-256 of the content.
        sha256: [u8; 32],
        /// What it is, by its content.
        facts: Facts,
        /// Key in the storage.
        storage_key: String,
    },
    /// A remote failure worth another attempt at `at`; costs an attempt.
    Retry {
        /// When to try again.
        at: Millis,
        /// What happened.
        error: DownloadError,
    },
    /// The URL leads to the file no more: another one is wanted (`needs_url`); until there is one, this one is tried again at
    /// `at`. Costs an attempt.
    Expired {
        /// When to try again.
        at: Millis,
        /// What happened.
        error: DownloadError,
    },
    /// Back to the queue at `at` without costing an attempt (shutdown, local fault).
    Released {
        /// When to try again.
        at: Millis,
        /// What happened, if anything did.
        error: Option<DownloadError>,
    },
    /// Never again by itself.
    Failed {
        /// Why.
        error: DownloadError,
        /// Whether it cost an attempt: what nothing can change does not.
        counts: bool,
    },
}

impl Settlement {
    /// What the attempt led to, in a word.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Stored { .. } => "stored",
            Self::Retry { .. } => "retry",
            Self::Expired { .. } => "expired",
            Self::Released { .. } => "released",
            Self::Failed { .. } => "failed",
        }
    }

    /// What went wrong, if anything did.
    pub fn error(&self) -> Option<&DownloadError> {
        match self {
            Self::Stored { .. } => None,
            Self::Released { error, .. } => error.as_ref(),
            Self::Retry { error, .. } | Self::Expired { error, .. } | Self::Failed { error, .. } => {
                Some(error)
            }
        }
    }
}

/// What a settlement found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is recorded.
    Done,
    /// Another claim holds the row now; nothing was changed, and the file is the other's to write.
    LeaseLost,
    /// The row is gone with its task; whoever deleted that removes the files.
    Gone,
}

impl Store {
    /// Claims the due download with the earliest deadline whose host has fewer live claims than `caps` says; expired leases
    /// count as due. `None` if there is none.
    pub async fn claim_download(
        &self,
        lease_for: Duration,
        caps: impl Into<Caps>,
    ) -> Result<Option<ClaimedDownload>, StoreError> {
        let caps = caps.into();
        match self.write(Command::Claim { lease_for, caps }).await? {
            Reply::Claimed(claimed) => Ok(claimed.map(|claimed| *claimed)),
            other => unreachable!("a claim was answered with {other:?}"),
        }
    }

    /// Extends a lease. `false` if it was lost: the holder must let go without settling.
    pub async fn renew_download(&self, lease: Lease, lease_for: Duration) -> Result<bool, StoreError> {
        self.renew(lease, lease_for, None).await
    }

    /// Extends a lease for the last time before a file is published under `key`, which the store knows from then on:
    /// whatever becomes of this process, a deletion finds the file. `false` if the lease was lost.
    pub async fn renew_to_publish(
        &self,
        lease: Lease,
        lease_for: Duration,
        key: &str,
    ) -> Result<bool, StoreError> {
        self.renew(lease, lease_for, Some(key.to_owned())).await
    }

    async fn renew(
        &self,
        lease: Lease,
        lease_for: Duration,
        publish_as: Option<String>,
    ) -> Result<bool, StoreError> {
        let renew = Command::Renew {
            lease,
            lease_for,
            publish_as,
        };
        match self.write(renew).await? {
            Reply::Renewed(held) => Ok(held),
            other => unreachable!("a renewal was answered with {other:?}"),
        }
    }

    /// Ends a claim.
    pub async fn settle_download(&self, lease: Lease, settlement: Settlement) -> Result<Settled, StoreError> {
        self.settle_attempt(lease, settlement, None).await
    }

    /// Ends a claim, and tells how many bytes of the file there were when it failed.
    pub async fn settle_attempt(
        &self,
        lease: Lease,
        settlement: Settlement,
        received: Option<u64>,
    ) -> Result<Settled, StoreError> {
        let settle = Command::Settle {
            lease,
            settlement,
            received,
        };
        match self.write(settle).await? {
            Reply::Settled(settled) => Ok(settled),
            other => unreachable!("a settlement was answered with {other:?}"),
        }
    }

    /// Ends every lease: for the start, when the data directory's lock proves that no other process holds one.
    pub async fn release_downloads(&self) -> Result<(), StoreError> {
        self.write(Command::ReleaseAll).await.map(|_| ())
    }

    /// Has waiting downloads fall due so much earlier, for a clock that was set back; none before now.
    pub async fn bring_downloads_forward(&self, by: Duration) -> Result<(), StoreError> {
        self.write(Command::BringForward { by }).await.map(|_| ())
    }

    /// Queues the failed downloads of a task again with fresh attempts; how many. Entries that stand for files
    /// past a bound stay failed.
    pub async fn retry_task(&self, task: i64) -> Result<u64, StoreError> {
        match self.write(Command::RetryTask { task }).await? {
            Reply::Queued(queued) => Ok(queued),
            other => unreachable!("a retry was answered with {other:?}"),
        }
    }

    /// Which of these downloads are to be fetched, now or later, and from where.
    pub async fn downloads_wanted(&self, ids: &[i64]) -> Result<HashMap<i64, String>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, COALESCE(fetch_url, url) FROM downloads WHERE id IN (SELECT value FROM jsonb_each($1))
                AND state IN ('queued', 'held', 'needs_url', 'downloading')",
        )
        .bind(to_json(&ids))
        .fetch_all(&self.readers)
        .await?;
        let wanted = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        Ok(wanted.collect::<Result<_, sqlx::Error>>()?)
    }

    /// When the next download that the last claim found not to be claimable may become so by the clock alone, if any. It
    /// may have fallen due since.
    pub async fn next_download_due(&self) -> Result<Option<Millis>, StoreError> {
        let row = sqlx::query(
            "SELECT min(at) FROM (
                SELECT min(waits_until) AS at FROM downloads WHERE waits_until IS NOT NULL
                UNION ALL SELECT min(lease_until) FROM downloads WHERE state = 'downloading')",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(row.try_get(0)?)
    }
}

/// A download row to be written.
#[derive(Debug)]
pub(super) struct NewDownload {
    task: i64,
    kind: String,
    idx: u32,
    role: &'static str,
    n: u32,
    name: String,
    url: String,
    host: String,
    state: &'static str,
    deadline: Millis,
    next_at: Millis,
    error_code: Option<&'static str>,
    error_detail: Option<String>,
}

/// A file that an outcome has already.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) id: i64,
    pub(super) role: String,
    pub(super) n: u32,
    pub(super) url: String,
    /// Or was, and went by age.
    pub(super) stored: bool,
    /// Whether it is fetched, now or later, or waits for another link.
    pub(super) under_way: bool,
}

/// The files of an outcome.
pub(super) fn present(tx: &Tx<'_>, task: i64, (kind, index): (&Kind, u32)) -> rusqlite::Result<Vec<Present>> {
    let mut files = tx.db.prepare_cached(concat!(
        "SELECT id, role, n, url, state IN ('stored', 'deleted'), state IN ('queued', 'downloading', 'needs_url')
         FROM downloads WHERE ",
        of_task!("?1"),
        " AND kind = ?2 AND idx = ?3"
    ))?;
    let rows = files.query_map(params![task, kind.as_str(), index], |row| {
        Ok(Present {
            id: row.get(0)?,
            role: row.get(1)?,
            n: row.get(2)?,
            url: row.get(3)?,
            stored: row.get(4)?,
            under_way: row.get(5)?,
        })
    })?;
    rows.collect()
}

impl NewDownload {
    /// An announced file: queued at once, or failed at once if it can never be fetched.
    pub(super) fn announced(
        task: i64,
        (kind, index): (&Kind, u32),
        media: &Media,
        received_at: Millis,
    ) -> Self {
        let extension = guess_extension(&media.url, media.role);
        let error = media.fault.map(fault_error);
        let (error_code, error_detail) = error.map_or((None, None), |e| (Some(e.code), Some(e.detail)));
        Self {
            task,
            kind: kind.to_string(),
            idx: index,
            role: media.role.as_str(),
            n: media.n,
            name: file_name(kind, index, media.role, media.n, extension),
            url: media.url.replace('\0', "\u{fffd}"),
            host: host_of(&media.url),
            state: if error_code.is_some() { "failed" } else { "queued" },
            deadline: received_at.saturating_add(millis(media.lifetime)),
            next_at: received_at,
            error_code,
            error_detail,
        }
    }

    /// Has it wait for the provider's word.
    pub(super) fn hold(&mut self) {
        if self.is_queued() {
            self.state = "held";
        }
    }

    /// Puts the first attempt at another moment than the delivery's.
    pub(super) fn due_at(&mut self, at: Millis) {
        self.next_at = at;
    }

    /// Writes it, among the files that its outcome has. One in its place (of an outcome that failed after it had files) is
    /// taken over unless it is stored.
    pub(super) fn insert(&self, tx: &mut Tx<'_>, present: &[Present]) -> rusqlite::Result<()> {
        let mut there = present.iter();
        match there.find(|file| file.role == self.role && file.n == self.n) {
            Some(file) if file.stored => Ok(()),
            // The same file again: it is on its way.
            Some(file) if file.under_way && file.url == self.url => Ok(()),
            Some(file) => {
                let of_row = [file.id, tx.now, tx.next_change(self.task)];
                tx.execute(TAKE_OVER, self.values(&of_row))?;
                self.note(tx, file.id);
                Ok(())
            }
            None => {
                let id = ranges::next(tx, self.task, LAST)?;
                self.insert_at(tx, id)
            }
        }
    }

    /// Writes it as a row that its task does not have yet.
    pub(super) fn insert_at(&self, tx: &mut Tx<'_>, id: i64) -> rusqlite::Result<()> {
        let of_row = [id, tx.now, tx.next_change(self.task)];
        tx.execute(INSERT, self.values(&of_row))?;
        tx.note_inserted(match self.state {
            "queued" => "files.queued",
            "held" => "files.held",
            _ => "files.failed",
        });
        self.note(tx, id);
        Ok(())
    }

    /// The parameters of both statements; id, time and change number are those of the row.
    fn values<'a>(&'a self, [id, now, change]: &'a [i64; 3]) -> [&'a dyn ToSql; 15] {
        [
            id,
            &self.kind,
            &self.idx,
            &self.role,
            &self.n,
            &self.name,
            &self.url,
            &self.host,
            &self.state,
            &self.deadline,
            &self.next_at,
            &self.error_code,
            &self.error_detail,
            now,
            change,
        ]
    }

    fn is_queued(&self) -> bool {
        self.state == "queued"
    }

    /// Notes what others are told of the row that it was written as.
    fn note(&self, tx: &mut Tx<'_>, id: i64) {
        match self.state {
            "queued" => tx.note_queued(),
            "failed" => tx.note_ended(self.task, id),
            _ => {}
        }
    }
}

const INSERT: &str = "
    INSERT INTO downloads (id, kind, idx, role, n, name, url, host, state, deadline, next_at, attempts, error_code,
                           error_detail, created_at, updated_at, change_seq)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, ?12, ?13, ?14, ?14, ?15)";

const TAKE_OVER: &str = "
    UPDATE downloads SET name = ?6, url = ?7, fetch_url = NULL, host = ?8, state = ?9, deadline = ?10, next_at = ?11,
        waits_until = NULL, attempts = CASE state WHEN 'needs_url' THEN attempts ELSE 0 END, lease_until = NULL, lease_token = COALESCE(lease_token, 0) + 1, error_code = ?12,
        error_detail = ?13, updated_at = ?14, change_seq = ?15
    WHERE id = ?1 AND kind = ?2 AND idx = ?3 AND role = ?4 AND n = ?5";

/// The last download of a task.
const LAST: &str = concat!(
    "SELECT id FROM downloads WHERE ",
    of_task!("?1"),
    " ORDER BY id DESC LIMIT 1"
);

/// Whether an entry stands for all files past the bound.
pub(super) fn stands_for_too_many(media: &Media) -> bool {
    matches!(media.fault, Some(MediaFault::TooManyFiles { .. }))
}

fn fault_error(fault: MediaFault) -> DownloadError {
    match fault {
        MediaFault::UrlTooLong => DownloadError {
            code: "url_too_long",
            detail: "the announced URL is longer than 8 KiB; the raw delivery has it whole".to_owned(),
        },
        MediaFault::TooManyFiles { announced } => DownloadError {
            code: "too_many_files",
            detail: format!(
                "the delivery announced {announced} files, more than reelhook fetches for one; \
                 this and the further ones stand in the raw delivery"
            ),
        },
    }
}

/// The host a URL names, lower case, for the cap per host; empty if it names none (the guard refuses it later).
fn host_of(url: &str) -> String {
    let parsed = || {
        let url = Url::parse(url).ok()?;
        Some(url.host_str()?.trim_end_matches('.').to_owned())
    };
    plain_host(url)
        .map(str::to_owned)
        .or_else(parsed)
        .unwrap_or_default()
}

/// The host of a URL as nearly all are written, at a hundredth of the cost of parsing it: a lower-case name or an IPv4 address, perhaps
/// with a port.
fn plain_host(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let (authority, _) = rest.split_once('/')?;
    let host = match authority.split_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        Some(_) => return None,
        None => authority,
    };
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let last = host.rsplit('.').next()?;
    // A last part that begins with a digit may be one of the odd spellings of an address.
    let is_name = last.starts_with(|c: char| c.is_ascii_lowercase())
        && !host.starts_with("xn--")
        && !host.contains(".xn--");
    let is_address = || host.parse::<std::net::Ipv4Addr>().is_ok();
    (host.bytes().all(is_plain) && (is_name || is_address())).then_some(host)
}

/// Parses a column that was written from the same type; anything else is a damaged database.
pub(super) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error: T::Err| damaged(column, error))
}

pub(super) fn role_from(row: &Row<'_>, column: usize) -> rusqlite::Result<Role> {
    let text = row.get_ref(column)?.as_str()?;
    [Role::Result, Role::Origin, Role::Full, Role::Image, Role::Audio]
        .into_iter()
        .find(|role| role.as_str() == text)
        .ok_or_else(|| damaged(column, format!("{text:?} is no role")))
}

fn damaged(column: usize, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

pub(super) fn renew(tx: &Tx<'_>, lease: Lease, lease_for: Duration) -> rusqlite::Result<bool> {
    let renewed = tx.execute(
        "UPDATE downloads SET lease_until = ?3 WHERE id = ?1 AND lease_token = ?2 AND state = 'downloading'",
        params![
            lease.download,
            lease.token,
            tx.now.saturating_add(millis(lease_for))
        ],
    )?;
    Ok(renewed == 1)
}

pub(super) fn settle(
    tx: &mut Tx<'_>,
    lease: Lease,
    settlement: &Settlement,
    received: Option<u64>,
) -> rusqlite::Result<Settled> {
    attempts::note_settled(tx, lease, settlement, received)?;
    let settled = match settlement {
        Settlement::Stored { .. } => store(tx, lease, settlement)?,
        Settlement::Retry { at, error } => unfinished(tx, lease, ("queued", 1, *at), Some(error))?,
        Settlement::Released { at, error } => unfinished(tx, lease, ("queued", 0, *at), error.as_ref())?,
        Settlement::Expired { at, error } => unfinished(tx, lease, ("needs_url", 1, *at), Some(error))?,
        Settlement::Failed { error, counts } => {
            unfinished(tx, lease, ("failed", i64::from(*counts), tx.now), Some(error))?
        }
    };
    let Some(task) = settled else {
        let there: bool = tx
            .db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM downloads WHERE id = ?1)")?
            .query_row(params![lease.download], |row| row.get(0))?;
        return Ok(if there { Settled::LeaseLost } else { Settled::Gone });
    };
    // A claim ended: even a final failure may have made room for a download of the same host.
    tx.note_queued();
    if matches!(settlement, Settlement::Stored { .. } | Settlement::Failed { .. }) {
        tx.note_ended(task, lease.download);
    }
    summary::refresh(tx, task)?;
    if let Settlement::Expired { at, .. } = settlement {
        ask_for_link(tx, lease.download, *at)?;
    }
    Ok(Settled::Done)
}

/// How long a file waits for a fresh link before the old one is tried again: nobody may be there to ask.
const WITHOUT_FRESH_LINK: Duration = Duration::from_hours(6);

/// Has the provider asked for another link: at once the first time, and then not before `at`, which is later each time.
fn ask_for_link(tx: &mut Tx<'_>, download: i64, at: Millis) -> rusqlite::Result<()> {
    let (task, kind, index, attempts): (i64, Kind, u32, i64) = tx
        .db
        .prepare_cached("SELECT task, kind, idx, attempts FROM downloads WHERE id = ?1")?
        .query_row(params![download], |row| {
            Ok((row.get(0)?, parsed(row, 1)?, row.get(2)?, row.get(3)?))
        })?;
    let due = (attempts > 1).then_some(at);
    asks::review(tx, (task, (&kind, index)), due)
}

pub(super) fn refresh_link(tx: &mut Tx<'_>, download: i64, fresh: &FreshLink) -> rusqlite::Result<()> {
    attempts::note_refreshed(tx, download, matches!(fresh, FreshLink::Link { .. }))?;
    let found = match fresh {
        FreshLink::Link { url, until } => tx
            .db
            .prepare_cached(
                "UPDATE downloads SET state = 'queued', fetch_url = ?2, host = ?3, deadline = ?4, next_at = ?5,
                    waits_until = NULL, updated_at = ?5, change_seq = ?6
                 WHERE id = ?1 AND state = 'needs_url' RETURNING task, kind, idx",
            )?
            .query_row(
                params![download, url, host_of(url), until, tx.now, tx.upcoming_change()],
                |row| Ok((row.get(0)?, parsed(row, 1)?, row.get(2)?)),
            )
            .optional()?,
        FreshLink::None => tx
            .db
            .prepare_cached(
                "UPDATE downloads SET state = 'queued', fetch_url = NULL, waits_until = max(next_at, ?2 + 1),
                    next_at = max(next_at, ?2 + 1), updated_at = ?2, change_seq = ?3
                 WHERE id = ?1 AND state = 'needs_url' RETURNING task, kind, idx",
            )?
            .query_row(params![download, tx.now, tx.upcoming_change()], |row| {
                Ok((row.get(0)?, parsed(row, 1)?, row.get(2)?))
            })
            .optional()?,
    };
    let Some((task, kind, index)): Option<(i64, Kind, u32)> = found else {
        return Ok(());
    };
    tx.note_queued();
    summary::refresh(tx, task)?;
    asks::review(tx, (task, (&kind, index)), None)
}

/// Has the files fetched that waited for the provider's word.
pub(super) fn release_held(
    tx: &mut Tx<'_>,
    (task, (kind, index)): asks::Place<'_>,
) -> rusqlite::Result<usize> {
    let released = tx.execute(
        concat!(
            "UPDATE downloads SET state = 'queued', next_at = ?4, updated_at = ?4, change_seq = ?5 WHERE ",
            of_task!("?1"),
            " AND kind = ?2 AND idx = ?3 AND state = 'held'"
        ),
        params![task, kind.as_str(), index, tx.now, tx.upcoming_change()],
    )?;
    if released > 0 {
        tx.note_queued();
    }
    Ok(released)
}

/// Fails the files of an outcome that wait in a state. The caller refreshes the task's summary.
pub(super) fn fail_waiting(
    tx: &mut Tx<'_>,
    (task, (kind, index)): asks::Place<'_>,
    state: &str,
    (code, detail): (&str, &str),
) -> rusqlite::Result<()> {
    let failed: Vec<i64> = tx.all(
        concat!(
            "UPDATE downloads SET state = 'failed', waits_until = NULL, error_code = ?5, error_detail = ?6,
                updated_at = ?7, change_seq = ?8 WHERE ",
            of_task!("?1"),
            " AND kind = ?2 AND idx = ?3 AND state = ?4 RETURNING id"
        ),
        params![
            task,
            kind.as_str(),
            index,
            state,
            code,
            detail,
            tx.now,
            tx.upcoming_change()
        ],
        |row| row.get(0),
    )?;
    for download in failed {
        tx.note_ended(task, download);
    }
    Ok(())
}

/// The task of the row, if the lease still holds.
fn store(tx: &Tx<'_>, lease: Lease, stored: &Settlement) -> rusqlite::Result<Option<i64>> {
    let Settlement::Stored {
        name,
        bytes,
        sha256,
        facts,
        storage_key,
    } = stored
    else {
        unreachable!("the caller looked");
    };
    deletion::settle_key(tx, lease, storage_key)?;
    tx.db
        .prepare_cached(
            "UPDATE downloads SET state = 'stored', attempts = attempts + 1, lease_until = NULL, updated_at = ?3,
                change_seq = ?4, name = ?5, bytes = ?6, sha256 = ?7, content_type = ?8, storage_key = ?9,
                duration_ms = ?10, width = ?11, height = ?12, codec = ?13, error_code = NULL, error_detail = NULL
             WHERE id = ?1 AND lease_token = ?2 AND state = 'downloading' RETURNING task",
        )?
        .query_row(
            params![
                lease.download,
                lease.token,
                tx.now,
                tx.upcoming_change(),
                name,
                i64::try_from(*bytes).unwrap_or(i64::MAX),
                sha256,
                facts.content_type,
                storage_key,
                facts.duration_ms.and_then(|ms| i64::try_from(ms).ok()),
                facts.width,
                facts.height,
                facts.codec
            ],
            |row| row.get(0),
        )
        .optional()
}

/// The task of the row, if the lease still holds.
fn unfinished(
    tx: &Tx<'_>,
    lease: Lease,
    (state, costs, next_at): (&'static str, i64, Millis),
    error: Option<&DownloadError>,
) -> rusqlite::Result<Option<i64>> {
    tx.db
        .prepare_cached(
            "UPDATE downloads SET state = ?5, attempts = attempts + ?6, next_at = ?7,
                waits_until = CASE WHEN ?5 = 'needs_url' THEN ?7 + ?10
                                   WHEN ?5 = 'queued' AND ?7 > ?3 THEN ?7 END, lease_until = NULL,
                error_code = ?8, error_detail = ?9, updated_at = ?3, change_seq = ?4
             WHERE id = ?1 AND lease_token = ?2 AND state = 'downloading' RETURNING task",
        )?
        .query_row(
            params![
                lease.download,
                lease.token,
                tx.now,
                tx.upcoming_change(),
                state,
                costs,
                next_at,
                error.map(|error| error.code),
                error.map(|error| error.detail.as_str()),
                millis(WITHOUT_FRESH_LINK)
            ],
            |row| row.get(0),
        )
        .optional()
}

pub(super) fn release_all(tx: &mut Tx<'_>) -> rusqlite::Result<()> {
    attempts::note_interrupted(tx)?;
    let released = {
        let mut release = tx.db.prepare_cached(
            "UPDATE downloads SET state = 'queued', next_at = ?1, waits_until = NULL, lease_until = NULL, updated_at = ?1
             WHERE state = 'downloading' RETURNING task",
        )?;
        let tasks = release.query_map(params![tx.now], |row| row.get(0))?;
        tasks.collect::<rusqlite::Result<Vec<i64>>>()?
    };
    for task in released {
        summary::refresh(tx, task)?;
    }
    tx.note_queued();
    Ok(())
}

pub(super) fn bring_forward(tx: &Tx<'_>, by: Duration) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE downloads SET next_at = max(?1, waits_until - ?2), waits_until = max(?1, waits_until - ?2)
         WHERE waits_until > ?1",
        params![tx.now, millis(by)],
    )?;
    Ok(())
}

/// The codes of failed files that are never queued again: their entries name nothing that could be fetched, or nothing
/// that is still wanted.
pub const NEVER_RETRIED: [&str; 3] = ["too_many_files", "url_too_long", "superseded"];

/// It leaves out [`NEVER_RETRIED`].
const RETRY: &str = concat!(
    "UPDATE downloads SET state = 'queued', attempts = 0, fetch_url = NULL, next_at = ?2, error_code = NULL, error_detail = NULL,
        updated_at = ?2, change_seq = ?3
     WHERE ",
    of_task!("?1"),
    " AND state = 'failed' AND error_code NOT IN ('too_many_files', 'url_too_long', 'superseded')"
);

pub(super) fn retry_task(tx: &mut Tx<'_>, task: i64) -> rusqlite::Result<u64> {
    let queued = tx.execute(RETRY, params![task, tx.now, tx.upcoming_change()])?;
    if queued > 0 {
        tx.note_queued();
        summary::refresh(tx, task)?;
    }
    Ok(queued as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_leaves_out_what_is_never_retried_and_nothing_else() {
        let codes = NEVER_RETRIED.map(|code| format!("'{code}'")).join(", ");
        assert!(
            RETRY.ends_with(&format!(" AND error_code NOT IN ({codes})")),
            "{RETRY}"
        );
    }

    #[test]
    fn a_plain_host_is_what_the_parser_says() {
        for url in [
            "https://cdn.example.com/a.mp4",
            "http://127.0.0.1:8080/a",
            "https://a-b.c9/x?y=//z/",
            "http://0x7f.1/a",
            "http://2130706433/a",
            "http://1.2.3/a",
            "https://EXAMPLE.com/a",
            "https://example.com./a",
            "https://user@example.com/a",
            "https://example.com:/a",
            "https://example.com:99999/a",
            "https://[::1]/a",
            "https://exam ple.com/a",
            "https://xn--nxasmq6b.example/a",
            "https:///a",
            "https://-/a",
            "https://a..b/a",
            "ftp://example.com/a",
            "https://example.com",
        ] {
            let parsed = Url::parse(url)
                .ok()
                .and_then(|url| url.host_str().map(str::to_owned));
            if let Some(plain) = plain_host(url) {
                assert_eq!(parsed.as_deref(), Some(plain), "{url}");
            }
        }
        assert_eq!(
            plain_host("https://cdn.example.com:443/a"),
            Some("cdn.example.com")
        );
    }
}
