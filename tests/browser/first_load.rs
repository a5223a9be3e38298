//! What the first visit costs.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::page::{DESK, Page};
use crate::world::World;

/// Bytes on the wire, without films.
const BUDGET: u64 = 100_000;

#[tokio::test]
async fn the_first_load_is_small_and_nothing_holds_it_up_but_the_style_sheet() {
    let world = World::start().await;
    fill(&world).await;
    let mut table = String::from("\nfirst load         bytes  requests  ready\n");
    for path in [
        "/",
        "/tasks",
        "/tasks?view=table",
        "/tasks/stored-1",
        "/deliveries",
    ] {
        let Some(page) = Page::open(world.server.addr, DESK).await else {
            return;
        };
        let load = page.say("firstLoad", json!({ "path": path })).await;
        let requests: Vec<&Value> = load["requests"].as_array().unwrap().iter().collect();
        let counted = requests.iter().filter(|request| request["kind"] != "Media");
        let bytes: u64 = counted.map(|request| request["bytes"].as_u64().unwrap()).sum();
        let _ = writeln!(
            table,
            "{path:<17} {bytes:>6} {:>9} {:>6} ms",
            requests.len(),
            load["ready"]
        );
        assert!(
            (1..=BUDGET).contains(&bytes),
            "{path}: {bytes} bytes: {requests:?}"
        );
        let blocking = load["blocking"].as_array().unwrap();
        assert_eq!(blocking.len(), 1, "{path}: {blocking:?}");
        assert!(blocking[0].as_str().unwrap().ends_with("/style.css"));
        page.close().await;
    }
    // Not `print`: what passes is to be seen, too.
    let _ = write!(std::io::stderr(), "{table}");
}

/// More tasks than a page holds, with prompts as people write them.
async fn fill(world: &World) {
    let prompt = |n: usize| {
        let words = "a red fox crosses the frozen river at dawn while snow drifts from dark pines".split(' ');
        let turned = words.clone().cycle().skip(n).take(words.count());
        turned.collect::<Vec<_>>().join(" ").repeat(5)
    };
    let tasks: Vec<Value> = (0..120)
        .map(|n| json!({"task_id": format!("{n:032x}"), "params": {"prompt": prompt(n)}}))
        .collect();
    let answer = world.server.post("/v1/tasks", &json!(tasks)).await;
    assert_eq!(answer.status, 201);
}
