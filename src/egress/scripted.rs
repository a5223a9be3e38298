//! Real peers for tests: a server that answers with scripted bytes, and a trap that must never be connected to.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::shutdown::Tasks;

/// What a scripted server does with one request.
pub(crate) enum Answer {
    /// Writes the bytes and closes the connection.
    Bytes(Vec<u8>),
    /// Writes the bytes and then neither writes nor closes.
    Stall(Vec<u8>),
}

impl Answer {
    /// A whole answer with its length.
    pub(crate) fn whole(status: &str, headers: &str, body: &[u8]) -> Self {
        let length = body.len();
        Self::raw(
            &format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"),
            body,
        )
    }

    /// A head as it stands and a body that need not fit it.
    pub(crate) fn raw(head: &str, body: &[u8]) -> Self {
        Self::Bytes([head.as_bytes(), body].concat())
    }

    /// A redirect.
    pub(crate) fn redirect(location: &str) -> Self {
        Self::whole("302 Found", &format!("location: {location}\r\n"), b"")
    }
}

/// A server on 127.0.0.1 that answers each path as the script says and keeps the heads of the requests.
pub(crate) struct ScriptedServer {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: Tasks,
}

impl ScriptedServer {
    pub(crate) async fn start(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (tasks, script, kept) = (Tasks::new(), Arc::new(script), Arc::clone(&heads));
        let spawner = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, kept) = (Arc::clone(&script), Arc::clone(&kept));
                spawner.spawn(async move { serve(stream, &*script, &kept).await });
            }
        });
        Self {
            address,
            heads,
            _tasks: tasks,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads of all requests so far, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &(impl Fn(&str) -> Answer + Send + Sync),
    kept: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    kept.lock().unwrap().push(head.to_lowercase());
    match script(&path) {
        Answer::Bytes(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Answer::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            std::future::pending().await
        }
    }
}

/// A listener that nobody may connect to. The kernel accepts connections on its behalf, so none can go unnoticed.
pub(crate) struct Trap {
    listener: StdListener,
}

impl Trap {
    pub(crate) fn set(address: &str) -> Self {
        let listener = StdListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub(crate) fn assert_untouched(&self) {
        match self.listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => panic!("a packet left: {other:?}"),
        }
    }
}
