//! What outsiders do to a server while it takes good callbacks: on a thread of its own, so that the load that is measured
//! has its own.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::rig::callback::Callbacks;
use crate::wire::Connection;

/// What neither server verifies with.
const WRONG_KEY: &str = "some-other-key-0123456789";

/// Sockets that hold the server up.
const SLOW: usize = 900;
/// Connections on which badly signed callbacks come as fast as they are refused.
const FLOODING: u8 = 64;

/// A kind of outsiders.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outsiders {
    /// A third say nothing, a third half a head, a third all of a callback but its last byte.
    Slow,
    /// A flood of bad signatures from one address.
    FloodOfOne,
    /// A flood of bad signatures from as many networks as connections.
    FloodOfMany,
}

impl Outsiders {
    pub(crate) const ALL: [Self; 3] = [Self::Slow, Self::FloodOfOne, Self::FloodOfMany];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Slow => format!("{SLOW} slow sockets"),
            Self::FloodOfOne => "bad signatures, one address".to_owned(),
            Self::FloodOfMany => format!("bad signatures, {FLOODING} networks"),
        }
    }

    /// Begins; what they do, they do until the end.
    pub(crate) fn besiege(self, addr: SocketAddr) -> anyhow::Result<Siege> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let mut peers = JoinSet::new();
                match self {
                    Self::Slow => (0..SLOW).for_each(|nth| drop(peers.spawn(hold(addr, nth)))),
                    Self::FloodOfOne => (0..FLOODING).for_each(|_| drop(peers.spawn(flood(addr, 0)))),
                    Self::FloodOfMany => (0..FLOODING).for_each(|nth| drop(peers.spawn(flood(addr, nth)))),
                }
                tokio::select! {
                    _ = ended => Ok(()),
                    broke = peers.join_next() => broke.context("there are no outsiders")??,
                }
            })
        });
        Ok(Siege { end, thread })
    }
}

/// Outsiders at work.
pub(crate) struct Siege {
    end: oneshot::Sender<()>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Siege {
    /// Ends it. An error if the server let one of them down before.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        let _ = self.end.send(());
        self.thread.join().expect("outsiders do not panic")
    }
}

/// Keeps a socket open that says no more than its beginning; another when the server has had enough.
async fn hold(addr: SocketAddr, nth: usize) -> anyhow::Result<()> {
    let mut callbacks = Callbacks::new(getrandom::u64()?, 1);
    loop {
        let whole = callbacks.next();
        let beginning = &whole[..[0, 50, whole.len() - 1][nth % 3]];
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(beginning).await?;
        // Whatever it says at the end, or if it breaks off: then it is over.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

/// Sends badly signed callbacks, through a proxy, from an address of the network `10.nth`.
async fn flood(addr: SocketAddr, nth: u8) -> anyhow::Result<()> {
    let forwarded = format!("X-Forwarded-For: 10.{nth}.0.1\r\n");
    let mut callbacks = Callbacks::signed(WRONG_KEY, getrandom::u64()?, 1, &forwarded);
    let mut connection = Connection::open(addr).await?;
    loop {
        let status = connection.status_of(callbacks.next()).await?;
        ensure!(status == 401, "a badly signed callback was answered {status}");
        connection.body().await?;
    }
}
