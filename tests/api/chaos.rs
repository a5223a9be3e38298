//! Whatever hosts do on the way, the end is the same: a run through random faults against a clean one.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::random::Random;
use crate::support::{
    LONG_AGO, Origin, Scripted as Reply, TestServer, Then, Version, mp4, success, variable,
};

const TASKS: u64 = 12;
/// Most answers that go wrong before one is right.
const MOST_FAULTS: u64 = 4;
const QUICK: &str = "
    shutdown_grace = \"100ms\"
    [downloads]
    retry_base = \"1ms\"
    retry_cap = \"2ms\"
    min_speed = \"100KB\"
    stall_timeout = \"200ms\"
    ";

/// A task's files, each with its faults.
struct Task {
    id: String,
    files: Vec<(Version, Vec<Reply>)>,
}

/// A provider's tasks, which follow from the seed.
fn tasks(random: &mut Random) -> Vec<Task> {
    let mut task = |n| {
        let files = (0..=random.below(2)).map(|_| {
            let version = version(random);
            let faults = (0..random.below(MOST_FAULTS + 1)).map(|_| fault(&version, random));
            let in_turn = faults.collect();
            (version, in_turn)
        });
        Task {
            id: format!("task-{n}"),
            files: files.collect(),
        }
    };
    (0..TASKS).map(&mut task).collect()
}

fn version(random: &mut Random) -> Version {
    let content = mp4(random.next(), 1_000 + random.index(60_000));
    match random.below(5) {
        0 => Version::bare(content),
        1 => Version::bare(content).modified(LONG_AGO),
        2 => Version::tagged("W/\"weak\"", content).modified(LONG_AGO),
        _ => Version::tagged("\"strong\"", content),
    }
}

/// A way in which a host can fail and get over it.
fn fault(version: &Version, random: &mut Random) -> Reply {
    let length = version.content.len();
    let by = if random.below(2) == 0 {
        Then::Fin
    } else {
        Then::Reset
    };
    let cut = random.index(length);
    let another = || Version::tagged("\"another\"", mp4(99, length));
    match random.below(14) {
        0..5 => Reply::of(version).until(cut, by),
        5 => Reply::chunked(version).until(cut, by),
        6 => Reply::of(version).until(cut, Then::Silence),
        7 => Reply::status([403, 404, 408, 410, 425][random.index(5)], ""),
        8 => Reply::status([500, 502, 503][random.index(3)], ""),
        9 => Reply::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n",
            "{\"error\":\"not ready\"}",
        ),
        10 => Reply::raw("HTTP/1.1 200 OK\r\nConte", "").then(by),
        // Another version in the place of the rest: under its own tag, or from a byte that nobody asked for.
        11 => Reply::part_as(&another(), move |from| {
            format!("bytes {from}-{}/{length}", length - 1)
        })
        .until(cut, by),
        12 => Reply::part_as(&another(), move |_| format!("bytes 0-{}/{length}", length - 1)).until(cut, by),
        _ => Reply::found("/in-a-circle"),
    }
}

/// What the tasks come to: everything but what tells of the way there.
async fn end(tasks: &[Task], faulty: bool) -> Vec<Value> {
    let server = TestServer::with(QUICK).await;
    // Several hosts: one that keeps failing is left alone for seconds.
    let mut hosts = Vec::new();
    for n in 1..=4 {
        let host = Origin::on(&format!("127.0.0.{n}")).await;
        host.script("/in-a-circle", [Reply::found("/in-a-circle")]);
        hosts.push(host);
    }
    for (task, host) in tasks.iter().zip(hosts.iter().cycle()) {
        let url = |(n, (version, faults)): (usize, &(Version, Vec<Reply>))| {
            let before = faults.iter().filter(|_| faulty).cloned();
            host.script(
                &format!("/{}/{n}.mp4", task.id),
                before.chain([Reply::of(version)]),
            )
        };
        let urls: Vec<_> = task.files.iter().enumerate().map(url).collect();
        server.callback(&success(&task.id, &urls)).send().await.taken();
    }
    let mut ends = Vec::new();
    for task in tasks {
        let settled = server.wait_settled(&task.id).await;
        let shown = settled["files"].as_array().unwrap().iter().map(of_the_end);
        ends.push(json!({"id": task.id, "media": settled["media"], "files": shown.collect::<Vec<_>>()}));
    }
    ends
}

fn of_the_end(file: &Value) -> Value {
    let mut file = file.clone();
    for of_the_way in ["attempts", "deadline", "provider_url", "next_attempt_at"] {
        file.as_object_mut().unwrap().remove(of_the_way);
    }
    file
}

#[tokio::test]
async fn faults_on_the_way_change_nothing_in_the_end() {
    let seeds = variable("REELHOOK_DOWNLOAD_SEEDS").map_or_else(
        || vec![getrandom::u64().unwrap()],
        |seeds| {
            seeds
                .split(',')
                .map(|seed| seed.parse().expect("a number"))
                .collect()
        },
    );
    for seed in seeds {
        let _ = writeln!(std::io::stderr(), "REELHOOK_DOWNLOAD_SEEDS={seed}");
        let tasks = tasks(&mut Random::new(seed));
        let clean = end(&tasks, false).await;
        for (task, end) in tasks.iter().zip(&clean) {
            let digests = task.files.iter().map(|(version, _)| version.sha256());
            let shown = end["files"]
                .as_array()
                .unwrap()
                .iter()
                .map(|file| file["sha256"].as_str().unwrap());
            assert!(digests.eq(shown), "{end}");
        }
        assert_eq!(end(&tasks, true).await, clean, "seed {seed}");
    }
}
