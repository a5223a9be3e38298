//! Finding tasks again.

use serde_json::json;

use crate::page::{DESK, Page};
use crate::support::{TestServer, failure, until};

#[tokio::test]
async fn tasks_are_found_by_state_and_by_words_of_their_prompt() {
    let server = TestServer::start().await;
    let expected = json!([
        {"task_id": "the-fox", "params": {"prompt": "A red fox in the snow, at dawn"}},
        {"task_id": "the-harbour", "params": {"prompt": "A harbour at dawn"}},
    ]);
    assert_eq!(server.post("/v1/tasks", &expected).await.status, 201);
    server.callback(&failure("the-failed-one")).send().await.taken();
    until("the prompts can be searched", async || {
        let found = server.get("/v1/tasks?words=fox").await.fine();
        (found["tasks"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/tasks").await;
    let shown = async || {
        let text = page.text().await;
        ["the-fox", "the-harbour", "the-failed-one"].map(|id| text.contains(id))
    };
    assert_eq!(shown().await, [true, true, true]);

    page.fill("Words", "dawn fox").await;
    page.press("Enter").await;
    page.until("location.search.includes('words=dawn')").await;
    assert_eq!(shown().await, [true, false, false]);

    page.visit("/tasks").await;
    page.choose("State", "failed").await;
    page.click("button", "Find").await;
    page.until("location.search.includes('state=failed')").await;
    assert_eq!(shown().await, [false, false, true]);
    page.close().await;
}
