//! Those who follow the events while callbacks are taken: on a thread of their own, like outsiders.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// What one who stalls lets the system take for him, in bytes.
const STALLED_BUFFER: u32 = 4096;

/// How many follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audience {
    /// All of them.
    pub(crate) readers: u16,
    /// Those of them who never read.
    pub(crate) stalled: u16,
}

/// What they heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) bytes: AtomicU64,
    pub(crate) events: AtomicU64,
}

impl Audience {
    /// Has them take their seats; returns once all have.
    pub(crate) async fn seat(self, addr: SocketAddr) -> anyhow::Result<Seated> {
        let (seated, all_seated) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let heard = Arc::<Heard>::default();
        let counts = Arc::clone(&heard);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let (mut stalled, mut readers) = (Vec::new(), JoinSet::new());
                for nth in 0..self.readers {
                    let stream = open(addr, nth < self.stalled).await?;
                    if nth < self.stalled {
                        stalled.push(stream);
                    } else {
                        readers.spawn(read(stream, Arc::clone(&counts)));
                    }
                }
                let _ = seated.send(());
                tokio::select! {
                    _ = ended => Ok(()),
                    broke = readers.join_next() => broke.context("there is nobody who reads")??,
                }
            })
        });
        // If they cannot, the end tells why.
        let _ = all_seated.await;
        Ok(Seated { end, thread, heard })
    }
}

/// An audience at its place.
pub(crate) struct Seated {
    end: oneshot::Sender<()>,
    thread: JoinHandle<anyhow::Result<()>>,
    heard: Arc<Heard>,
}

impl Seated {
    /// Sends them home; what they heard. An error if the server cut one off who reads.
    pub(crate) fn end(self) -> anyhow::Result<Arc<Heard>> {
        let _ = self.end.send(());
        self.thread.join().expect("readers do not panic")?;
        Ok(self.heard)
    }
}

/// A stream of events that is open.
async fn open(addr: SocketAddr, stalls: bool) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if stalls {
        socket.set_recv_buffer_size(STALLED_BUFFER)?;
    }
    let mut stream = socket.connect(addr).await?;
    stream
        .write_all(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        .await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    ensure!(head.ends_with(b" 200"), "somebody got no seat");
    Ok(stream)
}

/// Reads until it is told no more, which it ought to be.
async fn read(mut stream: TcpStream, heard: Arc<Heard>) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        ensure!(length > 0, "the server cut somebody off who reads");
        let ends = buffer[..length].windows(2).filter(|pair| pair == b"\n\n").count();
        heard.bytes.fetch_add(length as u64, Ordering::Relaxed);
        heard.events.fetch_add(ends as u64, Ordering::Relaxed);
    }
}
