//! The one writer: drains a bounded queue and commits whatever has gathered in one transaction (group commit).
//!
//! It is a thread of its own that talks to SQLite directly: a statement costs it a microsecond or two, where handing each
//! to another thread and back costs ten.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{slice, thread};

use rusqlite::{Connection, Params, Row, params};
use tokio::sync::{mpsc, oneshot};

use super::accept::{self, Accepted};
use super::asks;
use super::changes;
use super::checkpoints::Checkpoints;
use super::claim::{self, Rotation};
use super::deletion::{self, Deletion};
use super::downloads::{self, Caps, ClaimedDownload, Lease, Settled, Settlement};
use super::expect::{self, Expectation};
use super::keys::{Key, Keys};
use super::prompts;
use super::record::{self, NewDelivery, Recorded, Via};
use super::rejected::{self, Ring};
use super::retention;
use super::reverify::{self, Reverified};
use super::scrub::{self, Judged, Noted, Orders, Scrub};
use super::statements::Statements;
use super::submissions::{self, Begun, End, NewSubmission};
use super::{Signals, StoreError};
use crate::clock::{Clock, Millis, millis};
use crate::failpoint::{self, Step};

/// How many commands may wait; past that, callbacks are answered 503 at once rather than late.
const QUEUE_LENGTH: usize = 1024;
/// Most commands in one transaction: keeps the wait of the first of them short.
const MAX_BATCH: usize = 256;
/// Prepared statements kept: more than there are.
const STATEMENTS: usize = 128;
/// How often expired bindings are looked for.
const PURGE_EVERY: Duration = Duration::from_secs(5);

/// What the writer can be asked for.
#[derive(Debug)]
pub(super) enum Command {
    Record(Box<NewDelivery>),
    /// One that has a row among the rejected.
    Reverify(Box<NewDelivery>),
    Expect(Vec<Expectation>),
    Claim {
        lease_for: Duration,
        caps: Caps,
    },
    Renew {
        lease: Lease,
        lease_for: Duration,
        publish_as: Option<String>,
    },
    Settle {
        lease: Lease,
        settlement: Settlement,
        received: Option<u64>,
    },
    ReleaseAll,
    BringForward {
        by: Duration,
    },
    RetryTask {
        task: i64,
    },
    DeleteTask {
        task: i64,
    },
    DeleteFile {
        download: i64,
        stored_at: Millis,
    },
    ForgetDoomed {
        source: String,
        task_id: String,
        keys: Vec<String>,
    },
    Accept {
        delivery: i64,
    },
    PruneDeliveries(Vec<i64>),
    PruneTask {
        task: i64,
        before: Millis,
    },
    BeginScrub(Orders),
    NoteScrub(Scrub),
    EndScrub {
        scrub: Scrub,
        complete: bool,
    },
    NoteJudged(Box<Judged>),
    Asks(Box<asks::Change>),
    BeginSubmission(Box<NewSubmission>),
    EndSubmission {
        row: i64,
        end: Box<End>,
    },
    IndexPrompts,
}

/// The answer to the command of the same name.
#[derive(Debug)]
pub(super) enum Reply {
    Recorded(Recorded),
    Reverified(Reverified),
    Expected {
        created: u64,
    },
    Claimed(Option<Box<ClaimedDownload>>),
    Renewed(bool),
    Settled(Settled),
    Done,
    Queued(u64),
    Deleted(Deletion),
    Accepted(Accepted),
    /// To `PruneDeliveries`; that to `PruneTask` is `Deleted`.
    Pruned(u64),
    /// To `BeginScrub`, `NoteScrub` and `EndScrub`; `None` where the command was in vain.
    Scrub(Option<Scrub>),
    Judged(Noted),
    Begun(Begun),
}

/// A command and where its answer goes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Result<Reply, StoreError>>,
}

impl Job {
    /// Answers it. What the command held, its place in memory and in the queue, is free before anybody hears of that.
    fn answer(self, answer: Result<Reply, StoreError>) {
        drop(self.command);
        // Nobody waits any more if the client went away; the commit stands.
        let _ = self.reply.send(answer);
    }
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

    /// Commands that wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.max_capacity().saturating_sub(self.0.capacity())
    }

    /// Resolves when the writer has ended.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    /// Callbacks are refused when the queue is full: the provider waits 15 seconds and would rather hear 503.
    /// Our own work waits its turn.
    pub(super) async fn push(&self, job: Job) -> Result<(), StoreError> {
        if matches!(&job.command, Command::Record(delivery) if delivery.via == Via::Callback) {
            return self.0.try_send(job).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
            });
        }
        self.0.send(job).await.map_err(|_| StoreError::Closed)
    }
}

/// The last row id given out of each table that counts its rows; outcomes and downloads have theirs by their task
/// (`ranges`). Gaps after a rollback are harmless. Ids of deliveries are public, so that theirs is kept in a counter: none
/// is given out again after its row was removed. Those of tasks never fall below what `task_keys` holds, nor
/// below what the index of prompts has seen.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) task: i64,
    pub(super) delivery: i64,
}

impl Ids {
    fn load(db: &Connection) -> rusqlite::Result<Self> {
        db.query_row(
            "SELECT max(COALESCE((SELECT max(id) FROM tasks), 0), (SELECT value FROM counters WHERE name = 'keyed'),
                        (SELECT value FROM counters WHERE name = 'prompts')),
                    (SELECT value FROM counters WHERE name = 'delivery')",
            [],
            |row| {
                Ok(Self {
                    task: row.get(0)?,
                    delivery: row.get(1)?,
                })
            },
        )
    }
}

/// Gives out the next value of a counter.
pub(super) fn next(counter: &mut i64) -> i64 {
    *counter = counter.checked_add(1).expect("ids are never used up");
    *counter
}

/// What a transaction leaves to be done once it is known how it ended.
#[derive(Debug, Default)]
struct Aftermath {
    changed: changes::Noted,
    rings: Rings,
    ring_changed: bool,
    /// Keys of tasks that it made.
    added: Vec<Key>,
    /// Keys that it wrote into the table or removed from it.
    settled: Vec<Key>,
    /// Bindings that it wrote.
    bindings: usize,
}

/// Who is to look again after the commit.
#[derive(Debug, Default)]
struct Rings {
    downloads: bool,
    asks: bool,
}

/// Whether there are still bindings that have expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    Gone,
    Left,
}

/// Rows inserted, by the counter that counts them: one update of each for the whole transaction.
#[derive(Debug, Default)]
struct Tally(Vec<(&'static str, i64)>);

impl Tally {
    fn add(&mut self, counter: &'static str) {
        match self.0.iter_mut().find(|(name, _)| *name == counter) {
            Some((_, count)) => *count += 1,
            None => self.0.push((counter, 1)),
        }
    }
}

/// Whether there is anything in tables that are nearly always empty: what every callback would be looked up in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rare {
    pub(super) tombstones: bool,
    pub(super) bindings: bool,
}

impl Rare {
    fn load(db: &Connection) -> rusqlite::Result<Self> {
        db.prepare_cached("SELECT EXISTS (SELECT 1 FROM tombstones), EXISTS (SELECT 1 FROM bindings)")?
            .query_row([], |row| {
                Ok(Self {
                    tombstones: row.get(0)?,
                    bindings: row.get(1)?,
                })
            })
    }
}

/// The writer's connection with all that it knows; to a command, the transaction that it is part of.
#[derive(Debug)]
pub(super) struct Tx<'c> {
    pub(super) db: &'c Connection,
    statements: Statements<'c>,
    pub(super) ids: Ids,
    pub(super) keys: Arc<Keys>,
    /// To be set by whoever puts something there; after a rollback it is looked in vain.
    pub(super) rare: Rare,
    ring: Ring,
    /// Where a claim looks next; no harm if the transaction is rolled back.
    pub(super) rotation: Rotation,
    change_seq: i64,
    /// When the transaction began.
    pub(super) now: Millis,
    /// How long nothing may be heard of a task before the provider is asked.
    pub(super) silence: Millis,
    tally: Tally,
    after: Aftermath,
    /// When expired bindings are removed next.
    purge_at: Millis,
}

impl<'c> Tx<'c> {
    fn load(db: &'c Connection, keys: Arc<Keys>) -> rusqlite::Result<Self> {
        Ok(Self {
            db,
            statements: Statements::of(db),
            ids: Ids::load(db)?,
            keys,
            rare: Rare::load(db)?,
            ring: Ring::load(db)?,
            rotation: Rotation::default(),
            change_seq: db.query_row(
                "SELECT value FROM counters WHERE name = 'change_seq'",
                [],
                |row| row.get(0),
            )?,
            now: 0,
            silence: 0,
            tally: Tally::default(),
            after: Aftermath::default(),
            purge_at: 0,
        })
    }

    /// Undoes what the commands of a transaction wrote and noted.
    fn roll_back(&mut self, after: &Aftermath, seq_before: i64) {
        // After a failed BEGIN there is nothing to roll back, and saying so is no news.
        let _ = self.db.execute_batch("ROLLBACK");
        self.keys.forget(&after.added);
        self.change_seq = seq_before;
        // What it saw there may not be so: looked in until the next purge.
        self.rare = Rare {
            tombstones: true,
            bindings: true,
        };
        if after.ring_changed
            && let Ok(ring) = Ring::load(self.db)
        {
            self.ring = ring;
        }
    }
}

impl Tx<'_> {
    /// Runs a statement that is prepared once; how many rows it changed.
    pub(super) fn execute(&self, sql: &'static str, params: impl Params) -> rusqlite::Result<usize> {
        self.statements.execute(sql, params)
    }

    /// What a statement that is prepared once finds.
    pub(super) fn all<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.statements.all(sql, params, read)
    }

    /// The ring of rejected deliveries, about to change with the transaction.
    pub(super) fn ring(&mut self) -> &mut Ring {
        self.after.ring_changed = true;
        &mut self.ring
    }

    /// A new change number, for a task that changed.
    pub(super) fn next_change(&mut self, task: i64) -> i64 {
        let change = next(&mut self.change_seq);
        self.after.changed.task(change, task);
        change
    }

    /// Notes that a file of a task was stored, or failed, under a change number of its own. The task's comes after it.
    pub(super) fn note_ended(&mut self, task: i64, download: i64) {
        let change = next(&mut self.change_seq);
        self.after.changed.file(change, (task, download));
    }

    /// The number that [`Tx::next_change`] would give: for a statement that may turn out to change nothing, so that
    /// asking in vain costs no write.
    pub(super) fn upcoming_change(&self) -> i64 {
        self.change_seq + 1
    }

    /// Notes that a download became claimable: the workers are woken after the commit.
    pub(super) fn note_queued(&mut self) {
        self.after.rings.downloads = true;
    }

    /// Notes that a question to the provider was opened or hurried: who asks looks again after the commit.
    pub(super) fn note_ask_due(&mut self) {
        self.after.rings.asks = true;
    }

    /// Notes a row that was inserted, by the name of its counter: `tasks.` or `files.` with the state. Changes of state
    /// and deletions are counted by triggers.
    pub(super) fn note_inserted(&mut self, counter: &'static str) {
        self.tally.add(counter);
    }

    /// Notes bindings that were written: as many expired ones, and more, go with the same transaction.
    pub(super) fn note_bindings(&mut self, written: usize) {
        self.rare.bindings |= written > 0;
        self.after.bindings += written;
    }

    /// Makes a task findable by its id.
    pub(super) fn add_key(&mut self, key: Key) {
        self.keys.add(key);
        self.after.added.push(key);
    }

    /// Removes the key of a task that is deleted.
    pub(super) fn remove_key(&mut self, (hash, task): Key) -> rusqlite::Result<()> {
        self.execute(
            "DELETE FROM task_keys WHERE hash = ?1 AND task = ?2",
            params![hash, task],
        )?;
        self.after.settled.push((hash, task));
        Ok(())
    }

    /// The ring's accounts counted anew from its rows.
    pub(super) fn recount_ring(&mut self) -> rusqlite::Result<()> {
        *self.ring() = Ring::load(self.db)?;
        Ok(())
    }
}

/// The thread that owns the write connection.
#[derive(Debug)]
struct Writer<'c> {
    tx: Tx<'c>,
    checkpoints: Checkpoints,
    signals: Arc<Signals>,
    clock: Clock,
}

/// Starts the writer on what `open` opens: a migrated database. Returns the keys that readers have to look among too, and
/// a future that resolves when the writer has ended, once every sender of `jobs` is gone.
///
/// It is not one of the runtime's threads: a runtime that is dropped would wait for it, and it for whoever holds a store.
pub(super) async fn start(
    open: impl Fn() -> rusqlite::Result<Connection> + Send + 'static,
    signals: Arc<Signals>,
    clock: Clock,
    jobs: mpsc::Receiver<Job>,
) -> Result<(Arc<Keys>, impl Future<Output = ()> + Send + 'static), StartError> {
    let (started, starts) = oneshot::channel();
    let (alive, ended) = oneshot::channel::<()>();
    thread::Builder::new().name("writer".to_owned()).spawn(move || {
        let _alive = alive;
        let opened = open().and_then(|mut db| Ok((Keys::load(&mut db)?, db)));
        let (keys, db) = match opened {
            Ok(opened) => opened,
            Err(error) => return drop(started.send(Err(error.into()))),
        };
        let keys = Arc::new(keys);
        match Writer::new(&db, keys.clone(), &open, (signals, clock)) {
            Ok(writer) => {
                // Whoever started it may have gone: then so have the senders.
                let _ = started.send(Ok(keys));
                writer.run(jobs);
            }
            Err(error) => return drop(started.send(Err(error))),
        }
        close(db);
    })?;
    let keys = starts.await??;
    // An error is what says that it has ended.
    Ok((keys, async { drop(ended.await) }))
}

/// Why the writer cannot start.
type StartError = Box<dyn Error + Send + Sync>;

fn close(db: Connection) {
    // What was learnt about the tables serves the next start; an orderly close checkpoints the write-ahead log.
    let optimized = db.execute_batch("PRAGMA optimize");
    if let Err(error) = optimized.and_then(|()| db.close().map_err(|(_, error)| error)) {
        tracing::warn!(%error, "the database did not close cleanly; nothing committed is lost");
    }
}

impl<'c> Writer<'c> {
    fn new(
        db: &'c Connection,
        keys: Arc<Keys>,
        open: impl Fn() -> rusqlite::Result<Connection>,
        (signals, clock): (Arc<Signals>, Clock),
    ) -> Result<Self, StartError> {
        db.set_prepared_statement_cache_capacity(STATEMENTS);
        let tx = Tx::load(db, keys)?;
        signals.latest.begin_after(tx.change_seq);
        signals.changes.send_replace(tx.change_seq);
        Ok(Self {
            tx,
            checkpoints: Checkpoints::start(open()?)?,
            signals,
            clock,
        })
    }

    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while jobs.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
            self.serve(&mut batch);
            self.checkpoints.note(self.tx.db.total_changes());
        }
        self.checkpoints.stop();
    }

    /// Commits a batch as one; if a command of it was at fault, each alone, so that only the offender gets the error.
    fn serve(&mut self, batch: &mut Vec<Job>) {
        match self.transaction(batch) {
            Ok(replies) => {
                for (job, reply) in batch.drain(..).zip(replies) {
                    job.answer(Ok(reply));
                }
            }
            Err(error) if batch.len() == 1 || is_everyones(&error) => {
                let error = StoreError::from(error);
                self.signals.meters.failed.add(batch.len() as u64);
                for job in batch.drain(..) {
                    job.answer(Err(error.clone()));
                }
            }
            Err(_) => {
                for job in batch.drain(..) {
                    let alone = self.transaction(slice::from_ref(&job));
                    job.answer(match alone {
                        Ok(mut replies) => replies.pop().ok_or(StoreError::Closed),
                        Err(error) => {
                            self.signals.meters.failed.increment();
                            Err(error.into())
                        }
                    });
                }
            }
        }
    }

    fn transaction(&mut self, jobs: &[Job]) -> rusqlite::Result<Vec<Reply>> {
        let tx = &mut self.tx;
        let seq_before = tx.change_seq;
        tx.now = self.clock.now();
        tx.silence = self.signals.silence.load(Ordering::Relaxed);
        let began = Instant::now();
        let outcome = attempt(tx, jobs);
        let mut after = std::mem::take(&mut tx.after);
        tx.tally.0.clear();
        if outcome.is_ok() {
            self.signals.meters.committed(jobs.len(), began.elapsed());
            tx.keys.forget(&after.settled);
            if !after.changed.is_empty() {
                self.signals.latest.append(&mut after.changed);
                self.signals.changes.send_replace(tx.change_seq);
            }
            if after.rings.downloads {
                self.signals.downloads.notify_one();
            }
            if after.rings.asks {
                self.signals.asks.notify_one();
            }
        } else {
            tx.roll_back(&after, seq_before);
        }
        outcome
    }
}

/// From BEGIN to COMMIT.
fn attempt(tx: &mut Tx<'_>, jobs: &[Job]) -> rusqlite::Result<Vec<Reply>> {
    failpoint::step(Step::BatchTaken);
    let delivery_before = tx.ids.delivery;
    tx.execute("BEGIN IMMEDIATE", [])?;
    let mut replies = Vec::with_capacity(jobs.len());
    for job in jobs {
        replies.push(apply(tx, &job.command)?);
    }
    if tx.after.ring_changed {
        rejected::enforce_bounds(tx)?;
    }
    let now = tx.now;
    let purges = now >= tx.purge_at || now < tx.purge_at.saturating_sub(millis(PURGE_EVERY));
    if purges || tx.after.bindings > 0 {
        let expired = record::purge_bindings(tx, tx.after.bindings)?;
        tx.purge_at = match expired {
            Expired::Gone if purges => now.saturating_add(millis(PURGE_EVERY)),
            Expired::Gone => tx.purge_at,
            Expired::Left => now,
        };
        tx.rare = Rare::load(tx.db)?;
    }
    let mut slice = tx.keys.due(tx.after.added.len());
    slice.leave_out(&tx.after.settled);
    slice.write(tx.db)?;
    tx.after.settled.extend_from_slice(slice.keys());
    if !tx.after.changed.is_empty() || tx.ids.delivery != delivery_before {
        add_to_counters(tx)?;
    }
    failpoint::step(Step::RowsWritten);
    tx.execute("COMMIT", [])?;
    failpoint::step(Step::CommitReturned);
    Ok(replies)
}

fn add_to_counters(tx: &Tx<'_>) -> rusqlite::Result<()> {
    const SET: &str = "UPDATE counters SET value = ?2 WHERE name = ?1";
    tx.execute(SET, params!["change_seq", tx.change_seq])?;
    tx.execute(SET, params!["delivery", tx.ids.delivery])?;
    for (counter, count) in &tx.tally.0 {
        tx.execute(
            "UPDATE counters SET value = value + ?2 WHERE name = ?1",
            params![counter, count],
        )?;
    }
    Ok(())
}

/// Whether an error is about the database as a whole (disk full, locked, not writable), so that trying each command of
/// the batch alone would only fail as often. A row that cannot be read is the fault of the one command that met it.
fn is_everyones(error: &rusqlite::Error) -> bool {
    // SQLITE_BUSY, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _PROTOCOL (locks cannot be had, found out after ten
    // seconds), _NOTADB; extended codes add higher bits.
    const EVERYONES: [i32; 8] = [5, 8, 10, 11, 13, 14, 15, 26];
    match error {
        rusqlite::Error::SqliteFailure(error, _) => EVERYONES.contains(&(error.extended_code & 0xff)),
        _ => false,
    }
}

fn apply(tx: &mut Tx<'_>, command: &Command) -> rusqlite::Result<Reply> {
    Ok(match command {
        Command::Record(delivery) => Reply::Recorded(record::record(tx, delivery)?),
        Command::Reverify(delivery) => Reply::Reverified(reverify::reverify(tx, delivery)?),
        Command::Expect(expected) => Reply::Expected {
            created: expect::expect(tx, expected)?,
        },
        Command::Claim { lease_for, caps } => {
            Reply::Claimed(claim::claim(tx, *lease_for, caps)?.map(Box::new))
        }
        Command::Renew {
            lease,
            lease_for,
            publish_as,
        } => {
            let named = match publish_as {
                Some(key) => deletion::name_key(tx, *lease, key)?,
                None => true,
            };
            Reply::Renewed(named && downloads::renew(tx, *lease, *lease_for)?)
        }
        Command::Settle {
            lease,
            settlement,
            received,
        } => Reply::Settled(downloads::settle(tx, *lease, settlement, *received)?),
        Command::ReleaseAll => done(downloads::release_all(tx)?),
        Command::BringForward { by } => done(downloads::bring_forward(tx, *by)?),
        Command::RetryTask { task } => Reply::Queued(downloads::retry_task(tx, *task)?),
        Command::DeleteTask { task } => Reply::Deleted(deletion::delete(tx, *task)?),
        Command::DeleteFile { download, stored_at } => {
            Reply::Deleted(deletion::delete_file(tx, *download, *stored_at)?)
        }
        Command::ForgetDoomed {
            source,
            task_id,
            keys,
        } => done(deletion::forget_doomed(tx, (source, task_id), keys)?),
        Command::Accept { delivery } => Reply::Accepted(accept::accept(tx, *delivery)?),
        Command::PruneDeliveries(rows) => Reply::Pruned(retention::prune_deliveries(tx, rows)?),
        Command::PruneTask { task, before } => Reply::Deleted(retention::prune_task(tx, *task, *before)?),
        Command::BeginScrub(orders) => Reply::Scrub(scrub::begin(tx, *orders)?),
        Command::NoteScrub(scrub) => Reply::Scrub(scrub::note(tx, *scrub)?),
        Command::EndScrub { scrub, complete } => Reply::Scrub(scrub::end(tx, *scrub, *complete)?),
        Command::NoteJudged(judged) => Reply::Judged(scrub::note_judged(tx, judged)?),
        Command::Asks(change) => done(asks::apply(tx, change)?),
        Command::BeginSubmission(new) => Reply::Begun(submissions::begin(tx, new)?),
        Command::EndSubmission { row, end } => done(submissions::end(tx, *row, end)?),
        Command::IndexPrompts => prompts::index_some(tx)?,
    })
}

/// The answer to what has nothing to tell.
fn done((): ()) -> Reply {
    Reply::Done
}
