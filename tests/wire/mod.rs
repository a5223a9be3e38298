//! One keep-alive HTTP/1.1 connection to a server under test: a whole request goes out, a whole answer comes back.
//!
//! Written by hand so that measuring costs next to nothing beside what is measured, and so that a test sees the very
//! byte at which an answer broke off. Shared by `tests/faults` and the benchmarks.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection between two exchanges, or between the head and the body of an answer.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the body of the last answer starts in `buffer`, and how long it is.
    body: (usize, usize),
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
            body: (0, 0),
        })
    }

    /// Sends a whole request and returns the status of its answer, as soon as its head is there.
    pub(crate) async fn status_of(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut searched: usize = 0;
        let head = loop {
            self.more().await?;
            let from = searched.saturating_sub(3);
            if let Some(at) = self.buffer[from..]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break from + at;
            }
            searched = self.buffer.len();
        };
        let (status, length) = read_head(&self.buffer[..head]).ok_or(io::ErrorKind::InvalidData)?;
        self.body = (head + 4, length);
        Ok(status)
    }

    /// The body of the answer; it has to be read before the next request.
    pub(crate) async fn body(&mut self) -> io::Result<&[u8]> {
        let (start, length) = self.body;
        while self.buffer.len() < start + length {
            self.more().await?;
        }
        Ok(&self.buffer[start..start + length])
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Status and length of the body. Our server announces every length but that of a 204, so chunks are not understood.
fn read_head(head: &[u8]) -> Option<(u16, usize)> {
    let head = std::str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    if status == 204 {
        return Some((status, 0));
    }
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim())
    })?;
    Some((status, length.parse().ok()?))
}
