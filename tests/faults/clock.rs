//! Sets the clock of a running server by hours, back and forth, while it takes callbacks and fetches files.
//!
//! `REELHOOK_CLOCK_JUMPS` says how often (12), `REELHOOK_CLOCK_SEED` repeats the choices of an earlier run.

use std::time::{Duration, Instant};

use reelhook::cli::instance::Instance;
use reelhook::clock::{Clock, Millis};
use reelhook::config::{Config, Inputs};
use tokio::time::sleep;

use crate::harness::{Api, Harness};
use crate::load;
use crate::random::Random;
use crate::{say, seed, variable};

const JUMPS: u64 = 12;
const HOUR: Millis = 3_600_000;
/// How far a clock is off at most before somebody sets it right, in hours.
const FARTHEST: u64 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_or_forth_loses_nothing_and_holds_nothing_up() {
    // Reqwest takes rustls's default; an error means that another test was first.
    rustls::crypto::ring::default_provider().install_default().ok();
    let began = Instant::now();
    let jumps = variable("REELHOOK_CLOCK_JUMPS").unwrap_or(JUMPS);
    let mut harness = Harness::new(seed("REELHOOK_CLOCK_SEED")).await;
    let clock = Clock::manual(Clock::system().now());
    let inputs = Inputs {
        file: Some(harness.config.clone()),
        ..Inputs::default()
    };
    let instance = Instance::start(&Config::load(&inputs).unwrap(), clock.clone())
        .await
        .unwrap();

    let mut provider = harness.provider();
    provider.clock = clock.clone();
    provider.excuses_stale = true;
    let random = Random::new(harness.random.next());
    tokio::select! {
        () = load::run(instance.addr, provider) => panic!("the server broke off"),
        () = jump(&clock, jumps, random) => {}
    }
    let files = tokio::select! {
        files = harness.settle(instance.addr) => files,
        () = tick(&clock, Duration::MAX) => unreachable!("it ticks for ever"),
    };
    for task in Api::of(instance.addr).await.tasks().await.values() {
        assert_eq!(task["conflicts"], 0, "a repeat is a repeat at any time: {task:#}");
    }
    assert!(instance.stop().await, "it stops in time");
    harness.check().await;
    say(&format!(
        "set the clock {jumps} times: {} callbacks acknowledged, {} refused, 0 lost, {files} files stored, {:.1} s",
        harness.ledger.acknowledged(),
        harness.ledger.refused(),
        began.elapsed().as_secs_f64(),
    ));
}

/// Sets the clock again and again, to hours off the time that it shows, and in the end right, which is back. The last
/// callbacks come after that: it is noticed when there is something to do.
async fn jump(clock: &Clock, jumps: u64, mut random: Random) {
    let mut ahead = 0;
    for _ in 0..jumps {
        tick(clock, Duration::from_millis(50 + random.below(400))).await;
        let hours = Millis::try_from(1 + random.below(FARTHEST)).unwrap();
        let is_back = ahead > 0 && random.below(2) == 0;
        let by = if is_back { -hours.min(ahead) } else { hours };
        ahead += by;
        clock.set(clock.now() + by * HOUR);
    }
    tick(clock, Duration::from_millis(200)).await;
    clock.set(clock.now() - (ahead + 1) * HOUR);
    tick(clock, Duration::from_millis(500)).await;
}

/// Lets the clock go on with the time.
async fn tick(clock: &Clock, how_long: Duration) {
    let (began, mut shown) = (Instant::now(), Duration::ZERO);
    while shown < how_long {
        sleep(Duration::from_millis(5)).await;
        let passed = began.elapsed();
        clock.advance(passed.saturating_sub(shown));
        shown = passed;
    }
}
