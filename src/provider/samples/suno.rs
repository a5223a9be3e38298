//! Suno: music in its three stages, and what else is made of music.

use serde_json::{Value, json};

use super::{Sample, Slots, envelope};

pub(super) const SAMPLES: &[Sample] = &[
    Sample::new("suno.text", "stage 1 of music: the lyrics are ready", |s| {
        music(s, "text", "Text generated successfully.", &json!([]))
    }),
    Sample::new("suno.first", "stage 2 of music: the first track is ready", |s| {
        let mut second = track(s);
        second["audio_url"] = json!("");
        let tracks = json!([track(s), second]);
        music(s, "first", "First track generated successfully.", &tracks)
    }),
    Sample::new(
        "suno.complete",
        "stage 3 of music: both tracks and their covers",
        |s| {
            let tracks = json!([track(s), track(s)]);
            music(s, "complete", "All generated successfully.", &tracks)
        },
    ),
    Sample::new(
        "suno.upload-complete",
        "a cover or extension of an uploaded song",
        |s| {
            let mut track = track(s);
            track["source_audio_url"] = json!("https://example.cn/source.mp3");
            track["source_image_url"] = json!("https://example.cn/source.jpeg");
            music(s, "complete", "All generated successfully.", &json!([track]))
        },
    ),
    Sample::new("suno.error", "501: the music could not be generated", |s| {
        envelope(
            501,
            "Song generation failed",
            &json!({"callbackType": "error", "task_id": s.id(), "data": null}),
        )
    }),
    Sample::new(
        "suno.extend-error",
        "501: an extension failed, with an empty list",
        |s| {
            envelope(
                501,
                "Song generation failed",
                &json!({"callbackType": "error", "task_id": s.id(), "data": []}),
            )
        },
    ),
    Sample::new("suno.copyright-error", "400: the lyrics are protected", |s| {
        let data = json!({"callbackType": "error", "task_id": s.id(), "data": null});
        envelope(400, "The song lyrics contain copyrighted material.", &data)
    }),
    Sample::new(
        "suno.existing-work-error",
        "413: the upload matches an existing work",
        |s| {
            let data = json!({"callbackType": "error", "task_id": s.id(), "data": []});
            envelope(413, "The uploaded audio matches an existing work of art.", &data)
        },
    ),
    Sample::new("suno.refunded-error", "531: failed, credits refunded", |s| {
        let data = json!({"callbackType": "error", "task_id": s.id(), "data": null});
        envelope(531, "Generation failed, the credits have been refunded.", &data)
    }),
    Sample::new("suno.lyrics-success", "lyrics, one of which failed", |s| {
        let done =
            json!({"text": "[Verse] …", "title": "Iron Man", "status": "complete", "error_message": ""});
        let broken =
            json!({"text": "", "title": "", "status": "failed", "error_message": "Could not be written"});
        music(
            s,
            "complete",
            "All generated successfully.",
            &json!([done, broken]),
        )
    }),
    Sample::new(
        "suno.lyrics-failure",
        "400: no lyrics, though the callback type is complete",
        |s| {
            let data = json!({"callbackType": "complete", "task_id": s.id(), "data": null});
            envelope(400, "The description was flagged for moderation.", &data)
        },
    ),
    Sample::new(
        "suno.replace-section-success",
        "a song with one section replaced",
        |s| {
            let tracks = json!([track(s)]);
            music(s, "complete", "All generated successfully.", &tracks)
        },
    ),
    Sample::new(
        "suno.replace-section-failure",
        "501: the section could not be replaced",
        |s| {
            let data = json!({"callbackType": "error", "task_id": s.id(), "error": "The section could not be replaced"});
            envelope(501, "Replace section failed", &data)
        },
    ),
    Sample::new("suno.cover-success", "cover images for a song", |s| {
        let images = s.urls(&[
            "https://tempfile.aiquickdraw.com/s/1.png",
            "https://tempfile.aiquickdraw.com/s/2.png",
        ]);
        envelope(200, "success", &json!({"taskId": s.id(), "images": images}))
    }),
    Sample::new("suno.cover-failure", "501: no cover images", |s| {
        envelope(
            501,
            "Cover generation failed",
            &json!({"taskId": s.id(), "images": null}),
        )
    }),
    Sample::new("suno.wav-success", "a song as WAV", |s| {
        let wav = s.url("https://example.com/s/1.wav");
        envelope(200, "success", &json!({"task_id": s.id(), "audioWavUrl": wav}))
    }),
    Sample::new("suno.wav-failure", "500: no WAV", |s| {
        envelope(500, INTERNAL, &json!({"task_id": s.id(), "audioWavUrl": null}))
    }),
    Sample::new("suno.music-video-success", "a video of a song", |s| {
        let video = s.url("https://example.com/s/1.mp4");
        envelope(
            200,
            "MP4 generated successfully.",
            &json!({"task_id": s.id(), "video_url": video}),
        )
    }),
    Sample::new("suno.music-video-failure", "500: no video", |s| {
        envelope(500, INTERNAL, &json!({"task_id": s.id(), "video_url": null}))
    }),
    Sample::new("suno.separation-success", "voice and instruments apart", |s| {
        let vocal = s.url("https://file.aiquickdraw.com/s/vocal.mp3");
        let instrumental = s.url("https://file.aiquickdraw.com/s/instrumental.mp3");
        let stems = json!({"vocal_url": vocal, "instrumental_url": instrumental, "origin_url": ""});
        separated(s, &stems)
    }),
    Sample::new("suno.stems-success", "each instrument apart", |s| {
        let stems = STEMS.map(|stem| {
            (
                format!("{stem}_url"),
                s.url(&format!("https://file.aiquickdraw.com/s/{stem}.mp3")),
            )
        });
        let stems: Value = stems.into_iter().collect();
        separated(s, &stems)
    }),
    Sample::new(
        "suno.separation-failure",
        "500: nothing could be separated",
        |s| {
            envelope(
                500,
                INTERNAL,
                &json!({"task_id": s.id(), "vocal_separation_info": null}),
            )
        },
    ),
    Sample::new("suno.midi-success", "notes, without files", |s| {
        let notes = json!([{"pitch": 73, "start": "0.0", "end": 0.25, "velocity": 1}]);
        let instruments = json!([{"name": "Drums", "notes": notes}]);
        envelope(
            200,
            "success",
            &json!({"taskId": s.id(), "state": "complete", "instruments": instruments}),
        )
    }),
    Sample::new("suno.midi-failure", "500: no notes", |s| {
        envelope(500, INTERNAL, &json!({"taskId": s.id()}))
    }),
    Sample::new("suno.voice-success", "a voice was made", |s| {
        voice(
            s,
            "success",
            &json!({"voiceId": "voice_1", "errorCode": null, "errorMessage": null}),
        )
    }),
    Sample::new("suno.voice-waiting", "a voice waits for its owner's proof", |s| {
        voice(
            s,
            "wait_validating",
            &json!({"validateInfo": "Please read this sentence", "errorCode": null}),
        )
    }),
    Sample::new(
        "suno.voice-failure",
        "a voice could not be made, told by its status alone",
        |s| {
            voice(
                s,
                "fail",
                &json!({"voiceId": null, "errorCode": 500, "errorMessage": "The voice could not be made"}),
            )
        },
    ),
];

const INTERNAL: &str = "Internal Error, Please try again later.";

const STEMS: [&str; 12] = [
    "vocal",
    "backing_vocals",
    "bass",
    "brass",
    "drums",
    "fx",
    "guitar",
    "keyboard",
    "percussion",
    "strings",
    "synth",
    "woodwinds",
];

fn music(s: &Slots<'_>, stage: &str, msg: &str, tracks: &Value) -> Value {
    envelope(
        200,
        msg,
        &json!({"callbackType": stage, "task_id": s.id(), "data": tracks}),
    )
}

fn track(s: &mut Slots<'_>) -> Value {
    let audio = s.url("https://example.cn/track.mp3");
    let cover = s.url("https://example.cn/cover.jpeg");
    json!({
        "id": "e2310001",
        "audio_url": audio,
        "stream_audio_url": "https://example.cn/stream",
        "image_url": cover,
        "prompt": "[Verse] …",
        "model_name": "chirp-v3-5",
        "title": "Iron Man",
        "tags": "electrifying, rock",
        "createTime": "2025-01-01 00:00:00",
        "duration": 198.44,
    })
}

fn separated(s: &Slots<'_>, stems: &Value) -> Value {
    let data = json!({"task_id": s.id(), "vocal_separation_info": stems});
    envelope(200, "vocal Removal generated successfully.", &data)
}

fn voice(s: &Slots<'_>, status: &str, rest: &Value) -> Value {
    let mut data = rest.clone();
    data["taskId"] = json!(s.id());
    data["status"] = json!(status);
    envelope(200, "success", &data)
}
