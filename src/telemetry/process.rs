//! What the system says of this process and of the disks it uses.

use std::fs;
use std::path::Path;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What this process takes. What the system does not tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    /// Bytes of memory that are resident.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// How many there may be.
    pub max_fds: Option<u64>,
    /// Processor time used, in seconds.
    pub cpu_seconds: Option<f64>,
}

impl Process {
    /// As it is now.
    pub fn now() -> Self {
        Self {
            resident_bytes: resident_bytes(),
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                // One of them is that of the directory that is read here.
                .map(|open| (open.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
            cpu_seconds: cpu_seconds(),
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

/// Time in the program and in the system for it, as proc(5) tells.
#[expect(
    clippy::cast_precision_loss,
    reason = "a hundredth of a second in 2^53 is lost to nobody"
)]
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program stands in parentheses and may hold anything; the state follows it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    let used = ticks()? + ticks()?;
    Some(used as f64 / clock_ticks_per_second() as f64)
}

/// The file system that a directory is on, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// What may still be written to it by those without privileges.
    pub free: u64,
    /// All of it.
    pub size: u64,
}

impl Disk {
    /// That of `directory`; `None` where the system does not tell.
    pub fn of(directory: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(directory).ok()?;
        Some(Self {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            size: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told_of() {
        let before = Process::now();
        assert!(before.resident_bytes.unwrap() > 1 << 20);
        assert!(before.cpu_seconds.unwrap() >= 0.0);
        assert!(before.open_fds.unwrap() >= 3, "at least the standard ones");
        assert!(before.max_fds.unwrap() > before.open_fds.unwrap());
    }

    #[test]
    fn a_disk_has_no_more_free_than_its_size() {
        let disk = Disk::of(Path::new("/")).unwrap();
        assert!(disk.size > 0 && disk.free <= disk.size, "{disk:?}");
        assert_eq!(Disk::of(Path::new("/no/such/directory")), None);
    }
}
