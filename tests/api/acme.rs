//! Certificates obtained from a real ACME server.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use reelhook::clock::Clock;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::support::{
    Pebble, Program, Setup, TestServer, connector, shake_hands, shown, success, until, web_client,
};

const NAME: &str = "hooks.localhost";
const DAY: Duration = Duration::from_hours(24);

/// The certificate that is served, once there is one.
async fn served(server: &TestServer, root: &str) -> CertificateDer<'static> {
    let client = connector(root, &[], None);
    until("a certificate is served", || async {
        if let Ok(stream) = shake_hands(&client, server.addr, NAME).await {
            return Some(shown(&stream));
        }
        // On a busy machine the authority may lose patience; the next attempt would be minutes away.
        server.look_again();
        None
    })
    .await
}

#[tokio::test]
async fn a_certificate_is_obtained_served_and_found_again_after_a_restart() {
    let Some(mut pebble) = Pebble::start(90 * DAY).await else {
        return;
    };
    let root = pebble.root().await;
    let server = Setup::new(&pebble.config(&[NAME, "b.localhost"])).start().await;
    let first = served(&server, &root).await;

    let client = web_client(&root, NAME, server.addr).http1_only().build().unwrap();
    let url = format!("https://{NAME}:{}/callbacks/kie", server.addr.port());
    let callback = client.post(url).body(success("t", &[]).to_string());
    assert_eq!(callback.send().await.unwrap().status(), 200);

    let kept = server.files_in("acme");
    assert_eq!(kept.len(), 2, "{kept:?}");
    for file in kept {
        let path = server.data_dir().join("acme").join(file);
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    let stopped = server.halt().await;
    pebble.stop();
    let restarted = stopped.start().await;
    assert_eq!(served(&restarted, &root).await, first);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
    let Some(pebble) = Pebble::start(90 * DAY).await else {
        return;
    };
    let root = pebble.root().await;
    let clock = Clock::manual(Clock::system().now());
    let server = Setup::new(&pebble.config(&[NAME])).clock(&clock).start().await;
    let first = served(&server, &root).await;
    // When exactly is random: between 33 and 30 days before the end.
    clock.advance(61 * DAY);
    server.look_again();
    let client = connector(&root, &[], None);
    let second = until("another certificate is served", || async {
        // None of these may fail: the old one is served until the new one is there.
        let stream = shake_hands(&client, server.addr, NAME).await.unwrap();
        Some(shown(&stream)).filter(|leaf| *leaf != first)
    })
    .await;
    let kept = server.data_dir().join("acme").join(&server.files_in("acme")[1]);
    let kept = CertificateDer::from_pem_file(kept).unwrap();
    assert_eq!(kept, second, "what is served is what a restart finds");
}

#[tokio::test]
async fn until_there_is_a_certificate_handshakes_fail_and_the_log_says_why() {
    let Some(pebble) = Pebble::start(90 * DAY).await else {
        return;
    };
    let root = pebble.root().await;
    // Where nobody asks.
    let elsewhere = pebble.config(&[NAME]).replace(":5002", ":5003");
    let program = Program::configured(&elsewhere);
    let mut serving = program.serve(&[]);
    let said = serving.err.wait_for("no certificate was obtained");
    assert!(
        said.contains("ERROR")
            && said.contains("could not verify hooks.localhost: ")
            && said.contains("next attempt at "),
        "{said}"
    );
    let client = connector(&root, &[], None);
    shake_hands(&client, serving.addr, NAME)
        .await
        .expect_err("no certificate");
    serving.err.wait_for("there is no certificate yet");
    // The wait for the next attempt ends with the server.
    serving.signal("TERM");
    serving.err.wait_for("stopped: all work done");
    assert_eq!(serving.wait(), Some(0));
}

#[tokio::test]
async fn an_authority_that_comes_back_is_asked_again_at_a_signal() {
    let Some(mut pebble) = Pebble::start(90 * DAY).await else {
        return;
    };
    pebble.stop();
    let program = Program::configured(&pebble.config(&[NAME]));
    let serving = program.serve(&[]);
    let said = serving.err.wait_for("no certificate was obtained");
    assert!(said.contains("was not reached"), "{said}");
    pebble.restart().await;
    serving.signal("HUP");
    let said = serving
        .err
        .wait_for("certificate obtained: hooks.localhost until ");
    assert!(said.contains("days left"), "{said}");
}

#[tokio::test]
async fn an_account_that_the_authority_forgot_is_made_anew() {
    let Some(mut pebble) = Pebble::start(90 * DAY).await else {
        return;
    };
    let clock = Clock::manual(Clock::system().now());
    let server = Setup::new(&pebble.config(&[NAME])).clock(&clock).start().await;
    let old_root = pebble.root().await;
    served(&server, &old_root).await;
    pebble.restart().await;
    clock.advance(61 * DAY);
    server.look_again();
    // Only what was issued after the restart is vouched for by the root made there.
    served(&server, &pebble.root().await).await;
}
