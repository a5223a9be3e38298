//! The port that certificate authorities ask (ACME, http-01). It answers them, and nobody else.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;

use super::problem::Problem;
use crate::tls::Challenges;

/// All that is served there.
///
/// No redirect to https for the rest: whoever sent a callback here has sent its token in the clear, and had better see
/// that fail than have it mended on each delivery.
pub fn challenge_router(challenges: Challenges) -> Router {
    Router::new()
        .route("/.well-known/acme-challenge/{token}", get(answer))
        .fallback(nothing_else)
        .with_state(challenges)
}

async fn answer(State(challenges): State<Challenges>, Path(token): Path<String>) -> Result<String, Problem> {
    challenges
        .answer(&token)
        .ok_or_else(|| Problem::not_found("no certificate is being asked for under this token"))
}

async fn nothing_else() -> Problem {
    Problem::not_found("this port answers certificate authorities only; use https")
}
