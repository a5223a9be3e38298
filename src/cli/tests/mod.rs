//! Tests of the commands, from the words typed to the words printed and the exit code.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;

use super::*;
use crate::config::Environment;

mod backfills;
mod local;
mod remote;
mod triggers;
mod waiting;

/// A command line and its surroundings.
struct Shell {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
    answers: Option<&'static str>,
}

/// How a command ended, with its words as plain text.
#[derive(Debug)]
struct Ended {
    exit: Exit,
    out: String,
    err: String,
}

impl Shell {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.toml"), "").unwrap();
        Self {
            directory,
            variables: Vec::new(),
            answers: None,
        }
    }

    fn config(self, text: &str) -> Self {
        std::fs::write(self.directory.path().join("config.toml"), text).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn answering(mut self, answers: &'static str) -> Self {
        self.answers = Some(answers);
        self
    }

    async fn run(&self, line: &str) -> Ended {
        rustls::crypto::ring::default_provider().install_default().ok();
        let cli = Cli::try_parse_from(std::iter::once("reelhook").chain(line.split_whitespace()))
            .unwrap_or_else(|error| panic!("{error}"));
        let (out, err) = (Stream::default(), Stream::default());
        let streams: [Box<dyn Write + Send>; 2] = [Box::new(out.clone()), Box::new(err.clone())];
        let config = cli
            .config
            .unwrap_or_else(|| self.directory.path().join("config.toml"));
        let environment = Environment::new(self.variables.clone());
        let mut session = Session::for_test(config, environment, streams, self.answers);
        let exit = cli.command.run(&mut session).await;
        Ended {
            exit,
            out: out.text(),
            err: err.text(),
        }
    }
}

#[derive(Clone, Default)]
struct Stream(Arc<Mutex<Vec<u8>>>);

impl Stream {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap().clone();
        anstream::adapter::strip_str(&String::from_utf8(bytes).unwrap()).to_string()
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server that answers by a script: the n-th request gets the n-th answer, the last one for good.
struct FakeServer {
    url: String,
    requests: Arc<Mutex<Vec<Seen>>>,
}

/// A request that came in.
#[derive(Debug, Clone)]
struct Seen {
    /// Method, path and query.
    line: String,
    authorization: Option<String>,
    signature: Option<String>,
    body: String,
}

impl FakeServer {
    async fn start(answers: Vec<(u16, &str)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answers: Arc<Vec<(u16, String)>> = Arc::new(
            answers
                .into_iter()
                .map(|(status, body)| (status, body.to_owned()))
                .collect(),
        );
        let seen = requests.clone();
        let app = Router::new().fallback(move |request: Request| {
            let (seen, answers) = (seen.clone(), answers.clone());
            async move { answer(request, &seen, &answers).await }
        });
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, requests }
    }

    fn seen(&self) -> Vec<Seen> {
        self.requests.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

async fn answer(request: Request, seen: &Mutex<Vec<Seen>>, answers: &[(u16, String)]) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let header = |name| {
        head.headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let request = Seen {
        line: format!("{} {}", head.method, head.uri),
        authorization: header("authorization"),
        signature: header("x-webhook-signature"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let mut seen = seen.lock().unwrap();
    let (status, body) = &answers[seen.len().min(answers.len() - 1)];
    seen.push(request);
    (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response()
}
