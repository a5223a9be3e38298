//! Copies committed pages from the write-ahead log into the database while the writer goes on.
//!
//! The writer does that itself, too, whenever the log has grown to its bound: only so can the log begin anew. What this
//! thread has copied by then is not left for that moment, in which all callbacks wait.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// Rows that the writer changes between two checkpoints: a few megabytes of the log.
const EVERY: u64 = 8 * 1024;

/// The thread, and what the writer has told it.
#[derive(Debug)]
pub(super) struct Checkpoints {
    bell: SyncSender<()>,
    thread: JoinHandle<()>,
    rung_at: u64,
}

impl Checkpoints {
    /// Starts the thread on a connection of its own.
    pub(super) fn start(db: Connection) -> io::Result<Self> {
        let (bell, rings) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || {
                while rings.recv().is_ok() {
                    let began = Instant::now();
                    // What fails here is tried again by the writer, and the log keeps it all until then.
                    if let Err(error) = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
                        tracing::debug!(%error, "a checkpoint beside the writer failed");
                    }
                    rest(&rings, began.elapsed());
                }
            })?;
        Ok(Self {
            bell,
            thread,
            rung_at: 0,
        })
    }

    /// To be told after each commit how many rows the writer has changed in all.
    pub(super) fn note(&mut self, changes: u64) {
        if changes - self.rung_at >= EVERY {
            self.rung_at = changes;
            // If it is rung already, one checkpoint does for both.
            let _ = self.bell.try_send(());
        }
    }

    /// Ends the thread and closes its connection: the last to close is the one that removes the log.
    pub(super) fn stop(self) {
        drop(self.bell);
        // If it panicked, it has said so.
        let _ = self.thread.join();
    }
}

/// Leaves the writer as long for a checkpoint of its own: there is none while this one runs, and on a slow disk the log would
/// never begin anew.
fn rest(rings: &Receiver<()>, pause: Duration) {
    let until = Instant::now() + pause;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if rings.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}
