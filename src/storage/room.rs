//! Room on the disks: what running downloads were promised, and a reserve that no download touches, so that a disk full of
//! media never keeps callbacks from being recorded.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::StorageError;

/// A disk is not full while it has so much to spare, even if a larger file has to wait.
pub const AMPLE: u64 = 64 << 20;

/// How much of a disk is kept free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// A gibibyte or a twentieth of the disk, whichever is less.
    Usual,
    /// So many bytes.
    Bytes(u64),
}

impl Reserve {
    fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Usual => (1 << 30).min(capacity / 20),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// The file systems that downloads fill.
#[derive(Debug)]
pub(super) struct Room {
    /// One directory on each.
    places: Vec<PathBuf>,
    reserve: Reserve,
    /// Bytes that running downloads are still to write.
    promised: Arc<AtomicU64>,
}

/// Room that was promised to a download; given back when dropped.
#[derive(Debug)]
pub struct Promise {
    promised: Arc<AtomicU64>,
    left: u64,
}

/// One file system, in bytes.
struct Disk {
    free: u64,
    capacity: u64,
}

impl Room {
    pub(super) fn on(directories: &[&Path], reserve: Reserve) -> Self {
        let mut places: Vec<PathBuf> = Vec::new();
        let mut seen = Vec::new();
        for directory in directories {
            let device = fs::metadata(directory).map(|found| found.dev()).ok();
            if !seen.contains(&device) {
                seen.push(device);
                places.push((*directory).to_owned());
            }
        }
        Self {
            places,
            reserve,
            promised: Arc::default(),
        }
    }

    /// Promises room for so many bytes if there is that much beside the reserve and what was promised to others.
    pub(super) fn admit(&self, needed: u64) -> Result<Promise, StorageError> {
        let others = self.promised.fetch_add(needed, Ordering::SeqCst);
        let promise = Promise {
            promised: Arc::clone(&self.promised),
            left: needed,
        };
        self.look(others, needed)?;
        Ok(promise)
    }

    /// Whether the reserve is still free: others may fill the disk, too.
    pub(super) fn has_reserve(&self) -> Result<(), StorageError> {
        self.look(0, 0)
    }

    /// Bytes that are free on each disk, and whether its reserve is touched.
    pub(super) fn left(&self) -> Vec<(u64, bool)> {
        let disks = self.places.iter().filter_map(|place| disk(place));
        disks
            .map(|disk| (disk.free, disk.free <= self.reserve.of(disk.capacity)))
            .collect()
    }

    fn look(&self, promised: u64, needed: u64) -> Result<(), StorageError> {
        for disk in self.places.iter().filter_map(|place| disk(place)) {
            let reserve = self.reserve.of(disk.capacity);
            let spare = disk.free.saturating_sub(reserve).saturating_sub(promised);
            // A disk that is full to the reserve takes nothing, not even an empty file.
            if spare < needed || disk.free <= reserve {
                return Err(StorageError::NoRoom {
                    needed,
                    spare,
                    reserve,
                    fits: needed.saturating_add(reserve) <= disk.capacity,
                });
            }
        }
        Ok(())
    }
}

impl Promise {
    /// So many of the promised bytes were written: the disk counts them from now on.
    pub fn used(&mut self, bytes: u64) {
        let used = bytes.min(self.left);
        self.left -= used;
        self.promised.fetch_sub(used, Ordering::SeqCst);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.used(self.left);
    }
}

/// `None` where the system does not tell: then nothing is held back.
fn disk(place: &Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(place).ok()?;
    Some(Disk {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        capacity: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_promised_once_and_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let free = disk(directory.path()).unwrap().free;
        // Others write to this disk meanwhile: all but a third of it is kept.
        let room = Room::on(
            &[directory.path(), directory.path()],
            Reserve::Bytes(free / 3 * 2),
        );
        assert_eq!(room.places.len(), 1, "one file system counts once");
        let mut first = room.admit(free / 4).unwrap();
        let refused = room.admit(free / 4).unwrap_err();
        assert!(
            matches!(refused, StorageError::NoRoom { fits: true, .. }),
            "{refused:?}"
        );
        first.used(free / 4);
        room.admit(free / 4).unwrap();
        assert_eq!(room.promised.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn the_reserve_stays_free() {
        let directory = tempfile::tempdir().unwrap();
        let room = |reserve| Room::on(&[directory.path()], reserve);
        let full = room(Reserve::Bytes(u64::MAX));
        assert!(full.has_reserve().is_err());
        assert!(full.admit(0).is_err());
        let impossible = full.admit(1).unwrap_err();
        assert!(matches!(impossible, StorageError::NoRoom { fits: false, .. }));
        room(Reserve::Bytes(0)).has_reserve().unwrap();
        assert_eq!(Reserve::Usual.of(1 << 40), 1 << 30);
        assert_eq!(Reserve::Usual.of(1 << 30), (1 << 30) / 20);
    }
}
