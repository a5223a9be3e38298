//! A real ACME authority on loopback: Debian's `pebble`, which verifies names by asking them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::certificates::trusting;
use super::{Authority, loopback, skip, until};

/// Where `pebble` asks for http-01, on the address that its names lead to.
const HTTP_PORT: u16 = 5002;

/// A running authority; killed when dropped.
pub(crate) struct Pebble {
    /// Its address, and that of every name it looks up.
    pub(crate) ip: Ipv4Addr,
    name_server: SocketAddr,
    child: Option<Child>,
    dir: TempDir,
}

impl Pebble {
    /// Starts one whose certificates are valid for this long; `None` (and that is said) if it is not installed.
    pub(crate) async fn start(validity: Duration) -> Option<Self> {
        let (dir, ip) = (tempfile::tempdir().unwrap(), loopback());
        let authority = Authority::new();
        authority.issue(&[&ip.to_string()], 2100).put(dir.path());
        std::fs::write(dir.path().join("root.pem"), authority.root()).unwrap();
        let config = json!({"pebble": {
            "listenAddress": format!("{ip}:14000"),
            "managementListenAddress": format!("{ip}:15000"),
            "certificate": dir.path().join("cert.pem"),
            "privateKey": dir.path().join("key.pem"),
            "httpPort": HTTP_PORT,
            "tlsPort": 5001,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": validity.as_secs(),
        }});
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let mut pebble = Self {
            ip,
            name_server: name_server(ip),
            child: None,
            dir,
        };
        if pebble.spawn().is_err() {
            skip("pebble, an ACME server, is not installed");
            return None;
        }
        pebble.listens().await;
        Some(pebble)
    }

    /// Starts it again; it remembers nothing.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.spawn().unwrap();
        self.listens().await;
    }

    fn spawn(&mut self) -> std::io::Result<()> {
        let child = Command::new("pebble")
            .arg("-config")
            .arg(self.dir.path().join("config.json"))
            .args(["-dnsserver", &self.name_server.to_string()])
            // It waits at random otherwise, and takes old proofs for new ones.
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    async fn listens(&self) {
        for port in [14000, 15000] {
            until("pebble listens", || async {
                tokio::net::TcpStream::connect((self.ip, port)).await.ok()
            })
            .await;
        }
    }

    /// The configuration of a server that obtains a certificate for these names from it.
    pub(crate) fn config(&self, domains: &[&str]) -> String {
        let (ip, root) = (self.ip, self.dir.path().join("root.pem"));
        let root = root.display();
        format!(
            "[tls.acme]\ndomains = {domains:?}\ncontact = \"ops@example.com\"\n\
             directory_url = \"https://{ip}:14000/dir\"\ndirectory_ca_file = \"{root}\"\n\
             http_listen = \"{}\"\n",
            self.asks()
        )
    }

    /// Where it asks whether a name is ours.
    pub(crate) fn asks(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), HTTP_PORT)
    }

    /// The root of what it issues, as PEM: made anew at each start.
    pub(crate) async fn root(&self) -> String {
        let own = std::fs::read_to_string(self.dir.path().join("root.pem")).unwrap();
        let client = trusting(&own).build().unwrap();
        let answer = client.get(format!("https://{}:15000/roots/0", self.ip)).send();
        answer.await.unwrap().text().await.unwrap()
    }

    /// From now on nobody answers.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A name server for which every name has this one address.
fn name_server(ip: Ipv4Addr) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let addr = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length], ip) {
                let _ = socket.send_to(&answer, peer);
            }
        }
    });
    addr
}

/// The answer to one question (RFC 1035): the address if that is asked for, else that there is nothing of the kind.
fn answer(query: &[u8], ip: Ipv4Addr) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name = query.get(HEADER..)?.iter().position(|byte| *byte == 0)? + 1;
    // After the name stand the type and the class, two bytes each.
    let question = query.get(HEADER..HEADER + name + 4)?;
    let asks_for_v4 = question[name..name + 2] == [0, 1];
    // The id, "an answer, no error", one question, at most one answer.
    let mut answer = [
        &query[..2],
        &[0x81, 0x80, 0, 1, 0, u8::from(asks_for_v4), 0, 0, 0, 0],
    ]
    .concat();
    answer.extend(question);
    if asks_for_v4 {
        // The name is that at byte 12; type A, class IN, 60 seconds, 4 bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ip.octets());
    }
    Some(answer)
}
