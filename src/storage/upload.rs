//! Large files on their way into a bucket: sent in parts, put together when they are published, else aborted.
//!
//! The bucket keeps, and charges for, the parts of an upload that is neither completed nor aborted, and does not tell us of
//! them. So the id of each lies in a note beside the database until then: who is killed in between aborts it at the next
//! start. (Killed between the answer that brings the id and the note, it stays: a rule of the bucket should abort what is
//! days old.)

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::multipart::PartId;
use object_store::path::Path as Location;
use object_store::{Attributes, PutMultipartOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::bucket::{Bucket, WHOLE};
use super::spool::Finished;
use super::{StorageError, blocking, failed_to};

/// Smallest part, in bytes; the last one may be smaller.
const PART: u64 = WHOLE;
/// Most parts of an object, as S3 has it.
const MOST_PARTS: u64 = 10_000;
/// Parts of one file that are on their way at once: one is read while the other is sent.
const AT_ONCE: usize = 2;

/// What is needed to abort an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    key: String,
    upload: String,
}

/// An upload that is aborted when this is dropped.
#[derive(Debug)]
pub(super) struct Unfinished {
    bucket: Bucket,
    /// The name of its note, and that.
    note: Option<(String, Note)>,
}

/// The parts that were sent.
#[derive(Debug)]
pub(super) struct Parts {
    upload: String,
    parts: Vec<PartId>,
}

/// Sends a file in parts. What fails, or is dropped on the way, is aborted.
pub(super) async fn send(
    bucket: &Bucket,
    file: &Finished,
    (key, attributes): (&str, Attributes),
) -> Result<(Unfinished, Parts), StorageError> {
    let location = bucket.location(key)?;
    let unfinished = Unfinished::begin(bucket, &location, (key, attributes)).await?;
    let upload = unfinished.upload().to_owned();
    let parts = send_parts(bucket, file, (&location, &upload)).await?;
    Ok((unfinished, Parts { upload, parts }))
}

async fn send_parts(
    bucket: &Bucket,
    file: &Finished,
    (location, upload): (&Location, &String),
) -> Result<Vec<PartId>, StorageError> {
    let path = file.path().to_owned();
    let opened = blocking(move || File::open(path)).await;
    let content = Arc::new(opened.map_err(failed_to("read a file in the spool"))?);
    let (size, total) = (part_size(file.bytes), file.bytes);
    let sent = stream::iter(0..total.div_ceil(size)).map(|n| {
        let content = Arc::clone(&content);
        async move {
            let at = n * size;
            let part = blocking(move || read(&content, at, size.min(total - at))).await;
            let part = part.map_err(failed_to("read a file in the spool"))?;
            let place = usize::try_from(n).unwrap_or(usize::MAX);
            let uploads = &bucket.0.service.uploads;
            let put = uploads.put_part(location, upload, place, part.into()).await;
            put.map_err(|error| bucket.refused("send a part of a file", &error))
        }
    });
    sent.buffered(AT_ONCE).try_collect().await
}

fn read(content: &File, at: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut part = vec![0; usize::try_from(count).map_err(io::Error::other)?];
    content.read_exact_at(&mut part, at)?;
    Ok(part)
}

/// So large that the parts suffice, in whole mebibytes: some stores want all but the last to be of one size.
fn part_size(bytes: u64) -> u64 {
    bytes.div_ceil(MOST_PARTS).next_multiple_of(1 << 20).max(PART)
}

impl Parts {
    /// Has the object put together.
    pub(super) async fn complete(self, bucket: &Bucket, location: &Location) -> Result<(), StorageError> {
        let uploads = &bucket.0.service.uploads;
        let completed = uploads
            .complete_multipart(location, &self.upload, self.parts)
            .await;
        completed
            .map(drop)
            .map_err(|error| bucket.refused("publish a file", &error))
    }
}

impl Unfinished {
    async fn begin(
        bucket: &Bucket,
        location: &Location,
        (key, attributes): (&str, Attributes),
    ) -> Result<Self, StorageError> {
        let options = PutMultipartOptions {
            attributes,
            ..PutMultipartOptions::default()
        };
        let uploads = &bucket.0.service.uploads;
        let begun = uploads.create_multipart_opts(location, options).await;
        let upload = begun.map_err(|error| bucket.refused("begin to send a file", &error))?;
        let note = Note {
            key: key.to_owned(),
            upload,
        };
        let name = hex::encode(&Sha256::digest(format!("{key} {}", note.upload))[..16]);
        let path = bucket.0.notes.join(&name);
        let unfinished = Self {
            bucket: bucket.clone(),
            note: Some((name, note.clone())),
        };
        blocking(move || write_note(&path, &note))
            .await
            .map_err(failed_to("note an upload"))?;
        Ok(unfinished)
    }

    fn upload(&self) -> &str {
        self.note.as_ref().map_or("", |(_, note)| &note.upload)
    }

    /// There is nothing to abort any more.
    pub(super) fn finished(mut self) {
        if let Some((name, _)) = self.note.take() {
            forget(&self.bucket, &name);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some((name, note)) = self.note.take() else {
            return;
        };
        // Outside of the runtime nothing can be asked: the note waits for the next start.
        if tokio::runtime::Handle::try_current().is_ok() {
            let bucket = self.bucket.clone();
            let abort = async move { abort(&bucket, name, note).await.map(drop) };
            drop(self.bucket.0.tasks.spawn(abort));
        }
    }
}

/// Aborts an upload, or remembers that this is to be done.
async fn abort(bucket: &Bucket, name: String, note: Note) -> Result<(), StorageError> {
    let location = bucket.location(&note.key)?;
    let aborted = bucket
        .0
        .service
        .uploads
        .abort_multipart(&location, &note.upload)
        .await;
    match aborted.map_err(|error| bucket.failed("abort an upload", &error)) {
        // Gone, whoever did that.
        Ok(()) | Err(StorageError::Missing) => {
            forget(bucket, &name);
            Ok(())
        }
        Err(error) => {
            abandoned(bucket).insert(name, note);
            Err(error)
        }
    }
}

fn abandoned(bucket: &Bucket) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<String, Note>> {
    bucket
        .0
        .abandoned
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn forget(bucket: &Bucket, name: &str) {
    // One that cannot be removed leads, at the next start, to an upload that is gone.
    fs::remove_file(bucket.0.notes.join(name)).ok();
}

impl Bucket {
    /// Takes over the notes of uploads that a predecessor left, which is only done when none of ours is under way; how
    /// many.
    pub(super) fn take_over(&self) -> io::Result<usize> {
        fs::create_dir_all(&self.0.notes)?;
        for entry in fs::read_dir(&self.0.notes)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let read = fs::read(&path).map(|note| serde_json::from_slice(&note));
            let taken = match read {
                Ok(Ok(note)) => {
                    abandoned(self).insert(name, note);
                    Ok(())
                }
                // Cut off by the crash that it was written for.
                Ok(Err(_)) => fs::remove_file(path),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                tracing::warn!("a note of an upload is left as it is: {error}");
            }
        }
        Ok(abandoned(self).len())
    }

    /// Aborts what could not be aborted before. The first failure ends it: what is left is tried again the next time.
    pub(super) async fn abort_abandoned(&self) -> Result<(), StorageError> {
        loop {
            let next = abandoned(self).pop_first();
            let Some((name, note)) = next else {
                return Ok(());
            };
            abort(self, name, note).await?;
        }
    }
}

fn write_note(path: &PathBuf, note: &Note) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&serde_json::to_vec(note)?)?;
    file.sync_all()?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_large_enough_for_their_number() {
        for bytes in [
            WHOLE + 1,
            100 << 20,
            PART * MOST_PARTS,
            PART * MOST_PARTS + 1,
            5 << 40,
        ] {
            let size = part_size(bytes);
            assert!(
                size >= PART && bytes.div_ceil(size) <= MOST_PARTS,
                "{bytes}: {size}"
            );
        }
        assert_eq!(part_size(PART * MOST_PARTS), PART);
    }
}
