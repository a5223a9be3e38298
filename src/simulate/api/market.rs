//! The Market endpoints.

use serde_json::Value;

use super::params::Query;
use super::{Outcome, Params, Refusal, Simulator, State, Success};
use crate::simulate::bodies;
use crate::simulate::tasks::Family;

/// Credits; live answers have shown fractions.
const COST: f64 = 40.75;

pub(super) async fn create(State(simulator): State<Simulator>, params: Params) -> Outcome {
    params.needed("model")?;
    if !params.0.get("input").is_some_and(Value::is_object) {
        return Err(Refusal::new(422, "input is required"));
    }
    simulator.accept(Family::Market, params, COST)
}

pub(super) async fn record_info(State(simulator): State<Simulator>, Query(params): Query) -> Outcome {
    let id = params.needed("taskId")?;
    let book = simulator.book();
    let known = book.by_id(id).filter(|task| task.family == Family::Market);
    // Both this and a null `data` were seen live.
    let task = known.ok_or_else(|| Refusal::new(422, "Record does not exist"))?;
    Ok(Success(bodies::market_record(&simulator, task)))
}
