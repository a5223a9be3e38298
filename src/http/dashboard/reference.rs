//! `/docs`: the API for people, by its own description. It tells nothing secret, so nobody has to sign in.

use askama::Template;
use axum::response::Response;

use super::frame::Frame;
use super::page;
use crate::http::openapi::page::{Reference, Span};
use crate::http::problem::Problem;

#[derive(Template)]
#[template(path = "reference.html")]
struct Page {
    frame: Frame,
    reference: &'static Reference,
}

pub(super) async fn show(frame: Frame) -> Result<Response, Problem> {
    page(&Page {
        frame,
        reference: Reference::of(),
    })
}
