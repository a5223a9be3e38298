//! What every page has around its content.

use serde_json::json;

use crate::page::{DESK, Look, PHONE, Page};
use crate::support::TestServer;

#[tokio::test]
async fn a_page_that_is_not_there_is_told_as_a_page() {
    let server = TestServer::start().await;
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    assert_eq!(page.visit("/no/such/page").await, 404);
    page.see("Nothing here").await;
    page.assert_sound("the page for what is not there").await;
    page.click("link", "To the overview").await;
    page.see_at("h1").await;
    assert_eq!(page.address().await, "/");
    page.close_after(&["status of 404"]).await;
}

#[tokio::test]
async fn pages_are_light_or_dark_as_the_system_says_and_as_one_chooses() {
    let server = TestServer::start().await;
    for dark in [false, true] {
        let Some(page) = Page::open(server.addr, Look { dark, ..DESK }).await else {
            return;
        };
        page.visit("/").await;
        assert_eq!(is_dark(&page).await, dark, "as the system says");
        let other = if dark { "light" } else { "dark" };
        while page.evaluate("document.documentElement.dataset.theme").await != other {
            page.click_at("[data-theme-switch] button").await;
        }
        assert_eq!(is_dark(&page).await, !dark, "as one chose");
        page.until(&format!("document.cookie === '' && document.querySelector('[data-theme-switch] button').value !== '{other}'")).await;
        page.close().await;
    }
}

async fn is_dark(page: &Page) -> bool {
    let luminance = page.say("contrast", json!({})).await;
    let part = |n: usize| luminance[n].as_f64().expect("a number");
    let (text, paper) = (part(0), part(1));
    let ratio = (text.max(paper) + 0.05) / (text.min(paper) + 0.05);
    assert!(ratio > 7.0, "text stands out by {ratio}");
    paper < text
}

#[tokio::test]
async fn the_first_stop_of_tab_skips_to_the_content() {
    let server = TestServer::start().await;
    let Some(page) = Page::open(server.addr, PHONE).await else {
        return;
    };
    page.visit("/").await;
    page.press("Tab").await;
    assert_eq!(
        page.evaluate("document.activeElement.textContent").await,
        "Skip to content"
    );
    page.press("Enter").await;
    page.until("document.activeElement.id === 'main'").await;
    page.close().await;
}
