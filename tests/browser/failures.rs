//! From a failure to its remedy.

use serde_json::json;

use crate::film;
use crate::page::{DESK, Look, Page};
use crate::support::{Cdn, Reply, TestServer, success};

/// A server with a task whose film could not be had; the next try would succeed.
async fn with_failure(cdn: &Cdn) -> TestServer {
    let server = TestServer::with("downloads.max_attempts = 1").await;
    let url = cdn.script("/film.mp4", [Reply::Html, Reply::Whole(film::short())]);
    server
        .callback(&success("the-unlucky-one", &[url]))
        .send()
        .await
        .taken();
    let task = server.wait_settled("the-unlucky-one").await;
    assert_eq!(task["media"], "failed");
    server
}

#[tokio::test]
async fn a_failure_its_reason_the_raw_callback_and_the_remedy_are_a_click_away() {
    let server = TestServer::start().await;
    let refusal = json!({"code": 422, "msg": "Your prompt was flagged by Website as violating content policies.",
        "data": {"taskId": "the-refused-one"}});
    server.callback(&refusal).send().await.taken();
    let advice = server.task("the-refused-one").await["failure"]["advice"].clone();
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/").await;
    page.see("flagged by Website").await;
    page.click("link", "the-refused-one").await;
    page.until("location.pathname === '/tasks/the-refused-one'").await;
    let text = page.text().await;
    for part in [advice.as_str().unwrap(), "flagged by Website", "content"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What arrived, word for word.
    page.until(
        "[...document.querySelectorAll('main pre')].some((pre) => pre.textContent.includes('\"code\": 422'))",
    )
    .await;
    page.close().await;
}

#[tokio::test]
async fn a_failed_download_is_retried_by_a_button_and_its_film_follows() {
    let cdn = Cdn::start().await;
    let server = with_failure(&cdn).await;
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/").await;
    page.click("link", "the-unlucky-one").await;
    page.see("not_media").await;
    page.click_at("main form[action*='/retry'] button").await;
    page.see("The failed files are queued again").await;
    page.until("document.querySelector('main video')?.readyState >= 1")
        .await;
    assert_eq!(server.wait_settled("the-unlucky-one").await["media"], "stored");
    page.close().await;
}

#[tokio::test]
async fn without_script_a_failed_download_is_retried_as_well() {
    let cdn = Cdn::start().await;
    let server = with_failure(&cdn).await;
    let look = Look {
        script: false,
        ..DESK
    };
    let Some(page) = Page::open(server.addr, look).await else {
        return;
    };
    page.visit("/").await;
    page.click("link", "the-unlucky-one").await;
    page.see("not_media").await;
    page.click_at("main form[action*='/retry'] button").await;
    page.see("The failed files are queued again").await;
    assert_eq!(server.wait_settled("the-unlucky-one").await["media"], "stored");
    page.reload().await;
    page.see_at("main video").await;
    page.close().await;
}
