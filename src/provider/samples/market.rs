//! Market jobs: one shape for every model, Veo among them since October 2026.

use serde_json::{Value, json};

use super::{Sample, Slots, envelope};

pub(super) const SAMPLES: &[Sample] = &[
    Sample::new("market.success", "a finished job with its result", |s| {
        let result = json!({"resultUrls": s.urls(&["https://tempfile.aiquickdraw.com/k/1.png"])});
        succeeded(s, "google/nano-banana", &result)
    }),
    Sample::new(
        "market.veo-success",
        "Veo 3.1 as a job, as of October 2026",
        |s| {
            let result = json!({"resultUrls": s.urls(&["https://tempfile.aiquickdraw.com/k/1.mp4"])});
            succeeded(s, "veo-3-1", &result)
        },
    ),
    Sample::new(
        "market.frames-success",
        "a video with its first and last frame (Seedance)",
        |s| {
            let results = s.urls(&["https://tempfile.aiquickdraw.com/k/1.mp4"]);
            let first = s.url("https://tempfile.aiquickdraw.com/k/first.png");
            let last = s.url("https://tempfile.aiquickdraw.com/k/last.png");
            let result = json!({"resultUrls": results, "firstFrameUrl": [first], "lastFrameUrl": [last]});
            succeeded(s, "bytedance/seedance-1.5-pro", &result)
        },
    ),
    Sample::new(
        "market.watermark-success",
        "a video with and without its watermark (Sora)",
        |s| {
            let results = s.urls(&["https://tempfile.aiquickdraw.com/k/1.mp4"]);
            let marked = [s.url("https://tempfile.aiquickdraw.com/k/1_watermark.mp4")];
            succeeded(
                s,
                "sora-2-text-to-video",
                &json!({"resultUrls": results, "resultWaterMarkUrls": marked}),
            )
        },
    ),
    Sample::new(
        "market.object-success",
        "a job whose result is text, without files",
        |s| {
            succeeded(
                s,
                "elevenlabs/speech-to-text",
                &json!({"resultObject": {"text": "Hello"}}),
            )
        },
    ),
    Sample::new("market.failure", "501: a failed job with its inner code", |s| {
        let mut data = job(s, "google/nano-banana", "fail");
        data["failCode"] = json!("500");
        data["failMsg"] = json!("Internal server error");
        data["consumeCredits"] = json!(0);
        envelope(501, "Playground task failed.", &data)
    }),
];

fn succeeded(s: &Slots<'_>, model: &str, result: &Value) -> Value {
    let mut data = job(s, model, "success");
    data["resultJson"] = json!(result.to_string());
    data["consumeCredits"] = json!(100);
    envelope(200, "Playground task completed successfully.", &data)
}

fn job(s: &Slots<'_>, model: &str, state: &str) -> Value {
    // The live service encodes `input` as a string within the string `param`.
    let input = json!({"prompt": "A red cube", "image_urls": ["https://static.aiquickdraw.com/input.png"]});
    let param =
        json!({"callBackUrl": "https://hooks.example.com", "model": model, "input": input.to_string()});
    json!({
        "taskId": s.id(),
        "model": model,
        "state": state,
        "param": param.to_string(),
        "costTime": 8,
        "createTime": 1_755_599_634_000_i64,
        "completeTime": 1_755_599_644_000_i64,
        "updateTime": 1_755_599_644_000_i64,
        "remainedCredits": 2_510_330,
    })
}
