use super::*;

const OPEN: &str = "[sources.kie]\n";

fn closed(first: &str) -> String {
    format!("{first}\napi.tokens = [\"{API_TOKEN}\"]\nsources.kie.hmac_keys = [\"key\"]\n")
}

#[test]
fn what_the_running_server_may_not_have_is_not_taken_over() {
    for first in [
        "listen = \"0.0.0.0:8080\"",
        "public_url = \"https://hooks.example.com\"",
    ] {
        let running = Setup::new().file(closed(first)).loaded();
        let fresh = Setup::new().file(OPEN).loaded();
        let refused = running.renewed(fresh).expect_err("it is exposed").to_string();
        assert!(
            refused.contains("sources.kie.hmac_keys") && refused.contains("api.tokens"),
            "{refused}"
        );
    }
}

#[test]
fn a_file_that_is_gone_takes_nothing_with_it() {
    let running = Setup::new().file(closed("")).loaded();
    let gone = running.renewed(Setup::new().loaded()).expect_err("there was one");
    assert!(matches!(gone, Error::Gone { .. }), "{gone}");
    let without = Setup::new().loaded();
    assert!(without.renewed(Setup::new().loaded()).is_ok());
}

#[test]
fn sources_and_tokens_are_taken_over_and_the_rest_waits() {
    let running = Setup::new().file(OPEN).loaded();
    let more = "listen = \"127.0.0.1:9999\"\ningest.max_body = \"1MiB\"";
    let fresh = Setup::new().file(closed(more)).loaded();
    assert_eq!(running.waiting_for_restart(&fresh), ["ingest.max_body", "listen"]);
    let renewed = running.renewed(fresh.clone()).unwrap();
    assert_eq!((&renewed.sources, &renewed.api), (&fresh.sources, &fresh.api));
    assert_eq!((renewed.listen, renewed.ingest), (running.listen, running.ingest));
}
