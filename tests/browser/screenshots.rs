//! Pictures of every page, to be looked at: `cargo test --test browser -- --ignored screenshots`.

use std::path::Path;
use std::time::Duration;

use reelhook::clock::Clock;
use serde_json::{Value, json};

use crate::film;
use crate::page::{DESK, Look, PHONE, Page};
use crate::scenery::{self, DAWN, DUSK, MIST, NIGHT, NOON, Palette};
use crate::support::{Cdn, KEY, Reply, Setup, TestServer, skip, success};

const WIDE: (u32, u32) = (1280, 720);
const UPRIGHT: (u32, u32) = (720, 1280);
const LARGE: (u32, u32) = (3840, 2160);

/// What was asked for, and how it came out.
const FILMS: [(&str, &str, &Palette, (u32, u32)); 6] = [
    (
        "5f1c0e7a94d24b0f8d0b6a3c71e2f905",
        "Slow dolly over misty hills before sunrise, muted greens, 35 mm grain",
        &MIST,
        WIDE,
    ),
    (
        "b64d8a02f3e94c7793a4d1f05c8e2b67",
        "Aerial shot of rolling hills at noon, a light breeze, gentle parallax",
        &NOON,
        WIDE,
    ),
    (
        "0a93e7c15b284de6b1f27c40d98a6e53",
        "Golden hour over a mountain range, vertical, for a phone wallpaper",
        &DUSK,
        UPRIGHT,
    ),
    (
        "e27b5f908c1a4436ad09f8e3b6174c2d",
        "Moonlit valley, long exposure, stars barely visible, calm",
        &NIGHT,
        WIDE,
    ),
    (
        "91d0c4b6f7e34a58824e5d3a0bc96f17",
        "Dawn above a sea of hills, the sun breaks through, cinematic wide shot",
        &DAWN,
        WIDE,
    ),
    (
        "3c8e6f21a0b94d7fb5d6c2e97f40a518",
        "Two seconds of dusk, upright, loopable background for a story",
        &DUSK,
        UPRIGHT,
    ),
];
const REFUSED: &str = "d7a5b3091e6f4c82a9c04f7e2b8d6153";
const BROKEN: &str = "48f2e6d9c0b7413a9e5d8c1f3a6b7024";
const RUNNING: &str = "7e1b9c5d3f8a42608b4e6d2c0f9a7135";

#[tokio::test]
#[ignore = "writes pictures for people, and proves nothing"]
async fn screenshots() {
    if !scenery::can_be_drawn() {
        return skip("ffmpeg is missing, which draws the films: apt install ffmpeg");
    }
    let into = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    std::fs::create_dir_all(&into).unwrap();
    let stage = Stage::start().await;
    let (good, upright) = (FILMS[4].0, FILMS[2].0);
    let pages = [
        ("overview", "/".to_owned()),
        ("tasks", "/tasks".to_owned()),
        ("tasks-table", "/tasks?view=table".to_owned()),
        ("task-4k", format!("/tasks/{good}")),
        ("task-upright", format!("/tasks/{upright}")),
        ("task-refused", format!("/tasks/{REFUSED}")),
        ("task-broken", format!("/tasks/{BROKEN}")),
        ("task-running", format!("/tasks/{RUNNING}")),
        ("deliveries", "/deliveries".to_owned()),
        ("delivery", "/deliveries/1".to_owned()),
        ("setup", "/setup".to_owned()),
        ("nothing", "/no/such/page".to_owned()),
    ];
    let fenced = TestServer::with("api.tokens = [\"token-of-the-dashboard-0123456789\"]").await;
    for (name, desk) in [("1280", DESK), ("390", PHONE)] {
        for dark in [false, true] {
            let look = Look { dark, ..desk };
            let end = format!("{name}-{}.png", if dark { "dark" } else { "light" });
            let Some(page) = Page::open(stage.server.addr, look).await else {
                return;
            };
            for (what, path) in &pages {
                shoot(&page, path, &into.join(format!("{what}-{end}"))).await;
            }
            page.close_after(&["status of 404"]).await;
            let Some(page) = Page::open(fenced.addr, look).await else {
                return;
            };
            shoot(&page, "/login", &into.join(format!("login-{end}"))).await;
            page.close().await;
        }
    }
    drop(stage.server.halt().await);
}

/// A whole page, once its films show something.
async fn shoot(page: &Page, path: &str, into: &Path) {
    page.visit(path).await;
    page.say("showAll", json!({})).await;
    page.say("screenshot", json!({ "path": into })).await;
}

/// The films that the host of files has.
fn draw(cdn: &Cdn) {
    let dir = tempfile::tempdir().unwrap();
    let drawn = |path: &str, palette, size, phase| {
        let film = scenery::film(dir.path(), palette, size, phase);
        cdn.file(path, &film);
    };
    for (n, (id, _, palette, size)) in (0_u8..).zip(FILMS) {
        drawn(&format!("/{id}.mp4"), palette, size, f32::from(n));
        if size == UPRIGHT {
            drawn(&format!("/{id}-origin.mp4"), palette, WIDE, f32::from(n));
        }
    }
    drawn("/4k.mp4", &DAWN, LARGE, 4.0);
    drawn("/good.mp4", &NOON, WIDE, 9.0);
}

/// An hour of a busy server.
struct Stage {
    server: TestServer,
    cdn: Cdn,
    clock: Clock,
}

impl Stage {
    async fn start() -> Self {
        let clock = Clock::manual(Clock::system().now() - 3_600_000);
        let config = format!(
            "egress.allow_cidrs = [\"127.0.0.0/8\"]\ndownloads.max_attempts = 1\n[sources.kie]\nhmac_keys = [\"{KEY}\"]\n"
        );
        // Before there is a server: connections to it would not outlast the drawing.
        let cdn = Cdn::start().await;
        draw(&cdn);
        let stage = Self {
            server: Setup::new(&config).clock(&clock).start().await,
            cdn,
            clock,
        };
        stage.reject().await;
        for (id, prompt, _, size) in FILMS {
            stage.store(id, prompt, size).await;
            stage.clock.advance(Duration::from_mins(7));
        }
        stage.enlarge(FILMS[4].0).await;
        stage.fail().await;
        stage.leave_running().await;
        stage
    }

    async fn expect(&self, id: &str, prompt: &str) {
        let params = json!({"prompt": prompt, "model": "veo3_fast", "aspect_ratio": "16:9", "enableTranslation": true});
        let expected = json!({"task_id": id, "params": params});
        assert_eq!(self.server.post("/v1/tasks", &expected).await.status, 201);
    }

    async fn call(&self, rest: &str, callback: &Value) {
        let call = self.server.callback_to(rest, callback);
        call.signed(KEY).send().await.taken();
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.cdn.addr)
    }

    async fn store(&self, id: &str, prompt: &str, size: (u32, u32)) {
        self.expect(id, prompt).await;
        self.clock.advance(Duration::from_secs(95));
        let mut callback = success(id, &[self.url(&format!("{id}.mp4"))]);
        if size == UPRIGHT {
            callback["data"]["info"]["originUrls"] = json!([self.url(&format!("{id}-origin.mp4"))]);
        }
        self.call("kie", &callback).await;
        self.server.wait_settled(id).await;
    }

    async fn enlarge(&self, id: &str) {
        let mut callback = success(id, &[self.url("4k.mp4")]);
        callback["data"]["info"]["resolution"] = json!("4k");
        self.call("kie?kind=4k", &callback).await;
        self.server.wait_settled(id).await;
    }

    async fn fail(&self) {
        self.expect(REFUSED, "A well-known actor as a superhero, photorealistic")
            .await;
        let refused = json!({"code": 422, "msg": "Your request was rejected by Flow. You may consider using our other fallback channels, which are likely to succeed. Please refer to the documentation.",
            "data": {"taskId": REFUSED}});
        self.call("kie", &refused).await;
        self.clock.advance(Duration::from_mins(2));
        self.expect(BROKEN, "Timelapse of clouds over a lake, two versions")
            .await;
        let urls = [self.url("good.mp4"), self.cdn.script("/page.mp4", [Reply::Html])];
        self.call("kie", &success(BROKEN, &urls)).await;
        self.server.wait_settled(BROKEN).await;
        self.clock.advance(Duration::from_mins(2));
    }

    async fn leave_running(&self) {
        self.expect(
            "c05a9e3d7b1f4e28a6d4b8f20e7c9316",
            "A paper boat drifts down a rainy street, macro",
        )
        .await;
        self.expect(RUNNING, "Wind over tall grass, slow motion, late light")
            .await;
        let url = self.cdn.script("/running.mp4", [Reply::Stalled(film::long(4))]);
        self.call("kie", &success(RUNNING, &[url])).await;
        self.cdn.until_busy_with(1).await;
    }

    /// What came under a key that we do not have, without any, and too late.
    async fn reject(&self) {
        let now = self.clock.now() / 1000;
        for id in ["a1f0c9d2", "b2e1d8c3", "c3d2e7b4"] {
            let callback = json!({"code": 501, "msg": "Failed", "data": {"taskId": id}});
            let refused = self
                .server
                .callback(&callback)
                .signed("a-key-that-was-rotated")
                .send()
                .await;
            assert_eq!(refused.problem().1, "bad_signature");
            self.clock.advance(Duration::from_secs(40));
        }
        let late = success("d4c3f6a5", &["https://files.example/late.mp4".to_owned()]);
        let refused = self.server.callback(&late).signed_at(KEY, now - 900).send().await;
        assert_eq!(refused.problem().1, "stale");
        let refused = self.server.callback(&late).send().await;
        assert_eq!(refused.problem().1, "missing_signature");
    }
}
