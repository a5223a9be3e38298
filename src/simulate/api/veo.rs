//! The Veo endpoints.

use serde_json::{Value, json};

use super::params::Query;
use super::{Outcome, Params, Refusal, Simulator, State, Success};
use crate::simulate::tasks::{Book, Family, Kind, Order, Part, Role, State as Progress, Task};
use crate::simulate::{Event, bodies};

/// Credits, chosen so that they come to fractions: the account page shows none for Veo that stayed the same.
const COST_4K: f64 = 120.0;
const COST_EXTEND: f64 = 60.5;

/// Answers of record-info to ids it does not know, and of its siblings to what is not there yet.
const UNKNOWN: &str = "record is null.";
const UNFINISHED: &str = "record status is not success.";
const NO_SUCH_RESULT: &str = "record result data not exist.";
const TOO_OLD: &str = "Temporarily supports records within 14 days.";

pub(super) async fn generate(State(simulator): State<Simulator>, params: Params) -> Outcome {
    params.needed("prompt")?;
    params.one_of("model", &["veo3", "veo3_fast", "veo3_lite"])?;
    for name in ["aspect_ratio", "aspectRatio"] {
        params.one_of(name, &["16:9", "9:16", "Auto"])?;
    }
    params.one_of("resolution", &["720p", "1080p", "4k"])?;
    params.seeds()?;
    if params
        .number("duration")?
        .is_some_and(|seconds| ![4, 6, 8].contains(&seconds))
    {
        return Err(Refusal::new(422, "duration must be one of 4, 6, 8"));
    }
    for name in ["enableFallback", "enableTranslation"] {
        params.flag(name)?;
    }
    params.text("watermark")?;
    images(&params)?;
    let cost = match params.text("model")? {
        Some("veo3") => 250.0,
        Some("veo3_lite") => 30.25,
        _ => 60.5,
    };
    simulator.accept(Family::Veo, params, cost)
}

/// One or two images, three as references, none for text.
fn images(params: &Params) -> Result<(), Refusal> {
    let types = [
        "TEXT_2_VIDEO",
        "FIRST_AND_LAST_FRAMES_2_VIDEO",
        "REFERENCE_2_VIDEO",
    ];
    params.one_of("generationType", &types)?;
    let permitted = match params.text("generationType")? {
        Some("TEXT_2_VIDEO") => 0..=0,
        Some("FIRST_AND_LAST_FRAMES_2_VIDEO") => 1..=2,
        Some("REFERENCE_2_VIDEO") => 1..=3,
        _ => 0..=3,
    };
    if permitted.contains(&params.images()?) {
        Ok(())
    } else {
        Err(Refusal::new(
            422,
            "the number of imageUrls does not fit generationType",
        ))
    }
}

pub(super) async fn extend(State(simulator): State<Simulator>, params: Params) -> Outcome {
    let original = params.needed("taskId")?.to_owned();
    params.needed("prompt")?;
    params.seeds()?;
    params.one_of("model", &["fast", "quality", "lite"])?;
    params.text("watermark")?;
    {
        let book = simulator.book();
        let task = book
            .by_id(&original)
            .ok_or_else(|| Refusal::new(404, "The original task does not exist."))?;
        simulator.finished_base(task)?;
        if task.parts.iter().any(|part| part.kind == Kind::FullHd) {
            return Err(Refusal::new(
                422,
                "Videos that were upgraded to 1080p cannot be extended.",
            ));
        }
    }
    simulator.accept(Family::Extend, params, COST_EXTEND)
}

pub(super) async fn record_info(State(simulator): State<Simulator>, Query(params): Query) -> Outcome {
    let id = params.needed("taskId")?;
    let book = simulator.book();
    let task = veo_task(&book, id)?;
    if task.is_past_keeping(simulator.0.clock.now()) {
        return Err(Refusal::new(422, TOO_OLD));
    }
    Ok(Success(bodies::veo_record(&simulator, task)))
}

/// Begins with the first request, and is told by a later one: there is no callback.
pub(super) async fn full_hd(State(simulator): State<Simulator>, Query(params): Query) -> Outcome {
    let id = params.needed("taskId")?;
    let index = params.number("index")?.unwrap_or_default();
    let mut book = simulator.book();
    let task = book.by_id_mut(id).ok_or_else(|| Refusal::new(422, UNKNOWN))?;
    simulator.upgradable(task, index)?;
    if task.part(Kind::FullHd, index).is_none() {
        simulator.begin(task, Kind::FullHd, index);
    }
    let part = task.part(Kind::FullHd, index).expect("just made sure of");
    if part.state(simulator.0.clock.now()) == Progress::Generating {
        return Err(Refusal::new(
            400,
            "1080P is processing. It should be ready in 1-2 minutes. Please check back shortly.",
        ));
    }
    let url = simulator.links(task, part, Role::Result).swap_remove(0);
    Ok(Success(json!({ "resultUrl": url })))
}

/// Ordered by the first request; any other is answered 422, whatever there is to tell.
pub(super) async fn uhd(State(simulator): State<Simulator>, params: Params) -> Outcome {
    let id = params.needed("taskId")?;
    let index = params.number("index")?.unwrap_or_default();
    let callback = params.callback()?;
    let mut book = simulator.book();
    let credits = book.credits;
    let task = book.by_id_mut(id).ok_or_else(|| Refusal::new(422, UNKNOWN))?;
    simulator.upgradable(task, index)?;
    if let Some(part) = task.part(Kind::Uhd, index) {
        let (code, msg, data) = bodies::repeated_upgrade(&simulator, task, part);
        let msg = msg.to_owned();
        return Err(Refusal { code, msg, data });
    }
    if credits < COST_4K {
        return Err(no_credits());
    }
    let part = simulator.begin(task, Kind::Uhd, index);
    part.callback.url = callback;
    let fails = part.mishap.is_some();
    if !fails {
        book.credits -= COST_4K;
    }
    Ok(Success(
        json!({ "taskId": id, "resultUrls": null, "imageUrls": null }),
    ))
}

/// What only Veo's own endpoints know.
fn veo_task<'b>(book: &'b Book, id: &str) -> Result<&'b Task, Refusal> {
    book.by_id(id)
        .filter(|task| task.family != Family::Market)
        .ok_or_else(|| Refusal::new(422, UNKNOWN))
}

/// The page names the code and no sentence.
fn no_credits() -> Refusal {
    Refusal::new(402, "Your account does not have enough credits. Please top up.")
}

impl Simulator {
    /// Makes a task of what was found in order, if the account can pay for it.
    pub(super) fn accept(&self, family: Family, params: Params, cost: f64) -> Outcome {
        let callback = params.callback()?;
        let order = Order {
            family,
            params: Value::Object(params.0),
            callback,
            cost,
        };
        let mut book = self.book();
        if book.credits < cost {
            return Err(no_credits());
        }
        let now = self.0.clock.now();
        if book.is_to_be_tidied() {
            book.tidy(self.0.settings.keep, now);
            self.0.films.keep(|task| book.tasks.contains_key(&task));
        }
        let task = book.open(order, &self.0.settings, now);
        self.0.timetable.await_part(task.base().ready, task.number, 0);
        self.tell(accepted(task, task.base()));
        Ok(Success(json!({ "taskId": task.id })))
    }

    fn begin<'t>(&self, task: &'t mut Task, kind: Kind, index: u32) -> &'t mut Part {
        let at = task.begin(kind, index, &self.0.settings, self.0.clock.now());
        self.0.timetable.await_part(task.parts[at].ready, task.number, at);
        self.tell(accepted(task, &task.parts[at]));
        &mut task.parts[at]
    }

    fn upgradable(&self, task: &Task, index: u32) -> Result<(), Refusal> {
        if task.family == Family::Market {
            return Err(Refusal::new(422, UNKNOWN));
        }
        self.finished_base(task)?;
        if index >= self.0.settings.results {
            return Err(Refusal::new(422, NO_SUCH_RESULT));
        }
        Ok(())
    }

    fn finished_base(&self, task: &Task) -> Result<(), Refusal> {
        match task.base().state(self.0.clock.now()) {
            Progress::Succeeded => Ok(()),
            _ => Err(Refusal::new(422, UNFINISHED)),
        }
    }
}

fn accepted(task: &Task, part: &Part) -> Event {
    Event::Accepted {
        task_id: task.id.clone(),
        family: task.family,
        kind: part.kind,
        index: part.index,
    }
}
