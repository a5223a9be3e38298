//! What is recorded of a task, told the way the provider tells it.

use serde::Serialize;
use serde_json::json;

use crate::clock::{Millis, rfc3339};
use crate::provider::rules::State;
use crate::provider::{Kind, Role};
use crate::provider_api::Family;
use crate::store::tasks::{AskRecord, FileRecord, OutcomeRecord, TaskRecord};

/// The envelope of a success.
#[derive(Serialize)]
struct Success<T> {
    code: u16,
    msg: &'static str,
    data: T,
}

/// `data` of record-info, in the order of its page.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VeoRecord<'a> {
    task_id: &'a str,
    param_json: String,
    complete_time: Option<String>,
    response: Option<VeoResponse<'a>>,
    success_flag: u8,
    error_code: Option<i64>,
    error_message: Option<&'a str>,
    create_time: String,
    fallback_flag: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VeoResponse<'a> {
    task_id: &'a str,
    result_urls: Vec<String>,
    origin_urls: Option<Vec<String>>,
    full_result_urls: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_urls: Option<Vec<String>>,
    resolution: Option<&'a str>,
}

/// `data` of recordInfo, in the order of its page.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MarketRecord<'a> {
    task_id: &'a str,
    model: String,
    state: &'static str,
    param: String,
    result_json: Option<String>,
    fail_code: Option<String>,
    fail_msg: Option<&'a str>,
    cost_time: Option<i64>,
    complete_time: Option<Millis>,
    create_time: Millis,
}

/// A task as its record is told: one of its outcomes, with where its files are to be had.
pub(super) struct Told<'a> {
    task: &'a TaskRecord,
    outcome: Option<&'a OutcomeRecord>,
    url_of: &'a dyn Fn(&FileRecord) -> String,
}

impl<'a> Told<'a> {
    /// Tells of the task by the outcome that speaks for it.
    pub(super) fn of(task: &'a TaskRecord, url_of: &'a dyn Fn(&FileRecord) -> String) -> Self {
        Self {
            task,
            outcome: task.main_outcome(),
            url_of,
        }
    }

    /// Whether all that the provider could tell is known: the task itself (not only an upgrade that may go by its id) failed,
    /// or its files are known, and nothing of it waits for the provider's word.
    pub(super) fn is_known(&self) -> bool {
        let is_itself = |outcome: &OutcomeRecord| outcome.kind == Kind::video().as_str();
        let Some(outcome) = self.outcome.filter(|outcome| is_itself(outcome)) else {
            return false;
        };
        if self.awaits_word(outcome) {
            return false;
        }
        match outcome.state {
            State::Pending => false,
            State::Failed => !is_lost(outcome),
            State::Succeeded => {
                self.files().next().is_some() && self.files().all(|file| file.state != "held")
            }
        }
    }

    /// Whether the provider need not be asked: all is known, and the shape has a place for every file. Stills are recorded
    /// without the names of their fields, of which a Market job has several.
    pub(super) fn is_final(&self, shape: Family) -> bool {
        let is_result = |file: &FileRecord| file.role == Role::Result.as_str();
        let has_place = |file: &FileRecord| match shape {
            Family::Veo => true,
            Family::Market => is_result(file) || file.role == Role::Origin.as_str(),
        };
        let may_be_told = || self.files().any(is_result) && self.files().all(has_place);
        self.is_known() && (self.state() == State::Failed || may_be_told())
    }

    /// Whether the provider may yet say something else, or more.
    fn awaits_word(&self, outcome: &OutcomeRecord) -> bool {
        const REASONS: [&str; 5] = ["conflict", "full", "held", "stale", "unconfirmed"];
        let is_about = |ask: &&AskRecord| ask.kind == outcome.kind && ask.index == outcome.index;
        let mut asks = self.task.asks.iter().filter(is_about);
        asks.any(|ask| REASONS.contains(&ask.reason.as_str()))
    }

    /// The answer, in the shape of its endpoint.
    pub(super) fn json(&self, shape: Family) -> String {
        match shape {
            Family::Veo => success(self.veo()),
            Family::Market => success(self.market()),
        }
    }

    fn veo(&self) -> VeoRecord<'_> {
        let (state, outcome) = (self.state(), self.outcome);
        let failed = outcome.filter(|_| state == State::Failed);
        VeoRecord {
            task_id: &self.task.task_id,
            param_json: self.params(),
            complete_time: self.completed_at().map(plain_time),
            response: (state == State::Succeeded).then(|| VeoResponse {
                task_id: &self.task.task_id,
                result_urls: self.urls(Role::Result),
                origin_urls: self.any_urls(Role::Origin),
                full_result_urls: self.any_urls(Role::Full),
                image_urls: self.any_urls(Role::Image),
                resolution: outcome.and_then(|outcome| outcome.resolution.as_deref()),
            }),
            success_flag: match state {
                State::Pending => 0,
                State::Succeeded => 1,
                State::Failed => 2,
            },
            error_code: failed.map(error_code),
            error_message: match state {
                State::Failed => failed.and_then(|outcome| outcome.msg.as_deref()),
                State::Succeeded => Some(""),
                State::Pending => None,
            },
            create_time: plain_time(self.task.created_at),
            fallback_flag: outcome.and_then(|outcome| outcome.fallback).unwrap_or(false),
        }
    }

    fn market(&self) -> MarketRecord<'_> {
        let (state, outcome) = (self.state(), self.outcome);
        let failed = outcome.filter(|_| state == State::Failed);
        let completed = self.completed_at();
        MarketRecord {
            task_id: &self.task.task_id,
            model: self.model(),
            state: match state {
                State::Pending => "generating",
                State::Succeeded => "success",
                State::Failed => "fail",
            },
            param: self.params(),
            result_json: (state == State::Succeeded).then(|| self.result_json()),
            fail_code: failed.map(|outcome| error_code(outcome).to_string()),
            fail_msg: failed.and_then(|outcome| outcome.msg.as_deref()),
            // In seconds, as seen live.
            cost_time: completed.map(|at| at.saturating_sub(self.task.created_at) / 1000),
            complete_time: completed,
            create_time: self.task.created_at,
        }
    }

    fn result_json(&self) -> String {
        let mut result = json!({"resultUrls": self.urls(Role::Result)});
        if let Some(urls) = self.any_urls(Role::Origin) {
            result["resultWaterMarkUrls"] = json!(urls);
        }
        if let Some(urls) = self.any_urls(Role::Image) {
            result["imageUrls"] = json!(urls);
        }
        result.to_string()
    }

    fn state(&self) -> State {
        self.outcome.map_or(State::Pending, |outcome| outcome.state)
    }

    fn completed_at(&self) -> Option<Millis> {
        let ended = self.outcome.filter(|_| self.state() != State::Pending)?;
        Some(ended.received_at.unwrap_or(self.task.updated_at))
    }

    /// The request as it was made, else what of it the provider echoed.
    fn params(&self) -> String {
        match (&self.task.params, &self.task.prompt) {
            (Some(params), _) => params.clone(),
            (None, Some(prompt)) => json!({"prompt": prompt}).to_string(),
            (None, None) => "{}".to_owned(),
        }
    }

    fn model(&self) -> String {
        let params = self.task.params.as_deref();
        let params: Option<serde_json::Value> = params.and_then(|params| serde_json::from_str(params).ok());
        let model = params.as_ref().and_then(|params| params["model"].as_str());
        model.unwrap_or_default().to_owned()
    }

    fn files(&self) -> impl Iterator<Item = &'a FileRecord> {
        let outcome = self.outcome;
        self.task.files.iter().filter(move |file| {
            outcome.is_some_and(|outcome| file.kind == outcome.kind && file.index == outcome.index)
                && stands_for_a_file(file)
        })
    }

    fn urls(&self, role: Role) -> Vec<String> {
        let mut files: Vec<&FileRecord> = self.files().filter(|file| file.role == role.as_str()).collect();
        files.sort_by_key(|file| file.n);
        files.into_iter().map(self.url_of).collect()
    }

    fn any_urls(&self, role: Role) -> Option<Vec<String>> {
        Some(self.urls(role)).filter(|urls| !urls.is_empty())
    }
}

/// The answer that names one file, as get-1080p-video gives it.
pub(super) fn result_url(url: &str) -> String {
    success(json!({"resultUrl": url}))
}

/// The answer that is a link, as download-url gives it.
pub(super) fn link(url: &str) -> String {
    success(url)
}

/// The answer to a URL that is no file's.
pub(super) fn wrong_url() -> String {
    json!({"code": 422, "msg": "url is wrong", "data": null}).to_string()
}

/// The answer to a submission.
pub(super) fn accepted(task_id: &str) -> String {
    success(json!({"taskId": task_id}))
}

/// The kind of a task's 1080p version.
pub(super) fn is_1080p(file: &FileRecord, index: u32) -> bool {
    file.kind == Kind::full_hd().as_str()
        && file.index == i64::from(index)
        && file.role == Role::Result.as_str()
}

fn success<T: Serialize>(data: T) -> String {
    let answer = Success {
        code: 200,
        msg: "success",
        data,
    };
    serde_json::to_string(&answer).expect("the answer is plain data")
}

/// Entries that stand for URLs which were too long or too many, or that another delivery overruled, are none of its files.
fn stands_for_a_file(file: &FileRecord) -> bool {
    let code = file.error.as_ref().map(|(code, _)| code.as_str());
    !matches!(code, Some("too_many_files" | "url_too_long" | "superseded"))
}

/// Whether the failure is that nobody could tell what became of the task.
fn is_lost(outcome: &OutcomeRecord) -> bool {
    let failure = outcome.failure.as_deref();
    let failure: Option<serde_json::Value> = failure.and_then(|failure| serde_json::from_str(failure).ok());
    failure.is_some_and(|failure| failure["kind"] == "lost")
}

/// As record-info writes it: no zone, meant as UTC.
fn plain_time(at: Millis) -> String {
    rfc3339(at).chars().take(19).collect::<String>().replace('T', " ")
}

/// The code of a failure. A record that told of one came under the code 200.
fn error_code(outcome: &OutcomeRecord) -> i64 {
    const GENERATION_FAILED: i64 = 501;
    outcome
        .code
        .filter(|code| *code != 200)
        .unwrap_or(GENERATION_FAILED)
}
