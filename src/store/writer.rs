//! The one writer: drains a bounded queue and commits whatever has gathered in one transaction (group commit).

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor, Row};
use tokio::sync::{mpsc, oneshot};

use super::accept::{self, Accepted};
use super::claim;
use super::deletion::{self, Deletion};
use super::downloads::{self, ClaimedDownload, Lease, Settled, Settlement};
use super::expect::{self, Expectation};
use super::record::{self, NewDelivery, Recorded};
use super::rejected::Ring;
use super::{Signals, StoreError};
use crate::clock::{Clock, Millis};

/// How many commands may wait; past that, callbacks are answered 503 at once rather than late.
const QUEUE_LENGTH: usize = 1024;
/// Most commands in one transaction: keeps the wait of the first of them short.
const MAX_BATCH: usize = 256;

/// What the writer can be asked for.
#[derive(Debug)]
pub(super) enum Command {
    Record(Box<NewDelivery>),
    Expect(Vec<Expectation>),
    Claim { lease_for: Duration, per_host: u32 },
    Renew { lease: Lease, lease_for: Duration },
    Settle { lease: Lease, settlement: Settlement },
    ReleaseAll,
    RetryTask { task: i64 },
    DeleteTask { task: i64 },
    ForgetDoomed { source: String, task_id: String },
    Accept { delivery: i64 },
}

/// The answer to the command of the same name.
#[derive(Debug)]
pub(super) enum Reply {
    Recorded(Recorded),
    Expected { created: u64 },
    Claimed(Option<Box<ClaimedDownload>>),
    Renewed(bool),
    Settled(Settled),
    Done,
    Queued(u64),
    Deleted(Deletion),
    Accepted(Accepted),
}

/// A command and where its answer goes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Result<Reply, StoreError>>,
}

/// The sending end of the writer's queue.
#[derive(Debug, Clone)]
pub(super) struct Queue(mpsc::Sender<Job>);

impl Queue {
    pub(super) fn bounded() -> (Self, mpsc::Receiver<Job>) {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        (Self(sender), receiver)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Resolves when the writer has ended.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    /// Deliveries are refused when the queue is full: the provider waits 15 seconds and would rather hear 503.
    /// Our own work waits its turn.
    pub(super) async fn push(&self, job: Job) -> Result<(), StoreError> {
        if matches!(job.command, Command::Record(_)) {
            return self.0.try_send(job).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
            });
        }
        self.0.send(job).await.map_err(|_| StoreError::Closed)
    }
}

/// The last row id given out of each table. Gaps after a rollback are harmless. Ids of deliveries are public, so that
/// theirs is kept in a counter: none is given out again after its row was removed.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) task: i64,
    pub(super) outcome: i64,
    pub(super) download: i64,
    pub(super) delivery: i64,
    pub(super) body: i64,
}

impl Ids {
    async fn load(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let row = sqlx::query(
            "SELECT (SELECT COALESCE(max(id), 0) FROM tasks), (SELECT COALESCE(max(id), 0) FROM outcomes),
                    (SELECT COALESCE(max(id), 0) FROM downloads), (SELECT value FROM counters WHERE name = 'delivery'),
                    (SELECT COALESCE(max(id), 0) FROM bodies)",
        )
        .fetch_one(connection)
        .await?;
        Ok(Self {
            task: row.try_get(0)?,
            outcome: row.try_get(1)?,
            download: row.try_get(2)?,
            delivery: row.try_get(3)?,
            body: row.try_get(4)?,
        })
    }
}

/// Gives out the next value of a counter.
pub(super) fn next(counter: &mut i64) -> i64 {
    *counter += 1;
    *counter
}

/// What the commands of one transaction share.
#[derive(Debug)]
pub(super) struct Tx<'w> {
    pub(super) connection: &'w mut SqliteConnection,
    pub(super) ids: &'w mut Ids,
    ring: &'w mut Ring,
    pub(super) now: Millis,
    change_seq: &'w mut i64,
    changed: bool,
    downloads_queued: bool,
    ring_changed: bool,
}

impl Tx<'_> {
    /// The ring of rejected deliveries, about to change with the transaction.
    pub(super) fn ring(&mut self) -> &mut Ring {
        self.ring_changed = true;
        self.ring
    }

    /// A new change number, for a task that changed.
    pub(super) fn next_change(&mut self) -> i64 {
        self.changed = true;
        next(self.change_seq)
    }

    /// The number that [`Tx::next_change`] would give: for a statement that may turn out to change nothing, so that
    /// asking in vain costs no write.
    pub(super) fn upcoming_change(&self) -> i64 {
        *self.change_seq + 1
    }

    /// Notes that a download became claimable: the workers are woken after the commit.
    pub(super) fn note_queued(&mut self) {
        self.downloads_queued = true;
    }
}

/// The task that owns the write connection.
#[derive(Debug)]
pub(super) struct Writer {
    connection: SqliteConnection,
    signals: Arc<Signals>,
    clock: Clock,
    ids: Ids,
    change_seq: i64,
    ring: Ring,
}

impl Writer {
    pub(super) async fn start(
        mut connection: SqliteConnection,
        signals: Arc<Signals>,
        clock: Clock,
    ) -> Result<Self, sqlx::Error> {
        let ids = Ids::load(&mut connection).await?;
        let ring = Ring::load(&mut connection).await?;
        let change_seq = sqlx::query("SELECT value FROM counters WHERE name = 'change_seq'")
            .fetch_one(&mut connection)
            .await?
            .try_get(0)?;
        signals.changes.send_replace(change_seq);
        Ok(Self {
            connection,
            signals,
            clock,
            ids,
            change_seq,
            ring,
        })
    }

    /// Serves until every sender is gone.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while jobs.recv_many(&mut batch, MAX_BATCH).await > 0 {
            self.serve(std::mem::take(&mut batch)).await;
        }
        // An orderly close checkpoints the write-ahead log into the database.
        if let Err(error) = sqlx::Connection::close(self.connection).await {
            tracing::warn!(%error, "the database did not close cleanly; nothing committed is lost");
        }
    }

    /// Commits a batch as one; if a command of it was at fault, each alone, so that only the offender gets the error.
    async fn serve(&mut self, batch: Vec<Job>) {
        let together: Vec<&Command> = batch.iter().map(|job| &job.command).collect();
        match self.transaction(&together).await {
            Ok(replies) => {
                for (job, reply) in batch.into_iter().zip(replies) {
                    // Nobody waits any more if the client went away; the commit stands.
                    let _ = job.reply.send(Ok(reply));
                }
            }
            Err(error) if batch.len() == 1 || is_everyones(&error) => {
                for job in batch {
                    let _ = job.reply.send(Err(error.clone()));
                }
            }
            Err(_) => {
                for job in batch {
                    let alone = self.transaction(&[&job.command]).await;
                    let _ = job
                        .reply
                        .send(alone.and_then(|mut replies| replies.pop().ok_or(StoreError::Closed)));
                }
            }
        }
    }

    async fn transaction(&mut self, commands: &[&Command]) -> Result<Vec<Reply>, StoreError> {
        let mut tx = Tx {
            connection: &mut self.connection,
            ids: &mut self.ids,
            ring: &mut self.ring,
            now: self.clock.now(),
            change_seq: &mut self.change_seq,
            changed: false,
            downloads_queued: false,
            ring_changed: false,
        };
        let seq_before = *tx.change_seq;
        let outcome = attempt(&mut tx, commands).await;
        let Tx {
            changed,
            downloads_queued,
            ring_changed,
            ..
        } = tx;
        match outcome {
            Ok(replies) => {
                if changed {
                    self.signals.changes.send_replace(self.change_seq);
                }
                if downloads_queued {
                    self.signals.downloads.notify_one();
                }
                Ok(replies)
            }
            Err(error) => {
                // After a failed BEGIN there is nothing to roll back, and saying so is no news.
                let _ = self.connection.execute("ROLLBACK").await;
                self.change_seq = seq_before;
                if ring_changed && let Ok(ring) = Ring::load(&mut self.connection).await {
                    self.ring = ring;
                }
                Err(error.into())
            }
        }
    }
}

/// From BEGIN to COMMIT.
async fn attempt(tx: &mut Tx<'_>, commands: &[&Command]) -> Result<Vec<Reply>, sqlx::Error> {
    let delivery_before = tx.ids.delivery;
    tx.connection.execute("BEGIN IMMEDIATE").await?;
    let replies = apply(tx, commands).await?;
    if tx.changed || tx.ids.delivery != delivery_before {
        sqlx::query(
            "UPDATE counters SET value = CASE name WHEN 'change_seq' THEN $1 WHEN 'delivery' THEN $2 END",
        )
        .bind(*tx.change_seq)
        .bind(tx.ids.delivery)
        .execute(&mut *tx.connection)
        .await?;
    }
    tx.connection.execute("COMMIT").await?;
    Ok(replies)
}

/// Whether an error is about the database as a whole (disk full, locked, not writable), so that trying each command of
/// the batch alone would only fail as often.
fn is_everyones(error: &StoreError) -> bool {
    // SQLITE_BUSY, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB; extended codes add higher bits.
    const EVERYONES: [i32; 7] = [5, 8, 10, 11, 13, 14, 26];
    let StoreError::Database(error) = error else {
        return true;
    };
    // A row that cannot be read is the fault of the one command that met it.
    if matches!(
        **error,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound
    ) {
        return false;
    }
    let code = error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_none_or(|code| EVERYONES.contains(&(code & 0xff)))
}

/// Carries out the commands: all deliveries as one, the others one by one, answers in the order of the commands.
async fn apply(tx: &mut Tx<'_>, commands: &[&Command]) -> Result<Vec<Reply>, sqlx::Error> {
    let deliveries: Vec<&NewDelivery> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Record(delivery) => Some(&**delivery),
            _ => None,
        })
        .collect();
    let mut recorded = record::record(tx, &deliveries).await?.into_iter();
    let mut replies = Vec::with_capacity(commands.len());
    for command in commands {
        replies.push(match command {
            Command::Record(_) => Reply::Recorded(recorded.next().expect("one answer for each delivery")),
            other => apply_one(tx, other).await?,
        });
    }
    Ok(replies)
}

async fn apply_one(tx: &mut Tx<'_>, command: &Command) -> Result<Reply, sqlx::Error> {
    Ok(match command {
        Command::Record(_) => unreachable!("deliveries are recorded together"),
        Command::Expect(expected) => Reply::Expected {
            created: expect::expect(tx, expected).await?,
        },
        Command::Claim { lease_for, per_host } => {
            Reply::Claimed(claim::claim(tx, *lease_for, *per_host).await?.map(Box::new))
        }
        Command::Renew { lease, lease_for } => {
            Reply::Renewed(downloads::renew(tx, *lease, *lease_for).await?)
        }
        Command::Settle { lease, settlement } => {
            Reply::Settled(downloads::settle(tx, *lease, settlement).await?)
        }
        Command::ReleaseAll => {
            downloads::release_all(tx).await?;
            Reply::Done
        }
        Command::RetryTask { task } => Reply::Queued(downloads::retry_task(tx, *task).await?),
        Command::DeleteTask { task } => Reply::Deleted(deletion::delete(tx, *task).await?),
        Command::ForgetDoomed { source, task_id } => {
            deletion::forget_doomed(tx, source, task_id).await?;
            Reply::Done
        }
        Command::Accept { delivery } => Reply::Accepted(accept::accept(tx, *delivery).await?),
    })
}
