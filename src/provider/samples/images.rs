//! Pictures: 4o, Flux Kontext, Midjourney.

use serde_json::json;

use super::{Sample, envelope};

pub(super) const SAMPLES: &[Sample] = &[
    Sample::new("4o.success", "an image made by 4o", |s| {
        let results = s.urls(&["https://example.com/result/image1.png"]);
        envelope(
            200,
            "success",
            &json!({"taskId": s.id(), "info": {"result_urls": results}}),
        )
    }),
    Sample::new("4o.failure", "400: the image was refused", |s| {
        let msg = "Your content was flagged as violating content policies.";
        envelope(400, msg, &json!({"taskId": s.id(), "info": null}))
    }),
    Sample::new(
        "flux.success",
        "a Flux Kontext image with its short-lived original",
        |s| {
            let result = s.url("https://example.com/result.jpg");
            let origin = s.url("https://example.com/original.jpg");
            let data =
                json!({"taskId": s.id(), "info": {"originImageUrl": origin, "resultImageUrl": result}});
            envelope(200, "BFL image generated successfully.", &data)
        },
    ),
    Sample::new("flux.failure", "501: no image, with empty URLs", |s| {
        let data = json!({"taskId": s.id(), "info": {"originImageUrl": "", "resultImageUrl": ""}});
        envelope(501, "Image generation failed", &data)
    }),
    Sample::new("midjourney.success", "Midjourney's four pictures", |s| {
        let documented = [0, 1, 2, 3].map(|n| format!("https://tempfile.aiquickdraw.com/m/{n}.png"));
        let results = s.urls(&documented.each_ref().map(String::as_str));
        let data = json!({"taskId": s.id(), "promptJson": r#"{"prompt":"A cat"}"#, "resultUrls": results});
        envelope(200, "success", &data)
    }),
    Sample::new("midjourney.video-success", "a video by Midjourney", |s| {
        let results = s.urls(&["https://tempfile.aiquickdraw.com/m/0.mp4"]);
        let data =
            json!({"taskId": s.id(), "promptJson": r#"{"taskType":"mj_video"}"#, "resultUrls": results});
        envelope(200, "success", &data)
    }),
    Sample::new("midjourney.failure", "500: no pictures", |s| {
        let data = json!({"taskId": s.id(), "promptJson": r#"{"prompt":"A cat"}"#});
        envelope(500, "Internal Error, Please try again later.", &data)
    }),
];
