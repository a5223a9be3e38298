//! How far running transfers are, for whoever asks while they run, and whether they are fast enough to go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the speed that is shown is brought up to date.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// All running transfers, by download. Cheap to clone; clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<HashMap<i64, Arc<Meter>>>>);

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes that are there, those of earlier attempts included.
    pub bytes: u64,
    /// The whole file, if the server told.
    pub total: Option<u64>,
    /// Bytes a second, over about the last half second.
    pub speed: u64,
}

#[derive(Debug, Default)]
struct Meter {
    bytes: AtomicU64,
    /// 0 while unknown.
    total: AtomicU64,
    speed: AtomicU64,
}

impl Progress {
    /// How far the transfer of a download is, if one is running.
    pub fn of(&self, download: i64) -> Option<Transfer> {
        let meter = self.lock().get(&download).cloned()?;
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let total = load(&meter.total);
        Some(Transfer {
            bytes: load(&meter.bytes),
            total: (total > 0).then_some(total),
            speed: load(&meter.speed),
        })
    }

    /// All running transfers by download, in no order.
    pub fn all(&self) -> Vec<(i64, Transfer)> {
        let running: Vec<i64> = self.lock().keys().copied().collect();
        let transfer = |download| Some((download, self.of(download)?));
        running.into_iter().filter_map(transfer).collect()
    }

    /// How many transfers are running.
    pub fn running(&self) -> usize {
        self.lock().len()
    }

    /// Shows a transfer until the result is dropped.
    pub fn begin(&self, download: i64) -> Shown {
        let meter = Arc::<Meter>::default();
        self.lock().insert(download, Arc::clone(&meter));
        Shown {
            all: self.clone(),
            download,
            meter,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Arc<Meter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transfer that is being shown, from its beginning until this is dropped.
#[derive(Debug)]
pub struct Shown {
    all: Progress,
    download: i64,
    meter: Arc<Meter>,
}

impl Shown {
    pub(super) fn total(&self, total: Option<u64>) {
        self.meter.total.store(total.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn bytes(&self, bytes: u64) {
        self.meter.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that are there, those of earlier attempts included.
    pub fn count(&self) -> u64 {
        self.meter.bytes.load(Ordering::Relaxed)
    }

    fn speed(&self, speed: u64) {
        self.meter.speed.store(speed, Ordering::Relaxed);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        // A later claim of the download may be showing its own by now.
        if all
            .get(&self.download)
            .is_some_and(|meter| Arc::ptr_eq(meter, &self.meter))
        {
            all.remove(&self.download);
        }
    }
}

/// The speed of one connection: shown, and compared with the least that is accepted.
#[derive(Debug)]
pub(super) struct Pace<'a> {
    shown: &'a Shown,
    least: u64,
    over: Duration,
    /// When the stretch that is judged next began, and with how many bytes.
    judged: (Instant, u64),
    /// The same of the speed that is shown.
    counted: (Instant, u64),
}

impl<'a> Pace<'a> {
    /// Of a connection that goes on from `bytes`; at least `least` bytes a second are accepted, on average over each stretch
    /// of the given length.
    pub(super) fn from(shown: &'a Shown, bytes: u64, (least, over): (u64, Duration)) -> Self {
        let now = Instant::now();
        shown.bytes(bytes);
        Self {
            shown,
            least,
            over,
            judged: (now, bytes),
            counted: (now, bytes),
        }
    }

    /// When the pace is to be judged next, whether or not anything came until then.
    pub(super) fn judged_at(&self) -> Instant {
        self.judged.0 + self.over
    }

    /// Takes note of how many bytes there are; `Err` with the speed if that has been too slow for too long.
    pub(super) fn note(&mut self, bytes: u64) -> Result<(), u64> {
        let now = Instant::now();
        self.shown.bytes(bytes);
        if now - self.counted.0 >= SHOWN_EVERY {
            self.shown.speed(speed(self.counted, (now, bytes)));
            self.counted = (now, bytes);
        }
        if now < self.judged_at() {
            return Ok(());
        }
        let speed = speed(self.judged, (now, bytes));
        self.judged = (now, bytes);
        if speed < self.least { Err(speed) } else { Ok(()) }
    }
}

/// Bytes a second between two moments.
fn speed(from: (Instant, u64), to: (Instant, u64)) -> u64 {
    let millis = (to.0 - from.0).as_millis().max(1);
    let speed = u128::from(to.1.saturating_sub(from.1)) * 1000 / millis;
    u64::try_from(speed).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_shown_while_it_runs() {
        let progress = Progress::default();
        assert_eq!(progress.of(1), None);
        let shown = progress.begin(1);
        shown.total(Some(10));
        shown.bytes(4);
        let transfer = progress.of(1).unwrap();
        assert_eq!((transfer.bytes, transfer.total), (4, Some(10)));
        let later = progress.begin(1);
        drop(shown);
        assert_eq!(
            progress.of(1).map(|transfer| transfer.total),
            Some(None),
            "the later one stays"
        );
        drop(later);
        assert_eq!(progress.of(1), None);
    }

    #[test]
    fn only_a_whole_stretch_below_the_least_speed_is_too_slow() {
        let progress = Progress::default();
        let shown = progress.begin(1);
        let over = Duration::from_millis(20);
        let mut pace = Pace::from(&shown, 0, (1_000_000, over));
        assert_eq!(pace.note(1), Ok(()), "the stretch is not over");
        std::thread::sleep(over);
        assert!(pace.note(2).is_err());
        let mut pace = Pace::from(&shown, 5_000, (1, over));
        std::thread::sleep(over);
        assert!(pace.note(5_000).is_err(), "what was there before does not count");
        std::thread::sleep(over);
        assert_eq!(pace.note(6_000), Ok(()));
    }
}
