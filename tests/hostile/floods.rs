//! Floods of callbacks that are refused.

use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};

use crate::target::{Signed, Target, callback};
use crate::wire::Connection;

/// What one network has noted at once, and all of them; then so many a second.
const NETWORK: (u64, u64) = (3_000, 5);
const ALL: (u64, u64) = (12_000, 50);

/// Sends badly signed callbacks about `flood`, each from the address that its number gives.
async fn flood(target: &Target, count: u64, from: impl Fn(u64) -> String) {
    const SENDERS: usize = 32;
    let from = &from;
    let senders = (0..SENDERS).map(async |sender| {
        let mut connection = Connection::open(target.addr).await.unwrap();
        for n in (0..count).skip(sender).step_by(SENDERS) {
            let lines = format!("x-forwarded-for: {}\r\n", from(n));
            let request = callback(&format!("flood{n}"), Signed::Badly, &lines);
            assert_eq!(connection.status_of(&request).await.unwrap(), 401);
            connection.body().await.unwrap();
        }
    });
    stream::iter(senders)
        .buffer_unordered(SENDERS)
        .collect::<()>()
        .await;
}

#[tokio::test]
async fn refusals_are_noted_at_a_bounded_rate_and_what_was_known_before_stays() {
    let target = Target::start("");
    let started = Instant::now();
    target.good().await;
    let mut connection = Connection::open(target.addr).await.unwrap();
    let known = callback("good", Signed::Badly, "x-forwarded-for: 198.51.100.1\r\n");
    assert_eq!(connection.status_of(&known).await.unwrap(), 401);

    let one = async {
        flood(&target, 4_000, |n| format!("192.0.2.{}", n % 250)).await;
        started.elapsed().as_secs()
    };
    let good = async {
        loop {
            target.good().await;
        }
    };
    let after_one = tokio::select! {
        seconds = one => seconds,
        () = good => unreachable!("it goes on"),
    };
    flood(&target, 11_000, |n| format!("10.{}.{}.1", n % 250, n / 250)).await;
    target.good().await;
    let seconds = started.elapsed().as_secs() + 1;

    let (log, database, _program) = target.stop();
    let lines = |part: &str| log.lines().filter(|line| line.contains(part)).count() as u64;
    let of_one = lines("remote=192.0.2.");
    let most = NETWORK.0 + NETWORK.1 * (after_one + 1);
    assert!(
        (NETWORK.0..=most).contains(&of_one),
        "{of_one} lines, at most {most}"
    );
    let (all, most) = (lines("callback refused"), ALL.0 + ALL.1 * seconds);
    assert!((ALL.0..=most).contains(&all), "{all} lines, at most {most}");
    assert!(lines("too many callbacks are refused") >= 1);

    let options = SqliteConnectOptions::new().filename(&database);
    let mut connection = options.connect().await.unwrap();
    let sql = "SELECT max(id), sum(task_id = 'good' AND verdict = 'rejected') FROM deliveries";
    let row = sqlx::query(sql).fetch_one(&mut connection).await.unwrap();
    let (written, known): (i64, i64) = (row.get(0), row.get(1));
    assert!(
        written.unsigned_abs() <= most + 100,
        "{written} rows were written"
    );
    assert_eq!(known, 1, "of a task that is known");
}
