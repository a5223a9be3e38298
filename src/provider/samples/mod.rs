//! Documented example callbacks of every family, to try a receiver with.
//!
//! Each is built from the provider's pages with the caller's task id and media. Names are `family.event`; the event
//! ends in what the reader makes of it (`success`, `failure`), but for Suno's own words `text`, `first`, `complete`
//! and `error`, and `waiting`.

use std::sync::LazyLock;

use serde_json::{Value, json};

mod images;
mod market;
mod suno;
mod veo;
mod video;

/// One documented callback.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Such as `veo.success`.
    pub name: &'static str,
    /// What it is, in a few words.
    pub summary: &'static str,
    kind: Option<&'static str>,
    build: fn(&mut Slots<'_>) -> Value,
}

impl Sample {
    /// The sample of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        all().iter().find(|sample| sample.name == name)
    }

    /// The body about `task_id`, announcing `media_urls`.
    ///
    /// The main result takes all URLs where it is a list. Every other place takes one, in turn and from the first again
    /// when they run out, so that nothing but the given URLs is announced. Without any URL the places hold the
    /// documented examples, which do not exist.
    pub fn body(&self, task_id: &str, media_urls: &[String]) -> Value {
        let mut slots = Slots {
            task_id,
            urls: media_urls,
            used: 0,
        };
        (self.build)(&mut slots)
    }

    /// The `kind` to put into the callback URL: set where the body itself cannot be told from another of the task.
    pub fn kind(&self) -> Option<&'static str> {
        self.kind
    }

    const fn new(name: &'static str, summary: &'static str, build: fn(&mut Slots<'_>) -> Value) -> Self {
        Self {
            name,
            summary,
            kind: None,
            build,
        }
    }

    const fn of_kind(self, kind: &'static str) -> Self {
        Self {
            kind: Some(kind),
            ..self
        }
    }
}

/// Every sample, family by family.
pub fn all() -> &'static [Sample] {
    static ALL: LazyLock<Vec<Sample>> = LazyLock::new(|| {
        [
            veo::SAMPLES,
            market::SAMPLES,
            suno::SAMPLES,
            images::SAMPLES,
            video::SAMPLES,
        ]
        .concat()
    });
    &ALL
}

/// What a caller puts into a sample.
struct Slots<'a> {
    task_id: &'a str,
    urls: &'a [String],
    /// How many places of one URL are filled.
    used: usize,
}

impl Slots<'_> {
    fn id(&self) -> &str {
        self.task_id
    }

    /// The next of the given URLs, or the documented one if none are given.
    fn url(&mut self, documented: &str) -> String {
        let given = self.urls.iter().cycle().nth(self.used);
        self.used += 1;
        given.cloned().unwrap_or_else(|| documented.to_owned())
    }

    /// All of the given URLs, or the documented ones if none are given.
    fn urls(&self, documented: &[&str]) -> Vec<String> {
        if self.urls.is_empty() {
            return documented.iter().map(|&url| url.to_owned()).collect();
        }
        self.urls.to_vec()
    }
}

fn envelope(code: i64, msg: &str, data: &Value) -> Value {
    json!({"code": code, "msg": msg, "data": data})
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::provider::payload::Document;
    use crate::provider::{Event, Kind, OutcomeClass};

    const ID: &str = "2b1b13eca3e8b8bbd5a88610d29dfd51";

    fn event(sample: &Sample, urls: &[String]) -> Event {
        let body = sample.body(ID, urls).to_string();
        let document = Document::parse(body.as_bytes()).unwrap();
        assert_eq!(document.task_id().as_str(), ID, "{}", sample.name);
        document.event()
    }

    fn promised(name: &str) -> OutcomeClass {
        match name.rsplit(['.', '-']).next().unwrap() {
            "success" | "complete" => OutcomeClass::Success,
            "failure" | "error" => OutcomeClass::Failure,
            "text" | "first" | "waiting" => OutcomeClass::Progress,
            other => panic!("{name}: nothing is promised by {other}"),
        }
    }

    #[test]
    fn samples_are_read_as_their_names_promise() {
        for sample in all() {
            let event = event(sample, &[]);
            assert_eq!(event.class, promised(sample.name), "{}", sample.name);
            assert!(!event.msg.is_empty(), "{}", sample.name);
        }
    }

    #[test]
    fn names_are_unique_and_every_sample_is_described() {
        let mut names = HashSet::new();
        for sample in all() {
            assert!(names.insert(sample.name), "{}", sample.name);
            assert!(
                sample.name.contains('.') && sample.summary.len() > 10,
                "{}",
                sample.name
            );
            assert_eq!(Sample::find(sample.name).unwrap().summary, sample.summary);
        }
        assert!(Sample::find("veo.unknown").is_none());
    }

    #[test]
    fn nothing_but_the_given_urls_is_announced() {
        for count in 1..=3 {
            let urls: Vec<String> = (0..count)
                .map(|n| format!("http://127.0.0.1:8080/{n}.mp4"))
                .collect();
            for sample in all() {
                let (given, documented) = (event(sample, &urls).media, event(sample, &[]).media);
                assert!(
                    given.iter().all(|file| urls.contains(&file.url)),
                    "{}",
                    sample.name
                );
                assert_eq!(given.is_empty(), documented.is_empty(), "{}", sample.name);
            }
        }
    }

    #[test]
    fn the_first_given_url_is_the_main_result() {
        let urls = [
            "http://127.0.0.1/a.mp4".to_owned(),
            "http://127.0.0.1/b.mp4".to_owned(),
        ];
        for name in [
            "veo.success",
            "veo.4k-success",
            "market.success",
            "runway.success",
            "aleph.success",
        ] {
            let media = event(Sample::find(name).unwrap(), &urls).media;
            assert_eq!(media[0].url, urls[0], "{name}");
        }
    }

    #[test]
    fn the_kind_to_ask_for_is_the_kind_the_shape_gives_away() {
        for sample in all() {
            let by_shape = event(sample, &[]).kind_by_shape;
            assert_eq!(
                by_shape.as_ref().map(Kind::as_str),
                sample.kind(),
                "{}",
                sample.name
            );
        }
    }
}
