//! reelhook: a webhook receiver for generated media.
//!
//! A provider's callback arrives over HTTP, is verified and recorded before it is answered, and every file it
//! announces is downloaded, checksummed and served. Five floors; a module imports only floors below its own
//! (`tests/layers.rs` holds it to that):
//!
//! | floor | modules |
//! | --- | --- |
//! | 4 | [`cli`]: the commands, and the only place that wires the parts together |
//! | 3 | [`http`]: routes, the accept loop, authentication, status codes · [`simulate`]: a fake provider |
//! | 2 | [`ingest`]: a delivery, from bytes to commit · [`download`]: a queued file, from claim to settlement · [`retention`]: what goes, and when · [`scrub`]: whether stored files are still whole · [`reconcile`]: what callbacks left open, asked for · [`dropin`]: the provider's own API, spoken by us |
//! | 1 | [`store`]: all SQL · [`storage`]: files, on disk or in a bucket · [`worker`]: the claim loop · [`egress`]: the guarded HTTP client · [`file_urls`]: links to files for those without a token · [`provider_api`]: what the provider's own record says, asked for · [`tls`]: the certificate we serve |
//! | 0 | [`provider`]: the dialect as pure functions · [`media`]: what a file is, by its bytes · [`config`] · [`clock`] · [`retry`] · [`roots`] · [`shutdown`] · [`telemetry`] · [`failpoint`] |
//!
//! To follow one callback, read `http::callbacks` → `ingest` → `store::record` → `download`.

pub mod cli;
pub mod clock;
pub mod config;
pub mod download;
pub mod dropin;
pub mod egress;
pub mod failpoint;
pub mod file_urls;
pub mod http;
pub mod ingest;
pub mod media;
pub mod provider;
pub mod provider_api;
pub mod reconcile;
pub mod retention;
pub mod retry;
pub mod roots;
pub mod scrub;
pub mod shutdown;
pub mod simulate;
pub mod storage;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod worker;
