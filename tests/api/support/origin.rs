//! A host of files that is scripted to the byte: it says what no HTTP library would, and breaks off where it is told to.
//!
//! [`Cdn`](super::Cdn) is the one to take where a file is just to be had.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::RUNTIME;

/// A moment long before any test.
pub(crate) const LONG_AGO: &str = "Sun, 01 Mar 2026 10:00:00 GMT";

/// A file as it is at some time, and by what that version can be told from others.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) content: Arc<Vec<u8>>,
    /// As it stands in the header, quotes included.
    pub(crate) etag: Option<&'static str>,
    pub(crate) last_modified: Option<&'static str>,
}

impl Version {
    /// One with a strong tag.
    pub(crate) fn tagged(etag: &'static str, content: Vec<u8>) -> Self {
        Self {
            etag: Some(etag),
            ..Self::bare(content)
        }
    }

    /// One that nothing tells from others.
    pub(crate) fn bare(content: Vec<u8>) -> Self {
        Self {
            content: Arc::new(content),
            etag: None,
            last_modified: None,
        }
    }

    pub(crate) fn modified(self, last_modified: &'static str) -> Self {
        Self {
            last_modified: Some(last_modified),
            ..self
        }
    }

    pub(crate) fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&*self.content))
    }

    fn lines(&self) -> String {
        let etag = self.etag.map(|etag| format!("ETag: {etag}\r\n"));
        let modified = self
            .last_modified
            .map(|modified| format!("Last-Modified: {modified}\r\n"));
        etag.unwrap_or_default() + &modified.unwrap_or_default()
    }

    /// Whether `If-Range` names this version, as a server has to see it (RFC 9110, section 13.1.5).
    fn is_meant(&self, if_range: Option<&str>) -> bool {
        let strong = self.etag.filter(|etag| etag.starts_with('"'));
        if_range.is_none_or(|wanted| Some(wanted) == strong || Some(wanted) == self.last_modified)
    }
}

/// A request that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Where the range begins that it asks for.
    pub(crate) fn from(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        Some(range.strip_suffix('-')?.parse().expect("a number"))
    }
}

/// What becomes of the connection once an answer was given as far as it was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It waits for the next request.
    Stay,
    /// It is closed in an orderly way.
    Fin,
    /// It is broken.
    Reset,
    /// It stays and says no more, if anything is left to be said.
    Silence,
    /// What is left comes a byte at a time, with a pause after each.
    Drip(Duration),
}

type Answer = Arc<dyn Fn(&Asked) -> (String, Vec<u8>) + Send + Sync>;

/// How one request is answered.
#[derive(Clone)]
pub(crate) struct Reply {
    /// Head without the empty line, and body.
    answer: Answer,
    /// So much of the body is sent.
    most: usize,
    then: Then,
}

impl Reply {
    /// Any answer at all; the head ends each of its lines in CR LF.
    pub(crate) fn to(answer: impl Fn(&Asked) -> (String, Vec<u8>) + Send + Sync + 'static) -> Self {
        Self {
            answer: Arc::new(answer),
            most: usize::MAX,
            then: Then::Stay,
        }
    }

    /// Whatever was asked.
    pub(crate) fn raw(head: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let (head, body) = (head.into(), body.into());
        Self::to(move |_| (head.clone(), body.clone()))
    }

    /// A status without a file; `lines` end in CR LF.
    pub(crate) fn status(status: u16, lines: &str) -> Self {
        let body = "no file here";
        let length = body.len();
        Self::raw(
            format!("HTTP/1.1 {status} Something\r\n{lines}Content-Length: {length}\r\n"),
            body,
        )
    }

    /// A redirect.
    pub(crate) fn found(location: &str) -> Self {
        Self::status(302, &format!("Location: {location}\r\n"))
    }

    /// The file as a good server gives it: the range that was asked for if `If-Range` allows, else the whole.
    pub(crate) fn of(version: &Version) -> Self {
        let version = version.clone();
        Self::to(move |asked| match asked.from() {
            Some(from) if version.is_meant(asked.header("if-range")) => {
                if from < version.content.len() {
                    part(&version, from, version.content.len())
                } else {
                    let length = version.content.len();
                    let head = format!(
                        "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{length}\r\nContent-Length: 0\r\n"
                    );
                    (head, Vec::new())
                }
            }
            _ => whole(&version),
        })
    }

    /// The whole file, whatever was asked.
    pub(crate) fn whole(version: &Version) -> Self {
        let version = version.clone();
        Self::to(move |_| whole(&version))
    }

    /// 206 whatever `If-Range` says, with `range` made of where the range begins. A plain request is
    /// put off.
    pub(crate) fn part_as(
        version: &Version,
        range: impl Fn(usize) -> String + Send + Sync + 'static,
    ) -> Self {
        let version = version.clone();
        Self::to(move |asked| {
            let Some(from) = asked.from() else {
                return (
                    "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n".to_owned(),
                    Vec::new(),
                );
            };
            let (head, body) = part(
                &version,
                from.min(version.content.len() - 1),
                version.content.len(),
            );
            let lines = head.split_inclusive("\r\n").map(|line| {
                if line.starts_with("Content-Range") {
                    format!("Content-Range: {}\r\n", range(from))
                } else {
                    line.to_owned()
                }
            });
            (lines.collect(), body)
        })
    }

    /// The file in chunks, without a length; whole, whatever was asked. If it is cut, the last chunk never comes.
    pub(crate) fn chunked(version: &Version) -> Self {
        let version = version.clone();
        Self::to(move |_| {
            let mut body = Vec::new();
            for piece in version.content.chunks(1000) {
                body.extend(format!("{:x}\r\n", piece.len()).into_bytes());
                body.extend_from_slice(piece);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let lines = version.lines();
            (
                format!("HTTP/1.1 200 OK\r\n{lines}Transfer-Encoding: chunked\r\n"),
                body,
            )
        })
    }

    /// The same with something in the head replaced, which must be there.
    pub(crate) fn but(self, from: impl Into<String>, to: impl Into<String>) -> Self {
        let (answer, from, to) = (self.answer, from.into(), to.into());
        let answer = move |asked: &Asked| {
            let (head, body) = answer(asked);
            assert!(head.contains(&from), "{from} is not in {head}");
            (head.replace(&from, &to), body)
        };
        Self {
            answer: Arc::new(answer),
            ..self
        }
    }

    /// So many bytes of the body, and then that.
    pub(crate) fn until(self, most: usize, then: Then) -> Self {
        Self { most, then, ..self }
    }

    /// All of it, and then that.
    pub(crate) fn then(self, then: Then) -> Self {
        self.until(usize::MAX, then)
    }
}

fn whole(version: &Version) -> (String, Vec<u8>) {
    let (length, lines) = (version.content.len(), version.lines());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n{lines}Content-Length: {length}\r\n");
    (head, version.content.to_vec())
}

fn part(version: &Version, from: usize, to: usize) -> (String, Vec<u8>) {
    let (total, lines) = (version.content.len(), version.lines());
    let body = version.content[from..to].to_vec();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Type: video/mp4\r\n{lines}Content-Range: bytes {from}-{}/{total}\r\n\
         Content-Length: {}\r\n",
        to - 1,
        body.len()
    );
    (head, body)
}

#[derive(Default)]
struct Shared {
    replies: Mutex<HashMap<String, VecDeque<Reply>>>,
    asked: Mutex<Vec<Asked>>,
}

/// The host. Dropping it leaves its listener to the end of the tests.
pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        Self::on("127.0.0.1").await
    }

    /// On another address of loopback.
    pub(crate) async fn on(host: &str) -> Self {
        let shared = Arc::<Shared>::default();
        let (address, known) = (format!("{host}:0"), Arc::clone(&shared));
        let addr = RUNTIME
            .spawn(async move {
                let listener = TcpListener::bind(address).await.unwrap();
                let addr = listener.local_addr().unwrap();
                RUNTIME.spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        // Whoever goes away comes again.
                        RUNTIME.spawn(serve(stream, Arc::clone(&known)));
                    }
                });
                addr
            })
            .await
            .unwrap();
        Self { addr, shared }
    }

    /// Answers for this path, one after the other; the last one stays. Returns the URL.
    pub(crate) fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) -> String {
        let replies = replies.into_iter().collect();
        self.shared
            .replies
            .lock()
            .unwrap()
            .insert(path.to_owned(), replies);
        format!("http://{}{path}", self.addr)
    }

    /// The requests for this path, in the order in which they came.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let all = self.shared.asked.lock().unwrap();
        all.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// Where the requests for this path wanted the file to begin.
    pub(crate) fn ranges(&self, path: &str) -> Vec<Option<usize>> {
        self.asked(path).iter().map(Asked::from).collect()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let asked = parsed(&String::from_utf8_lossy(&read));
        read.clear();
        let reply = shared.next(asked.path.as_str());
        let (head, body) = (reply.answer)(&asked);
        // Before the answer: who has got that finds this.
        shared.asked.lock().unwrap().push(asked);
        let (now, later) = body.split_at(reply.most.min(body.len()));
        // In one piece: of two, the second may still wait for the first to be acknowledged when a reset throws it away.
        stream
            .write_all(&[format!("{head}\r\n").as_bytes(), now].concat())
            .await?;
        match reply.then {
            Then::Stay => {}
            // The next request may come on this connection.
            Then::Silence if later.is_empty() => {}
            Then::Fin => return stream.shutdown().await,
            Then::Reset => return stream.set_zero_linger(),
            Then::Silence => while stream.read_buf(&mut read).await? > 0 {},
            Then::Drip(pause) => {
                for byte in later {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

impl Shared {
    fn next(&self, path: &str) -> Reply {
        let mut all = self.replies.lock().unwrap();
        let reply = match all.get_mut(path) {
            Some(replies) if replies.len() > 1 => replies.pop_front(),
            Some(replies) => replies.front().cloned(),
            None => None,
        };
        reply.unwrap_or_else(|| Reply::status(404, ""))
    }
}

fn parsed(head: &str) -> Asked {
    let mut lines = head.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1));
    let headers = lines.filter_map(|line| line.split_once(':'));
    Asked {
        path: path.unwrap_or_default().to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
    }
}
