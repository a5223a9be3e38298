//! The hosts that the announced files lie on.

use std::sync::LazyLock;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use anyhow::Context as _;

use crate::files::mp4;

/// The answer that brings the shortest video there is.
static ANSWER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let head =
        b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 700\r\nConnection: close\r\n\r\n";
    [head.as_slice(), &mp4(0, 700)].concat()
});

/// A host of files; it is there until it is dropped.
#[derive(Debug)]
pub(crate) struct MediaHost {
    pub(crate) port: u16,
    _accepting: JoinSet<()>,
}

impl MediaHost {
    /// Takes every connection and never says a word.
    ///
    /// The one download that the server is allowed then waits for ever, and all others stay queued. So the whole of ingest
    /// is measured, queueing included, and no fetching.
    pub(crate) async fn silent() -> anyhow::Result<Self> {
        let (listener, port) = listen().await?;
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        Ok(Self {
            port,
            _accepting: accepting,
        })
    }

    /// Answers every request with a tiny video.
    pub(crate) async fn giving() -> anyhow::Result<Self> {
        let (listener, port) = listen().await?;
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever goes away asks again.
                let _ = give(stream).await;
            }
        });
        Ok(Self {
            port,
            _accepting: accepting,
        })
    }
}

async fn listen() -> anyhow::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .context("no loopback port")?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

async fn give(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(&ANSWER).await?;
    stream.shutdown().await
}
