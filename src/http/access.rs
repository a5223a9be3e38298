//! Who may use the API: a bearer token, or, where none is configured, only this machine. And who may read a file: whoever
//! has a link to it, too.

use std::net::IpAddr;

use axum::Extension;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::Deserialize;
use url::Url;

use super::App;
use super::listener::Peer;
use super::problem::{Path, Problem};
use crate::config::{Secret, is_loopback, names_loopback};
use crate::file_urls::{Closed, FileName};

/// Headers that only a proxy or tunnel adds: whoever sends them is not this machine.
const FORWARDING: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "via",
];

/// Lets a request through if it may use the API.
pub(super) async fn require(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let granted = check(&app, &peer, request.method(), request.headers())?;
    request.extensions_mut().insert(granted);
    Ok(next.run(request).await)
}

/// Lets anybody through where tokens decide what else there is to see; without any, only this machine.
pub(super) async fn require_local_without_tokens(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if app.tokens().is_empty() {
        require_local(peer.addr.ip(), request.headers())?;
    }
    Ok(next.run(request).await)
}

/// Lets a request for a file through if its URL is signed, or if it may use the API.
pub(super) async fn require_link_or_token(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Path((task_id, name)): Path<(String, String)>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    match link(&app, &request, (&task_id, &name)) {
        Some(Ok(())) => {}
        // Who may use the API may do so with an old link, too.
        Some(Err(problem)) if !is_known(&app, request.headers()) => return Err(problem),
        _ => drop(check(&app, &peer, request.method(), request.headers())?),
    }
    Ok(next.run(request).await)
}

/// Lets a request for a file through if its URL is signed: to all others there is no such route.
pub(super) async fn require_link(
    State(app): State<App>,
    Path((task_id, name)): Path<(String, String)>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let link = link(&app, &request, (&task_id, &name));
    link.ok_or_else(|| no_route(request.uri()))??;
    Ok(next.run(request).await)
}

/// The answer to a request for what is not there.
pub(super) fn no_route(uri: &Uri) -> Problem {
    Problem::not_found(format!("there is no route {}", uri.path()))
}

/// What the signature in the URL of a file is worth; `None` if the request has none, or would do more than read.
fn link(app: &App, request: &Request, (task_id, name): (&str, &str)) -> Option<Result<(), Problem>> {
    #[derive(Deserialize)]
    struct Signed {
        source: String,
        expires: String,
        signature: String,
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let Query(signed) = Query::<Signed>::try_from_uri(request.uri()).ok()?;
    let file = FileName {
        source: &signed.source,
        task_id,
        name,
    };
    let judged = app
        .file_urls
        .judge(file, (&signed.expires, &signed.signature), app.clock.now());
    Some(judged.map_err(|closed| match closed {
        Closed::Expired => Problem::new(
            StatusCode::FORBIDDEN,
            "link_expired",
            "this link has expired; ask again for the task, and its files come with fresh ones",
        ),
        Closed::Forged => Problem::new(
            StatusCode::FORBIDDEN,
            "bad_link",
            "this link is none that was given out; take it as it was given, with its whole query",
        ),
    }))
}

/// By what a request may use the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granted {
    /// It comes from this machine, and there are no tokens.
    Local,
    /// It has a token.
    Token,
    /// It has a session of the dashboard.
    Session,
}

fn check(app: &App, peer: &Peer, method: &Method, headers: &HeaderMap) -> Result<Granted, Problem> {
    let tokens = app.tokens();
    if tokens.is_empty() {
        return require_local(peer.addr.ip(), headers).map(|()| Granted::Local);
    }
    if bearer(headers).is_none() && has_session(app, headers) {
        // A browser adds its cookies to whatever any page has it send.
        if !method.is_safe() && Site::of(headers) != Site::Ours {
            return Err(cross_site());
        }
        return Ok(Granted::Session);
    }
    let presented = bearer(headers).ok_or_else(|| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "missing_token",
            "this route wants Authorization: Bearer with one of api.tokens",
        )
        .asking_for_bearer()
    })?;
    if !Secret::any_matches(&tokens, presented.as_bytes()) {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "bad_token",
            "the bearer token is none of api.tokens",
        )
        .asking_for_bearer());
    }
    Ok(Granted::Token)
}

/// Whether somebody says who he is, truly or not.
fn is_known(app: &App, headers: &HeaderMap) -> bool {
    bearer(headers).is_some() || has_session(app, headers)
}

/// Whether there is a session of the dashboard. Where that is switched off, there is none.
pub(super) fn has_session(app: &App, headers: &HeaderMap) -> bool {
    app.settings.dashboard && app.sessions().opens(headers, &app.tokens(), app.clock.now())
}

/// Keeps other sites from sending the forms of our pages, whoever's session, or machine, they would be sent from. A program
/// says nothing of sites.
pub(super) async fn require_own_site(request: Request, next: Next) -> Result<Response, Problem> {
    let headers = request.headers();
    if !request.method().is_safe() && bearer(headers).is_none() && Site::of(headers) == Site::Other {
        return Err(cross_site());
    }
    Ok(next.run(request).await)
}

fn cross_site() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "cross_site",
        "this comes from a page of another site, or does not say from which; use the dashboard's own pages, or a bearer token",
    )
}

/// From whose page a browser sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    Ours,
    Other,
    /// It does not say, as programs do not.
    Unsaid,
}

impl Site {
    /// By `Sec-Fetch-Site`, which browsers send over https and to this machine, else by `Origin`, which they send with
    /// every form.
    fn of(headers: &HeaderMap) -> Self {
        if let Some(site) = headers.get("sec-fetch-site") {
            return if site == "same-origin" {
                Self::Ours
            } else {
                Self::Other
            };
        }
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Self::Unsaid;
        };
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        match (authority, host) {
            (Some((_, authority)), Some(host)) if authority.eq_ignore_ascii_case(host) => Self::Ours,
            _ => Self::Other,
        }
    }
}

/// Whether the browser at the other end speaks https: with us, with a proxy that we trust, or with whatever stands at the
/// address that `public_url` names.
pub(super) fn came_by_https(app: &App, peer: &Peer, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let ip = peer.addr.ip().to_canonical();
    let is_trusted = app.settings.trusted_proxies.iter().any(|net| net.contains(&ip));
    // The last word is the trusted proxy's own.
    let forwarded = text("x-forwarded-proto").and_then(|list| list.rsplit(',').next());
    let forwarded = forwarded.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"));
    let public = app
        .settings
        .public_url
        .as_ref()
        .filter(|url| url.scheme() == "https");
    let is_public = public.is_some_and(|public| {
        let named = text("host").and_then(|host| Url::parse(&format!("https://{host}/")).ok());
        named.is_some_and(|named| named.origin() == public.origin())
    });
    peer.tls || (is_trusted && forwarded) || is_public
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Refuses whatever does not plainly come from this machine by its own name: a tunnel, a proxy, another site's page
/// in a browser here, a name that was rebound to loopback.
pub(super) fn require_local(peer: IpAddr, headers: &HeaderMap) -> Result<(), Problem> {
    let is_local = |url: &str| Url::parse(url).is_ok_and(|url| names_loopback(&url));
    let refuse = |what: &str| {
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "loopback_only",
            format!(
                "{what}, and without tokens or keys only this machine is served; set api.tokens and verify the source"
            ),
        ))
    };
    if !is_loopback(peer) {
        return refuse("the request comes from another machine");
    }
    if let Some(name) = FORWARDING.into_iter().find(|name| headers.contains_key(*name)) {
        return refuse(&format!("the request was forwarded ({name})"));
    }
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    if !host.is_some_and(|host| is_local(&format!("http://{host}/"))) {
        return refuse("the Host is not loopback");
    }
    let site = headers
        .get("sec-fetch-site")
        .map(|value| value.as_bytes().to_owned());
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return refuse("the request comes from another site");
    }
    let origin = headers
        .get(header::ORIGIN)
        .map(|value| value.to_str().unwrap_or_default());
    if origin.is_some_and(|origin| !is_local(origin)) {
        return refuse("the request comes from another site");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        require_local([127, 0, 0, 1].into(), &headers).is_ok()
    }

    #[test]
    fn a_request_is_of_our_site_only_if_the_browser_says_so() {
        let site = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().chain([&("host", "reel.example:8080")]);
            let headers = pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            Site::of(&headers.collect())
        };
        let own = "http://reel.example:8080";
        assert_eq!(site(&[]), Site::Unsaid);
        assert_eq!(site(&[("origin", own)]), Site::Ours);
        assert_eq!(
            site(&[("sec-fetch-site", "same-origin"), ("origin", "null")]),
            Site::Ours
        );
        for other in ["same-site", "cross-site", "none", ""] {
            assert_eq!(
                site(&[("sec-fetch-site", other), ("origin", own)]),
                Site::Other,
                "{other}"
            );
        }
        for other in [
            "null",
            "http://reel.example",
            "http://reel.example:8081",
            "http://evil.example:8080",
            "reel.example:8080",
            "",
        ] {
            assert_eq!(site(&[("origin", other)]), Site::Other, "{other}");
        }
    }

    #[test]
    fn a_peer_on_another_machine_is_kept_out_whatever_it_says() {
        let headers = HeaderMap::from_iter([(header::HOST, "localhost".parse().unwrap())]);
        let verdict = |peer: &str| require_local(peer.parse().unwrap(), &headers).is_ok();
        assert!(["127.0.0.1", "::1", "::ffff:127.0.0.1"].into_iter().all(verdict));
        assert!(
            !["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"]
                .into_iter()
                .any(verdict)
        );
    }

    #[test]
    fn this_machine_by_its_own_names_is_let_in() {
        for host in [
            "127.0.0.1:8080",
            "localhost:8080",
            "[::1]:8080",
            "127.1.2.3",
            "app.localhost",
        ] {
            assert!(verdict(&[("host", host)]), "{host}");
        }
        assert!(verdict(&[
            ("host", "localhost:8080"),
            ("sec-fetch-site", "same-origin")
        ]));
    }

    #[test]
    fn tunnels_and_other_sites_are_kept_out() {
        assert!(!verdict(&[]));
        assert!(!verdict(&[("host", "abc.ngrok.app")]));
        assert!(!verdict(&[("host", "localhost.evil.example")]));
        for name in FORWARDING {
            assert!(!verdict(&[("host", "localhost"), (name, "x")]), "{name}");
        }
        assert!(!verdict(&[
            ("host", "localhost"),
            ("sec-fetch-site", "cross-site")
        ]));
        assert!(!verdict(&[
            ("host", "localhost"),
            ("sec-fetch-site", "same-site")
        ]));
        assert!(!verdict(&[
            ("host", "localhost"),
            ("origin", "https://evil.example")
        ]));
        assert!(!verdict(&[("host", "localhost"), ("origin", "null")]));
    }
}
