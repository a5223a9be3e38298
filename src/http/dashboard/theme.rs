//! Light, dark, or as the system says: remembered in a cookie, so that the first byte of a page is right.

use axum::Form;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::frame::{cookies, path_of_ours};

const COOKIE: &str = "reelhook-theme";

/// What somebody chose to look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Theme {
    /// As the system says.
    #[default]
    Auto,
    /// Always light.
    Light,
    /// Always dark.
    Dark,
}

impl Theme {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match cookies(headers, COOKIE).next() {
            Some("light") => Self::Light,
            Some("dark") => Self::Dark,
            _ => Self::Auto,
        }
    }

    /// As the style sheet and the script know it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// What the switch leads to.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Auto => Self::Light,
            Self::Light => Self::Dark,
            Self::Dark => Self::Auto,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    theme: Theme,
    #[serde(default)]
    back: String,
}

/// Remembers a choice for a year. It needs no session: it changes nothing but how pages look to whoever made it.
pub(super) async fn choose(Form(choice): Form<Choice>) -> Response {
    let cookie = format!(
        "{COOKIE}={}; Path=/; Max-Age=31536000; SameSite=Lax; HttpOnly",
        choice.theme.word()
    );
    (
        [(header::SET_COOKIE, cookie)],
        Redirect::to(&path_of_ours(&choice.back)),
    )
        .into_response()
}
