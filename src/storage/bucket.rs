//! Stored files in a bucket of an object store.
//!
//! What asks the store is spawned where it changes something that others may see: a request that nobody waits for any more
//! may be carried out all the same, and the lock on the task's files must last as long.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::Method;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Location;
use object_store::signer::Signer;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutOptions,
    PutPayload,
};
use tokio::task::JoinHandle;
use url::Url;

use super::connect::{self, BadSettings};
use super::key::is_sound;
use super::spool::Finished;
use super::upload::{self, Parts, Unfinished};
use super::{StorageError, blocking, failed_to};
use crate::config;
use crate::failpoint::{self, Step};
use crate::shutdown::Tasks;

/// Up to this many bytes a file is sent in one go when it is published; larger ones are sent in parts before.
pub(super) const WHOLE: u64 = 8 << 20;

/// How long a look whether the bucket can be used may take.
const PROBE: Duration = Duration::from_secs(15);

/// The object that such a look makes and removes. No key begins with a dot.
const PROBED: &str = ".reelhook-probe";

/// The metadata that holds the SHA-256 of an object, in hexadecimal.
const SHA256: &str = "sha256";

/// The store behind a bucket, by what it is asked for.
pub(super) struct Service {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) uploads: Arc<dyn MultipartStore>,
    pub(super) signer: Arc<dyn Signer>,
}

/// A bucket with the prefix of all our objects. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Bucket(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) service: Service,
    place: config::Bucket,
    variables: config::Variables,
    pub(super) tasks: Tasks,
    /// Where notes of uploads that are not finished lie.
    pub(super) notes: Box<Path>,
    /// Uploads that nobody finishes and that could not be aborted yet.
    pub(super) abandoned: Mutex<BTreeMap<String, upload::Note>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)
    }
}

/// A file that is to become an object. While it does not, it stays in the spool.
#[derive(Debug)]
pub(super) struct Staged {
    file: Finished,
    key: String,
    content_type: String,
    /// Those that were sent already, of a large file.
    sent: Option<(Unfinished, Parts)>,
}

/// What tells one object of a key from another.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// As it was noted on it.
    sha256: Option<String>,
    /// When it came, and the store's tag.
    version: (i64, Option<String>),
}

impl Bucket {
    /// Takes the bucket without asking it anything, and `notes` as the directory of notes of unfinished uploads.
    pub(super) fn open(
        place: &config::Bucket,
        variables: &config::Variables,
        (notes, tasks): (&Path, &Tasks),
    ) -> Result<Self, BadSettings> {
        let service = connect::service(place, variables)?;
        Ok(Self(Arc::new(Shared {
            service,
            place: place.clone(),
            variables: variables.clone(),
            tasks: tasks.clone(),
            notes: notes.into(),
            abandoned: Mutex::default(),
        })))
    }

    /// Sends the parts of a large file; a small one goes when it is published.
    pub(super) async fn stage(
        &self,
        file: Finished,
        key: &str,
        content_type: &str,
    ) -> Result<Staged, StorageError> {
        let sent = if file.bytes > WHOLE {
            let attributes = attributes(&file, content_type);
            Some(upload::send(self, &file, (key, attributes)).await?)
        } else {
            None
        };
        Ok(Staged {
            file,
            key: key.to_owned(),
            content_type: content_type.to_owned(),
            sent,
        })
    }

    /// Makes a staged file an object, and looks whether it has arrived whole. `done` goes once the work ends, even if
    /// nobody waits.
    pub(super) async fn publish(
        &self,
        staged: Staged,
        done: impl Send + 'static,
    ) -> Result<(), StorageError> {
        let bucket = self.clone();
        let published = self.0.tasks.spawn(async move {
            let _until_done = done;
            bucket.put(staged).await
        });
        ended(published).await
    }

    async fn put(&self, staged: Staged) -> Result<(), StorageError> {
        let Staged {
            file,
            key,
            content_type,
            sent,
        } = staged;
        let location = self.location(&key)?;
        match sent {
            None => self.put_whole(&file, &location, &content_type).await?,
            Some((unfinished, parts)) => {
                let before = self.found(&location).await;
                let completed = parts.complete(self, &location).await;
                if completed.is_err() && !self.has_arrived(&location, &file, before).await {
                    return completed;
                }
                unfinished.finished();
            }
        }
        failpoint::step(Step::FileRenamed);
        let found = match self.head(&location).await {
            Err(StorageError::Missing) => 0,
            found => found?.size,
        };
        if found == file.bytes {
            file.discard();
            return Ok(());
        }
        let expected = file.bytes;
        let told = format!("{found} bytes lie there where {expected} were sent");
        Err(self.fault("publish a file", &told))
    }

    async fn put_whole(
        &self,
        file: &Finished,
        location: &Location,
        content_type: &str,
    ) -> Result<(), StorageError> {
        let path = file.path().to_owned();
        let content = blocking(move || fs::read(path)).await;
        let content = content.map_err(failed_to("read a file in the spool"))?;
        let options = PutOptions {
            attributes: attributes(file, content_type),
            ..PutOptions::default()
        };
        let put = self.0.service.objects.put_opts(location, content.into(), options);
        put.await
            .map(drop)
            .map_err(|error| self.refused("publish a file", &error))
    }

    /// Whether the object came into being although the answer to that was lost: it says that it has the content of the file,
    /// and is not what was found there before, which may say the same and be rotten.
    async fn has_arrived(
        &self,
        location: &Location,
        file: &Finished,
        before: Result<Option<Found>, StorageError>,
    ) -> bool {
        let (Ok(before), Ok(Some(now))) = (before, self.found(location).await) else {
            return false;
        };
        now.sha256 == Some(hex::encode(file.sha256)) && before.as_ref() != Some(&now)
    }

    /// What lies at a place, if anything does.
    async fn found(&self, location: &Location) -> Result<Option<Found>, StorageError> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        match self.0.service.objects.get_opts(location, options).await {
            Ok(found) => Ok(Some(Found {
                sha256: (found.attributes.get(&Attribute::Metadata(SHA256.into())))
                    .map(|sha256| sha256.to_string()),
                version: (found.meta.last_modified.timestamp_millis(), found.meta.e_tag),
            })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("look at a stored file", &error)),
        }
    }

    /// Removes the object of a key, if there is one.
    pub(super) async fn remove(&self, key: &str, done: impl Send + 'static) -> Result<(), StorageError> {
        let (bucket, location) = (self.clone(), self.location(key)?);
        let removed = self.0.tasks.spawn(async move {
            let _until_done = done;
            match bucket.0.service.objects.delete(&location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(bucket.failed("remove a file", &error)),
            }
        });
        ended(removed).await
    }

    /// Looks whether there is an object, and how long it is.
    pub(super) async fn length_of(&self, key: &str) -> Result<u64, StorageError> {
        Ok(self.head(&self.location(key)?).await?.size)
    }

    async fn head(&self, location: &Location) -> Result<ObjectMeta, StorageError> {
        let found = self.0.service.objects.head(location).await;
        found.map_err(|error| self.failed("look at a stored file", &error))
    }

    /// Part of an object, as it comes, if the whole has `length` bytes.
    pub(super) async fn read(
        &self,
        key: &str,
        (range, length): (Range<u64>, u64),
    ) -> Result<impl Stream<Item = Result<Bytes, object_store::Error>> + use<>, StorageError> {
        let location = self.location(key)?;
        let options = GetOptions {
            // Stores take no range of nothing; and of the whole, none is the cheaper request.
            range: (range != (0..length)).then_some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let found = self.0.service.objects.get_opts(&location, options).await;
        let found = found.map_err(|error| self.failed("read a stored file", &error))?;
        if found.meta.size != length {
            let told = format!("{} bytes lie there where {length} were stored", found.meta.size);
            return Err(self.fault("read a stored file", &told));
        }
        Ok(found.into_stream())
    }

    /// A URL by which anybody can read the object for a while.
    pub(super) async fn signed_url(&self, key: &str, opens_for: Duration) -> Result<Url, StorageError> {
        let location = self.location(key)?;
        let signed = self
            .0
            .service
            .signer
            .signed_url(Method::GET, &location, opens_for);
        signed
            .await
            .map_err(|error| self.failed("sign a URL of a file", &error))
    }

    /// Makes a small object and removes it again: what publishing and deleting need.
    pub(super) async fn probe(&self) -> Result<(), StorageError> {
        let probe = async {
            let location = self.at(PROBED)?;
            let objects = &self.0.service.objects;
            let put = objects.put(&location, PutPayload::new()).await;
            put.map_err(|error| self.refused("write a test file", &error))?;
            match objects.delete(&location).await {
                // Another look, of another process, may have come between.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.refused("remove its test file", &error)),
            }
        };
        let told = format!("no answer within {} s", PROBE.as_secs());
        tokio::time::timeout(PROBE, probe)
            .await
            .unwrap_or_else(|_| Err(self.fault("write a test file", &told)))
    }

    /// Where the object of a key lies.
    pub(super) fn location(&self, key: &str) -> Result<Location, StorageError> {
        if !is_sound(key) {
            return Err(StorageError::BadKey);
        }
        self.at(key)
    }

    fn at(&self, key: &str) -> Result<Location, StorageError> {
        Location::parse(format!("{}{key}", self.0.place.prefix)).map_err(|_| StorageError::BadKey)
    }

    /// The failure of a request about something that is there: [`StorageError::Missing`] if it is not.
    pub(super) fn failed(&self, action: &'static str, error: &object_store::Error) -> StorageError {
        if matches!(error, object_store::Error::NotFound { .. }) && !connect::names_bucket(error) {
            return StorageError::Missing;
        }
        self.refused(action, error)
    }

    /// The failure of a request that makes something: what is not found then is the bucket.
    pub(super) fn refused(&self, action: &'static str, error: &object_store::Error) -> StorageError {
        self.fault(action, &connect::told(error))
    }

    fn fault(&self, action: &'static str, told: &str) -> StorageError {
        let told = connect::without_secrets(told, &self.0.variables);
        StorageError::Bucket {
            action,
            told: format!("{}: {told}", self.0.place),
        }
    }
}

fn attributes(file: &Finished, content_type: &str) -> Attributes {
    Attributes::from_iter([
        (Attribute::ContentType, content_type.to_owned()),
        (Attribute::Metadata(SHA256.into()), hex::encode(file.sha256)),
    ])
}

/// The outcome of a spawned request; it ends without one only with the process, or if it panics.
async fn ended(request: JoinHandle<Result<(), StorageError>>) -> Result<(), StorageError> {
    request.await.unwrap_or_else(|error| {
        let source = std::io::Error::other(error);
        Err(failed_to("finish a request")(source))
    })
}
