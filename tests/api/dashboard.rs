//! The dashboard: who gets in, and what its pages let a browser do.

use reqwest::{Method, StatusCode, redirect};
use serde_json::json;

use crate::support::{Cdn, KEY, TestServer, client_builder, failure, mp4, success, until};

const TOKEN: &str = "token-of-the-dashboard-1";
const OTHER: &str = "token-of-the-dashboard-2";

/// A browser that shows where it is sent instead of going there.
struct Browser<'s> {
    server: &'s TestServer,
    client: reqwest::Client,
    cookie: Option<String>,
}

struct Seen {
    status: StatusCode,
    location: String,
    cookies: Vec<String>,
    headers: reqwest::header::HeaderMap,
    html: String,
}

impl<'s> Browser<'s> {
    fn new(server: &'s TestServer) -> Self {
        let client = client_builder().redirect(redirect::Policy::none());
        Self {
            server,
            client: client.build().unwrap(),
            cookie: None,
        }
    }

    async fn get(&self, path: &str) -> Seen {
        self.send(Method::GET, path, &[], "").await
    }

    /// A form of ours.
    async fn post(&self, path: &str, form: &str) -> Seen {
        let origin = format!("http://{}", self.server.addr);
        self.send(Method::POST, path, &[("origin", &origin)], form).await
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], form: &str) -> Seen {
        let url = format!("http://{}{path}", self.server.addr);
        let mut request = self.client.request(method, url).body(form.to_owned());
        request = request.header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        let response = request.send().await.unwrap();
        let all = |name: &str| -> Vec<String> {
            let values = response.headers().get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        Seen {
            status: response.status(),
            location: all("location").pop().unwrap_or_default(),
            cookies: all("set-cookie"),
            headers: response.headers().clone(),
            html: response.text().await.unwrap(),
        }
    }

    /// Signs in and keeps the cookie.
    async fn sign_in(&mut self, token: &str) -> String {
        let seen = self.post("/login", &format!("token={token}")).await;
        assert_eq!(seen.status, StatusCode::SEE_OTHER, "{}", seen.html);
        let set = seen.cookies[0].clone();
        self.cookie = Some(set.split(';').next().unwrap().to_owned());
        set
    }
}

async fn with_tokens() -> TestServer {
    TestServer::with(&format!("[api]\ntokens = [\"{TOKEN}\", \"{OTHER}\"]")).await
}

#[tokio::test]
async fn a_stranger_is_led_to_the_login_and_back() {
    let server = with_tokens().await;
    let mut browser = Browser::new(&server);
    let seen = browser.get("/?a=b").await;
    assert_eq!(
        (seen.status, seen.location.as_str()),
        (StatusCode::SEE_OTHER, "/login?next=%2F%3Fa%3Db")
    );

    let form = browser.get(&seen.location).await;
    assert!(
        form.html.contains(r#"name="next" value="/?a=b""#),
        "{}",
        form.html
    );
    let seen = browser
        .post("/login", &format!("token={OTHER}&next=%2F%3Fa%3Db"))
        .await;
    assert_eq!(
        (seen.status, seen.location.as_str()),
        (StatusCode::SEE_OTHER, "/?a=b")
    );

    let set = browser.sign_in(TOKEN).await;
    assert!(
        set.starts_with("reelhook=") && set.ends_with("; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict"),
        "{set}"
    );
    assert!(!set.contains(TOKEN));
    let overview = browser.get("/").await;
    assert_eq!(overview.status, StatusCode::OK);
    assert!(overview.html.contains("Sign out"), "{}", overview.html);
    assert_eq!(
        browser.get("/login?next=/tasks").await.location,
        "/tasks",
        "already signed in"
    );

    let out = browser.post("/logout", "").await;
    assert_eq!(out.location, "/login?notice=signed_out");
    assert!(
        out.cookies.iter().all(|cookie| cookie.contains("Max-Age=0")),
        "{:?}",
        out.cookies
    );
    assert_eq!(out.cookies.len(), 2);
}

#[tokio::test]
async fn no_link_to_the_login_leads_to_a_stranger() {
    let server = with_tokens().await;
    let browser = Browser::new(&server);
    for next in [
        "//evil.example",
        "https://evil.example/",
        "/%5Cevil.example",
        "%09//evil.example",
        "/%09/evil.example",
    ] {
        let seen = browser
            .post("/login", &format!("token={TOKEN}&next={next}"))
            .await;
        assert_eq!(
            (seen.status, seen.location.as_str()),
            (StatusCode::SEE_OTHER, "/"),
            "{next}"
        );
    }
}

#[tokio::test]
async fn a_session_is_good_for_the_api_and_ends_with_its_token() {
    let server = with_tokens().await;
    let mut browser = Browser::new(&server);
    browser.sign_in(TOKEN).await;
    assert_eq!(browser.get("/v1/stats").await.status, StatusCode::OK);
    assert_eq!(
        browser
            .get("/v1/tasks/none/files/a.mp4?source=kie&expires=1&signature=AAAA")
            .await
            .status,
        StatusCode::NOT_FOUND,
        "let in, whatever the link is worth"
    );
    server.replace_tokens(&[OTHER]);
    assert_eq!(browser.get("/v1/stats").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.get("/").await.location, "/login?next=%2F");
    server.replace_tokens(&[OTHER, TOKEN]);
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_cookie_of_another_installation_opens_nothing() {
    let (server, other) = (with_tokens().await, with_tokens().await);
    let mut there = Browser::new(&other);
    there.sign_in(TOKEN).await;
    let mut here = Browser::new(&server);
    here.cookie = there.cookie.clone();
    assert_eq!(here.get("/v1/stats").await.status, StatusCode::UNAUTHORIZED);
    here.cookie = Some(format!("reelhook={}", "x".repeat(8_000)));
    assert_eq!(here.get("/v1/stats").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nothing_changes_by_a_session_unless_our_own_page_asks() {
    let server = with_tokens().await;
    let mut browser = Browser::new(&server);
    browser.sign_in(TOKEN).await;
    let own = format!("http://{}", server.addr);
    let delete = async |headers: &[(&str, &str)]| {
        let seen = browser.send(Method::DELETE, "/v1/tasks/none", headers, "").await;
        (seen.status, seen.html.contains("cross_site"))
    };
    let refused = (StatusCode::FORBIDDEN, true);
    let let_in = (StatusCode::NOT_FOUND, false);
    assert_eq!(delete(&[("origin", &own)]).await, let_in);
    assert_eq!(delete(&[("sec-fetch-site", "same-origin")]).await, let_in);
    assert_eq!(delete(&[]).await, refused, "a browser says where it comes from");
    assert_eq!(delete(&[("origin", "null")]).await, refused);
    assert_eq!(delete(&[("origin", "http://evil.example")]).await, refused);
    assert_eq!(
        delete(&[("sec-fetch-site", "same-site"), ("origin", &own)]).await,
        refused
    );
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(
        delete(&[("authorization", &bearer), ("origin", "http://evil.example")]).await,
        let_in
    );

    for form in ["/login", "/logout", "/theme"] {
        let body = format!("token={TOKEN}&theme=dark");
        let seen = browser
            .send(Method::POST, form, &[("origin", "http://evil.example")], &body)
            .await;
        assert_eq!(seen.status, StatusCode::FORBIDDEN, "{form}");
        assert!(
            seen.cookies.is_empty() && seen.html.starts_with("<!doctype html>"),
            "{form}"
        );
    }
}

#[tokio::test]
async fn on_this_machine_without_tokens_nobody_signs_in_and_other_sites_change_nothing() {
    let server = TestServer::start().await;
    let browser = Browser::new(&server);
    let overview = browser.get("/").await;
    assert_eq!(overview.status, StatusCode::OK);
    assert!(!overview.html.contains("Sign out"));
    assert_eq!(browser.get("/login").await.location, "/");
    let other_port = [("origin", "http://127.0.0.1:1")];
    assert_eq!(
        browser
            .send(Method::POST, "/theme", &other_port, "theme=dark")
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    let rebound = browser
        .send(Method::GET, "/", &[("host", "evil.example")], "")
        .await;
    assert_eq!(rebound.status, StatusCode::FORBIDDEN);
    assert!(rebound.html.contains("loopback_only") && rebound.html.starts_with("<!doctype html>"));
}

#[tokio::test]
async fn wrong_tokens_are_tried_a_few_times_only() {
    let server = with_tokens().await;
    let browser = Browser::new(&server);
    for _ in 0..10 {
        let seen = browser.post("/login", "token=wrong").await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED);
        assert!(seen.html.contains("none of api.tokens") && seen.cookies.is_empty());
    }
    let seen = browser.post("/login", &format!("token={TOKEN}")).await;
    assert_eq!(seen.status, StatusCode::TOO_MANY_REQUESTS, "even the right one");
    assert!(seen.headers.contains_key("retry-after") && seen.cookies.is_empty());
    assert_eq!(
        server.get("/v1/stats").await.status,
        StatusCode::OK,
        "programs are another matter"
    );
}

#[tokio::test]
async fn over_https_the_cookie_is_for_https_only() {
    let server = TestServer::with(&format!(
        "trusted_proxies = [\"127.0.0.1\"]\npublic_url = \"https://reel.example\"\n[api]\ntokens = [\"{TOKEN}\"]\n\
         [sources.kie]\nhmac_keys = [\"k\"]"
    ))
    .await;
    let browser = Browser::new(&server);
    let sign_in = async |headers: &[(&str, &str)]| {
        let form = format!("token={TOKEN}");
        browser.send(Method::POST, "/login", headers, &form).await.cookies[0].clone()
    };
    for https in [("x-forwarded-proto", "https"), ("host", "reel.example")] {
        let set = sign_in(&[https]).await;
        assert!(
            set.starts_with("__Host-reelhook=") && set.ends_with("; Secure"),
            "{https:?}: {set}"
        );
    }
    assert!(
        !sign_in(&[]).await.contains("Secure"),
        "somebody on this machine, past the proxy"
    );
}

#[tokio::test]
async fn pages_keep_to_themselves_and_their_assets_stay() {
    let server = TestServer::start().await;
    let browser = Browser::new(&server);
    for path in ["/", "/nothing/here", "/?notice=%3Cscript%3E"] {
        let seen = browser
            .send(Method::GET, path, &[("accept", "text/html")], "")
            .await;
        let header = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
        assert!(header("content-security-policy").starts_with("default-src 'none'; script-src 'self';"));
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert!(
            !seen.html.contains("<script>") && !seen.html.contains("style="),
            "{}",
            seen.html
        );
    }
    let page = browser.get("/").await.html;
    let css = page
        .split("href=\"")
        .find(|rest| rest.contains("/style.css\""))
        .unwrap();
    let css = css.split('"').next().unwrap();
    let seen = browser.get(css).await;
    assert_eq!(
        seen.headers["cache-control"],
        "public, max-age=31536000, immutable"
    );
    let stale = browser.get("/assets/0123456789abcdef/style.css").await;
    assert_eq!((stale.status, &stale.html), (StatusCode::OK, &seen.html));
    assert_eq!(stale.headers["cache-control"], "no-store");
    assert_eq!(
        browser.get("/nothing/here").await.headers["content-type"],
        "application/problem+json"
    );
}

#[tokio::test]
async fn the_theme_is_remembered_by_the_browser() {
    let server = TestServer::start().await;
    let mut browser = Browser::new(&server);
    assert!(browser.get("/").await.html.contains(r#"data-theme="auto""#));
    let seen = browser.post("/theme", "theme=dark&back=//evil.example").await;
    assert_eq!(seen.location, "/");
    browser.cookie = Some(seen.cookies[0].split(';').next().unwrap().to_owned());
    assert!(browser.get("/").await.html.contains(r#"data-theme="dark""#));
}

#[tokio::test]
async fn who_switches_it_off_has_none() {
    let server = TestServer::with(&format!(
        "[dashboard]\nenabled = false\n[api]\ntokens = [\"{TOKEN}\"]"
    ))
    .await;
    let browser = Browser::new(&server);
    for path in ["/", "/login", "/assets/x/style.css"] {
        assert_eq!(browser.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_failed_task_its_reason_and_the_remedy_come_first() {
    let server = TestServer::start().await;
    let browser = Browser::new(&server);
    assert!(browser.get("/").await.html.contains("No callback has come yet"));

    let failure =
        json!({"code": 422, "msg": "Your request was rejected by Flow.", "data": {"taskId": "t-failed"}});
    server.callback(&failure).send().await.fine();
    let evil = "<script>alert('x')</script>\u{202e}evil";
    let hostile = json!({"code": 400, "msg": evil, "data": {"taskId": "t-hostile"}});
    server.callback(&hostile).send().await.fine();

    let html = browser.get("/").await.html;
    assert!(html.contains("<h1>2 tasks need you</h1>"), "{html}");
    assert!(html.contains(r#"href="/tasks/t-failed?source=kie""#), "{html}");
    assert!(
        html.contains("Your request was rejected by Flow. (code 422)"),
        "{html}"
    );
    assert!(
        html.contains("<b>What to do:</b>") && html.contains("a fallback channel"),
        "{html}"
    );
    assert!(
        !html.contains("<script>") && html.contains("&#60;script&#62;alert"),
        "{html}"
    );
    assert!(
        html.contains("2 accepted, 0 duplicate, 0 conflict, 0 rejected in the last hour"),
        "{html}"
    );
}

#[tokio::test]
async fn refused_callbacks_come_before_everything_else() {
    let server = TestServer::with(&format!("[sources.kie]\nhmac_keys = [\"{KEY}\"]")).await;
    let browser = Browser::new(&server);
    let refuse = async || {
        let sent = server.callback(&failure("t1")).signed("another-key").send().await;
        assert_eq!(sent.status, StatusCode::UNAUTHORIZED, "{}", sent.text());
    };
    refuse().await;
    let html = browser.get("/").await.html;
    assert!(html.contains("<h1>One callback was refused</h1>"), "{html}");
    assert!(!html.contains("No callback has come yet"), "{html}");

    refuse().await;
    server.callback(&failure("t2")).signed(KEY).send().await.taken();
    let html = browser.get("/").await.html;
    assert!(
        html.contains("<h1>2 callbacks were refused, one task needs you</h1>"),
        "{html}"
    );
    let link = r#"<a href="/deliveries?verdict=rejected&amp;reason=bad_signature&amp;source=kie">2 × <code>bad_signature</code></a>"#;
    let (refused, task) = (html.find(link), html.find(r#"href="/tasks/t2?source=kie""#));
    assert!(refused.is_some() && refused < task, "{html}");
    let remedy = &html[refused.unwrap()..task.unwrap()];
    assert!(
        remedy.contains("<b>What to do:</b>") && remedy.contains("hmac_keys"),
        "{remedy}"
    );

    server
        .sabotage("UPDATE deliveries SET received_at = received_at - 7200000 WHERE verdict = 'rejected'")
        .await;
    let html = browser.get("/").await.html;
    assert!(html.contains("<h1>One task needs you</h1>"), "{html}");
}

#[tokio::test]
async fn a_failure_of_long_ago_is_only_counted_and_the_links_lead_to_it() {
    let server = TestServer::start().await;
    let browser = Browser::new(&server);
    let body = success("t1", &["http://10.0.0.1/a.mp4".to_owned()]);
    server.callback(&body).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "failed");
    let html = browser.get("/").await.html;
    assert!(html.contains("<h1>One task needs you</h1>"), "{html}");
    assert!(
        html.contains(r#"<a class="stat bad" href="/tasks?media=failed">"#),
        "{html}"
    );

    server
        .sabotage("UPDATE tasks SET updated_at = updated_at - 8 * 86400000")
        .await;
    let html = browser.get("/").await.html;
    assert!(html.contains("<h1>Nothing needs you</h1>"), "{html}");
    assert!(
        html.contains("One older task is not shown") && !html.contains("/tasks/t1?"),
        "{html}"
    );
    assert!(html.contains("/tasks?media=failed&amp;view=table"), "{html}");
    for empty in ["/tasks?state=failed&amp;view=table", "/tasks?media=partial"] {
        assert!(!html.contains(empty), "{empty}: {html}");
    }
    let listed = browser.get("/tasks?media=failed&view=table").await.html;
    assert!(listed.contains("/tasks/t1?source=kie"), "{listed}");
}

#[tokio::test]
async fn a_file_that_another_delivery_took_the_place_of_troubles_nobody() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let browser = Browser::new(&server);
    let gone = ["a", "b"].map(|name| format!("http://10.0.0.1/{name}.mp4"));
    server.callback(&success("t1", &gone)).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "failed");
    let better = success("t1", &[cdn.file("/c.mp4", &mp4(1, 1_000))]);
    server.callback(&better).send().await.taken();
    let html = browser.get("/").await.html;
    assert!(html.contains("<h1>One task needs you</h1>"), "{html}");

    let page = server.get("/v1/deliveries?verdict=conflict").await.fine();
    let id = page["deliveries"][0]["id"].as_str().unwrap();
    let accepted = browser.post(&format!("/deliveries/{id}/accept"), "").await;
    assert_eq!(accepted.status, StatusCode::SEE_OTHER);
    let task = server.wait_settled("t1").await;
    assert_eq!(
        (&task["media"], &task["files"][1]["error"]["code"]),
        (&json!("partial"), &json!("superseded")),
        "{task}"
    );
    let html = browser.get("/").await.html;
    assert!(html.contains("<h1>Nothing needs you</h1>"), "{html}");
    assert!(!html.contains("/tasks/t1?"), "{html}");
}

#[tokio::test]
async fn a_damaged_file_is_told_of_until_it_is_mended() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let browser = Browser::new(&server);
    let body = success("t1", &[cdn.file("/a.mp4", &mp4(1, 1_000))]);
    server.callback(&body).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
    std::fs::remove_file(server.data_dir().join("media/kie/t1/result-0.mp4")).unwrap();
    for (repair, headline) in [
        (false, "One stored file is damaged or missing"),
        (true, "Nothing needs you"),
    ] {
        let begun = server.post("/v1/scrub", &json!({"repair": repair})).await.json();
        until("the scrub has ended", || async {
            let scrubs = server.get("/v1/scrub").await.fine();
            (scrubs["running"].is_null() && scrubs["last"]["id"] == begun["id"]).then_some(())
        })
        .await;
        let html = browser.get("/").await.html;
        assert!(html.contains(&format!("<h1>{headline}</h1>")), "{html}");
    }
    server.wait_settled("t1").await;
}

#[tokio::test]
async fn no_page_shows_a_secret_that_a_provider_echoed() {
    let server = TestServer::with(&format!(
        "[sources.kie]\ntokens = [\"{TOKEN}\"]\nhmac_keys = [\"quo\\\"te-<key>-0123\"]"
    ))
    .await;
    let said = format!("callback https://x/?token={TOKEN} with quo\"te-<key>-0123");
    let body = json!({"code": 500, "msg": said, "data": {"taskId": "t-echo"}});
    let answer = server
        .callback_to(&format!("kie?token={TOKEN}"), &body)
        .signed("quo\"te-<key>-0123");
    answer.send().await.fine();
    let html = Browser::new(&server).get("/").await.html;
    assert!(html.contains("[redacted] with [redacted]"), "{html}");
    assert!(!html.contains(TOKEN) && !html.contains("0123"), "{html}");
}

#[tokio::test]
async fn setup_shows_the_callback_url_and_a_test_callback_takes_it() {
    let key = "key-of-the-provider-0123";
    let server = TestServer::with(&format!(
        "[sources.kie]\nhmac_keys = [\"{key}\"]\ntokens = [\"{OTHER}\"]\n[api]\ntokens = [\"{TOKEN}\"]"
    ))
    .await;
    let mut browser = Browser::new(&server);
    browser.sign_in(TOKEN).await;
    let html = browser.get("/setup").await.html;
    let url = format!("http://{}/callbacks/kie?token={OTHER}", server.addr);
    assert!(
        html.contains(&url) && !html.contains(key) && !html.contains(TOKEN),
        "{html}"
    );
    assert!(
        html.contains("a signature with its key, made within 5 min of now"),
        "{html}"
    );

    let sent = browser.post("/setup/test", "source=kie").await;
    assert_eq!(
        (sent.status, sent.location.as_str()),
        (StatusCode::SEE_OTHER, "/setup#test")
    );
    let html = browser.get("/setup").await.html;
    assert!(html.contains("The test callback arrived"), "{html}");
    let id = html
        .split("/tasks/test_")
        .nth(1)
        .unwrap()
        .split('?')
        .next()
        .unwrap();
    let task = server.task(&format!("test_{id}")).await;
    assert_eq!(
        (&task["state"], &task["media"], &task["asking"]),
        (&json!("succeeded"), &json!("none"), &json!([]))
    );
    assert!(browser.get("/").await.html.contains("Nothing needs you"));
}

#[tokio::test]
async fn a_test_callback_that_gets_nowhere_says_what_is_in_its_way() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let elsewhere = TestServer::start().await;
    for (public, told) in [
        (format!("http://{closed}"), "No connection to 127.0.0.1:"),
        (format!("https://{}", elsewhere.addr), "but not encrypted"),
        (
            "http://nobody.invalid".to_owned(),
            "Add a DNS record for nobody.invalid",
        ),
        (
            format!("http://{}", elsewhere.addr),
            "Somebody answered 200, but not this server",
        ),
        (format!("http://{}/v1", elsewhere.addr), "status 404"),
    ] {
        let server = TestServer::with(&format!(
            "public_url = \"{public}\"\n[sources.kie]\nhmac_keys = [\"k\"]\n[api]\ntokens = [\"{TOKEN}\"]"
        ))
        .await;
        let mut browser = Browser::new(&server);
        browser.sign_in(TOKEN).await;
        browser.post("/setup/test", "source=kie").await;
        let html = browser.get("/setup").await.html;
        assert!(
            html.contains(told) && html.contains("did not get here"),
            "{public}: {html}"
        );
    }
}

#[tokio::test]
async fn a_signature_is_shown_as_proof_only_where_it_was_verified() {
    let key = "key-of-the-provider-1";
    let server = TestServer::with(&format!(
        "[sources.kie]\nhmac_keys = [\"{key}\"]\n[sources.open]\nallow_unverified = true\n[sources.token]\ntokens = [\"{TOKEN}\"]"
    ))
    .await;
    let body = |task_id: &str| json!({"code": 501, "msg": "Failed.", "data": {"taskId": task_id}});
    server.callback(&body("t1")).signed(key).send().await.taken();
    server.callback(&body("t1")).signed("another key").send().await;
    let open = server.callback_to("open", &body("t1")).signed("some key");
    open.send().await.taken();
    let token = server.callback_to(&format!("token?token={TOKEN}"), &body("t1"));
    token.send().await.taken();

    let told = [
        ("kie", "accepted", "The signature covers what is marked"),
        ("kie", "rejected", "It carries a signature that did not hold"),
        (
            "open",
            "accepted",
            "It carries a signature, but source open has no hmac_keys: nobody verified it.",
        ),
        ("token", "accepted", "It is proven by the token in its URL"),
    ];
    let browser = Browser::new(&server);
    for (source, verdict, sentence) in told {
        let path = format!("/v1/deliveries?source={source}&verdict={verdict}");
        let listed = server.get(&path).await.fine();
        let id = listed["deliveries"][0]["id"].as_str().unwrap();
        let html = browser.get(&format!("/deliveries/{id}")).await.html;
        assert!(html.contains(sentence), "{source} {verdict}: {html}");
        let marks = if sentence.contains("marked") { 2 } else { 0 };
        assert_eq!(html.matches("<mark").count(), marks, "{source} {verdict}: {html}");
        if verdict == "accepted" {
            let html = browser.get(&format!("/tasks/t1?source={source}")).await.html;
            assert!(html.contains(sentence), "{source}: {html}");
            assert_eq!(html.matches("<mark").count(), marks, "{source}: {html}");
        }
    }
}

#[tokio::test]
async fn the_accepted_delivery_is_shown_however_many_came_after_it() {
    let server = TestServer::start().await;
    let body = |n: usize| success("t1", &[format!("http://10.0.0.1/{n}.mp4")]);
    for n in (0..26).chain([0; 25]) {
        server.callback(&body(n)).send().await.taken();
    }
    let listed = server.get("/v1/deliveries?verdict=accepted").await.fine();
    let id = listed["deliveries"][0]["id"].as_str().unwrap();
    let html = Browser::new(&server).get("/tasks/t1?source=kie").await.html;
    assert!(html.contains(&format!(r#"id="d-{id}""#)), "{html}");
    assert!(html.contains("and was accepted"), "{html}");
    assert!(html.contains("10 more are not shown"), "{html}");
    assert_eq!(html.matches(r#"<details id="d-"#).count(), 41);
}

#[tokio::test]
async fn no_retry_is_offered_for_files_that_are_never_retried() {
    let server = TestServer::start().await;
    let long = format!("http://127.0.0.1:1/{}.mp4", "x".repeat(9_000));
    server.callback(&success("t1", &[long])).send().await.taken();
    let task = server.wait_settled("t1").await;
    assert_eq!(task["files"][0]["error"]["code"], "url_too_long", "{task}");
    let offer = "Fetch failed files again";
    let html = async || Browser::new(&server).get("/tasks/t1?source=kie").await.html;
    assert!(!html().await.contains(offer));
    server
        .sabotage("UPDATE downloads SET error_code = 'expired'")
        .await;
    assert!(html().await.contains(offer));
}
