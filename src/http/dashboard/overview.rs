//! `/`: whether it works, and what failed.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::frame::Frame;
use super::page;
use super::show::{Bytes, Count};
use crate::http::App;
use crate::http::problem::Problem;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    tasks: Vec<(String, Count)>,
    stored: Bytes,
}

pub(super) async fn show(State(app): State<App>, frame: Frame) -> Result<Response, Problem> {
    let counts = app.store.counts().await?;
    page(&Overview {
        frame,
        tasks: counts
            .tasks
            .into_iter()
            .map(|(state, count)| (state, Count(count)))
            .collect(),
        stored: Bytes(counts.stored_bytes),
    })
}
