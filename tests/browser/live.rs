//! What happens while somebody looks.

use serde_json::json;

use crate::film;
use crate::page::{DESK, Page};
use crate::support::{Answer, Cdn, KEY, Program, Reply, TestServer, client, failure, success};

/// Kept by a page until it is loaded again.
const MARK: &str = "window.isStillTheSame = true";

/// A server that believes what is signed.
async fn with_key() -> TestServer {
    TestServer::with(&format!("[sources.kie]\nhmac_keys = [\"{KEY}\"]\n")).await
}

#[tokio::test]
async fn a_task_appears_and_its_film_follows_without_loading_the_page_again() {
    let (cdn, server) = (Cdn::start().await, with_key().await);
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/tasks").await;
    page.evaluate(MARK).await;
    page.see_at("[data-live-state=live]").await;
    assert!(!page.text().await.contains("task-made-meanwhile"));

    let film = cdn.script("/film.mp4", [Reply::Held(film::short())]);
    let callback = success("task-made-meanwhile", &[film]);
    server.callback(&callback).signed(KEY).send().await.taken();
    page.see("task-made-meanwhile").await;
    page.see_none("main video").await;

    cdn.until_busy_with(1).await;
    cdn.release(1);
    page.until("document.querySelector('main video')?.readyState >= 2")
        .await;
    assert_eq!(page.evaluate("window.isStillTheSame").await, true);
    page.close().await;
}

#[tokio::test]
async fn a_film_plays_where_it_stands_and_seeking_asks_for_a_range() {
    let (cdn, server) = (Cdn::start().await, with_key().await);
    let film = cdn.file("/film.mp4", &film::long(12));
    let callback = success("t1", &[film]);
    server.callback(&callback).signed(KEY).send().await.taken();
    server.wait_settled("t1").await;
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/tasks/t1").await;
    page.see_at("video[controls]").await;
    assert_eq!(
        page.until("Math.round(document.querySelector('video').duration)")
            .await,
        24
    );
    page.evaluate("document.querySelector('video').muted = true; document.querySelector('video').play()")
        .await;
    page.until("document.querySelector('video').currentTime > 0.5")
        .await;

    page.evaluate("document.querySelector('video').currentTime = 20.2")
        .await;
    page.until("document.querySelector('video').currentTime > 20.4")
        .await;
    let answers = page.say("answers", json!({})).await;
    let middle = answers.as_array().unwrap().iter().filter(|answer| {
        let from = answer["range"]
            .as_str()
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        answer["status"] == 206 && from.is_some_and(|from| from.parse::<u64>().unwrap() > 10 << 20)
    });
    assert!(middle.count() > 0, "{answers}");
    page.close().await;
}

#[tokio::test]
async fn a_running_download_shows_how_far_it_is() {
    let (cdn, server) = (Cdn::start().await, with_key().await);
    let film = cdn.script("/film.mp4", [Reply::Stalled(film::long(1))]);
    let callback = success("t1", &[film]);
    server.callback(&callback).signed(KEY).send().await.taken();
    cdn.until_busy_with(1).await;
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/tasks/t1").await;
    page.see("downloading").await;
    page.assert_sound("a task that is being downloaded").await;
    page.close().await;
    drop(server.halt().await);
}

#[tokio::test]
async fn who_lost_the_server_is_told_and_catches_up_when_it_is_back() {
    let program = Program::new();
    let serving = program.serve(&[]);
    let addr = serving.addr;
    let Some(page) = Page::open(addr, DESK).await else {
        return;
    };
    page.visit("/tasks").await;
    page.see_at("[data-live-state=live]").await;
    page.evaluate(MARK).await;
    // It is killed.
    drop(serving);
    page.see_at("[data-live-state=reconnecting]").await;

    program.write("config.toml", format!("listen = \"{addr}\"").as_bytes());
    let serving = program.serve_as_configured();
    let callback = client()
        .post(format!("{}/callbacks/kie", serving.url()))
        .body(failure("made-in-the-gap").to_string());
    Answer::of(callback).await.taken();
    page.see_at("[data-live-state=live]").await;
    page.see("made-in-the-gap").await;
    assert_eq!(page.evaluate("window.isStillTheSame").await, true);
    page.close_after(&["net::ERR_"]).await;
}
