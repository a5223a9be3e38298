//! The provider's file host: URLs that nobody guesses and that expire, behind them films made when they are asked for.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use http_range_header::{EndPosition, StartPosition};
use sha2::{Digest as _, Sha256};

use super::film::Subject;
use super::tasks::{FileId, Kind, Part, Role, Task};
use super::{Simulator, lock};
use crate::clock::{Millis, millis};

/// Made files that are kept for the next request, which often wants another range of the same.
const KEPT: usize = 16;
/// Bytes that are sent between two pauses, if there is a limit.
const PIECE: u64 = 8 << 10;

/// The films made lately, and the checksums of all ever made.
#[derive(Debug, Default)]
pub(super) struct Films {
    made: Mutex<VecDeque<(FileId, Made)>>,
    sums: Mutex<HashMap<FileId, Sum>>,
}

/// A file's bytes and checksum.
#[derive(Debug, Clone)]
struct Made {
    bytes: Bytes,
    sum: Sum,
}

/// What a file is told from all others by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum {
    pub(super) sha256: [u8; 32],
    pub(super) bytes: u64,
}

/// What goes into making a file.
struct Order {
    file: FileId,
    subject: Subject,
    still: bool,
    least: u64,
}

impl Order {
    fn make(&self) -> Made {
        let bytes = if self.still {
            self.subject.still()
        } else {
            self.subject.film(self.least)
        };
        let sum = Sum {
            sha256: Sha256::digest(&bytes).into(),
            bytes: bytes.len() as u64,
        };
        Made {
            bytes: bytes.into(),
            sum,
        }
    }
}

impl Films {
    fn made(&self, order: &Order) -> Made {
        let known = lock(&self.made)
            .iter()
            .find(|(file, _)| *file == order.file)
            .cloned();
        if let Some((_, made)) = known {
            return made;
        }
        let made = order.make();
        lock(&self.sums).insert(order.file, made.sum);
        let mut all = lock(&self.made);
        all.push_front((order.file, made.clone()));
        all.truncate(KEPT);
        made
    }

    /// The checksum of a task's file, which is made for it if it never was.
    pub(super) fn sum(&self, task: &Task, file: FileId, least: u64) -> Sum {
        let known = lock(&self.sums).get(&file).copied();
        known.unwrap_or_else(|| {
            let sum = order(task, file, least).make().sum;
            lock(&self.sums).insert(file, sum);
            sum
        })
    }

    /// Forgets the checksums of tasks that are gone.
    pub(super) fn keep(&self, known: impl Fn(u64) -> bool) {
        lock(&self.sums).retain(|file, _| known(file.task));
    }
}

fn order(task: &Task, file: FileId, least: u64) -> Order {
    let FileId {
        kind, index, role, n, ..
    } = file;
    Order {
        file,
        subject: Subject {
            task_id: task.id.clone(),
            label: format!("{}-{index}-{}-{n}", kind.as_str(), role.as_str()),
            // The original is what the upright film was cut from.
            portrait: task.is_portrait() && role != Role::Origin,
            large: kind != Kind::Video,
        },
        still: task.is_still(file),
        least,
    }
}

/// What the last part of a file's URL says: `{code}_{task}-{kind}-{index}-{role}-{n}-{expires}.mp4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    file: FileId,
    expires: Millis,
}

impl Link {
    fn text(&self) -> String {
        let FileId {
            task,
            kind,
            index,
            role,
            n,
        } = self.file;
        let (kind, role) = (kind.as_str(), role.as_str());
        format!("{task}-{kind}-{index}-{role}-{n}-{}", self.expires)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split('-');
        let mut word = || words.next();
        let task = word()?.parse().ok()?;
        let kind = word()?;
        let index = word()?.parse().ok()?;
        let role = word()?;
        let n = word()?.parse().ok()?;
        let expires = word()?.parse().ok()?;
        let file = FileId {
            task,
            kind: Kind::ALL.into_iter().find(|known| known.as_str() == kind)?,
            index,
            role: Role::ALL.into_iter().find(|known| known.as_str() == role)?,
            n,
        };
        Some(Self { file, expires })
    }
}

impl Simulator {
    /// The URLs of a part's files of a role: the same ones whenever they are asked for.
    pub(super) fn links(&self, task: &Task, part: &Part, role: Role) -> Vec<String> {
        let settings = &self.0.settings;
        let expires = part.ready.saturating_add(millis(settings.links.expire));
        let files = task.files(part, role, settings.results);
        let link = |file| self.link(task, Link { file, expires });
        files.into_iter().map(link).collect()
    }

    fn link(&self, task: &Task, link: Link) -> String {
        let text = link.text();
        let extension = if task.is_still(link.file) { "png" } else { "mp4" };
        format!("{}/p/{}_{text}.{extension}", self.0.media_url, self.code(&text))
    }

    /// A URL for the same file that opens for some time from now on; `None` if the URL is none of ours, or what it leads to
    /// is there no more.
    pub(super) fn fresh_link(&self, url: &str) -> Option<String> {
        let name = url.strip_prefix(&self.0.media_url)?.strip_prefix("/p/")?;
        let link = self.read_link(name)?;
        let book = self.book();
        let task = book.tasks.get(&link.file.task)?;
        let now = self.0.clock.now();
        if task.is_past_keeping(now) {
            return None;
        }
        let expires = now.saturating_add(millis(self.0.settings.links.fresh));
        Some(self.link(task, Link { expires, ..link }))
    }

    /// What a URL's last part leads to, if it was given out by us.
    fn read_link(&self, name: &str) -> Option<Link> {
        let (code, rest) = name.split_once('_')?;
        let (text, _) = rest.rsplit_once('.')?;
        let link = Link::parse(text)?;
        (self.code(text) == code).then_some(link)
    }

    fn code(&self, text: &str) -> String {
        hex::encode(&self.0.dice.digest(&format!("link|{text}"))[..16])
    }
}

/// The routes of the file host, which wants no key.
pub(super) fn router(simulator: &Simulator) -> Router {
    Router::new()
        .route("/p/{name}", get(serve))
        .with_state(simulator.clone())
}

async fn serve(State(simulator): State<Simulator>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(link) = simulator.read_link(&name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (order, finished) = {
        let book = simulator.book();
        let Some(task) = book.tasks.get(&link.file.task) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        if link.expires <= simulator.0.clock.now() {
            return simulator.expired(link).into_response();
        }
        let part = task.part(link.file.kind, link.file.index);
        let finished = part.map_or(0, |part| part.ready);
        (order(task, link.file, simulator.0.settings.film_bytes), finished)
    };
    let films = simulator.clone();
    let Ok(made) = tokio::task::spawn_blocking(move || films.0.films.made(&order)).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    simulator.send_file(&headers, &made, finished)
}

impl Simulator {
    /// Which of the two it is nobody documented, so both happen.
    fn expired(&self, link: Link) -> StatusCode {
        *self.0.dice.one_of(
            link.file.task,
            "expired",
            &[StatusCode::FORBIDDEN, StatusCode::NOT_FOUND],
        )
    }

    fn send_file(&self, asked: &HeaderMap, made: &Made, finished: Millis) -> Response {
        let etag = format!("\"{}\"", hex::encode(made.sum.sha256));
        let modified = UNIX_EPOCH + Duration::from_millis(u64::try_from(finished).unwrap_or_default());
        let modified = httpdate::fmt_http_date(modified);
        let length = made.sum.bytes;
        let mut headers = HeaderMap::new();
        let content_type = if made.bytes.starts_with(b"\x89PNG") {
            "image/png"
        } else {
            "video/mp4"
        };
        for (name, value) in [
            (header::CONTENT_TYPE, content_type),
            (header::ACCEPT_RANGES, "bytes"),
            (header::ETAG, &etag),
            (header::LAST_MODIFIED, &modified),
        ] {
            headers.insert(name, text(value));
        }
        match requested(asked, [&etag, &modified], length) {
            Requested::Whole => self.body(StatusCode::OK, headers, made.bytes.clone()),
            Requested::Part(first, last) => {
                headers.insert(
                    header::CONTENT_RANGE,
                    text(&format!("bytes {first}-{last}/{length}")),
                );
                let place = |at: u64| usize::try_from(at).expect("films fit into memory");
                let part = made.bytes.slice(place(first)..=place(last));
                self.body(StatusCode::PARTIAL_CONTENT, headers, part)
            }
            Requested::Unsatisfiable => {
                headers.insert(header::CONTENT_RANGE, text(&format!("bytes */{length}")));
                self.body(StatusCode::RANGE_NOT_SATISFIABLE, headers, Bytes::new())
            }
        }
    }

    fn body(&self, status: StatusCode, mut headers: HeaderMap, bytes: Bytes) -> Response {
        headers.insert(header::CONTENT_LENGTH, bytes.len().into());
        let body = match self.0.settings.links.speed {
            Some(speed) => Body::from_stream(slowly(bytes, speed)),
            None => Body::from(bytes),
        };
        (status, headers, body).into_response()
    }
}

/// The bytes, in pieces, at no more than `speed` bytes a second.
fn slowly(bytes: Bytes, speed: u64) -> impl stream::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let speed = speed.max(1);
    let pause = Duration::from_micros(PIECE.min(speed) * 1_000_000 / speed);
    stream::unfold(bytes, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        let length = usize::try_from(PIECE.min(speed))
            .unwrap_or(usize::MAX)
            .min(rest.len());
        tokio::time::sleep(pause).await;
        let piece = rest.split_to(length);
        Some((Ok(piece), rest))
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Requested {
    Whole,
    /// First and last byte, inclusive.
    Part(u64, u64),
    Unsatisfiable,
}

/// One range is served; of several, or under an `If-Range` of something else, the whole.
fn requested(headers: &HeaderMap, validators: [&str; 2], length: u64) -> Requested {
    let said = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let Some(range) = said(header::RANGE) else {
        return Requested::Whole;
    };
    if said(header::IF_RANGE).is_some_and(|validator| !validators.contains(&validator)) {
        return Requested::Whole;
    }
    let Ok(parsed) = http_range_header::parse_range_header(range) else {
        return Requested::Whole;
    };
    let [only] = parsed.ranges.as_slice() else {
        return Requested::Whole;
    };
    let last = length.saturating_sub(1);
    let (first, last) = match (only.start, only.end) {
        (StartPosition::FromLast(count), _) => (length.saturating_sub(count), last),
        (StartPosition::Index(first), EndPosition::LastByte) => (first, last),
        (StartPosition::Index(first), EndPosition::Index(end)) => (first, end.min(last)),
    };
    if first <= last && first < length {
        Requested::Part(first, last)
    } else {
        Requested::Unsatisfiable
    }
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("digits, letters and a few signs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_what_it_leads_to() {
        for kind in Kind::ALL {
            for role in Role::ALL {
                let file = FileId {
                    task: 7,
                    kind,
                    index: 1,
                    role,
                    n: 2,
                };
                let link = Link {
                    file,
                    expires: 1_795_284_446_250,
                };
                assert_eq!(Link::parse(&link.text()), Some(link));
            }
        }
        for bad in [
            "",
            "7",
            "7-video-0-result-0-x",
            "7-video-0-poster-0-1",
            "7-8k-0-result-0-1",
        ] {
            assert_eq!(Link::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        let asked = |range: &'static str, if_range: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static(range));
            if let Some(validator) = if_range {
                headers.insert(header::IF_RANGE, HeaderValue::from_static(validator));
            }
            requested(&headers, ["\"e\"", "Sat, 21 Nov 2026 18:07:26 GMT"], 10)
        };
        assert_eq!(asked("bytes=3-", None), Requested::Part(3, 9));
        assert_eq!(asked("bytes=3-4", Some("\"e\"")), Requested::Part(3, 4));
        assert_eq!(asked("bytes=-4", None), Requested::Part(6, 9));
        assert_eq!(asked("bytes=3-4", Some("\"other\"")), Requested::Whole);
        assert_eq!(asked("bytes=0-1,3-4", None), Requested::Whole);
        assert_eq!(asked("bytes=10-", None), Requested::Unsatisfiable);
    }
}
