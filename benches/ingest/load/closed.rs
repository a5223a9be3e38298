//! The closed loop: every connection sends its next callback once the last one was answered.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Answers, Caller, Measured};
use crate::rig::server::Server;

/// How the load is applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClosedLoop {
    pub(crate) connections: u16,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

impl ClosedLoop {
    /// Applies the load to `server`; the files that the callbacks announce lie on `media_port`.
    pub(crate) async fn run(&self, server: &Server, media_port: u16) -> anyhow::Result<Measured> {
        let (callers, answers) = Caller::all(self.connections, server, media_port).await?;
        let began = Instant::now();
        let measured_from = began + self.warm_up;
        let until = measured_from + self.measured;
        let mut connections = JoinSet::new();
        for caller in callers {
            let driver = Driver {
                caller,
                measured_from,
                until,
            };
            connections.spawn(driver.run());
        }
        let answers = answers.and_of_all(connections).await?;
        Measured::since(measured_from, answers, server)
    }
}

/// One connection.
struct Driver {
    caller: Caller,
    measured_from: Instant,
    until: Instant,
}

impl Driver {
    async fn run(self) -> std::io::Result<Answers> {
        let Caller {
            mut connection,
            mut callbacks,
        } = self.caller;
        let mut answers = Answers::default();
        loop {
            let request = callbacks.next();
            let sent = Instant::now();
            if sent >= self.until {
                return Ok(answers);
            }
            let status = connection.status_of(request).await?;
            connection.body().await?;
            answers.add(status, (sent >= self.measured_from).then(|| sent.elapsed()));
        }
    }
}
