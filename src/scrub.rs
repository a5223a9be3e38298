//! Scrubs: whether what was stored is still there, byte for byte.
//!
//! Every stored file is read again and compared with its row, in the order of the rows. Nothing is held meanwhile: a
//! verdict is recorded only if the row is still the one that was judged, and else the file is judged anew. One scrub
//! runs at a time. One that a stop of the server cut off goes on at the next start.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, millis};
use crate::shutdown::Tasks;
use crate::storage::{Storage, StorageError};
use crate::store::scrub::{Judged, Noted, Orders, Scrub, StoredFile, Verdict};
use crate::store::{Store, StoreError};

/// How often it is looked whether a scrub is due.
const EVERY: Duration = Duration::from_mins(1);
/// How often it is recorded how far a scrub came: what a crash has it read again.
const NOTE_EVERY: Duration = Duration::from_secs(10);
/// How often a storage that does not answer is asked again.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Bytes read and hashed in one go.
const CHUNK: usize = 1 << 20;
/// How many files are looked for before anything is called missing.
const FIRST: usize = 20;
/// So few files may all be missing without anything being wrong with the storage.
const FEW: usize = 2;
/// How often a file is judged whose row changes each time. Then it is new enough.
const TRIES: usize = 5;

/// When scrubs come by themselves, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// From the beginning of one to that of the next; `None` for never.
    pub every: Option<Duration>,
    /// Bytes per second that they read.
    pub rate: u64,
    /// Whether they have damaged files fetched again.
    pub repair: bool,
}

/// Scrubs when it is due or asked for. Cheap to clone; clones share the one scrub that runs.
#[derive(Debug, Clone)]
pub struct Scrubber(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    storage: Storage,
    clock: Clock,
    tasks: Tasks,
    settings: Settings,
    running: AsyncMutex<Option<Arc<Running>>>,
}

/// The scrub that runs.
#[derive(Debug)]
struct Running {
    now: Mutex<Now>,
    began: Instant,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Now {
    scrub: Scrub,
    /// Bytes of the file at hand.
    of_file: u64,
    /// Bytes since this process took it up.
    read: u64,
    waits: Option<String>,
}

/// How far the running scrub is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// All files but the one at hand.
    pub scrub: Scrub,
    /// Bytes of the file at hand that were read.
    pub of_file: u64,
    /// Bytes read in a second, on average since the scrub was begun or taken up again.
    pub bytes_per_second: u64,
    /// Why it does not go on at the moment, as a sentence.
    pub waits: Option<String>,
}

/// Why a scrub cannot be begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// There is one under way.
    #[error("a scrub is under way already; wait for it, or stop it first")]
    UnderWay,
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a scrub did not come to its end.
#[derive(Debug)]
enum CutOff {
    /// Somebody stopped it.
    Stopped,
    /// The server stops: it goes on at the next start.
    Draining,
    /// None of the first so many files is there: it is another storage.
    WrongStorage(i64),
    Store(StoreError),
}

impl From<StoreError> for CutOff {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Scrubber {
    /// Reads nothing before it is run or asked to.
    pub fn new(store: Store, storage: Storage, (clock, tasks): (Clock, Tasks), settings: Settings) -> Self {
        Self(Arc::new(Shared {
            store,
            storage,
            clock,
            tasks,
            settings,
            running: AsyncMutex::default(),
        }))
    }

    /// Goes on with what a stop cut off, and scrubs when it is due, until the soft stop.
    pub async fn run(self) {
        loop {
            if let Err(error) = self.take_up_what_is_due().await {
                tracing::warn!(%error, "the scrub that is due was not begun yet: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.0.tasks.draining() => return,
            }
        }
    }

    /// Begins a scrub that runs on its own from now on.
    pub async fn begin(&self, orders: Orders) -> Result<Scrub, BeginError> {
        let mut running = self.0.running.lock().await;
        if running.is_some() {
            return Err(BeginError::UnderWay);
        }
        let scrub = self.0.store.begin_scrub(orders).await?;
        let scrub = scrub.ok_or(BeginError::UnderWay)?;
        self.spawn(&mut running, scrub);
        Ok(scrub)
    }

    /// Has the running scrub end where it is; `false` if there is none.
    pub async fn stop(&self) -> bool {
        let running = self.0.running.lock().await;
        if let Some(running) = &*running {
            running.stop.cancel();
        }
        running.is_some()
    }

    /// How far the running scrub is, if one runs.
    pub async fn progress(&self) -> Option<Progress> {
        let running = self.0.running.lock().await.clone()?;
        let now = running.now();
        let elapsed = running.began.elapsed().as_millis().max(1);
        Some(Progress {
            scrub: now.scrub,
            of_file: now.of_file,
            bytes_per_second: u64::try_from(u128::from(now.read) * 1000 / elapsed).unwrap_or(u64::MAX),
            waits: now.waits.clone(),
        })
    }

    async fn take_up_what_is_due(&self) -> Result<(), StoreError> {
        let Shared {
            store,
            settings,
            clock,
            running,
            ..
        } = &*self.0;
        let mut running = running.lock().await;
        if running.is_some() {
            return Ok(());
        }
        if let Some(unfinished) = store.unfinished_scrub().await? {
            self.spawn(&mut running, unfinished);
            return Ok(());
        }
        let Some(every) = settings.every else {
            return Ok(());
        };
        let last = store.last_scrub().await?;
        let (now, every) = (clock.now(), millis(every));
        // One that seems to come from the future says only that the clock was set back since.
        if last.is_some_and(|last| (0..every).contains(&now.saturating_sub(last.began_at))) {
            return Ok(());
        }
        let orders = Orders {
            background: true,
            repair: settings.repair,
        };
        if let Some(scrub) = store.begin_scrub(orders).await? {
            self.spawn(&mut running, scrub);
        }
        Ok(())
    }

    fn spawn(&self, running: &mut Option<Arc<Running>>, scrub: Scrub) {
        let taken_up = Arc::new(Running {
            now: Mutex::new(Now {
                scrub,
                of_file: 0,
                read: 0,
                waits: None,
            }),
            began: Instant::now(),
            stop: CancellationToken::new(),
        });
        *running = Some(Arc::clone(&taken_up));
        let scrubber = self.clone();
        self.0.tasks.spawn(async move {
            scrubber.carry_out(&taken_up).await;
            *scrubber.0.running.lock().await = None;
        });
    }

    async fn carry_out(&self, running: &Running) {
        let store = &self.0.store;
        let ended = match self.walk(running).await {
            Ok(()) => store.end_scrub(running.scrub(), true).await,
            Err(CutOff::Stopped) => store.end_scrub(running.scrub(), false).await,
            Err(CutOff::WrongStorage(none_of)) => {
                let scrub = Scrub {
                    none_of,
                    ..running.scrub()
                };
                store.end_scrub(scrub, false).await
            }
            Err(CutOff::Draining) => store.note_scrub(running.scrub()).await.map(|()| None),
            Err(CutOff::Store(error)) => Err(error),
        };
        match ended {
            Ok(Some(scrub)) => log(scrub),
            Ok(None) => {}
            // It is still open, so that the next look goes on with it.
            Err(error) => tracing::warn!(%error, "the scrub was cut off and will go on: {error}"),
        }
    }

    /// Looks at all files behind the last one.
    async fn walk(&self, running: &Running) -> Result<(), CutOff> {
        self.look_for_the_first(running).await?;
        let mut noted = Instant::now();
        let mut pace = Pace::of(running.scrub().orders, self.0.settings.rate);
        loop {
            let Scrub { last, upto, .. } = running.scrub();
            let stretch = self.0.store.stored_files(last, upto).await?;
            let Some(last) = stretch.last else {
                return Ok(());
            };
            for file in stretch.files {
                self.look_at(running, &mut pace, file).await?;
                if noted.elapsed() >= NOTE_EVERY {
                    self.0.store.note_scrub(running.scrub()).await?;
                    noted = Instant::now();
                }
            }
            running.now().scrub.last = last;
            // A stretch without files has asked nobody whether to stop.
            self.or_cut_off(running, std::future::ready(())).await?;
        }
    }

    /// Looks whether any of the first files is there: where none is, an empty directory or bucket is in the place of the right
    /// one, and a repair would fetch everything again.
    async fn look_for_the_first(&self, running: &Running) -> Result<(), CutOff> {
        loop {
            let first = self.first_files(running.scrub()).await?;
            if first.len() <= FEW || self.is_any_there(running, &first).await? {
                return Ok(());
            }
            self.wait_for_the_storage(running).await?;
            // The storage may have come back since, and they may have been deleted.
            let first = self.first_files(running.scrub()).await?;
            if first.len() <= FEW || self.is_any_there(running, &first).await? {
                return Ok(());
            }
            if self.0.storage.is_there().await.is_ok() {
                let count = i64::try_from(first.len()).unwrap_or(i64::MAX);
                return Err(CutOff::WrongStorage(count));
            }
        }
    }

    /// Whether one of these files is there, or cannot be told to be missing.
    async fn is_any_there(&self, running: &Running, files: &[StoredFile]) -> Result<bool, CutOff> {
        for file in files {
            let opened = self.0.storage.open_file(&file.storage_key);
            if !matches!(
                self.or_cut_off(running, opened).await?,
                Err(StorageError::Missing)
            ) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The next files to be looked at, but for those that were given up.
    async fn first_files(&self, Scrub { mut last, upto, .. }: Scrub) -> Result<Vec<StoredFile>, CutOff> {
        let mut first = Vec::new();
        while first.len() < FIRST {
            let stretch = self.0.store.stored_files(last, upto).await?;
            let Some(next) = stretch.last else {
                break;
            };
            first.extend(stretch.files.into_iter().filter(|file| !file.given_up));
            last = next;
        }
        first.truncate(FIRST);
        Ok(first)
    }

    /// Judges a file as often as it changes meanwhile, and records what is wrong with it.
    async fn look_at(&self, running: &Running, pace: &mut Pace, mut file: StoredFile) -> Result<(), CutOff> {
        for _ in 0..TRIES {
            let verdict = self.judge_twice(running, pace, &file).await?;
            let repair = running.scrub().orders.repair;
            let verdict = match (verdict, file.given_up) {
                (None, true) if repair => Verdict::PutBack,
                (None, true) => return Ok(()),
                (None, false) => {
                    running.pass(&file);
                    return Ok(());
                }
                (Some(wrong), _) => wrong,
            };
            let judged = Judged {
                scrub: running.scrub(),
                file: file.clone(),
                verdict,
            };
            let sentence = judged.verdict.sentence();
            match self.0.store.note_judged(judged).await? {
                Noted::Done { scrub, queued } => {
                    running.now().scrub = scrub;
                    report(&file, &sentence, queued);
                    return Ok(());
                }
                Noted::Changed => {}
            }
            match self.0.store.stored_file(file.row).await? {
                Some(changed) => file = changed,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Judges a file, and once more if it seems not to be whole: it may be the storage that was away, and came back since.
    async fn judge_twice(
        &self,
        running: &Running,
        pace: &mut Pace,
        file: &StoredFile,
    ) -> Result<Option<Verdict>, CutOff> {
        loop {
            let Some(first) = self.judge(running, pace, file).await? else {
                return Ok(None);
            };
            self.wait_for_the_storage(running).await?;
            let verdict = self
                .judge(running, pace, file)
                .await?
                .map(|second| confirmed(&first, second));
            if verdict.is_none() || self.0.storage.is_there().await.is_ok() {
                return Ok(verdict);
            }
        }
    }

    /// Compares a file with its row; `None` if it is whole.
    async fn judge(
        &self,
        running: &Running,
        pace: &mut Pace,
        file: &StoredFile,
    ) -> Result<Option<Verdict>, CutOff> {
        running.now().of_file = 0;
        let opened = self
            .or_cut_off(running, self.0.storage.open_file(&file.storage_key))
            .await?;
        let found = match opened {
            Ok(opened) => opened,
            Err(StorageError::Missing) => return Ok(Some(Verdict::Missing)),
            Err(error) => return Ok(Some(Verdict::Unreadable(error.sentence()))),
        };
        let expected = u64::try_from(file.bytes).unwrap_or(0);
        let length = found.length();
        if length != expected {
            let how = format!("it has {length} bytes instead of {expected}");
            return Ok(Some(Verdict::Damaged(how)));
        }
        let content = match self.or_cut_off(running, found.read(0..length)).await? {
            Ok(content) => StreamReader::new(content),
            Err(error) => return Ok(Some(Verdict::Unreadable(error.sentence()))),
        };
        let digest = self.digest(running, pace, content).await?;
        running.now().of_file = 0;
        Ok(match digest {
            Ok(digest) if digest == file.sha256 => None,
            Ok(digest) => Some(Verdict::Damaged(format!(
                "its SHA-256 is {} instead of {}",
                hex::encode(digest),
                hex::encode(file.sha256)
            ))),
            Err(error) => Some(unread(&error)),
        })
    }

    async fn digest(
        &self,
        running: &Running,
        pace: &mut Pace,
        mut content: impl AsyncRead + Unpin,
    ) -> Result<std::io::Result<[u8; 32]>, CutOff> {
        let mut hash = Sha256::new();
        let mut buffer = Vec::with_capacity(CHUNK);
        loop {
            buffer.clear();
            let read = async {
                while buffer.len() < CHUNK && content.read_buf(&mut buffer).await? > 0 {}
                Ok(buffer.len())
            };
            let count = match self.or_cut_off(running, read).await? {
                Ok(0) => return Ok(Ok(hash.finalize().into())),
                Ok(count) => count,
                Err(error) => return Ok(Err(error)),
            };
            // On a thread of its own: half a millisecond and more that callbacks need not wait for.
            let hashed = tokio::task::spawn_blocking(move || {
                hash.update(&buffer);
                (hash, buffer)
            });
            match hashed.await {
                Ok(back) => (hash, buffer) = back,
                Err(error) => return Ok(Err(std::io::Error::other(error))),
            }
            running.count(count as u64);
            self.or_cut_off(running, pace.keep(count as u64)).await?;
        }
    }

    /// Waits until the storage as a whole can be read.
    async fn wait_for_the_storage(&self, running: &Running) -> Result<(), CutOff> {
        let mut waited = false;
        while let Err(error) = self.0.storage.is_there().await {
            if !waited {
                tracing::warn!(%error, "the scrub waits: {}", error.sentence());
            }
            running.now().waits = Some(error.sentence());
            waited = true;
            self.or_cut_off(running, tokio::time::sleep(ASK_EVERY)).await?;
        }
        running.now().waits = None;
        Ok(())
    }

    /// What comes of some work, unless the scrub is to end before.
    async fn or_cut_off<T>(&self, running: &Running, work: impl Future<Output = T>) -> Result<T, CutOff> {
        tokio::select! {
            biased;
            () = running.stop.cancelled() => Err(CutOff::Stopped),
            () = self.0.tasks.draining() => Err(CutOff::Draining),
            done = work => Ok(done),
        }
    }
}

impl Running {
    /// Held for a moment only, never across an `await`.
    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As far as it came.
    fn scrub(&self) -> Scrub {
        self.now().scrub
    }

    fn count(&self, bytes: u64) {
        let mut now = self.now();
        now.of_file += bytes;
        now.read += bytes;
    }

    /// Counts a file that is whole.
    fn pass(&self, file: &StoredFile) {
        let scrub = &mut self.now().scrub;
        scrub.last = file.row;
        scrub.tally.files += 1;
        scrub.tally.bytes += file.bytes;
    }
}

/// Keeps to so many bytes a second, without catching up on time that was lost.
#[derive(Debug)]
struct Pace {
    /// `None`: as fast as it goes.
    rate: Option<u64>,
    due: Instant,
}

impl Pace {
    fn of(orders: Orders, rate: u64) -> Self {
        Self {
            rate: orders.background.then_some(rate.max(1)),
            due: Instant::now(),
        }
    }

    /// Returns once so many bytes more may have been read.
    async fn keep(&mut self, bytes: u64) {
        let Some(rate) = self.rate else {
            return;
        };
        let took = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        self.due = self.due.max(Instant::now()) + took;
        tokio::time::sleep_until(self.due.into()).await;
    }
}

/// What it says of a file that reading it failed with this. A disk says so of the places it lost; a bucket never does.
fn unread(error: &std::io::Error) -> Verdict {
    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
        return Verdict::Damaged("its disk cannot read it".to_owned());
    }
    Verdict::Unreadable(format!("the storage could not read a stored file: {error}"))
}

/// The second verdict. That the disk cannot read a file counts only if it was so both times.
fn confirmed(first: &Verdict, second: Verdict) -> Verdict {
    let is_unread = second == unread(&rustix::io::Errno::IO.into());
    match second {
        Verdict::Damaged(how) if is_unread && *first != Verdict::Damaged(how.clone()) => {
            Verdict::Unreadable(how)
        }
        second => second,
    }
}

fn report(file: &StoredFile, sentence: &str, queued: bool) {
    let StoredFile {
        source,
        task_id,
        name,
        ..
    } = file;
    let then = if queued { "; it is fetched again" } else { "" };
    tracing::warn!(
        task.id = task_id,
        source,
        file = name,
        "{name} of task {task_id}: {sentence}{then}"
    );
}

fn log(scrub: Scrub) {
    if let Some(reason) = scrub.reason() {
        tracing::error!("the scrub ended at once: {reason}");
        return;
    }
    let (tally, ended) = (scrub.tally, if scrub.complete { "ended" } else { "was stopped" });
    let duration_ms = scrub.ended_at.unwrap_or(scrub.began_at) - scrub.began_at;
    tracing::info!(
        files = tally.files,
        size_bytes = tally.bytes,
        damaged = tally.damaged,
        missing = tally.missing,
        unreadable = tally.unreadable,
        repaired = tally.repaired,
        duration_ms,
        "the scrub {ended}: {} files, {} damaged, {} missing, {} unreadable, {} repaired",
        tally.files,
        tally.damaged,
        tally.missing,
        tally.unreadable,
        tally.repaired
    );
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_place_that_the_disk_lost_is_damage_if_it_is_so_twice() {
        let (lost, other) = (unread(&Errno::IO.into()), unread(&Errno::STALE.into()));
        assert!(matches!(lost, Verdict::Damaged(_)), "{lost:?}");
        assert!(matches!(other, Verdict::Unreadable(_)), "{other:?}");
        assert!(matches!(confirmed(&lost, lost.clone()), Verdict::Damaged(_)));
        assert!(matches!(confirmed(&other, lost.clone()), Verdict::Unreadable(_)));
        assert_eq!(confirmed(&lost, Verdict::Missing), Verdict::Missing);
        let of_a_bucket = unread(&io::Error::other(io::Error::from(Errno::IO)));
        assert!(matches!(of_a_bucket, Verdict::Unreadable(_)), "{of_a_bucket:?}");
    }
}
