//! moto in server mode: a second S3 API, in Python.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use reelhook::config::Variables;
use reqwest::Method;

use super::{Answer, client, loopback, until};

/// A running `moto_server` with a bucket `media`; killed when dropped.
pub(crate) struct Moto {
    addr: SocketAddr,
    child: Mutex<Child>,
}

impl Moto {
    /// `None` where the program is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let addr = SocketAddr::from((loopback(), 5000));
        let child = Command::new("moto_server")
            .args(["-H", &addr.ip().to_string(), "-p", "5000"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let moto = Self {
            addr,
            child: Mutex::new(child),
        };
        let bucket = format!("http://{addr}/media");
        // A shim may be there without the program behind it: then it ends at once.
        let started = until("moto answers", || async {
            let made = client().put(&bucket).send().await;
            let ended = moto.child.lock().unwrap().try_wait().unwrap().is_some();
            (ended || made.is_ok_and(|made| made.status() == 200)).then_some(!ended)
        })
        .await;
        started.then_some(moto)
    }

    /// What a server is told by its environment.
    pub(crate) fn access(&self) -> Variables {
        let endpoint = format!("http://{}", self.addr);
        let variables = [
            ("AWS_ACCESS_KEY_ID", "reelhook-tests"),
            ("AWS_SECRET_ACCESS_KEY", "the-secret-of-the-tests"),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ALLOW_HTTP", "true"),
        ];
        Variables::new(variables.into_iter())
    }

    pub(crate) async fn ask(&self, method: Method, path: &str) -> Answer {
        Answer::of(client().request(method, format!("http://{}{path}", self.addr))).await
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        child.kill().ok();
        child.wait().ok();
    }
}
