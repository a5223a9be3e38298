//! Stored files that are no longer what was stored: found, told of, and fetched again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use reelhook::clock::Clock;
use serde_json::{Value, json};

use crate::support::{Cdn, Program, Setup, TestServer, mp4, success, until};

const NOW: i64 = 1_795_284_446_000;
const DAY: Duration = Duration::from_hours(24);

/// A server with one stored file for each of these tasks.
async fn with_files(running: TestServer, cdn: &Cdn, ids: &[&str]) -> TestServer {
    for id in ids {
        let body = success(id, &[cdn.file(&format!("/{id}.mp4"), &content_of(id))]);
        running.callback(&body).send().await.taken();
        assert_eq!(running.wait_settled(id).await["media"], "stored");
    }
    running
}

fn content_of(id: &str) -> Vec<u8> {
    mp4(id.len() as u64, 2_000)
}

fn path_of(server: &TestServer, id: &str) -> PathBuf {
    server.data_dir().join(format!("media/kie/{id}/result-0.mp4"))
}

/// Flips a bit in the middle.
fn damage(server: &TestServer, id: &str) {
    let mut content = fs::read(path_of(server, id)).unwrap();
    content[1_000] ^= 1;
    fs::write(path_of(server, id), content).unwrap();
}

/// Has the server scrub, and gives what came of it.
async fn scrub(server: &TestServer, repair: bool) -> Value {
    let begun = server.post("/v1/scrub", &json!({"repair": repair})).await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    ended(server, &begun.json()["id"]).await
}

async fn ended(server: &TestServer, id: &Value) -> Value {
    until("the scrub has ended", || async {
        let scrubs = server.get("/v1/scrub").await.fine();
        (scrubs["running"].is_null() && scrubs["last"]["id"] == *id).then(|| scrubs["last"].clone())
    })
    .await
}

fn findings(scrub: &Value) -> BTreeMap<&str, &str> {
    scrub["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (
                finding["task_id"].as_str().unwrap(),
                finding["wrong"].as_str().unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn what_is_wrong_is_found_told_of_and_repaired() {
    let cdn = Cdn::start().await;
    let ids = ["whole", "flipped", "short", "gone", "unreadable"];
    let running = with_files(TestServer::start().await, &cdn, &ids).await;
    assert!(running.get("/v1/stats").await.fine()["scrub"].is_null());
    damage(&running, "flipped");
    fs::write(path_of(&running, "short"), &content_of("short")[..1_999]).unwrap();
    fs::remove_file(path_of(&running, "gone")).unwrap();
    fs::remove_file(path_of(&running, "unreadable")).unwrap();
    symlink("result-0.mp4", path_of(&running, "unreadable")).unwrap();

    let found = scrub(&running, false).await;
    let wrong = [
        ("flipped", "damaged"),
        ("short", "damaged"),
        ("gone", "missing"),
        ("unreadable", "unreadable"),
    ];
    assert_eq!(findings(&found), BTreeMap::from(wrong));
    for (counter, count) in [
        ("files", 5),
        ("bytes", 10_000),
        ("damaged", 2),
        ("missing", 1),
        ("unreadable", 1),
        ("repaired", 0),
    ] {
        assert_eq!(found[counter], count, "{counter}: {found}");
    }
    assert_eq!(
        running
            .number("SELECT count(*) FROM downloads WHERE state = 'stored'")
            .await,
        5
    );

    let repaired = scrub(&running, true).await;
    assert_eq!(repaired["repaired"], 3, "{repaired}");
    for id in ["flipped", "short", "gone"] {
        let task = running.wait_settled(id).await;
        let file = running.get(task["files"][0]["url"].as_str().unwrap()).await;
        assert!(file.body == content_of(id), "{id}");
        assert_eq!(cdn.hits(&format!("/{id}.mp4")), 2);
        assert_eq!(task["files"][0]["attempts"], 1);
    }
    assert_eq!(cdn.hits("/whole.mp4"), 1);
    assert_eq!(
        cdn.hits("/unreadable.mp4"),
        1,
        "a fault of the storage is no damage"
    );
    fs::remove_file(path_of(&running, "unreadable")).unwrap();
    fs::write(path_of(&running, "unreadable"), content_of("unreadable")).unwrap();
    assert_eq!(scrub(&running, true).await["findings"], json!([]));
    let last = running.get("/v1/stats").await.fine()["scrub"].take();
    assert_eq!(
        (&last["files"], &last["damaged"]),
        (&json!(5), &json!(0)),
        "{last}"
    );
}

#[tokio::test]
async fn what_the_source_no_longer_has_is_given_up_until_somebody_puts_it_back() {
    let (cdn, clock) = (Cdn::start().await, Clock::manual(NOW));
    let setup = Setup::new("egress.allow_cidrs = [\"127.0.0.0/8\"]\n").clock(&clock);
    let running = with_files(setup.start().await, &cdn, &["old"]).await;
    damage(&running, "old");
    clock.advance(DAY * 15);
    let found = scrub(&running, true).await;
    assert_eq!((&found["damaged"], &found["repaired"]), (&json!(1), &json!(0)));
    let task = running.task("old").await;
    let file = &task["files"][0];
    assert_eq!(
        (&file["state"], &file["url"], &task["media"]),
        (&json!("failed"), &json!(null), &json!("failed"))
    );
    assert_eq!(file["error"]["code"], "damaged");
    let detail = file["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("lies at kie/old/result-0.mp4"), "{detail}");
    assert!(path_of(&running, "old").exists(), "nothing is deleted");
    let refused = running.get("/v1/tasks/old/files/result-0.mp4").await;
    assert_eq!(refused.problem(), (404, "not_stored".to_owned()));

    let again = scrub(&running, true).await;
    assert_eq!(again["files"], 0, "it is no stored file any more");
    assert_eq!(findings(&again), BTreeMap::from([("old", "damaged")]));
    let detail = again["findings"][0]["detail"].as_str().unwrap();
    assert!(
        detail.contains("lies at kie/old/result-0.mp4: put a copy with SHA-256"),
        "{detail}"
    );
    fs::write(path_of(&running, "old"), content_of("old")).unwrap();
    assert_eq!(scrub(&running, true).await["repaired"], 1);
    let task = running.task("old").await;
    assert_eq!(task["media"], "stored");
    let file = running.get(task["files"][0]["url"].as_str().unwrap()).await;
    assert!(file.body == content_of("old"));
    assert_eq!(cdn.hits("/old.mp4"), 1);
}

#[tokio::test]
async fn a_storage_that_is_not_there_is_waited_for_and_no_file_called_missing() {
    let cdn = Cdn::start().await;
    let running = with_files(TestServer::start().await, &cdn, &["a", "bb"]).await;
    let (media, aside) = (running.data_dir().join("media"), running.data_dir().join("aside"));
    fs::rename(&media, &aside).unwrap();
    fs::create_dir(&media).unwrap();
    let begun = running.post("/v1/scrub", &json!({"repair": true})).await.json();
    until("it waits", || async {
        let waits = running.get("/v1/scrub").await.fine()["running"]["waits"].take();
        waits
            .as_str()
            .is_some_and(|waits| waits.contains("mounted"))
            .then_some(())
    })
    .await;
    let second = running.post("/v1/scrub", &json!({})).await;
    assert_eq!(second.problem(), (409, "scrub_running".to_owned()));
    assert_eq!(running.delete("/v1/scrub").await.status, 202);
    let stopped = ended(&running, &begun["id"]).await;
    assert_eq!(
        (&stopped["complete"], &stopped["files"]),
        (&json!(false), &json!(0))
    );
    assert!(
        running.get("/v1/stats").await.fine()["scrub"].is_null(),
        "it says nothing of the files"
    );
    let none = running.delete("/v1/scrub").await;
    assert_eq!(none.problem(), (404, "no_scrub".to_owned()));

    let begun = running.post("/v1/scrub", &json!({"repair": true})).await.json();
    fs::remove_dir(&media).unwrap();
    fs::rename(&aside, &media).unwrap();
    let done = ended(&running, &begun["id"]).await;
    assert_eq!(
        (&done["files"], &done["findings"]),
        (&json!(2), &json!([])),
        "{done}"
    );
    assert_eq!(cdn.all_hits(), 2);
}

#[tokio::test]
async fn what_failed_to_be_fetched_again_can_be_put_back() {
    let cdn = Cdn::start().await;
    let setup = Setup::new("egress.allow_cidrs = [\"127.0.0.0/8\"]\n[downloads]\nmax_size = \"3000B\"\n");
    let running = with_files(setup.start().await, &cdn, &["old"]).await;
    fs::remove_file(path_of(&running, "old")).unwrap();
    // The source has something else now, which fails by another code.
    cdn.file("/old.mp4", &mp4(1, 4_000));
    assert_eq!(scrub(&running, true).await["repaired"], 1);
    let task = running.wait_settled("old").await;
    assert_eq!(task["files"][0]["error"]["code"], "too_large");
    let found = scrub(&running, true).await;
    assert_eq!(findings(&found), BTreeMap::from([("old", "missing")]));
    let detail = found["findings"][0]["detail"].as_str().unwrap();
    assert!(
        detail.contains("lies at kie/old/result-0.mp4: put a copy with SHA-256"),
        "{detail}"
    );
    assert_eq!(
        running.task("old").await["files"][0]["error"]["code"],
        "too_large"
    );
    fs::create_dir_all(path_of(&running, "old").parent().unwrap()).unwrap();
    fs::write(path_of(&running, "old"), content_of("old")).unwrap();
    assert_eq!(scrub(&running, true).await["repaired"], 1);
    assert_eq!(running.task("old").await["media"], "stored");
}

#[tokio::test]
async fn an_empty_storage_in_the_place_of_the_right_one_has_nothing_fetched_again() {
    let cdn = Cdn::start().await;
    let running = with_files(TestServer::start().await, &cdn, &["a", "bb", "ccc"]).await;
    let (program, dir) = (Program::new(), running.data_dir());
    let (media, aside) = (dir.join("media"), dir.join("aside"));
    let halted = running.halt().await;
    fs::rename(&media, &aside).unwrap();
    let offline = [
        "scrub",
        "--offline",
        "--repair",
        "--data-dir",
        dir.to_str().unwrap(),
    ];
    let refused = program.run(&offline);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("is its file system mounted?"),
        "{}",
        refused.err
    );
    assert!(!media.exists(), "it is not made");

    let running = halted.start().await;
    let ended = scrub(&running, true).await;
    let reason = ended["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("none of the first 3 files is there"),
        "{reason}"
    );
    assert_eq!(
        (&ended["complete"], &ended["repaired"], &ended["findings"]),
        (&json!(false), &json!(0), &json!([]))
    );
    let url = format!("http://{}", running.addr);
    let shown = program.run(&["scrub", "--repair", "--server", &url]);
    assert_eq!(shown.code, Some(1));
    assert!(
        shown.err.contains("is the right storage mounted?"),
        "{}",
        shown.err
    );
    let halted = running.halt().await;
    fs::remove_dir_all(&media).unwrap();
    fs::rename(&aside, &media).unwrap();
    let running = halted.start().await;
    assert_eq!(scrub(&running, true).await["findings"], json!([]));
    assert_eq!(cdn.all_hits(), 3);
}

#[tokio::test]
async fn a_scrub_comes_by_itself_when_it_is_due_and_goes_on_where_a_stop_cut_it_off() {
    let (cdn, clock) = (Cdn::start().await, Clock::manual(NOW));
    let toml = "egress.allow_cidrs = [\"127.0.0.0/8\"]\n[scrub]\nevery = \"30d\"\nrate = \"5000B\"\n";
    let running = Setup::new(toml).clock(&clock).start().await;
    let of_nothing = until("the first has ended", || async {
        let last = running.get("/v1/scrub").await.fine()["last"].take();
        (!last.is_null()).then_some(last)
    })
    .await;
    assert_eq!(
        (&of_nothing["background"], &of_nothing["files"]),
        (&json!(true), &json!(0))
    );
    let running = with_files(running, &cdn, &["a", "bb", "ccc", "dddd"]).await;
    clock.advance(DAY * 29);
    let running = running.halt().await.start().await;
    clock.advance(DAY);
    let running = running.halt().await.start().await;
    let begun = until("it is under way", || async {
        let scrub = running.get("/v1/scrub").await.fine()["running"].take();
        (scrub["files"].as_i64()? > 0).then_some(scrub)
    })
    .await;
    assert_eq!(begun["id"], "2", "none after 29 days");
    let cut_off = running.halt().await;
    let running = cut_off.start().await;
    let done = ended(&running, &begun["id"]).await;
    assert_eq!(
        (&done["complete"], &done["files"], &done["bytes"]),
        (&json!(true), &json!(4), &json!(8_000))
    );
    let reads = running.number("SELECT count(*) FROM scrubs").await;
    assert_eq!(reads, 2);
}

#[tokio::test]
async fn the_command_follows_a_scrub_and_exits_with_one_if_there_is_damage() {
    let cdn = Cdn::start().await;
    let running = with_files(TestServer::start().await, &cdn, &["a", "bb"]).await;
    let (program, url) = (Program::new(), format!("http://{}", running.addr));
    let run = |more: &[&str]| program.run(&[&["scrub", "--server", &url], more].concat());
    let fine = run(&[]);
    assert_eq!((fine.code, fine.err.as_str()), (Some(0), ""), "{}", fine.out);
    assert!(fine.out.contains("2 files, 3.9 KiB: all whole"), "{}", fine.out);
    damage(&running, "bb");
    let found = run(&["--json"]);
    let json: Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!((found.code, &json["damaged"]), (Some(1), &json!(1)));
    let repaired = run(&["--repair"]);
    assert_eq!(repaired.code, Some(1), "there was damage");
    for part in ["damaged", "bb", "result-0.mp4", "SHA-256", "it is fetched again"] {
        assert!(repaired.out.contains(part), "{part}: {}", repaired.out);
    }
    running.wait_settled("bb").await;
    assert_eq!(run(&[]).code, Some(0));
}

#[tokio::test]
async fn the_person_who_stops_the_command_stops_the_scrub() {
    let cdn = Cdn::start().await;
    let running = with_files(TestServer::start().await, &cdn, &["a"]).await;
    let (media, aside) = (running.data_dir().join("media"), running.data_dir().join("aside"));
    fs::rename(&media, &aside).unwrap();
    let program = Program::new();
    let url = format!("http://{}", running.addr);
    let mut command = program.start(&["scrub", "--repair", "--server", &url]);
    until("it is under way", || async {
        let scrubs = running.get("/v1/scrub").await.fine();
        (!scrubs["running"].is_null()).then_some(())
    })
    .await;
    command.signal("INT");
    assert_eq!(command.wait(), Some(1));
    assert!(
        command.err.text().contains("stopped after 0 of 1 file"),
        "{}",
        command.err.text()
    );
    assert!(
        command.out.text().contains("nothing wrong so far"),
        "{}",
        command.out.text()
    );
    let scrubs = running.get("/v1/scrub").await.fine();
    assert_eq!(scrubs["running"], json!(null));
    assert_eq!(scrubs["last"]["complete"], false);
    fs::rename(&aside, &media).unwrap();
}

#[tokio::test]
async fn without_a_server_the_command_takes_the_lock_and_works_itself() {
    let cdn = Cdn::start().await;
    let running = with_files(TestServer::start().await, &cdn, &["a", "bb"]).await;
    let (program, dir) = (Program::new(), running.data_dir());
    let run = |more: &[&str]| {
        let offline = ["scrub", "--offline", "--data-dir", dir.to_str().unwrap()];
        program.run(&[&offline, more].concat())
    };
    let refused = run(&[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("leave out --offline"), "{}", refused.err);
    damage(&running, "a");
    let halted = running.halt().await;
    let found = run(&["--repair"]);
    assert_eq!(found.code, Some(1), "{}{}", found.out, found.err);
    assert!(
        found.out.contains("1 damaged") && found.out.contains("it is fetched again"),
        "{}",
        found.out
    );
    let running = halted.start().await;
    running.wait_settled("a").await;
    assert!(fs::read(path_of(&running, "a")).unwrap() == content_of("a"));
    let nothing = program.run(&["scrub", "--offline"]);
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.err.contains("there is no database"), "{}", nothing.err);
    assert!(!program.path().join("data").exists());
}
