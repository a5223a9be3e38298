//! What the benchmarks share: a server under test as a child process, the machine and its disk, progress, and the words
//! and numbers of a report.

pub(crate) mod callback;
pub(crate) mod criterion;
pub(crate) mod disk;
pub(crate) mod document;
pub(crate) mod machine;
pub(crate) mod numbers;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod server;
