//! Where it was measured.

use std::fs;

use serde::{Deserialize, Serialize};

/// A machine, as it was when a run began.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) cpu: String,
    pub(crate) kernel: String,
    /// The load average of the last minute when the run began: what else the machine had to do.
    pub(crate) load_before: f64,
}

impl Machine {
    /// This one, as it is now.
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, model)| model.trim().to_owned());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or_default(),
        }
    }

    /// When and where it was measured, and beside what.
    pub(crate) fn sentence(&self, date: &str, version: &str, beside: &str) -> String {
        format!(
            "Measured on {date} with reelhook {version} on {} cores ({}), shared with {beside} and with whatever else ran (load \
             average {} before the run); Linux {}.",
            self.cores, self.cpu, self.load_before, self.kernel
        )
    }
}
