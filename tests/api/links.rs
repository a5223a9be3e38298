//! Links to stored files, for those who have no token.

use std::time::Duration;

use reelhook::clock::Clock;
use reqwest::Method;
use serde_json::Value;

use crate::support::{
    API_KEY, Answer, Cdn, KEY, Reply, ScriptedProvider, Setup, TestServer, client, mp4, success,
};

const API_TOKEN: &str = "token-of-the-api-0123456789-abcdef";
const NOW: i64 = 1_795_284_446_000;

/// A server with one stored file, of task `t1`, and a link to that.
struct Linked {
    server: TestServer,
    clock: Clock,
    film: Vec<u8>,
    path: String,
}

impl Linked {
    async fn with(toml: &str) -> Self {
        let (clock, provider, cdn) = (
            Clock::manual(NOW),
            ScriptedProvider::start().await,
            Cdn::start().await,
        );
        let server = Setup::new(&format!(
            "public_url = \"http://localhost:1/reel\"\negress.allow_cidrs = [\"127.0.0.0/8\"]\n\
             api.tokens = [\"{API_TOKEN}\"]\n{toml}{}hmac_keys = [\"{KEY}\"]\n",
            provider.source()
        ));
        let server = server.clock(&clock).start().await;
        let film = mp4(1, 3_000);
        let called = success("t1", &[cdn.script("/v.mp4", [Reply::Whole(film.clone())])]);
        server.callback(&called).signed(KEY).send().await.taken();
        let settled = by_token(&server, "/v1/tasks/t1?wait=15s", API_TOKEN).await.fine();
        assert_eq!(settled["media"], "stored");
        let path = fresh(&server).await;
        Self {
            server,
            clock,
            film,
            path,
        }
    }

    async fn send(&self, method: Method, path: &str) -> Answer {
        Answer::of(self.server.bare(method, path)).await
    }

    async fn problem(&self, method: Method, path: &str) -> (u16, String) {
        self.send(method, path).await.problem()
    }
}

async fn by_token(server: &TestServer, path: &str, token: &str) -> Answer {
    let url = format!("http://{}{path}", server.api_addr());
    Answer::of(client().get(url).bearer_auth(token)).await
}

/// Path and query of the link that is given out now.
async fn fresh(server: &TestServer) -> String {
    let record = by_token(server, "/api/v1/veo/record-info?taskId=t1", API_KEY).await;
    let record: Value = record.fine();
    let url = record["data"]["response"]["resultUrls"][0].as_str().unwrap();
    url.strip_prefix("http://localhost:1/reel").unwrap().to_owned()
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_link_gives_the_file_as_its_route_does_and_changes_nothing() {
    let linked = Linked::with("").await;
    let whole = linked.send(Method::GET, &linked.path).await;
    let (path, _) = linked.path.split_once('?').unwrap();
    let plain = linked.server.get(path).await;
    assert_eq!((whole.status.as_u16(), &whole.body), (200, &linked.film));
    for header in [
        "etag",
        "content-type",
        "content-disposition",
        "content-security-policy",
        "accept-ranges",
    ] {
        assert_eq!(whole.header(header), plain.header(header), "{header}");
    }
    let head = linked.send(Method::HEAD, &linked.path).await;
    let length = linked.film.len().to_string();
    assert_eq!(
        (head.status.as_u16(), head.header("content-length")),
        (200, length.as_str())
    );
    let part = linked
        .server
        .bare(Method::GET, &linked.path)
        .header("range", "bytes=1-4");
    let part = Answer::of(part).await;
    assert_eq!(
        (part.status.as_u16(), part.body.as_slice()),
        (206, &linked.film[1..5])
    );
    for method in [Method::POST, Method::DELETE, Method::PUT] {
        assert_eq!(
            linked.problem(method.clone(), &linked.path).await,
            refused(401, "missing_token"),
            "{method}"
        );
    }
}

#[tokio::test]
async fn a_link_opens_nothing_but_its_file() {
    let linked = Linked::with("").await;
    for (from, to) in [
        ("result-0.mp4", "result-0"),
        ("/t1/", "/t2/"),
        ("source=kie", "source=kie2"),
        ("expires=1", "expires=2"),
        ("signature=", "signature=A"),
    ] {
        let changed = linked.path.replace(from, to);
        assert_ne!(changed, linked.path);
        assert_eq!(
            linked.problem(Method::GET, &changed).await,
            refused(403, "bad_link"),
            "{changed}"
        );
    }
    let (path, query) = linked.path.split_once('?').unwrap();
    let (task, _) = path.split_once("/files/").unwrap();
    for other in [
        format!("{task}?{query}"),
        format!("{task}/deliveries?{query}"),
        format!("/v1/tasks?{query}"),
        linked.path.replace("source=kie&", ""),
        format!("{}&source=other", linked.path),
    ] {
        assert_eq!(
            linked.problem(Method::GET, &other).await,
            refused(401, "missing_token"),
            "{other}"
        );
    }
}

#[tokio::test]
async fn a_link_expires_and_the_next_one_has_the_same_path() {
    let linked = Linked::with("files.url_ttl = \"2h\"\n").await;
    linked
        .clock
        .advance(Duration::from_hours(2) - Duration::from_secs(1));
    assert_eq!(linked.send(Method::GET, &linked.path).await.status, 200);
    linked.clock.advance(Duration::from_secs(1));
    assert_eq!(
        linked.problem(Method::GET, &linked.path).await,
        refused(403, "link_expired")
    );
    assert_eq!(
        linked.server.get(&linked.path).await.status,
        200,
        "a token opens it still"
    );
    let next = fresh(&linked.server).await;
    assert_eq!(next.split('?').next(), linked.path.split('?').next());
    assert_eq!(linked.send(Method::GET, &next).await.status, 200);
    // The key is kept: what was given out opens after a restart, too.
    let server = linked.server.halt().await.start().await;
    assert_eq!(Answer::of(server.bare(Method::GET, &next)).await.status, 200);
}

#[tokio::test]
async fn with_an_admin_listener_strangers_reach_files_by_their_links_only() {
    let linked = Linked::with("admin_listen = \"127.0.0.1:0\"\n").await;
    let stranger = async |method: Method, path: &str| Answer::of(linked.server.request(method, path)).await;
    assert_eq!(stranger(Method::GET, &linked.path).await.body, linked.film);
    let (bare, _) = linked.path.split_once('?').unwrap();
    for path in [
        bare,
        "/v1/tasks/t1",
        "/v1/tasks",
        "/api/v1/veo/record-info?taskId=t1",
    ] {
        assert_eq!(
            stranger(Method::GET, path).await.problem(),
            refused(404, "not_found"),
            "{path}"
        );
    }
    for method in [Method::POST, Method::DELETE] {
        assert_eq!(
            stranger(method, &linked.path).await.problem(),
            refused(404, "not_found")
        );
    }
    let changed = linked.path.replace("expires=1", "expires=2");
    assert_eq!(
        stranger(Method::GET, &changed).await.problem(),
        refused(403, "bad_link")
    );
}
