//! Which files a delivery announces: every documented place of every family, read into one bounded list.
//!
//! A file is never missed for standing in a second place: all places are read and the union is listed, in a fixed
//! order. What merely echoes the request (`promptJson`, `param`, `paramJson`, `callBackUrl`, `source_*`) and what is
//! no file (`stream_audio_url`, `video_id`) has no place in the tables below and is therefore never followed.

use std::time::Duration;

use serde_json::value::RawValue;

use super::fields::{Fields, for_each_element, is_array, with_object};
use super::urls::for_each_url;
use super::{FLUX_ORIGIN_LIFETIME, LIFETIME, MARKET_LIFETIME, MAX_MEDIA, MAX_URL_BYTES};
use crate::provider::{Media, MediaFault, Role};

/// Fields that hold a URL or a list of them, in the order in which files of a role are numbered.
const PLACES: [(Role, &[&str]); 5] = [
    (
        Role::Result,
        &[
            "resultUrls",
            "result_urls",
            "video_url",
            "videoUrl",
            "result_video_url",
            "resultUrl",
        ],
    ),
    (
        Role::Origin,
        &[
            "originUrls",
            "origin_urls",
            "resultWaterMarkUrls",
            FLUX_ORIGIN,
            "origin_url",
            "originUrl",
        ],
    ),
    (Role::Full, &["fullResultUrls", "full_result_urls"]),
    (
        Role::Image,
        &[
            "imageUrls",
            "image_urls",
            "image_url",
            "imageUrl",
            "result_image_url",
            "resultImageUrl",
            "images",
            "firstFrameUrl",
            "lastFrameUrl",
        ],
    ),
    (
        Role::Audio,
        &["audio_url", "audioUrl", "audio_wav_url", "audioWavUrl"],
    ),
];

/// Flux's picture before processing, the shortest-lived link of all.
const FLUX_ORIGIN: &str = "originImageUrl";
/// Suno's stems: an object whose every `…_url` is a sound file, named after the instrument.
const STEMS: &str = "vocal_separation_info";
/// Lists of tracks, each an object with its own URLs: in callbacks and in record-info answers.
const TRACKS: [&str; 2] = ["data", "sunoData"];
/// Results apart from the rest, mostly as JSON in a string: of Market jobs, and of Midjourney's record-info.
const RESULTS: [&str; 2] = ["resultJson", "resultInfoJson"];
/// How deep objects are followed: `data`, `response`, a track.
const MAX_DEPTH: usize = 3;

/// The files announced under `data`, of which at most [`MAX_MEDIA`] and one more that stands for the rest.
pub(super) fn announced(data: &Fields<'_>) -> Vec<Media> {
    let mut found = Found::new(lifetime(data));
    for name in ["info", "response"] {
        if let Some(raw) = data.value(name) {
            found.read_object(raw, MAX_DEPTH - 1);
        }
    }
    found.read(data, MAX_DEPTH);
    for raw in RESULTS.iter().filter_map(|name| data.value(name)) {
        found.read_object(raw, MAX_DEPTH - 1);
        if is_array(raw) {
            found.read_urls(Role::Result, raw, found.lifetime);
        }
    }
    found.into_media()
}

/// Whether this is a Market job, whichever model made it: a `state` beside the job's own fields.
pub(super) fn is_market(data: &Fields<'_>) -> bool {
    data.has("state") && ["model", "resultJson", "param"].iter().any(|name| data.has(name))
}

fn lifetime(data: &Fields<'_>) -> Duration {
    if is_market(data) {
        MARKET_LIFETIME
    } else {
        LIFETIME
    }
}

/// The files found so far, by role.
struct Found {
    by_role: [Vec<(String, Duration)>; PLACES.len()],
    announced: usize,
    lifetime: Duration,
}

impl Found {
    fn new(lifetime: Duration) -> Self {
        Self {
            by_role: Default::default(),
            announced: 0,
            lifetime,
        }
    }

    fn read_object(&mut self, raw: &RawValue, depth: usize) {
        with_object(raw, |fields| {
            self.read(fields, depth);
            Some(())
        });
    }

    /// Reads every place of `fields`, and what lies at most `depth` objects deep.
    fn read(&mut self, fields: &Fields<'_>, depth: usize) {
        for (role, names) in PLACES {
            for name in names {
                let lifetime = if *name == FLUX_ORIGIN {
                    FLUX_ORIGIN_LIFETIME
                } else {
                    self.lifetime
                };
                if let Some(raw) = fields.value(name) {
                    self.read_urls(role, raw, lifetime);
                }
            }
        }
        if let Some(raw) = fields.value(STEMS) {
            self.read_stems(raw);
        }
        if depth == 0 {
            return;
        }
        for raw in TRACKS.iter().filter_map(|name| fields.value(name)) {
            for_each_element(raw, |track| self.read_object(track, depth - 1));
            self.read_object(raw, depth - 1);
        }
    }

    fn read_stems(&mut self, raw: &RawValue) {
        with_object(raw, |stems| {
            for (name, raw) in stems.entries() {
                let is_origin = matches!(name, "origin_url" | "originUrl");
                if name.ends_with("_url") || name.ends_with("Url") {
                    let role = if is_origin { Role::Origin } else { Role::Audio };
                    self.read_urls(role, raw, self.lifetime);
                }
            }
            Some(())
        });
    }

    fn read_urls(&mut self, role: Role, raw: &RawValue, lifetime: Duration) {
        for_each_url(raw, &mut |url| self.add(role, url, lifetime));
    }

    /// Lists `url` unless it is listed in this role. Once a role is full, further URLs are only counted; repetitions
    /// among those are counted too, because remembering them would have no bound.
    fn add(&mut self, role: Role, url: &str, lifetime: Duration) {
        let listed = &mut self.by_role[role as usize];
        if listed.iter().any(|(known, _)| known == url) {
            return;
        }
        self.announced += 1;
        if listed.len() <= MAX_MEDIA {
            listed.push((url.to_owned(), lifetime));
        }
    }

    fn into_media(self) -> Vec<Media> {
        let announced = self.announced;
        let numbered = PLACES.iter().zip(self.by_role).flat_map(|((role, _), listed)| {
            (0..).zip(listed).map(|(n, (mut url, lifetime))| {
                let fault = (url.len() > MAX_URL_BYTES).then_some(MediaFault::UrlTooLong);
                url.truncate(url.floor_char_boundary(MAX_URL_BYTES));
                Media {
                    role: *role,
                    n,
                    url,
                    lifetime,
                    fault,
                }
            })
        });
        let mut media: Vec<Media> = numbered.take(MAX_MEDIA + 1).collect();
        if let Some(rest) = media.get_mut(MAX_MEDIA) {
            rest.fault = Some(MediaFault::TooManyFiles { announced });
        }
        media
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media_of(data: &str) -> Vec<Media> {
        announced(&Fields::parse(data).unwrap())
    }

    #[test]
    fn the_table_is_ordered_like_the_roles() {
        for (place, (role, _)) in PLACES.iter().enumerate() {
            assert_eq!(*role as usize, place);
        }
    }

    #[test]
    fn the_same_url_is_one_file_per_role() {
        let data = r#"{"info":{"resultUrls":["u","u"],"originUrls":["u"]},"resultUrls":"u","response":{"resultUrls":["v"]}}"#;
        let found: Vec<_> = media_of(data).into_iter().map(|m| (m.role, m.n, m.url)).collect();
        let expected = [
            (Role::Result, 0, "u".to_owned()),
            (Role::Result, 1, "v".to_owned()),
            (Role::Origin, 0, "u".to_owned()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_hundred_thousand_urls_are_64_files_and_one_that_stands_for_the_rest() {
        let urls: Vec<String> = (0..100_000)
            .map(|n| format!("\"https://cdn.example/{n}\""))
            .collect();
        let media = media_of(&format!(r#"{{"resultUrls":[{}]}}"#, urls.join(",")));
        assert_eq!(media.len(), MAX_MEDIA + 1);
        assert!(media[..MAX_MEDIA].iter().all(|m| m.fault.is_none()));
        assert_eq!(
            media[MAX_MEDIA].fault,
            Some(MediaFault::TooManyFiles { announced: 100_000 })
        );
    }

    #[test]
    fn exactly_64_files_are_not_too_many() {
        let urls: Vec<String> = (0..MAX_MEDIA).map(|n| format!("\"u{n}\"")).collect();
        let media = media_of(&format!(r#"{{"resultUrls":[{0},{0}]}}"#, urls.join(",")));
        assert_eq!(media.len(), MAX_MEDIA);
        assert!(media.iter().all(|m| m.fault.is_none()));
    }

    #[test]
    fn overlong_urls_are_listed_apart_cut_between_characters_and_faulty() {
        let long = "é".repeat(MAX_URL_BYTES);
        let media = media_of(&format!(r#"{{"resultUrls":["a{long}1","a{long}2","b"]}}"#));
        let faults: Vec<_> = media.iter().map(|m| m.fault).collect();
        assert_eq!(
            faults,
            [Some(MediaFault::UrlTooLong), Some(MediaFault::UrlTooLong), None]
        );
        assert_eq!(media[0].url.len(), MAX_URL_BYTES - 1);
    }

    #[test]
    fn lifetimes_follow_the_family() {
        let lifetimes = |data| media_of(data).iter().map(|m| m.lifetime).collect::<Vec<_>>();
        assert_eq!(lifetimes(r#"{"info":{"resultUrls":["u"]}}"#), [LIFETIME]);
        assert_eq!(
            lifetimes(r#"{"state":"complete","resultUrls":["u"]}"#),
            [LIFETIME]
        );
        let market = r#"{"state":"success","model":"m","resultJson":"{\"resultUrls\":[\"u\"]}"}"#;
        assert_eq!(lifetimes(market), [MARKET_LIFETIME]);
        let flux = r#"{"info":{"originImageUrl":"o","resultImageUrl":"i"}}"#;
        assert_eq!(lifetimes(flux), [FLUX_ORIGIN_LIFETIME, LIFETIME]);
    }

    #[test]
    fn echoes_streams_and_ids_are_never_followed() {
        let data = r#"{"promptJson":{"resultUrls":["x"]},"param":"{\"resultUrls\":[\"x\"]}","paramJson":"{\"imageUrls\":[\"x\"]}",
            "callBackUrl":"x","video_id":"x","source_audio_url":"x","stream_audio_url":"x","streamAudioUrl":"x",
            "data":[{"source_image_url":"x","source_stream_audio_url":"x","stream_audio_url":"x"}]}"#;
        assert_eq!(media_of(data), []);
    }
}
