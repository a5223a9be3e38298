//! A connection of bytes, for what no HTTP library would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::PATIENCE;

/// An open connection to a server.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.expect("the server accepts"))
    }

    /// The head of a callback to `kie`, ending in the given header lines.
    pub(crate) async fn post(addr: SocketAddr, lines: &str) -> Self {
        let mut raw = Self::open(addr).await;
        raw.send(format!("POST /callbacks/kie HTTP/1.1\r\nhost: {addr}\r\n{lines}\r\n\r\n").as_bytes())
            .await;
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A server that has refused already may close while we still send.
        let _ = self.0.write_all(bytes).await;
        let _ = self.0.flush().await;
    }

    /// The head of the answer and as much of its body as came along, as text.
    pub(crate) async fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        let read = async {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = self.0.read(&mut buffer).await {
                answer.extend_from_slice(&buffer[..length]);
                let text = String::from_utf8_lossy(&answer);
                if text.contains("\r\n\r\n") && text.trim_end().ends_with('}') {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("an answer in time");
        String::from_utf8_lossy(&answer).into_owned()
    }
}
