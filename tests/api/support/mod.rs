//! What the tests are written with: a real server, a fake CDN, the program itself, and one way to wait.

use std::future::Future;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

mod bucket;
mod cdn;
mod certificates;
mod follower;
mod hook;
mod moto;
mod origin;
mod pebble;
mod program;
mod provider;
mod raw;
mod request;
mod scripted_provider;
mod server;

pub(crate) use crate::media::mp4;
pub(crate) use bucket::{Asked, Bucket, Fault, SECRET_KEY};
pub(crate) use cdn::{Cdn, Reply, Trap};
pub(crate) use certificates::{Authority, connector, shake_hands, shown, web_client};
pub(crate) use follower::{Follower, Told};
pub(crate) use hook::{Called, Hook};
pub(crate) use moto::Moto;
pub(crate) use origin::{LONG_AGO, Origin, Reply as Scripted, Then, Version};
pub(crate) use pebble::Pebble;
pub(crate) use program::{Ended, Program, Serving};
pub(crate) use provider::Provider;
pub(crate) use raw::Raw;
pub(crate) use request::{Answer, Call};
pub(crate) use scripted_provider::{
    API_KEY, Question, Says, ScriptedProvider, failed_record, generating, record,
};
pub(crate) use server::{Setup, TestServer, client, client_builder};

/// The key that signed sources of these tests have.
pub(crate) const KEY: &str = "test-webhook-hmac-key";
/// A token as the configuration wants them.
pub(crate) const TOKEN: &str = "token-of-the-callback-url_0123456789";

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Servers and CDNs run here and not on the runtime of their test: a test that blocks, or is being dropped, does not
/// stop them.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime starts"));

/// Waits until `probe` finds what it looks for. The only place where a test lets time pass.
pub(crate) async fn until<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An address of this machine that nothing else is likely to use: all its ports can be chosen beforehand.
pub(crate) fn loopback() -> Ipv4Addr {
    let [a, b, c, _] = getrandom::u32().unwrap().to_be_bytes();
    Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254))
}

/// Says that a test cannot be run here; in CI that is a failure.
pub(crate) fn skip(reason: &str) {
    assert!(variable("REELHOOK_CI").is_none(), "cannot be run: {reason}");
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// A variable that steers the tests themselves.
#[expect(clippy::disallowed_methods, reason = "the tests have no configuration")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What it is when a sender compresses it.
pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(plain).unwrap();
    packed.finish().unwrap()
}

/// A Veo success that announces `urls`.
pub(crate) fn success(task_id: &str, urls: &[String]) -> Value {
    json!({
        "code": 200,
        "msg": "Veo3.1 video generated successfully.",
        "data": {"taskId": task_id, "info": {"resultUrls": urls, "resolution": "1080p"}, "fallbackFlag": false},
    })
}

/// A Veo failure, which announces nothing.
pub(crate) fn failure(task_id: &str) -> Value {
    json!({"code": 501, "msg": "Failed - Video generation task failed", "data": {"taskId": task_id}})
}
