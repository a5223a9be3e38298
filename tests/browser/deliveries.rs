//! What was rejected, and how it is believed after all.

use serde_json::json;

use crate::film;
use crate::page::{DESK, Page};
use crate::support::{Cdn, KEY, TestServer, success};

#[tokio::test]
async fn after_the_key_was_put_right_what_was_rejected_is_believed_by_a_button() {
    let wrong = "[sources.kie]\nhmac_keys = [\"not-the-key-of-the-provider\"]\n";
    let (cdn, server) = (Cdn::start().await, TestServer::with(wrong).await);
    let film = cdn.file("/film.mp4", &film::short());
    let callback = success("the-rejected-one", &[film]);
    let refused = server.callback(&callback).signed(KEY).send().await;
    assert_eq!(refused.problem().1, "bad_signature");

    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/").await;
    page.click("link", "Deliveries").await;
    page.see("bad_signature").await;
    page.see("hmac_keys").await;
    page.click_at("table a[href^='/deliveries/']").await;
    page.until("location.pathname === '/deliveries/1'").await;
    page.click("button", "Verify it again").await;
    page.see("still rejected").await;

    server.take_over(&format!("[sources.kie]\nhmac_keys = [\"{KEY}\"]\n"));
    page.visit("/deliveries/1").await;
    page.click("button", "Verify it again").await;
    page.see("is good now").await;
    assert_eq!(server.wait_settled("the-rejected-one").await["media"], "stored");
    page.click("link", "To the task").await;
    page.until("document.querySelector('main video')?.readyState >= 1")
        .await;
    page.close().await;
}

#[tokio::test]
async fn all_that_one_wrong_key_had_rejected_is_believed_at_once() {
    let wrong = "[sources.kie]\nhmac_keys = [\"not-the-key-of-the-provider\"]\n";
    let server = TestServer::with(wrong).await;
    for id in ["a", "b", "c"] {
        let callback = json!({"code": 501, "msg": "Failed", "data": {"taskId": id}});
        let refused = server.callback(&callback).signed(KEY).send().await;
        assert_eq!(refused.problem().1, "bad_signature");
    }
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/deliveries").await;
    server.take_over(&format!("[sources.kie]\nhmac_keys = [\"{KEY}\"]\n"));
    page.click_at("form[action='/deliveries/reverify'] button").await;
    page.see_at("[role=status]").await;
    assert_eq!(server.deliveries("accepted").await.len(), 3);
    assert_eq!(server.deliveries("rejected").await.len(), 0);
    page.close().await;
}
