//! `/tasks`: what there is, as posters or as a table.

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::frame::Frame;
use super::page;
use super::show::{Ago, Badge, Count};
use super::told::{Task, told};
use crate::http::App;
use crate::http::problem::Problem;
use crate::http::tasks::{ListQuery, filter};
use crate::http::views::{Seen, TaskView};

/// Tasks on a page.
const LIMIT: &str = "48";
const STATES: [&str; 3] = ["pending", "succeeded", "failed"];
const MEDIA: [&str; 6] = ["stored", "downloading", "queued", "partial", "failed", "none"];

#[derive(Template)]
#[template(path = "tasks.html")]
struct Page {
    frame: Frame,
    tasks: Vec<Task>,
    query: Asked,
    sources: Vec<String>,
    chips: Vec<Chip>,
    older: Option<String>,
    newest: Option<String>,
    /// The way to the other view.
    gallery: String,
    table: String,
    is_table: bool,
    not_indexed: Option<Count>,
}

/// What is looked for, by the names of the API, and how it is to be shown.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Asked {
    words: Option<String>,
    state: Option<String>,
    media: Option<String>,
    source: Option<String>,
    q: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
    view: Option<String>,
}

impl From<Asked> for ListQuery {
    fn from(asked: Asked) -> Self {
        Self {
            state: asked.state,
            media: asked.media,
            source: asked.source,
            q: asked.q,
            words: asked.words,
            since: asked.since,
            until: asked.until,
            limit: asked.limit,
            cursor: asked.cursor,
        }
    }
}

/// A filter that is set, and the way to the same page without it.
struct Chip {
    name: &'static str,
    value: String,
    without: String,
}

pub(super) async fn show(
    State(app): State<App>,
    query: Result<Query<Asked>, QueryRejection>,
    frame: Frame,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let query = tidied(query);
    let mut wanted = filter(query.clone().into())?;
    if query.limit.is_none() {
        wanted.limit = LIMIT.parse().expect("the constant is a number");
    }
    let page_of = app.store.list_tasks(&wanted).await?;
    let not_indexed = match wanted.words {
        Some(_) => Some(app.store.prompts_left().await?).filter(|left| *left > 0),
        None => None,
    };
    let seen = Seen::by(&app);
    let views: Vec<_> = page_of
        .items
        .iter()
        .map(|task| TaskView::of(task, &seen))
        .collect();
    let mut sources: Vec<String> = app.ingest.sources().keys().map(ToString::to_string).collect();
    if let Some(source) = query.source.clone().filter(|source| !sources.contains(source)) {
        sources.push(source);
    }
    page(&Page {
        frame,
        tasks: told(&app, &views)?,
        sources,
        chips: chips(&query),
        older: page_of.next.map(|next| {
            let older = Asked {
                cursor: Some(next.to_string()),
                ..query.clone()
            };
            href(&older)
        }),
        newest: query.cursor.is_some().then(|| {
            href(&Asked {
                cursor: None,
                ..query.clone()
            })
        }),
        gallery: href(&Asked {
            view: None,
            ..query.clone()
        }),
        table: href(&Asked {
            view: Some("table".to_owned()),
            ..query.clone()
        }),
        is_table: query.view.as_deref() == Some("table"),
        not_indexed: not_indexed.map(Count),
        query,
    })
}

#[expect(
    clippy::unused_self,
    clippy::trivially_copy_pass_by_ref,
    reason = "what templates call is a method, and they pass references"
)]
impl Page {
    fn ago(&self, at: &i64) -> Ago {
        Ago {
            at: *at,
            now: self.frame.now,
        }
    }

    /// What the form calls a moment: to the minute, in UTC.
    fn local(&self, moment: Option<&String>) -> String {
        let moment = moment.map(String::as_str).unwrap_or_default();
        moment.get(..16).unwrap_or_default().to_owned()
    }

    fn is(&self, set: Option<&String>, word: &str) -> bool {
        set.is_some_and(|set| set == word)
    }

    /// Whether the form's rarer fields are in use.
    fn has_more(&self) -> bool {
        let rare = [
            &self.query.q,
            &self.query.since,
            &self.query.until,
            &self.query.source,
        ];
        rare.iter().any(|value| value.is_some())
    }
}

/// A form sends what was left empty, and moments as people pick them.
fn tidied(query: Asked) -> Asked {
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let moment = |text: Option<String>| {
        given(text).map(|text| match text.len() {
            16 => format!("{text}:00Z"),
            _ => text,
        })
    };
    Asked {
        state: given(query.state),
        media: given(query.media),
        source: given(query.source),
        q: given(query.q),
        words: given(query.words),
        since: moment(query.since),
        until: moment(query.until),
        limit: given(query.limit),
        cursor: given(query.cursor),
        view: given(query.view),
    }
}

fn pairs(query: &Asked) -> [(&'static str, &Option<String>); 10] {
    [
        ("words", &query.words),
        ("state", &query.state),
        ("media", &query.media),
        ("source", &query.source),
        ("q", &query.q),
        ("since", &query.since),
        ("until", &query.until),
        ("limit", &query.limit),
        ("view", &query.view),
        ("cursor", &query.cursor),
    ]
}

fn href(query: &Asked) -> String {
    let mut out = Serializer::new(String::new());
    for (name, value) in pairs(query) {
        if let Some(value) = value {
            out.append_pair(name, value);
        }
    }
    let out = out.finish();
    if out.is_empty() {
        "/tasks".to_owned()
    } else {
        format!("/tasks?{out}")
    }
}

/// Each filter, with the way back to the first page without it.
fn chips(query: &Asked) -> Vec<Chip> {
    let first = Asked {
        cursor: None,
        ..query.clone()
    };
    let chip = |name: &'static str, said: &'static str, value: &Option<String>| {
        let mut rest = first.clone();
        match name {
            "words" => rest.words = None,
            "state" => rest.state = None,
            "media" => rest.media = None,
            "source" => rest.source = None,
            "q" => rest.q = None,
            "since" => rest.since = None,
            _ => rest.until = None,
        }
        Some(Chip {
            name: said,
            value: value.clone()?,
            without: href(&rest),
        })
    };
    [
        chip("words", "words", &query.words),
        chip("state", "state", &query.state),
        chip("media", "files", &query.media),
        chip("source", "source", &query.source),
        chip("q", "id", &query.q),
        chip("since", "since", &query.since),
        chip("until", "until", &query.until),
    ]
    .into_iter()
    .flatten()
    .collect()
}
