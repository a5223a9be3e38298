//! Errors as pages: what the API says as a problem document, a person reads here.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use super::frame::Frame;
use super::page;
use crate::http::App;
use crate::http::access;
use crate::http::problem::Told;

#[derive(Template)]
#[template(path = "trouble.html")]
struct Trouble {
    frame: Frame,
    title: &'static str,
    told: Told,
}

#[derive(Template)]
#[template(path = "once_more.html")]
struct OnceMore {
    frame: Frame,
}

/// Turns the problems of the pages behind it into pages, and those about a missing token into the way to the login.
pub(super) async fn as_page(State(app): State<App>, request: Request, next: Next) -> Response {
    let (method, frame) = (
        request.method().clone(),
        Frame::of(&app, request.uri(), request.headers()),
    );
    let from_elsewhere = request
        .headers()
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site");
    let mut response = next.run(request).await;
    let Some(told) = response.extensions_mut().remove::<Told>() else {
        return without_secrets(&app, response).await;
    };
    if told.status == StatusCode::UNAUTHORIZED {
        if from_elsewhere && method == Method::GET {
            return once_more(frame);
        }
        // What a form would have done is not done later, behind the back of whoever signs in.
        let next = if method == Method::GET {
            frame.here.as_str()
        } else {
            "/"
        };
        let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        return Redirect::to(&format!("/login?next={next}")).into_response();
    }
    let allow = response.headers_mut().remove(header::ALLOW);
    let mut response = without_secrets(&app, told_as_page(frame, told)).await;
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// What a page says that shows one of our secrets on purpose.
#[derive(Debug, Clone, Copy)]
pub(super) struct MayTell;

/// A page as it may be seen: what providers say holds callback URLs, and with them tokens.
async fn without_secrets(app: &App, response: Response) -> Response {
    let is_page = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if !is_page || response.extensions().get::<MayTell>().is_some() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // It was rendered into memory, whole.
    let Ok(html) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let html = match std::str::from_utf8(&html).map(|text| app.redactor().text(text).into_owned()) {
        Ok(clean) => clean.into_bytes().into(),
        Err(_) => html,
    };
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, html.into())
}

/// Who follows a link from elsewhere comes without the cookie that he may have (`SameSite=Strict`). From a page of ours it
/// is sent.
fn once_more(frame: Frame) -> Response {
    page(&OnceMore { frame }).unwrap_or_else(IntoResponse::into_response)
}

fn told_as_page(frame: Frame, told: Told) -> Response {
    let title = match told.status {
        StatusCode::NOT_FOUND => "Nothing here",
        StatusCode::FORBIDDEN => "Not from here",
        StatusCode::CONFLICT if told.code == "ambiguous_source" => "More than one",
        StatusCode::CONFLICT => "Not as it stands",
        status if status.is_client_error() => "That was not understood",
        _ => "Something failed",
    };
    let status = told.status;
    match page(&Trouble { frame, title, told }) {
        Ok(mut response) => {
            *response.status_mut() = status;
            response
        }
        Err(problem) => problem.into_response(),
    }
}

/// The answer where there is no route: to a browser that looks for a page, a page.
pub(in crate::http) async fn no_page(State(app): State<App>, uri: Uri, headers: HeaderMap) -> Response {
    let mut response = access::no_route(&uri).into_response();
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if !accepted.is_some_and(|accepted| accepted.contains("text/html")) {
        return response;
    }
    match response.extensions_mut().remove::<Told>() {
        Some(told) => told_as_page(Frame::of(&app, &uri, &headers), told),
        None => response,
    }
}
