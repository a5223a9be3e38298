//! A real S3 API in front of a directory, and in front of that whatever goes wrong on the way.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reelhook::config::Variables;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::RUNTIME;
use super::server::files_under;

/// What its one user is called, and what proves it.
pub(crate) const ACCESS_KEY: &str = "reelhook-tests";
pub(crate) const SECRET_KEY: &str = "the-secret-of-the-tests";

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    Put,
    Begin,
    Part,
    Complete,
    Abort,
    Get,
    Head,
    Delete,
}

impl Asked {
    fn of<B>(request: &Request<B>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let has = |word| query.split('&').any(|pair: &str| pair.starts_with(word));
        match *request.method() {
            Method::PUT if has("partNumber") => Self::Part,
            Method::PUT => Self::Put,
            Method::POST if has("uploads") => Self::Begin,
            Method::POST => Self::Complete,
            Method::DELETE if has("uploadId") => Self::Abort,
            Method::DELETE => Self::Delete,
            Method::HEAD => Self::Head,
            _ => Self::Get,
        }
    }
}

/// How a request fares.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Answered so, without being carried out.
    Status(u16),
    /// The connection is cut before it is carried out.
    Cut,
    /// It is carried out, and then the connection is cut.
    Lost,
}

#[derive(Default)]
struct Seen {
    faults: HashMap<Asked, VecDeque<Fault>>,
    /// Those that stay until they are lifted.
    lasting: HashMap<Asked, Fault>,
    asked: Vec<Asked>,
}

/// A bucket that is called `media`.
pub(crate) struct Bucket {
    pub(crate) addr: SocketAddr,
    root: TempDir,
    seen: Arc<Mutex<Seen>>,
}

impl Bucket {
    pub(crate) async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("media")).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let seen = Arc::<Mutex<Seen>>::default();
        let serve = serve(service.build(), seen.clone());
        let addr = RUNTIME.spawn(serve).await.unwrap();
        Self { addr, root, seen }
    }

    /// What a server is told by its environment.
    pub(crate) fn variables(&self, secret: &str) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_ENDPOINT_URL_S3", format!("http://{}", self.addr)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// The same for a server in this process.
    pub(crate) fn access(&self, secret: &str) -> Variables {
        let variables = self.variables(secret);
        Variables::new(variables.iter().map(|(name, value)| (*name, value.as_str())))
    }

    /// These faults for the next requests of that kind.
    pub(crate) fn fail(&self, asked: Asked, faults: impl IntoIterator<Item = Fault>) {
        let mut seen = self.seen.lock().unwrap();
        seen.faults.entry(asked).or_default().extend(faults);
    }

    /// This fault for all requests of that kind, or none.
    pub(crate) fn fail_always(&self, asked: Asked, fault: Option<Fault>) {
        let mut seen = self.seen.lock().unwrap();
        seen.lasting.remove(&asked);
        seen.lasting.extend(fault.map(|fault| (asked, fault)));
    }

    /// How many requests of that kind came.
    pub(crate) fn count(&self, asked: Asked) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.asked.iter().filter(|other| **other == asked).count()
    }

    /// The keys of all objects.
    pub(crate) fn objects(&self) -> Vec<String> {
        files_under(&self.root.path().join("media"))
    }

    /// The content of an object.
    pub(crate) fn content(&self, key: &str) -> Vec<u8> {
        std::fs::read(self.path_of(key)).unwrap()
    }

    /// Removes an object behind the server's back.
    pub(crate) fn lose(&self, key: &str) {
        std::fs::remove_file(self.path_of(key)).unwrap();
    }

    fn path_of(&self, key: &str) -> std::path::PathBuf {
        self.root.path().join("media").join(key)
    }

    /// What is kept of uploads that were neither completed nor aborted.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let names = top_level(self.root.path());
        names
            .into_iter()
            .filter(|name| name.starts_with(".upload"))
            .collect()
    }
}

fn top_level(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Serves from now on; where.
async fn serve(service: S3Service, seen: Arc<Mutex<Seen>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    RUNTIME.spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (service, seen) = (service.clone(), seen.clone());
            let answer = service_fn(move |request| answer(service.clone(), seen.clone(), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
            RUNTIME.spawn(async move { drop(connection.await) });
        }
    });
    addr
}

async fn answer(
    service: S3Service,
    seen: Arc<Mutex<Seen>>,
    request: Request<Incoming>,
) -> Result<Response<s3s::Body>, String> {
    let fault = {
        let mut seen = seen.lock().unwrap();
        let asked = Asked::of(&request);
        seen.asked.push(asked);
        let scripted = seen.faults.get_mut(&asked).and_then(VecDeque::pop_front);
        scripted.or_else(|| seen.lasting.get(&asked).copied())
    };
    match fault {
        Some(Fault::Status(status)) => {
            let body = s3s::Body::from(String::from("<Error><Code>Scripted</Code></Error>"));
            Ok(Response::builder().status(status).body(body).unwrap())
        }
        // An error of the service ends its connection.
        Some(Fault::Cut) => Err("cut".to_owned()),
        lost_or_none => {
            let request = request.map(s3s::Body::from);
            let answer = service
                .call(request)
                .await
                .map_err(|error| format!("{error:?}"))?;
            if lost_or_none.is_none() {
                return Ok(answer);
            }
            // Putting an object together goes on while its answer is sent.
            drop(BodyExt::collect(answer.into_body()).await);
            Err("lost".to_owned())
        }
    }
}
