//! Breaks the real server in every way that a machine can break, starts it again on what it left, and holds it to its
//! promise. `docs/reliability.md` says what is broken how, and which variables make a run longer.

mod cdn;
mod clock;
mod corpora;
mod disk_full;
mod failpoints;
mod harness;
mod io_errors;
mod kill;
mod ledger;
mod load;
#[path = "../media/mod.rs"]
mod media;
mod model;
mod order;
mod random;
mod remains;
mod server;
#[path = "../soundness/mod.rs"]
mod soundness;
mod strace;
mod trace;
#[path = "../wire/mod.rs"]
mod wire;

use std::io::Write as _;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up, on a busy machine and after any fault. Others may keep the disk from
/// us for half a minute.
const PATIENCE: Duration = Duration::from_mins(2);

/// Past the test harness, which hides what a passing test prints.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A variable that sets the length or the choices of a run.
#[expect(clippy::disallowed_methods, reason = "the tests have no configuration")]
fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}

/// Says that a test cannot be run here; in CI that is a failure.
fn skip(reason: &str) {
    assert!(variable("REELHOOK_CI").is_none(), "cannot be run: {reason}");
    say(&format!("skipped: {reason}"));
}

/// The seed of a test: the one of an earlier run if the variable names it, and said in any case.
fn seed(name: &str) -> u64 {
    let seed = variable(name).unwrap_or_else(|| getrandom::u64().unwrap());
    say(&format!("{name}={seed}"));
    seed
}

/// Waits until `probe` finds what it looks for.
async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
