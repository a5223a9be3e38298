//! `/login` and `/logout`.

use std::borrow::Cow;
use std::time::Instant;

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::frame::{Frame, Notice, path_of_ours};
use super::{done, page, session};
use crate::config::Secret;
use crate::http::App;
use crate::http::access;
use crate::http::client_addr::client_addr;
use crate::http::listener::Peer;
use crate::http::problem::Problem;

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    frame: Frame,
    next: String,
    wrong: Option<Cow<'static, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    next: String,
}

#[derive(Deserialize)]
pub(super) struct Presented {
    token: String,
    #[serde(default)]
    next: String,
}

/// The form, for those who need one.
pub(super) async fn show(
    State(app): State<App>,
    frame: Frame,
    Query(Asked { next }): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let next = path_of_ours(&next);
    if app.tokens().is_empty() || access::has_session(&app, &headers) {
        return Ok(Redirect::to(&next).into_response());
    }
    page(&Login {
        frame,
        next,
        wrong: None,
    })
}

/// Begins a session with a token, and goes on to where somebody wanted to go.
pub(super) async fn sign_in(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    frame: Frame,
    headers: HeaderMap,
    Form(presented): Form<Presented>,
) -> Result<Response, Problem> {
    let next = path_of_ours(&presented.next);
    let tokens = app.tokens();
    if tokens.is_empty() {
        return Ok(Redirect::to(&next).into_response());
    }
    let from = client_addr(peer.addr.ip(), &headers, &app.settings.trusted_proxies);
    let (throttle, now) = (app.throttle(), Instant::now());
    let matching = matching(&tokens, presented.token.trim());
    // Strangers who try from everywhere keep nobody out who has a token.
    let wait = match matching {
        Some(_) => throttle.wait_of_network(from, now),
        None => throttle.wait(from, now),
    };
    if let Some(wait) = wait {
        let seconds = wait.as_secs() + 1;
        let wrong = format!("Too many attempts failed. Wait {seconds} seconds, then try again.");
        let form = refuse(StatusCode::TOO_MANY_REQUESTS, frame, next, wrong.into())?;
        return Ok(([(header::RETRY_AFTER, seconds.to_string())], form).into_response());
    }
    let Some(token) = matching else {
        throttle.note(from, now);
        tracing::warn!(%from, "somebody tried to sign in to the dashboard with a wrong token");
        let wrong = "That is none of api.tokens. A session wants one of them, whole.";
        return refuse(StatusCode::UNAUTHORIZED, frame, next, wrong.into());
    };
    let cookie = app.sessions().begin(
        token,
        app.clock.now(),
        access::came_by_https(&app, &peer, &headers),
    );
    tracing::info!(%from, "somebody signed in to the dashboard");
    Ok(([(session::SET, cookie)], Redirect::to(&next)).into_response())
}

/// The token that was presented. All are compared, so that the time taken does not tell which one was close.
fn matching<'t>(tokens: &'t [Secret], presented: &str) -> Option<&'t Secret> {
    let matching = tokens.iter().filter(|token| token.matches(presented.as_bytes()));
    matching.fold(None, |_, token| Some(token))
}

fn refuse(
    status: StatusCode,
    frame: Frame,
    next: String,
    wrong: Cow<'static, str>,
) -> Result<Response, Problem> {
    let wrong = Some(wrong);
    let mut form = page(&Login { frame, next, wrong })?;
    *form.status_mut() = status;
    Ok(form)
}

/// Has the browser forget its session.
pub(super) async fn sign_out() -> Response {
    let mut response = done("/login", Notice::SignedOut);
    for cookie in session::end() {
        response.headers_mut().append(session::SET, cookie);
    }
    response
}
