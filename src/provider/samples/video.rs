//! Videos beside Veo's: Runway, Aleph, Luma.

use serde_json::{Value, json};

use super::{Sample, Slots, envelope};

pub(super) const SAMPLES: &[Sample] = &[
    Sample::new("runway.success", "a Runway video with its cover", runway),
    Sample::new("runway.failure", "400: no video, with empty URLs", |s| {
        let data = json!({"task_id": s.id(), "video_id": "", "video_url": "", "image_url": ""});
        envelope(400, "Your prompt was flagged as inappropriate content.", &data)
    }),
    Sample::new("runway.extend-success", "an extended Runway video", runway),
    Sample::new(
        "runway.extend-failure",
        "500: no extension, with nothing but the id",
        |s| envelope(500, INTERNAL, &json!({"task_id": s.id()})),
    ),
    Sample::new(
        "aleph.success",
        "an Aleph video; the id stands at the top level",
        |s| {
            let video = s.url("https://file.com/k/aleph.mp4");
            let still = s.url("https://file.com/m/aleph.png");
            let data = json!({"result_video_url": video, "result_image_url": still});
            with_top_level_id(s, envelope(200, "success", &data))
        },
    ),
    Sample::new("aleph.failure", "400: refused; data is null", |s| {
        let msg = "Your prompt was caught by our AI moderator. Please adjust it and try again!";
        with_top_level_id(s, envelope(400, msg, &Value::Null))
    }),
    Sample::new("luma.success", "a video modified by Luma", |s| {
        let results = s.urls(&["https://tempfile.aiquickdraw.com/v/luma.mp4"]);
        let data = json!({"taskId": s.id(), "promptJson": LUMA_REQUEST, "resultUrls": results});
        envelope(200, "Modify record generated successfully.", &data)
    }),
    Sample::new("luma.failure", "500: the video could not be modified", |s| {
        envelope(
            500,
            INTERNAL,
            &json!({"taskId": s.id(), "promptJson": LUMA_REQUEST}),
        )
    }),
];

const INTERNAL: &str = "Internal Error, Please try again later.";
const LUMA_REQUEST: &str =
    r#"{"prompt":"A dog in space","videoUrl":"https://static.aiquickdraw.com/input.mp4"}"#;

fn runway(s: &mut Slots<'_>) -> Value {
    let video = s.url("https://file.com/k/video.mp4");
    let cover = s.url("https://file.com/m/cover.png");
    let id = "485da89c-7fca-4340-8c04-101025b2ae71";
    let data = json!({"task_id": s.id(), "video_id": id, "video_url": video, "image_url": cover});
    envelope(200, "All generated successfully.", &data)
}

fn with_top_level_id(s: &Slots<'_>, mut body: Value) -> Value {
    body["taskId"] = json!(s.id());
    body
}
