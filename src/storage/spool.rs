//! Files being written, out of sight.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{StorageError, blocking, failed_to};
use crate::failpoint::{self, Step};

/// How many of the first bytes of a file are kept for the content check.
pub const HEAD_BYTES: usize = 512;

/// How much is gathered before it goes to the disk.
pub(super) const BUFFER_BYTES: usize = 512 * 1024;

/// A file being written. Dropping it removes it.
#[derive(Debug)]
pub struct SpoolFile {
    path: Unpublished,
    /// `None` only while a write is under way, or after one failed or was abandoned.
    pub(super) sink: Option<Sink>,
    bytes: u64,
    head: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Sink {
    pub(super) file: File,
    buffer: Vec<u8>,
    hash: Sha256,
}

impl Sink {
    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.hash.update(&self.buffer);
        self.buffer.clear();
        Ok(())
    }
}

impl SpoolFile {
    /// Begins a file that must not exist yet.
    pub(super) async fn create(path: PathBuf) -> Result<Self, StorageError> {
        let (file, path) = blocking(move || {
            let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            Ok((file, Unpublished(path)))
        })
        .await
        .map_err(failed_to("create a file in the spool"))?;
        Ok(Self {
            path,
            sink: Some(Sink {
                file,
                buffer: Vec::with_capacity(BUFFER_BYTES),
                hash: Sha256::new(),
            }),
            bytes: 0,
            head: Vec::with_capacity(HEAD_BYTES),
        })
    }

    /// Appends to the file. After an error, or if the caller stopped waiting, every further call fails.
    ///
    /// Writing and hashing are done together, half a mebibyte at a time, on a blocking thread: one hop per buffer and no
    /// second copy, where `tokio::fs` would hop and copy for each chunk that the network happens to deliver.
    pub async fn write(&mut self, mut chunk: &[u8]) -> Result<(), StorageError> {
        self.bytes += chunk.len() as u64;
        let missing = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&chunk[..missing.min(chunk.len())]);
        while !chunk.is_empty() {
            let sink = self.sink.as_mut().ok_or_else(abandoned)?;
            let room = BUFFER_BYTES - sink.buffer.len();
            let (now, later) = chunk.split_at(room.min(chunk.len()));
            sink.buffer.extend_from_slice(now);
            chunk = later;
            if sink.buffer.len() == BUFFER_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// How many bytes were written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes what is left and syncs the content to the disk.
    pub async fn finish(mut self) -> Result<Finished, StorageError> {
        let mut sink = self.sink.take().ok_or_else(abandoned)?;
        let sha256 = blocking(move || {
            sink.flush()?;
            sink.file.sync_all()?;
            failpoint::step(Step::SpoolSynced);
            Ok(sink.hash.finalize().into())
        })
        .await
        .map_err(failed_to("sync a file in the spool"))?;
        Ok(Finished {
            bytes: self.bytes,
            sha256,
            head: self.head,
            path: self.path,
        })
    }

    async fn flush(&mut self) -> Result<(), StorageError> {
        let mut sink = self.sink.take().ok_or_else(abandoned)?;
        let flushed = blocking(move || {
            sink.flush()?;
            failpoint::step(Step::SpoolHalfWritten);
            Ok(sink)
        });
        self.sink = Some(flushed.await.map_err(failed_to("write to the spool"))?);
        Ok(())
    }
}

fn abandoned() -> StorageError {
    let source = io::Error::other("an earlier write failed or was abandoned");
    failed_to("write to the spool")(source)
}

/// A whole and synced file in the spool. Dropping it unpublished removes it.
#[derive(Debug)]
pub struct Finished {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
    /// The first [`HEAD_BYTES`] bytes, or all of them.
    pub head: Vec<u8>,
    pub(super) path: Unpublished,
}

impl Finished {
    /// Where the file lies until it is published.
    pub fn path(&self) -> &Path {
        &self.path.0
    }
}

/// A path whose file goes when this does. Nothing is left to remove once the file was renamed.
///
/// Removed on the spot although that may block for a moment: whoever sees a download settled finds the spool empty.
#[derive(Debug)]
pub(super) struct Unpublished(pub(super) PathBuf);

impl Drop for Unpublished {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the sweep at the next start.
        fs::remove_file(&self.0).ok();
    }
}
