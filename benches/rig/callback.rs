//! The callbacks that are sent: signed Veo successes as the provider documents them, each about a task of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reelhook::clock::Clock;
use sha2::Sha256;

/// What the servers verify with.
pub(crate) const KEY: &str = "benchmark-key-0123456789";

/// A task id in the provider's form: 32 hexadecimal digits.
const ID: &str = "IIIIIIIIIIIIIIIIIIIIIIIIIIIIIIII";
/// A signature's place: 32 bytes in Base64.
const SIGNATURE: &str = "SSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSS";

/// Makes request after request in the same buffer: only ids and signature change, and they never change length.
#[derive(Debug)]
pub(crate) struct Callbacks {
    request: Vec<u8>,
    ids_at: Vec<usize>,
    signature_at: usize,
    timestamp: String,
    keyed: Hmac<Sha256>,
    random: u64,
}

impl Callbacks {
    /// `seed` makes the ids those of one connection alone; the announced files lie on `port` of this machine.
    pub(crate) fn new(seed: u64, port: u16) -> Self {
        Self::signed(KEY, seed, port, "")
    }

    /// The same with another key, and with more header lines, each ending in CR LF.
    pub(crate) fn signed(key: &str, seed: u64, port: u16, lines: &str) -> Self {
        let timestamp = (Clock::system().now() / 1000).to_string();
        let body = body(port);
        let length = body.len();
        let request = format!(
            "POST /callbacks/kie HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: node\r\nAccept: */*\r\n\
             Content-Type: application/json\r\nX-Webhook-Timestamp: {timestamp}\r\n\
             X-Webhook-Signature: {SIGNATURE}\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
        );
        Self {
            ids_at: request.match_indices(ID).map(|(at, _)| at).collect(),
            signature_at: request.find(SIGNATURE).expect("it is in the head"),
            request: request.into_bytes(),
            timestamp,
            keyed: Hmac::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length"),
            random: seed,
        }
    }

    /// The next request.
    pub(crate) fn next(&mut self) -> &[u8] {
        let id = format!("{:016x}{:016x}", self.scatter(), self.scatter());
        let mut mac = self.keyed.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(self.timestamp.as_bytes());
        for &at in &self.ids_at {
            self.request[at..at + ID.len()].copy_from_slice(id.as_bytes());
        }
        let place = &mut self.request[self.signature_at..][..SIGNATURE.len()];
        STANDARD
            .encode_slice(mac.finalize().into_bytes(), place)
            .expect("the place is as long as a signature");
        &self.request
    }

    /// The `SplitMix64` generator: ids scatter over the index as the provider's do.
    fn scatter(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// About 700 bytes, with one file to fetch and the request echoed as a JSON string.
fn body(port: u16) -> String {
    let prompt = "A golden retriever puppy runs through tall grass in a sunlit park, chasing a red ball, \
                  cinematic, shallow depth of field, soft wind moving the leaves";
    let echoed = format!(
        r#"{{\"prompt\":\"{prompt}\",\"waterMark\":\"\",\"model\":\"veo3_fast\",\"aspectRatio\":\"16:9\",\"callBackUrl\":\"https://hooks.example.com/callbacks/kie\",\"enableFallback\":false,\"enableTranslation\":true}}"#
    );
    format!(
        r#"{{"code":200,"msg":"Veo3.1 video generated successfully.","data":{{"taskId":"{ID}","info":{{"resultUrls":["http://127.0.0.1:{port}/veo3/{ID}.mp4"],"resolution":"1080p"}},"fallbackFlag":false,"promptJson":"{echoed}"}}}}"#
    )
}
