//! Who gets in where tokens are set.

use serde_json::json;

use crate::page::{DESK, PHONE, Page};
use crate::support::TestServer;

const TOKEN: &str = "token-of-the-dashboard-0123456789";

async fn with_token() -> TestServer {
    TestServer::with(&format!("api.tokens = [\"{TOKEN}\"]")).await
}

async fn sign_in(page: &Page, token: &str) {
    page.fill("API token", token).await;
    page.press("Enter").await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_the_right_one_leads_to_where_one_wanted_to_go() {
    let server = with_token().await;
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/no/such/page").await;
    page.visit("/?from=a-link").await;
    assert_eq!(page.address().await, "/login?next=%2F%3Ffrom%3Da-link");
    page.assert_sound("the login").await;
    assert_eq!(page.evaluate("document.activeElement.id").await, "token");

    sign_in(&page, "token-of-somebody-else-0123456789").await;
    page.see_at("[role=alert]").await;
    page.assert_sound("the login after a wrong token").await;
    assert_eq!(page.say("cookies", json!({})).await, json!([]));

    sign_in(&page, TOKEN).await;
    page.until("location.pathname === '/'").await;
    assert_eq!(page.address().await, "/?from=a-link");
    page.see("Overview").await;
    let cookies = page.say("cookies", json!({})).await;
    let cookie = &cookies[0];
    assert_eq!(
        (&cookie["httpOnly"], &cookie["sameSite"], &cookie["path"]),
        (&json!(true), &json!("Strict"), &json!("/"))
    );
    assert_eq!(page.evaluate("document.cookie").await, "", "no script reads it");
    page.close_after(&["status of 401", "status of 404"]).await;
}

#[tokio::test]
async fn who_signs_out_is_out() {
    let server = with_token().await;
    let Some(page) = Page::open(server.addr, PHONE).await else {
        return;
    };
    page.visit("/login").await;
    sign_in(&page, TOKEN).await;
    page.click("button", "Sign out").await;
    page.see("You are signed out.").await;
    assert_eq!(page.say("cookies", json!({})).await, json!([]));
    page.visit("/").await;
    assert_eq!(page.address().await, "/login?next=%2F");
    page.close().await;
}

#[tokio::test]
async fn a_token_that_is_taken_away_ends_its_session_under_the_eyes_of_who_has_it() {
    let server = with_token().await;
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/login").await;
    sign_in(&page, TOKEN).await;
    page.see("Overview").await;
    server.replace_tokens(&["another-token-0123456789-abcdef"]);
    page.reload().await;
    assert_eq!(page.address().await, "/login?next=%2F");
    sign_in(&page, TOKEN).await;
    page.see_at("[role=alert]").await;
    // Events, or a part of the page, may have been asked for in between.
    page.close_after(&["status of 401"]).await;
}

#[tokio::test]
async fn wrong_tokens_can_be_tried_a_few_times_only() {
    let server = with_token().await;
    let Some(page) = Page::open(server.addr, DESK).await else {
        return;
    };
    page.visit("/login").await;
    // Ten at once, and one more for each six seconds that this takes.
    for attempt in 1.. {
        sign_in(&page, "wrong").await;
        page.until(
            "document.querySelector('#token').value === '' && !!document.querySelector('[role=alert]')",
        )
        .await;
        if page.text().await.contains("Too many attempts failed.") {
            break;
        }
        assert!(attempt < 40, "there is no end");
    }
    page.assert_sound("the login after too many attempts").await;
    page.close_after(&["status of 401", "status of 429"]).await;
}
