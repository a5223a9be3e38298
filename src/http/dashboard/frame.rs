//! What every page shows around its own content.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use url::Url;

use super::assets;
use super::theme::Theme;
use crate::clock::Millis;
use crate::http::App;
use crate::http::access::Granted;

/// Cookies of one name that are looked at; browsers send one or two.
const MAX_COOKIES: usize = 4;

/// What `templates/base.html` wants to know. Handlers take it as an argument and put it into the field `frame` of their
/// template.
#[derive(Debug)]
pub(super) struct Frame {
    /// What is looked at: the moment that everything relative is relative to.
    pub(super) now: Millis,
    /// Where style sheet and script are.
    pub(super) assets: &'static str,
    /// How it looks.
    pub(super) theme: Theme,
    /// Path and query of this page, to come back to.
    pub(super) here: String,
    /// What a form that led here has done.
    pub(super) notice: Option<Notice>,
    /// Whether there is a session to end.
    pub(super) signed_in: bool,
    /// The events that the page's script listens to. A page about one task asks for that one's only.
    pub(super) events: String,
    /// The last change that the page surely shows: its events go on from there.
    pub(super) seen: i64,
}

impl Frame {
    /// For a request that nobody has looked into.
    pub(super) fn of(app: &App, uri: &Uri, headers: &HeaderMap) -> Self {
        Self {
            now: app.clock.now(),
            assets: assets::base(),
            theme: Theme::of(headers),
            here: without_notice(uri),
            notice: Notice::of(uri),
            signed_in: false,
            events: "/v1/events".to_owned(),
            // Before anything is read: what comes later may be shown already, and is then told once more.
            seen: app.store.last_change(),
        }
    }

    /// Whether the page belongs to this entry of the navigation.
    pub(super) fn is_in(&self, section: &str) -> bool {
        let path = self.here.split('?').next().unwrap_or_default();
        path == section
            || (section != "/"
                && path
                    .strip_prefix(section)
                    .is_some_and(|rest| rest.starts_with('/')))
    }
}

impl FromRequestParts<App> for Frame {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let granted = parts.extensions.get::<Granted>();
        Ok(Self {
            signed_in: granted == Some(&Granted::Session),
            ..Self::of(app, &parts.uri, &parts.headers)
        })
    }
}

/// What a form has done, as a word in the query of the page it led to. There is no free text: nobody can make a link
/// that has us say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// Failed downloads are queued again.
    Retried,
    /// There was no failed download to queue.
    NothingToRetry,
    /// A task is gone.
    Deleted,
    /// A person settled a conflict.
    Accepted,
    /// A rejected delivery was judged again, and is good.
    Reverified,
    /// A rejected delivery was judged again, and is still none.
    StillRejected,
    /// A rejected delivery was believed on somebody's word, or judged again, and contradicts what stands.
    InConflict,
    /// The session is over.
    SignedOut,
}

impl Notice {
    const ALL: [Self; 8] = [
        Self::Retried,
        Self::NothingToRetry,
        Self::Deleted,
        Self::Accepted,
        Self::Reverified,
        Self::StillRejected,
        Self::InConflict,
        Self::SignedOut,
    ];

    fn of(uri: &Uri) -> Option<Self> {
        let query = uri.query()?;
        let (_, word) = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "notice")?;
        Self::ALL.into_iter().find(|notice| notice.word() == word)
    }

    /// As it stands in the query.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Retried => "retried",
            Self::NothingToRetry => "nothing_to_retry",
            Self::Deleted => "deleted",
            Self::Accepted => "accepted",
            Self::Reverified => "reverified",
            Self::StillRejected => "still_rejected",
            Self::InConflict => "in_conflict",
            Self::SignedOut => "signed_out",
        }
    }

    /// As a person reads it.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Retried => "The failed files are queued again, with fresh attempts.",
            Self::NothingToRetry => "There is no failed file to fetch again.",
            Self::Deleted => {
                "The task, its records and its files are gone. Late callbacks will not bring it back."
            }
            Self::Accepted => "This delivery is believed from now on.",
            Self::Reverified => "The delivery was judged again and is good now.",
            Self::StillRejected => {
                "The delivery was judged again and is still rejected; its reason says why."
            }
            Self::InConflict => "The delivery passed, and contradicts what stands: nothing was fetched.",
            Self::SignedOut => "You are signed out.",
        }
    }

    /// Whether it is what was hoped for.
    pub(super) fn is_good(self) -> bool {
        !matches!(
            self,
            Self::NothingToRetry | Self::StillRejected | Self::InConflict
        )
    }
}

/// Path and query of a page, without what a form said on the way.
fn without_notice(uri: &Uri) -> String {
    let Some(query) = uri.query() else {
        return uri.path().to_owned();
    };
    let rest: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.starts_with("notice="))
        .collect();
    if rest.is_empty() {
        return uri.path().to_owned();
    }
    format!("{}?{}", uri.path(), rest.join("&"))
}

/// A path of this server, made of what somebody says is one; `/` if it leads anywhere else. So no link of ours can be
/// turned into a redirect to a stranger.
pub(super) fn path_of_ours(text: &str) -> String {
    let base = Url::parse("http://ours.invalid/").expect("the constant is a URL");
    // Browsers take a backslash for a slash, and drop tabs and newlines.
    let is_plain = text.starts_with('/') && !text.contains(|c: char| c == '\\' || c.is_control());
    let ours = base
        .join(text)
        .ok()
        .filter(|url| is_plain && url.origin() == base.origin() && !url.path().starts_with("//"));
    let Some(url) = ours else {
        return "/".to_owned();
    };
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// The values of the cookies of a name, the first [`MAX_COOKIES`] of them.
pub(super) fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let pairs = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs
        .filter_map(move |pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
        .take(MAX_COOKIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_ours_are_led_to() {
        for path in [
            "/",
            "/tasks",
            "/tasks?state=failed&q=a%20b",
            "/tasks/a%2Fb?source=kie",
            "/a/b",
        ] {
            assert_eq!(path_of_ours(path), path);
        }
        for elsewhere in [
            "",
            "tasks",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example/",
            "/\t/evil.example",
            "/\n//evil.example",
            "javascript:alert(1)",
            "///evil.example",
            "/.//evil.example",
            "/a/..//evil.example",
            "@evil.example",
            "http:evil.example",
            " //evil.example",
        ] {
            assert_eq!(path_of_ours(elsewhere), "/", "{elsewhere:?}");
        }
    }

    #[test]
    fn cookies_are_found_by_their_whole_names_and_not_without_bound() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; b=2;a=3".parse().unwrap());
        headers.append(header::COOKIE, "aa=4; xa=5; a=6".parse().unwrap());
        assert_eq!(cookies(&headers, "a").collect::<Vec<_>>(), ["1", "3", "6"]);
        let many = "a=1; ".repeat(100);
        let headers = HeaderMap::from_iter([(header::COOKIE, many.parse().unwrap())]);
        assert_eq!(cookies(&headers, "a").count(), MAX_COOKIES);
    }

    #[test]
    fn notices_are_words_of_a_list_and_gone_from_where_one_comes_back_to() {
        let of = |uri: &str| Notice::of(&uri.parse().unwrap());
        for notice in Notice::ALL {
            assert_eq!(of(&format!("/tasks?a=b&notice={}", notice.word())), Some(notice));
        }
        assert_eq!(of("/tasks?notice=You+have+won"), None);
        let here = |uri: &str| without_notice(&uri.parse().unwrap());
        assert_eq!(here("/tasks?notice=retried"), "/tasks");
        assert_eq!(here("/tasks?a=b&notice=retried&c=d"), "/tasks?a=b&c=d");
    }
}
