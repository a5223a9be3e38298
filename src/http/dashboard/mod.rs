//! The dashboard: pages rendered here, one style sheet and one small script, for people.
//!
//! Each page is an askama template that extends `templates/base.html` and holds a [`Frame`](frame::Frame). Its handler answers with
//! [`page`], or with a [`Problem`], which becomes a page, too. What a page shows of a moment, a size or a state it
//! shows by a type of [`show`]. `assets/dashboard/style.css` begins with the classes there are, and
//! `assets/dashboard/app.js` with the attributes it heeds.

use askama::Template;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::problem::Problem;
use super::{App, access};

mod assets;
mod deliveries;
mod delivery;
mod delivery_body;
mod frame;
mod login;
mod overview;
mod proof;
mod reference;
mod session;
mod setup;
mod show;
mod spark;
mod task;
mod tasks;
mod theme;
mod throttle;
mod told;
mod trouble;
mod trouble_list;

pub(super) use session::Sessions;
pub(super) use setup::Trials;
pub(super) use throttle::Throttle;
pub(super) use trouble::no_page;

use frame::Notice;
pub(crate) use proof::{Arrived, Proof};
pub(crate) use show::pretty;

/// What a page of ours may load and do. Nothing leaves the origin, and nothing that a page shows can run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Bytes of a form.
const MAX_FORM: usize = 16 * 1024;

/// All pages. Those behind [`access::require`] want a session, a token, or this machine.
pub(super) fn routes(app: &App) -> Router<App> {
    let pages = Router::new()
        .route("/", get(overview::show))
        .route("/setup", get(setup::show))
        .route("/setup/test", post(setup::test))
        .route("/tasks", get(tasks::show))
        .route("/tasks/{task_id}", get(task::show))
        .route("/tasks/{task_id}/retry", post(task::retry))
        .route("/tasks/{task_id}/delete", post(task::delete))
        .route("/deliveries", get(deliveries::list))
        .route("/deliveries/reverify", post(deliveries::reverify_all))
        .route("/deliveries/{id}", get(delivery::show))
        .route("/deliveries/{id}/accept", post(delivery::accept))
        .route("/deliveries/{id}/reverify", post(delivery::reverify))
        .method_not_allowed_fallback(super::method_not_allowed)
        .layer(from_fn_with_state(app.clone(), access::require));
    let open = Router::new()
        .route("/docs", get(reference::show))
        .route("/login", get(login::show).post(login::sign_in))
        .route("/logout", post(login::sign_out))
        .route("/theme", post(theme::choose))
        .method_not_allowed_fallback(super::method_not_allowed)
        .layer(from_fn_with_state(
            app.clone(),
            access::require_local_without_tokens,
        ));
    pages
        .merge(open)
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(from_fn(access::require_own_site))
        .layer(from_fn_with_state(app.clone(), trouble::as_page))
        .merge(assets::routes())
}

/// A page, under headers that keep it to itself.
fn page(template: &impl Template) -> Result<Response, Problem> {
    let html = template.render().map_err(|error| Problem::internal(&error))?;
    Ok((headers(), Html(html)).into_response())
}

/// The headers of every page.
fn headers() -> [(header::HeaderName, &'static str); 5] {
    [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: under that, browsers keep quiet towards us, too, about where a form was sent from.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        // Somebody else's window that opened this one cannot reach into it.
        (
            header::HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ]
}

/// After a form was carried out: on to a page of ours, which says so.
fn done(path: &str, notice: Notice) -> Response {
    let joint = if path.contains('?') { '&' } else { '?' };
    Redirect::to(&format!("{path}{joint}notice={}", notice.word())).into_response()
}
