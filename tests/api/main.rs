//! What reelhook promises, shown over HTTP and by running the program.

mod access;
mod acme;
mod archive;
mod backfill;
mod backup;
mod bounds;
mod callbacks;
mod chaos;
mod cli;
mod commands;
mod dashboard;
mod downloads;
mod dropin;
mod egress;
mod events;
mod files;
mod links;
#[path = "../media/mod.rs"]
mod media;
mod metrics;
mod odd_records;
mod openapi;
mod provider_api;
mod queries;
#[path = "../faults/random.rs"]
mod random;
mod reconcile;
mod refusals;
mod replay;
mod resume;
mod retention;
mod reverify;
mod scrub;
mod simulate;
#[path = "../soundness/mod.rs"]
mod soundness;
mod storage;
mod support;
mod tls;
mod traces;
mod unreliable;
