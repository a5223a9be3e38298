//! A provider that is still at it, whatever it is asked about, and counts.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A record of Veo that has not ended, but for the task's id.
const RECORD: (&str, &str) = (
    r#"{"code":200,"msg":"success","data":{"taskId":""#,
    r#"","paramJson":"{}","completeTime":null,"response":null,"successFlag":0,"errorCode":null,"errorMessage":"","createTime":"2026-11-22 10:25:00","fallbackFlag":false}}"#,
);

/// The moments at which it was asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked(Rc<RefCell<Vec<Instant>>>);

impl Asked {
    /// How often, between two moments.
    pub(crate) fn between(&self, from: Instant, until: Instant) -> usize {
        let asked = self.0.borrow();
        asked.iter().filter(|at| (from..until).contains(*at)).count()
    }

    /// The most in any second.
    pub(crate) fn most_in_a_second(&self) -> usize {
        let asked = self.0.borrow();
        let from = |n: usize| {
            let end = asked[n] + Duration::from_secs(1);
            asked.partition_point(|at| *at < end) - n
        };
        (0..asked.len()).map(from).max().unwrap_or_default()
    }
}

/// The provider. Whoever drops `answering` ends it.
pub(crate) struct Provider {
    pub(crate) addr: SocketAddr,
    pub(crate) asked: Asked,
    listener: TcpListener,
}

impl Provider {
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        Ok(Self {
            addr: listener.local_addr()?,
            asked: Asked::default(),
            listener,
        })
    }

    /// Answers for as long as it is awaited.
    pub(crate) async fn answer(self) -> io::Result<()> {
        let connections = tokio::task::LocalSet::new();
        let accept = async {
            loop {
                let (stream, _) = self.listener.accept().await?;
                let asked = self.asked.clone();
                // Whoever goes away asks again.
                tokio::task::spawn_local(async move { drop(talk(stream, asked).await) });
            }
        };
        connections.run_until(accept).await
    }
}

/// Answers the questions on one connection.
async fn talk(mut stream: TcpStream, asked: Asked) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        asked.0.borrow_mut().push(Instant::now());
        let text = String::from_utf8_lossy(&request);
        let id = text
            .split_once("taskId=")
            .and_then(|(_, rest)| rest.split(' ').next());
        let body = format!("{}{}{}", RECORD.0, id.unwrap_or_default(), RECORD.1);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await?;
    }
}
