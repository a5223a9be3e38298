//! A server where something of everything happened, and what hostile senders sent it.

use serde_json::{Value, json};

use crate::film;
use crate::support::{Cdn, KEY, Reply, TestServer, failure, success};

/// Runs if it is ever taken for more than text.
const SCRIPT: &str = "<script>window.hostileRan = 1</script>";
const IMAGE: &str =
    "\"><img src=x onerror='window.hostileRan = 1'><a href=\"javascript:window.hostileRan=1\">";
/// Turns around what follows; cannot be seen; ends lines in scripts.
const ODD: &str = "\u{202e}txet desrever \u{200b}\u{feff}\u{2028}\u{0}\u{1b}[31m {{ 7*7 }} ${7*7}";

/// Every page there is, of the server below.
pub(crate) const PAGES: [&str; 12] = [
    "/",
    "/tasks",
    "/tasks?view=table",
    "/tasks?state=failed&view=table",
    "/tasks/stored-1",
    "/tasks/failed-1",
    "/tasks/hostile-1",
    "/deliveries",
    "/deliveries?verdict=rejected",
    "/deliveries/1",
    "/setup",
    "/no/such/page",
];

/// Keeps the hosts of its files going.
pub(crate) struct World {
    pub(crate) server: TestServer,
    cdn: Cdn,
}

impl World {
    /// The first delivery is a rejected one.
    pub(crate) async fn start() -> Self {
        let sources = format!("downloads.max_attempts = 1\n[sources.kie]\nhmac_keys = [\"{KEY}\"]\n");
        let (cdn, server) = (Cdn::start().await, TestServer::with(&sources).await);
        let world = Self { server, cdn };
        world.reject().await;
        world.announce().await;
        let film = |name: &str| world.cdn.file(name, &film::short());
        let films = [film("/1.mp4"), film("/2.mp4")];
        world.call(&success("stored-1", &films)).await;
        world.call(&failure("failed-1")).await;
        let page = world.cdn.script("/page.mp4", [Reply::Html]);
        world.call(&success("failed-2", &[page])).await;
        world.call(&hostile_success()).await;
        world.call(&hostile_failure()).await;
        for id in ["stored-1", "failed-2", "hostile-1"] {
            world.server.wait_settled(id).await;
        }
        world
    }

    async fn call(&self, callback: &Value) {
        self.server.callback(callback).signed(KEY).send().await.taken();
    }

    async fn reject(&self) {
        let bodies = [
            format!(
                "{{\"data\":{{\"taskId\":\"rejected-1\"}},\"msg\":{}}}",
                json!(SCRIPT)
            ),
            format!("{IMAGE}{SCRIPT}{ODD}"),
            json!({"data": {"taskId": IMAGE}}).to_string(),
            "\u{0}\u{1}\u{2}".to_owned(),
        ];
        for body in bodies {
            let call = self.server.callback_of("kie", body, "rejected-1");
            let refused = call.signed("some-other-key").header("user-agent", "<b>agent</b>");
            assert!(refused.send().await.status.is_client_error());
        }
        let unsigned = self.server.callback(&failure("rejected-2")).send().await;
        assert_eq!(unsigned.problem().1, "missing_signature");
    }

    /// Prompts of all kinds, as long as they may be.
    async fn announce(&self) {
        let long = format!("{IMAGE}{SCRIPT}{ODD}").repeat(200);
        let long: String = long.chars().filter(|c| *c != '\0').take(10_000).collect();
        let expected = json!([
            {"task_id": "stored-1", "params": {"prompt": "A red fox in the snow"}},
            {"task_id": "hostile-1", "params": {"prompt": long, "model": IMAGE, SCRIPT: ODD}},
            {"task_id": "~".repeat(128), "params": {"prompt": "W".repeat(10_000)}},
        ]);
        assert_eq!(self.server.post("/v1/tasks", &expected).await.status, 201);
    }
}

fn hostile_success() -> Value {
    // Nothing answers there, and nothing may: the guard is asked about names only.
    let urls = [
        format!("https://127.0.0.1:1/{SCRIPT}"),
        format!("javascript:{SCRIPT}"),
        format!("data:text/html,{SCRIPT}"),
        format!("https://host.invalid/{}", "long/".repeat(1_000)),
    ];
    let mut body = success("hostile-1", &urls);
    body["msg"] = json!(format!("{SCRIPT}{ODD}"));
    body["data"]["info"]["resolution"] = json!(IMAGE);
    body["data"]["<img src=x onerror=alert(1)>"] = json!([ODD, {"\u{202e}": SCRIPT}]);
    body
}

fn hostile_failure() -> Value {
    let msg = format!("{IMAGE}{ODD}{}", "x".repeat(10_000));
    json!({"code": 501, "msg": msg, "data": {"taskId": "*".repeat(128)}})
}
