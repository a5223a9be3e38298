//! One file being written: hashed as it grows, removed unless it is kept for a later attempt.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::note::{Note, Record};
use super::{Partial, Spool};
use crate::failpoint::{self, Step};
use crate::storage::{StorageError, blocking, failed_to};

/// How many of the first bytes of a file are kept for the content check.
pub const HEAD_BYTES: usize = 512;

/// How much is gathered before it goes to the disk.
pub(in crate::storage) const BUFFER_BYTES: usize = 256 * 1024;

/// How much goes to the disk and into the hash in one go: what fits into the processor's caches, and into pages of the system
/// that are at hand (larger ones took four times as long where this was measured).
const PIECE_BYTES: usize = 16 * 1024;

/// From this length on, a file that could be continued has a note beside it while it is being written: fetching less again
/// costs less than a note for each file.
const NOTED_FROM: u64 = 1 << 20;

/// So much is written between two syncs: after a crash of the machine at most twice that is fetched again, and the sync of
/// the whole file at its end has little left to do.
const SYNC_EVERY: u64 = 32 << 20;

/// A file being written. Dropping it removes it.
#[derive(Debug)]
pub struct SpoolFile {
    place: Place,
    /// What came since the last flush.
    gathered: Vec<u8>,
    sink: State,
    bytes: u64,
    /// How much of it was handed to the sink.
    flushed: u64,
    head: Vec<u8>,
    /// What a later attempt has to know; `None` while nobody could go on with it.
    note: Option<Note>,
    checkpoint: Checkpoint,
}

/// What the flushes go to. One of them runs at a time, while the next buffer fills.
#[derive(Debug)]
enum State {
    Idle(Sink),
    Flushing(JoinHandle<io::Result<Sink>>),
    /// A flush failed.
    Broken,
}

#[derive(Debug)]
struct Sink {
    file: File,
    hash: Sha256,
    /// The buffer to fill next.
    spare: Vec<u8>,
}

/// The last sync of the file and the note that tells of it; one runs at a time, beside the flushes.
#[derive(Debug, Default)]
struct Checkpoint {
    running: Option<JoinHandle<io::Result<()>>>,
    /// Length at its beginning.
    at: u64,
    noted: bool,
}

impl Checkpoint {
    fn has_ended(&self) -> bool {
        self.running.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Sink {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.file.write_all(piece)?;
            self.hash.update(piece);
        }
        Ok(())
    }
}

impl SpoolFile {
    /// Begins a file that must not exist yet.
    pub(super) async fn create(place: Place) -> Result<Self, StorageError> {
        let path = place.part.clone();
        let open = move || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)
        };
        let file = blocking(open)
            .await
            .map_err(failed_to("create a file in the spool"))?;
        Ok(Self::over(place, file))
    }

    fn over(place: Place, file: File) -> Self {
        let hash = Sha256::new();
        let spare = Vec::new();
        Self {
            place,
            gathered: Vec::new(),
            sink: State::Idle(Sink { file, hash, spare }),
            bytes: 0,
            flushed: 0,
            head: Vec::with_capacity(HEAD_BYTES),
            note: None,
            checkpoint: Checkpoint::default(),
        }
    }

    /// Goes on with a file that was kept, as far as it can be relied on. It is read and hashed again, rather than a state of
    /// the hash kept: so the digest is that of what lies on the disk. `None` if nothing of it is of use.
    ///
    /// If it cannot be read now, or nobody waits for that any more, it stays.
    pub(super) async fn reopen(mut place: Place, partial: Partial) -> Result<Option<Self>, StorageError> {
        place.kept = true;
        let path = place.part.clone();
        let opened = blocking(move || {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            let length = file.metadata()?.len().min(partial.trusted);
            file.set_len(length)?;
            let (hash, head) = read_again(&mut file)?;
            Ok((file, length, hash, head))
        });
        let (file, bytes, hash, head) = match opened.await {
            // Somebody tidied up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                place.spool.put(place.download, partial);
                return Err(failed_to("read a file in the spool")(error));
            }
            Ok(opened) => opened,
        };
        place.kept = false;
        if !partial.note.serves(bytes) {
            return Ok(None);
        }
        let fresh = Self::over(place, file);
        let State::Idle(sink) = fresh.sink else {
            unreachable!("nothing is being flushed yet");
        };
        Ok(Some(Self {
            sink: State::Idle(Sink { hash, ..sink }),
            bytes,
            flushed: bytes,
            head,
            note: Some(partial.note),
            ..fresh
        }))
    }

    /// Waits until nothing runs beside it.
    #[cfg(test)]
    pub(super) async fn rest(&mut self) {
        self.settle_checkpoint().await.unwrap();
        self.sink = State::Idle(self.idle().await.unwrap());
    }

    /// Has what is written go to another file.
    #[cfg(test)]
    pub(super) fn write_to(&mut self, file: File) {
        if let State::Idle(sink) = &mut self.sink {
            sink.file = file;
        }
    }

    /// What is known of it, if it can be continued.
    pub fn note(&self) -> Option<&Note> {
        self.note.as_ref()
    }

    /// Whether all of it is there.
    pub fn is_whole(&self) -> bool {
        self.note.as_ref().is_some_and(|note| note.is_whole(self.bytes))
    }

    /// Begins anew with nothing written, as a file of which this is known.
    pub async fn restart(&mut self, note: Note) -> Result<(), StorageError> {
        // Until the bytes are gone nobody may take them for those of another version, should this be dropped on the way.
        self.note = None;
        if self.bytes == 0 {
            self.note = Some(note);
            return Ok(());
        }
        self.settle_checkpoint().await?;
        let (mut sink, note_path) = (self.idle().await?, self.place.note.clone());
        self.gathered.clear();
        let emptied = blocking(move || {
            // The note first: it speaks of the bytes that go.
            remove_if_there(&note_path)?;
            sink.file.set_len(0)?;
            sink.file.seek(SeekFrom::Start(0))?;
            sink.hash = Sha256::new();
            Ok(sink)
        });
        self.sink = State::Idle(emptied.await.map_err(failed_to("write to the spool"))?);
        self.checkpoint = Checkpoint::default();
        (self.bytes, self.flushed) = (0, 0);
        self.head.clear();
        self.note = Some(note);
        Ok(())
    }

    /// Notes the length of the whole file, which an answer told only now.
    pub fn set_total(&mut self, total: u64) {
        if let Some(note) = &mut self.note {
            note.total = Some(total);
        }
    }

    /// Appends to the file. After an error every further call fails. If the caller stopped waiting, a part of the chunk was
    /// appended, as [`SpoolFile::bytes`] says.
    ///
    /// Writing and hashing are done together, a quarter of a mebibyte at a time, on a blocking thread, while the next
    /// quarter comes in: one hop per buffer and no second copy, where `tokio::fs` would hop and copy for each chunk that
    /// the network happens to deliver.
    pub async fn write(&mut self, mut chunk: &[u8]) -> Result<(), StorageError> {
        let missing = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&chunk[..missing.min(chunk.len())]);
        while !chunk.is_empty() {
            // At once: a buffer that grows leaves its smaller selves to the allocator. Untouched memory costs nothing.
            self.gathered.reserve_exact(BUFFER_BYTES - self.gathered.len());
            let room = BUFFER_BYTES - self.gathered.len();
            let (now, later) = chunk.split_at(room.min(chunk.len()));
            self.gathered.extend_from_slice(now);
            self.bytes += now.len() as u64;
            chunk = later;
            if self.gathered.len() == BUFFER_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// How many bytes were written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Leaves what is there to a later attempt, if it is of use to one; else removes it.
    pub async fn keep(mut self) -> Result<(), StorageError> {
        let Some(note) = self.note.take().filter(|note| note.serves(self.bytes)) else {
            return Ok(());
        };
        self.settle_checkpoint().await?;
        let mut sink = self.idle().await?;
        let gathered = mem::take(&mut self.gathered);
        let synced = self.checkpoint.at;
        let written = blocking(move || {
            sink.append(&gathered)?;
            self.place.keep(note, synced)
        });
        written.await.map_err(failed_to("write to the spool"))
    }

    /// Writes what is left and syncs the content to the disk.
    pub async fn finish(mut self) -> Result<Finished, StorageError> {
        self.settle_checkpoint().await?;
        let mut sink = self.idle().await?;
        let gathered = mem::take(&mut self.gathered);
        let sha256 = blocking(move || {
            sink.append(&gathered)?;
            sink.file.sync_all()?;
            failpoint::step(Step::SpoolSynced);
            Ok(sink.hash.finalize().into())
        })
        .await
        .map_err(failed_to("sync a file in the spool"))?;
        let note = self.note.map(|note| Note {
            total: Some(self.bytes),
            ..note
        });
        Ok(Finished {
            bytes: self.bytes,
            sha256,
            head: self.head,
            spooled: Spooled {
                place: self.place,
                note,
                bytes: self.bytes,
            },
        })
    }

    /// Hands the full buffer over to a blocking thread, once that is done with the one before.
    async fn flush(&mut self) -> Result<(), StorageError> {
        if self.checkpoint.has_ended() {
            self.settle_checkpoint().await?;
        }
        let mut sink = self.idle().await?;
        let mut next = mem::take(&mut sink.spare);
        next.reserve_exact(BUFFER_BYTES);
        let full = mem::replace(&mut self.gathered, next);
        self.check_point(&sink.file);
        self.flushed += full.len() as u64;
        self.sink = State::Flushing(tokio::task::spawn_blocking(move || {
            sink.append(&full)?;
            failpoint::step(Step::SpoolHalfWritten);
            sink.spare = full;
            sink.spare.clear();
            Ok(sink)
        }));
        Ok(())
    }

    /// What the flushes go to, once none is running. Whoever takes it puts it back.
    async fn idle(&mut self) -> Result<Sink, StorageError> {
        // Waited for in its place: whoever stops waiting here has lost nothing.
        let flushed = match &mut self.sink {
            State::Flushing(flushing) => Some(flushing.await),
            State::Idle(_) | State::Broken => None,
        };
        let sink = match (flushed, mem::replace(&mut self.sink, State::Broken)) {
            (None, State::Idle(sink)) => Ok(sink),
            (Some(flushed), _) => flushed.unwrap_or_else(|panic| Err(io::Error::other(panic))),
            (None, _) => Err(io::Error::other("an earlier write failed")),
        };
        sink.map_err(failed_to("write to the spool"))
    }

    /// From time to time has what is written synced, and noted that it is; the first note comes early and tells of nothing
    /// synced. `file` holds all that was flushed.
    fn check_point(&mut self, file: &File) {
        let due = self.flushed >= self.checkpoint.at + SYNC_EVERY;
        let first = !self.checkpoint.noted && self.bytes >= NOTED_FROM;
        let busy = self.checkpoint.running.is_some();
        let (true, false, Some(note)) = (due || first, busy, &self.note) else {
            return;
        };
        // Without a descriptor to spare there is none this time.
        let Ok(file) = file.try_clone() else {
            return;
        };
        let synced = if due { self.flushed } else { 0 };
        let record = Record::new(note.clone(), synced);
        let (path, useful) = (self.place.note.clone(), note.validator.is_some());
        self.checkpoint = Checkpoint {
            at: synced,
            noted: true,
            running: Some(tokio::task::spawn_blocking(move || {
                if due {
                    file.sync_data()?;
                }
                if useful {
                    // Without it a crash costs a transfer, no more.
                    record.write(&path).ok();
                }
                Ok(())
            })),
        };
    }

    /// Waits until no checkpoint is running. If its sync failed, so has the file: the system tells of lost bytes once only, and
    /// the sync at the end would know nothing of them.
    async fn settle_checkpoint(&mut self) -> Result<(), StorageError> {
        // Waited for in its place: whoever stops waiting here has lost nothing.
        let Some(running) = &mut self.checkpoint.running else {
            return Ok(());
        };
        let done = running.await;
        self.checkpoint.running = None;
        let synced = done.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        synced.map_err(|error| {
            self.sink = State::Broken;
            failed_to("sync a file in the spool")(error)
        })
    }
}

/// The hash of a file and its first bytes; afterwards it stands at its end.
fn read_again(file: &mut File) -> io::Result<(Sha256, Vec<u8>)> {
    let (mut hash, mut head) = (Sha256::new(), Vec::with_capacity(HEAD_BYTES));
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok((hash, head)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let missing = HEAD_BYTES - head.len();
        head.extend_from_slice(&buffer[..missing.min(read)]);
        hash.update(&buffer[..read]);
    }
}

/// A whole and synced file in the spool. Dropping it leaves it there for a later attempt; [`Finished::discard`] does not.
#[derive(Debug)]
pub struct Finished {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
    /// The first [`HEAD_BYTES`] bytes, or all of them.
    pub head: Vec<u8>,
    pub(in crate::storage) spooled: Spooled,
}

impl Finished {
    /// Where the file lies until it is published.
    pub fn path(&self) -> &Path {
        &self.spooled.place.part
    }

    /// Removes it: its content is not what was wanted.
    pub fn discard(self) {
        self.spooled.discard();
    }
}

/// A whole file in the spool that is about to leave it. Dropping it keeps the file, if it is still there, so that a storage
/// that failed does not cost another transfer.
#[derive(Debug)]
pub(in crate::storage) struct Spooled {
    place: Place,
    note: Option<Note>,
    bytes: u64,
}

impl Spooled {
    pub(in crate::storage) fn path(&self) -> &Path {
        &self.place.part
    }

    /// Removes it: it lies in the storage now, or is not wanted.
    pub(in crate::storage) fn discard(mut self) {
        self.note = None;
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Some(note) = self.note.take().filter(|_| self.place.part.exists()) {
            // Should that fail, the file is removed.
            self.place.keep(note, self.bytes).ok();
        }
    }
}

/// Where a file of the spool and its note lie. Both go when this does, unless they were kept.
///
/// Removed on the spot although that may block for a moment: whoever sees a download settled finds the spool empty.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) spool: Arc<Spool>,
    pub(super) download: i64,
    pub(super) part: PathBuf,
    pub(super) note: PathBuf,
    pub(super) kept: bool,
}

impl Place {
    /// Leaves the file to whoever asks for it next.
    fn keep(&mut self, note: Note, synced: u64) -> io::Result<()> {
        Record::new(note.clone(), synced).write(&self.note)?;
        self.kept = true;
        let partial = Partial {
            part: self.part.clone(),
            note,
            trusted: u64::MAX,
        };
        self.spool.put(self.download, partial);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is removed by the sweep at the next start.
            fs::remove_file(&self.note).ok();
            fs::remove_file(&self.part).ok();
        }
    }
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
