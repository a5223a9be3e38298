//! The directory that a backup is made in: nothing in it looks like a good one before it is.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::super::human;

/// Where everything is made.
const UNFINISHED: &str = "unfinished";

/// An empty directory with a place to work in. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub(super) struct Target {
    dir: PathBuf,
    /// Whether the directory itself is ours.
    is_new: bool,
    finished: bool,
}

impl Target {
    /// Makes the directory, or takes one that is empty.
    pub(super) fn make(dir: &Path) -> anyhow::Result<Self> {
        let shown = dir.display();
        let is_new = match fs::read_dir(dir) {
            Ok(mut entries) => {
                anyhow::ensure!(
                    entries.next().is_none(),
                    "{shown} is not empty; name a directory that does not exist yet"
                );
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                private()
                    .create(dir)
                    .with_context(|| format!("cannot make {shown}"))?;
                true
            }
            Err(error) => return Err(error).with_context(|| format!("cannot use {shown}")),
        };
        let target = Self {
            dir: dir.to_owned(),
            is_new,
            finished: false,
        };
        private()
            .create(target.path(""))
            .with_context(|| format!("cannot write to {shown}"))?;
        Ok(target)
    }

    /// The path of an unfinished file.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(UNFINISHED).join(name)
    }

    /// Where a file lies once all is finished.
    pub(super) fn finished_path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a directory to work in.
    pub(super) fn make_dir(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        private().create(&path)?;
        Ok(path)
    }

    /// Puts finished files in their place, and the last of all, which says that they are good, in one step.
    pub(super) fn finish(&mut self, files: &[&str], last: (&str, &[u8])) -> io::Result<()> {
        let mut file = File::create_new(self.path(last.0))?;
        file.write_all(last.1)?;
        sync_private(&self.path(last.0))?;
        for name in files {
            fs::rename(self.path(name), self.dir.join(name))?;
        }
        File::open(&self.dir)?.sync_all()?;
        fs::rename(self.path(last.0), self.dir.join(last.0))?;
        self.finished = true;
        fs::remove_dir_all(self.path(""))?;
        File::open(&self.dir)?.sync_all()?;
        match parent_of(&self.dir) {
            Some(parent) if self.is_new => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }

    /// Refuses if the file system has less room than this.
    pub(super) fn has_room_for(&self, bytes: u64) -> anyhow::Result<()> {
        // Where the system does not tell, writing will.
        let Ok(found) = rustix::fs::statvfs(&self.dir) else {
            return Ok(());
        };
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        anyhow::ensure!(
            bytes <= free,
            "{} has {} free, and the copy and its trial need {}",
            self.dir.display(),
            human::size(free),
            human::size(bytes)
        );
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // What cannot be removed lies in a directory whose name says what it is.
        if self.is_new {
            fs::remove_dir_all(&self.dir).ok();
            return;
        }
        if let Ok(entries) = fs::read_dir(&self.dir) {
            // It was empty: all of this is ours.
            for entry in entries.flatten() {
                let path = entry.path();
                fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).ok();
            }
        }
    }
}

/// The directory that a directory lies in; that of a name alone is the working directory.
fn parent_of(dir: &Path) -> Option<&Path> {
    let parent = dir.parent()?;
    let is_here = parent.as_os_str().is_empty();
    Some(if is_here { Path::new(".") } else { parent })
}

fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Makes a file ours alone, and syncs it.
pub(super) fn sync_private(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.sync_all()
}

/// Length and SHA-256 of a file.
pub(super) fn measure(path: &Path) -> io::Result<(u64, String)> {
    let (mut file, mut hash, mut bytes) = (File::open(path)?, Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hex::encode(hash.finalize()))),
            count => {
                hash.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_one_part_lies_in_the_working_directory() {
        assert_eq!(parent_of(Path::new("backup")), Some(Path::new(".")));
        assert_eq!(parent_of(Path::new("a/b")), Some(Path::new("a")));
        assert_eq!(parent_of(Path::new("/")), None);
    }

    #[test]
    fn what_does_not_fit_is_refused_before() {
        let scratch = tempfile::tempdir().unwrap();
        let target = Target::make(&scratch.path().join("backup")).unwrap();
        target.has_room_for(1).unwrap();
        let refused = target.has_room_for(u64::MAX).unwrap_err().to_string();
        assert!(refused.contains("free"), "{refused}");
    }
}
