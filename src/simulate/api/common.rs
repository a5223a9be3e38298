//! What all families share: fresh links and the account.

use serde_json::json;

use super::{Outcome, Params, Refusal, Simulator, State, Success};

/// A fresh link, whether the old one still opens or not.
pub(super) async fn download_url(State(simulator): State<Simulator>, params: Params) -> Outcome {
    let url = params.needed("url")?;
    let fresh = simulator.fresh_link(url);
    let fresh = fresh.ok_or_else(|| Refusal::new(422, "url is wrong"))?;
    Ok(Success(json!(fresh)))
}

/// A float, whatever the documentation says.
pub(super) async fn credit(State(simulator): State<Simulator>) -> Outcome {
    Ok(Success(json!(simulator.book().credits)))
}
