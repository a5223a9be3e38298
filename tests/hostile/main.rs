//! What slow, flooding and malformed peers do to the program, and what they do not do to others' callbacks.
//!
//! A target of its own: its tests run one after the other, since they crowd the machine and watch how long things take.

mod crowds;
mod floods;
mod malformed;
#[expect(dead_code, reason = "tests/api needs more of it than this")]
#[path = "../api/support/program.rs"]
mod program;
mod target;
#[path = "../wire/mod.rs"]
mod wire;

use std::time::Duration;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(1);
