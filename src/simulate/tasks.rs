//! The provider's record: its tasks, what each came to, and what became of the callbacks.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::Event;
use super::dice::Dice;
use super::settings::{DAYS_14, Settings};
use crate::clock::{Millis, millis};

/// Which part of the API made a task, and speaks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `veo/generate`.
    Veo,
    /// `veo/extend`.
    Extend,
    /// `jobs/createTask`.
    Market,
}

/// What a result is, as reelhook calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// What the task itself made.
    #[serde(rename = "video")]
    Video,
    /// Made by `veo/get-1080p-video`, which never calls back.
    #[serde(rename = "1080p")]
    FullHd,
    /// Made by `veo/get-4k-video`.
    #[serde(rename = "4k")]
    Uhd,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Video, Self::FullHd, Self::Uhd];

    /// Its word in URLs and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::FullHd => "1080p",
            Self::Uhd => "4k",
        }
    }
}

/// What a file is to its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What was asked for.
    Result,
    /// The 16:9 film that a portrait one was cut from.
    Origin,
    /// An extension with the film that it extends.
    Full,
    /// A still of it.
    Image,
}

impl Role {
    pub(super) const ALL: [Self; 4] = [Self::Result, Self::Origin, Self::Full, Self::Image];

    /// Its word in URLs and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Origin => "origin",
            Self::Full => "full",
            Self::Image => "image",
        }
    }
}

/// One file, whatever its URL is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileId {
    pub(super) task: u64,
    pub(super) kind: Kind,
    pub(super) index: u32,
    pub(super) role: Role,
    pub(super) n: u32,
}

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mishap {
    pub(super) code: u16,
    pub(super) msg: &'static str,
    /// What record-info says of it: `successFlag` and `errorCode`.
    pub(super) flag: u8,
    pub(super) error_code: u16,
}

const fn mishap(code: u16, msg: &'static str, flag: u8, error_code: u16) -> Mishap {
    Mishap {
        code,
        msg,
        flag,
        error_code,
    }
}

/// By the callback pages; an extension knows all but the last (422 is missing in its list).
const VEO_MISHAPS: [Mishap; 6] = [
    mishap(
        400,
        "Your prompt was flagged by Website as violating content policies.",
        2,
        400,
    ),
    mishap(
        400,
        "Failed to fetch the image. Kindly verify any access limits set by you or your service provider.",
        2,
        400,
    ),
    mishap(500, "Internal Error, Please try again later.", 2, 500),
    mishap(500, "Internal Error - Timeout", 2, 500),
    mishap(501, "Failed - Video generation task failed", 3, 501),
    mishap(
        422,
        "Your request was rejected by Flow(Your prompt was flagged by Website as violating content policies). You \
         may consider using our other fallback channels, which are likely to succeed. Please refer to the \
         documentation.",
        2,
        // The record knows no 422.
        400,
    ),
];
/// By the 4K callback page.
const UHD_MISHAPS: [Mishap; 1] = [mishap(
    500,
    "The 4K version of this video is unavailable. Please try a different video.",
    2,
    500,
)];
/// By the Market page.
const MARKET_MISHAPS: [Mishap; 1] = [mishap(501, "Playground task failed.", 3, 500)];

/// What is asked for.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) family: Family,
    /// The request as it came.
    pub(super) params: Value,
    pub(super) callback: Option<Url>,
    pub(super) cost: f64,
}

/// A task of the provider.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) family: Family,
    pub(super) params: Value,
    pub(super) cost: f64,
    /// The task itself, then what was asked for of it later.
    pub(super) parts: Vec<Part>,
}

/// A result on its own: the task's, or an upgrade.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) index: u32,
    pub(super) asked: Millis,
    /// When it is finished.
    pub(super) ready: Millis,
    /// What it comes to then.
    pub(super) mishap: Option<Mishap>,
    pub(super) callback: Callback,
}

/// What became of the callback of a part.
#[derive(Debug, Default)]
pub(super) struct Callback {
    pub(super) url: Option<Url>,
    pub(super) dropped: bool,
    /// Of each copy the answers in order, `None` where there was none.
    pub(super) copies: Vec<Copy>,
}

/// One copy of a callback.
#[derive(Debug, Default)]
pub(super) struct Copy {
    pub(super) answers: Vec<Option<u16>>,
    /// Nothing more is tried.
    pub(super) over: bool,
}

/// How far a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Generating,
    Succeeded,
    Failed(Mishap),
}

impl Part {
    pub(super) fn state(&self, now: Millis) -> State {
        match self.mishap {
            _ if now < self.ready => State::Generating,
            Some(mishap) => State::Failed(mishap),
            None => State::Succeeded,
        }
    }
}

impl Task {
    /// The task itself.
    pub(super) fn base(&self) -> &Part {
        &self.parts[0]
    }

    pub(super) fn part(&self, kind: Kind, index: u32) -> Option<&Part> {
        self.parts
            .iter()
            .find(|part| part.kind == kind && part.index == index)
    }

    /// Whether it is older than the provider keeps records and media.
    pub(super) fn is_past_keeping(&self, now: Millis) -> bool {
        now - self.base().asked > millis(DAYS_14)
    }

    /// The parameter under any of these names.
    pub(super) fn text(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.params[*name].as_str())
    }

    pub(super) fn is_portrait(&self) -> bool {
        let of_input = self.params["input"]["aspect_ratio"].as_str();
        self.text(&["aspect_ratio", "aspectRatio"]).or(of_input) == Some("9:16")
    }

    /// Whether its results are pictures.
    fn makes_stills(&self) -> bool {
        let model = self.text(&["model"]).unwrap_or_default();
        self.family == Family::Market
            && ["banana", "image", "flux"]
                .iter()
                .any(|word| model.contains(word))
    }

    pub(super) fn is_still(&self, file: FileId) -> bool {
        file.role == Role::Image || self.makes_stills()
    }

    /// The files of a role that a part has if it succeeds.
    pub(super) fn files(&self, part: &Part, role: Role, results: u32) -> Vec<FileId> {
        let count = match (part.kind, role) {
            (Kind::Video, Role::Result) => results,
            (Kind::Video, Role::Origin) if self.is_portrait() && self.family != Family::Market => results,
            (Kind::Video, Role::Full) if self.family == Family::Extend => results,
            (Kind::FullHd, Role::Result) | (Kind::Uhd, Role::Result | Role::Image) => 1,
            _ => 0,
        };
        let file = |n| FileId {
            task: self.number,
            kind: part.kind,
            index: part.index,
            role,
            n,
        };
        (0..count).map(file).collect()
    }
}

/// All tasks, and the account they are charged to.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) tasks: BTreeMap<u64, Task>,
    numbers: HashMap<String, u64>,
    made: u64,
    pub(super) credits: f64,
    /// Requests by endpoint.
    pub(super) requests: BTreeMap<String, u64>,
    /// Answers by body code.
    pub(super) answers: BTreeMap<u16, u64>,
}

/// How often the book is gone through for what is old enough to go.
const TIDY_EVERY: u64 = 256;

impl Book {
    pub(super) fn new(credits: f64) -> Self {
        Self {
            credits,
            ..Self::default()
        }
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Task> {
        self.tasks.get(self.numbers.get(id)?)
    }

    pub(super) fn by_id_mut(&mut self, id: &str) -> Option<&mut Task> {
        self.tasks.get_mut(self.numbers.get(id)?)
    }

    /// Takes an order whose cost is covered.
    pub(super) fn open(&mut self, order: Order, settings: &Settings, now: Millis) -> &Task {
        let number = self.made;
        self.made += 1;
        let dice = Dice::new(settings.seed);
        let digest = dice.digest(&format!("{number}|id"));
        let task = Task {
            number,
            // As live ids are: 32 hexadecimal digits.
            id: hex::encode(&digest[..16]),
            family: order.family,
            params: order.params,
            cost: order.cost,
            parts: Vec::new(),
        };
        self.numbers.insert(task.id.clone(), number);
        let task = self.tasks.entry(number).or_insert(task);
        let part = task.begin(Kind::Video, 0, settings, now);
        task.parts.last_mut().expect("just begun").callback.url = order.callback;
        // What fails costs nothing, by the generate page.
        if task.parts[part].mishap.is_none() {
            self.credits -= task.cost;
        }
        task
    }

    /// Whether it is time to look for what may go.
    pub(super) fn is_to_be_tidied(&self) -> bool {
        self.made.is_multiple_of(TIDY_EVERY)
    }

    /// Finished tasks go by age.
    pub(super) fn tidy(&mut self, keep: Duration, now: Millis) {
        let before = now.saturating_sub(millis(keep));
        let is_old = |task: &Task| task.parts.iter().all(|part| part.ready < before);
        self.tasks.retain(|_, task| !is_old(task));
        let tasks = &self.tasks;
        self.numbers.retain(|_, number| tasks.contains_key(number));
    }
}

impl Task {
    /// Begins another result; gives its place among the parts.
    pub(super) fn begin(&mut self, kind: Kind, index: u32, settings: &Settings, now: Millis) -> usize {
        let dice = Dice::new(settings.seed);
        let about = |what: &str| format!("{}-{index}-{what}", kind.as_str());
        let takes = dice.around(self.number, &about("takes"), settings.takes, settings.jitter);
        let mishaps: &[Mishap] = match (kind, self.family) {
            (Kind::Video, Family::Veo) => &VEO_MISHAPS,
            (Kind::Video, Family::Extend) => &VEO_MISHAPS[..5],
            (Kind::Video, Family::Market) => &MARKET_MISHAPS,
            (Kind::Uhd, _) => &UHD_MISHAPS,
            // No way for it to fail is documented.
            (Kind::FullHd, _) => &[],
        };
        let fails = !mishaps.is_empty() && dice.says(self.number, &about("fail"), settings.faults.fail);
        let mishap = fails.then(|| *dice.one_of(self.number, &about("mishap"), mishaps));
        self.parts.push(Part {
            kind,
            index,
            asked: now,
            ready: now + millis(takes),
            mishap,
            callback: Callback {
                dropped: dice.says(self.number, &about("drop"), settings.faults.drop),
                ..Callback::default()
            },
        });
        self.parts.len() - 1
    }

    /// What is told of a part that is finished.
    pub(super) fn finished(&self, part: &Part) -> Event {
        let (code, msg) = match part.mishap {
            Some(mishap) => (mishap.code, mishap.msg),
            None => (200, "success"),
        };
        Event::Finished {
            task_id: self.id.clone(),
            kind: part.kind,
            index: part.index,
            code,
            msg: msg.to_owned(),
        }
    }
}
