use super::*;

/// Every secret anywhere, so that a leak shows.
const LEAK: &str = "hunter2";

#[test]
fn secrets_from_files_join_those_of_the_list() {
    let setup = Setup::new();
    let keys = write(&setup.path("keys"), "one\r\n\n  two \n");
    let tokens = write(&setup.path("tokens"), &format!("{TOKEN}\n"));
    let api_key = write(&setup.path("api_key"), "the-key\n");
    let api_tokens = write(&setup.path("api_tokens"), API_TOKEN);
    let config = setup
        .file(format!(
            "[sources.kie]\nhmac_keys = [\"zero\"]\nhmac_keys_file = \"{keys}\"\ntokens_file = \"{tokens}\"\n\
             api_key_file = \"{api_key}\"\n[api]\ntokens_file = \"{api_tokens}\"\n"
        ))
        .loaded();
    let kie = source(&config, "kie");
    assert_eq!(exposed(&kie.hmac_keys), ["zero", "one", "two"]);
    assert_eq!(exposed(&kie.tokens), [TOKEN]);
    assert_eq!(kie.api_key.as_ref().unwrap().expose(), "the-key");
    assert_eq!(exposed(&config.api.tokens), [API_TOKEN]);
    assert_eq!(
        exposed(&config.secrets()),
        ["zero", "one", "two", TOKEN, "the-key", API_TOKEN]
    );
}

#[test]
fn a_file_of_secrets_that_is_missing_empty_or_overfull_is_refused() {
    let setup = Setup::new();
    let empty = write(&setup.path("empty"), "\n \n");
    let two = write(&setup.path("two"), "one\ntwo\n");
    let refused = setup
        .file(format!(
            "[sources.a]\nhmac_keys_file = \"/does/not/exist\"\n[sources.b]\ntokens_file = \"{empty}\"\n\
             [sources.c]\napi_key_file = \"{two}\"\n[sources.d]\napi_key = \"x\"\napi_key_file = \"{two}\"\n"
        ))
        .refused();
    let lines: Vec<&str> = refused.lines().collect();
    assert!(lines[0].starts_with("config.toml:2: sources.a.hmac_keys_file: cannot read /does/not/exist: "));
    assert_eq!(lines[1], "config.toml:4: sources.b.tokens_file: empty is empty");
    assert_eq!(
        lines[2],
        "config.toml:6: sources.c.api_key_file: two must hold one line"
    );
    assert_eq!(
        lines[3],
        "config.toml:9: sources.d.api_key_file: set either this or sources.d.api_key, not both"
    );
}

#[test]
fn a_mistake_in_a_secret_is_reported_without_the_secret() {
    for text in [
        "[sources.kie]\nhmac_keys = \"hunter2\"",
        "[sources.kie]\nhmac_keys = [[\"hunter2\"]]",
        "[sources.kie]\nhmac_keys = { hunter2 = 1 }",
        "[sources.kie]\napi_key = [\"hunter2\"]",
        "[sources.kie]\napi_key = \"hunter2 hunter2\"",
        "[sources.kie]\nhmac_keys = [\"hunter2 \"]",
        "[sources]\nkie = \"hunter2\"",
        "[api]\ntokens = [\"hunter2\"]",
        "api = \"hunter2\"",
        "[sources.kie]\napi_key = hunter2",
        "[sources.kie]\napi_key = 'hunter2",
        "[sources.kie]\napi_key = \"\\hunter2\"",
        "[sources.kie]\nhmac_keys = [hunter2]",
        "[sources.kie]\napi_key = \"hunter2\"\napi_key = \"hunter2\"",
    ] {
        let setup = Setup::new().file(text);
        let error = setup.load().expect_err(text);
        assert!(!error.to_string().contains(LEAK), "{error}");
        assert!(!format!("{error:?}").contains(LEAK), "{error:?}");
    }
}

#[test]
fn neither_debug_nor_the_redacted_configuration_shows_a_secret() {
    let setup = Setup::new();
    let keys = write(&setup.path("keys"), "hunter2-from-file\n");
    let config = setup
        .file(format!(
            "[sources.kie]\nhmac_keys = [\"hunter2\"]\nhmac_keys_file = \"{keys}\"\n\
             tokens = [\"hunter2-hunter2-hunter2-hunter2\"]\napi_key = \"hunter2\"\n\
             [api]\ntokens = [\"hunter2_hunter2_hunter2_hunter2\"]\n"
        ))
        .loaded();
    let shown = config.redacted_toml();
    assert!(!shown.contains(LEAK), "{shown}");
    assert!(
        shown.contains("hmac_keys = [\"[redacted]\", \"[redacted]\"]"),
        "{shown}"
    );
    assert!(shown.contains(&format!("hmac_keys_file = \"{keys}\"")), "{shown}");
    assert!(shown.contains("confirm = false"), "{shown}");
    assert!(!format!("{config:?}").contains(LEAK));
    let environment = Environment::new([("REELHOOK_API__TOKENS", LEAK)]);
    assert_eq!(format!("{environment:?}"), "{\"REELHOOK_API__TOKENS\"}");
}

#[test]
fn the_redacted_configuration_of_the_defaults_reads_back_as_the_defaults() {
    let mut config = Setup::new().loaded();
    let shown = config.redacted_toml();
    let back = Setup::new().file(&shown).loaded();
    config.origin = Origin::default();
    for source in config.sources.values_mut() {
        source.confirm = Some(source.confirm());
    }
    assert_eq!(
        Config {
            origin: Origin::default(),
            ..back
        },
        config,
        "{shown}"
    );
}
