//! The data directory: its layout, and the lock that keeps a second instance out.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// An opened and locked data directory; dropping it gives the lock back.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another instance runs on it.
    #[error(
        "the data directory {0} is in use by another reelhook; stop that one, or give this one its own `data_dir`"
    )]
    InUse(String),
    /// It cannot be made or written.
    #[error(
        "the data directory {path} cannot be used; make it writable, free some space, or set another `data_dir`"
    )]
    Unusable {
        /// The directory or the file in it.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDir {
    /// Makes the directory if needed, proves that it can be written, and locks it.
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        let unusable = |path: &Path| {
            let path = path.display().to_string();
            move |source| DataDirError::Unusable { path, source }
        };
        let spool = Self::spool_in(root);
        fs::create_dir_all(&spool).map_err(unusable(root))?;
        let lock_path = root.join("reelhook.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(unusable(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse(root.display().to_string())),
            Err(TryLockError::Error(source)) => return Err(unusable(&lock_path)(source)),
        }
        let probe = spool.join("probe");
        fs::write(&probe, [0; 4096])
            .and_then(|()| File::open(&probe)?.sync_all())
            .and_then(|()| fs::remove_file(&probe))
            .map_err(unusable(&spool))?;
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        Self::database_in(&self.root)
    }

    /// Where accounts with certificate authorities and what they issued are kept.
    pub fn acme(&self) -> PathBuf {
        Self::acme_in(&self.root)
    }

    /// The database file of the data directory `root`, opened or not.
    pub fn database_in(root: &Path) -> PathBuf {
        root.join("reelhook.db")
    }

    /// The spool of the data directory `root`, opened or not.
    pub fn spool_in(root: &Path) -> PathBuf {
        root.join("spool")
    }

    /// Where notes of unfinished uploads to a bucket are kept, in the data directory `root`, opened or not.
    pub fn uploads_in(root: &Path) -> PathBuf {
        root.join("uploads")
    }

    /// The directory of certificates obtained for the data directory `root`, opened or not.
    pub fn acme_in(root: &Path) -> PathBuf {
        root.join("acme")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::InUse(_))));
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }
}
