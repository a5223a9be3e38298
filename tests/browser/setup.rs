//! The way from nothing to the first callback.

use crate::page::{DESK, Page};
use crate::support::TestServer;

#[tokio::test]
async fn the_callback_url_is_copied_and_a_test_callback_arrives() {
    let server = TestServer::start().await;
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/").await;
    page.click("link", "Setup").await;
    page.see("/callbacks/kie").await;
    page.say("allowClipboard", serde_json::json!({})).await;
    page.click("button", "Copy the callback URL").await;
    page.see("Copied").await;
    let copied = page.evaluate("navigator.clipboard.readText()").await;
    let copied = copied.as_str().unwrap();
    assert!(
        copied.starts_with("http://127.0.0.1:") && copied.contains("/callbacks/kie"),
        "{copied}"
    );

    page.click("button", "Send a test callback").await;
    page.see("The test callback arrived").await;
    assert_eq!(server.deliveries("accepted").await.len(), 1);
    page.close().await;
}
