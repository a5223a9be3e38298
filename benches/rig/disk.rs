//! What the disk itself takes for one durable write: no acknowledgement can be faster.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::numbers::{millis, percentile};

const WRITES: usize = 1000;
const LONGEST: Duration = Duration::from_secs(5);

/// How long an append of 4 KiB with `fdatasync` takes, in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Fsync {
    pub(crate) p50_us: u32,
    pub(crate) p99_us: u32,
}

/// Measures in `dir`, for five seconds at most.
pub(crate) fn measure(dir: &Path) -> std::io::Result<Fsync> {
    let mut file = File::create(dir.join("fsync"))?;
    let mut latencies = Vec::with_capacity(WRITES);
    let began = Instant::now();
    while latencies.len() < WRITES && began.elapsed() < LONGEST {
        let write = Instant::now();
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        latencies.push(u32::try_from(write.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    latencies.sort_unstable();
    Ok(Fsync {
        p50_us: percentile(&latencies, 50.0),
        p99_us: percentile(&latencies, 99.0),
    })
}

impl Fsync {
    pub(crate) fn sentence(self) -> String {
        format!(
            "The disk takes {} (p99 {}) for 4 KiB appended with fdatasync.",
            millis(self.p50_us),
            millis(self.p99_us)
        )
    }
}
