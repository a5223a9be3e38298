use super::*;

#[test]
fn variables_make_a_tree_and_win_over_the_file() {
    let config = Setup::new()
        .file("[sources.kie]\nhmac_keys = [\"from-file\"]\ntimestamp_tolerance = \"1m\"\n")
        .env([
            ("REELHOOK_SOURCES__KIE__HMAC_KEYS", "one, two,"),
            ("REELHOOK_SOURCES__KIE__ALLOW_UNVERIFIED", "true"),
            ("REELHOOK_SOURCES__OTHER_ONE__TOKENS", TOKEN),
            ("REELHOOK_DOWNLOADS__CONCURRENCY", "3"),
            ("REELHOOK_EGRESS__PORTS", "80,8080"),
            ("REELHOOK_INGEST__MAX_BODY", "1MiB"),
            ("REELHOOK_SHUTDOWN_GRACE", "5s"),
        ])
        .loaded();
    let kie = source(&config, "kie");
    assert_eq!(exposed(&kie.hmac_keys), ["one", "two"]);
    assert_eq!(kie.timestamp_tolerance, Duration::from_mins(1));
    assert!(kie.allow_unverified);
    assert_eq!(exposed(&source(&config, "other_one").tokens), [TOKEN]);
    assert_eq!(config.downloads.concurrency, 3);
    assert_eq!(config.egress.ports, [80, 8080]);
    assert_eq!(config.ingest.max_body, 1 << 20);
    assert_eq!(config.shutdown_grace, Duration::from_secs(5));
}

#[test]
fn a_source_may_come_from_the_environment_alone() {
    let config = Setup::new()
        .env([("REELHOOK_SOURCES__KIE__ALLOW_UNVERIFIED", "true")])
        .loaded();
    assert!(!config.is_configless());
    assert!(config.origin.warnings.is_empty());
}

#[test]
fn an_empty_variable_empties_a_list_and_means_none_where_none_is_possible() {
    let config = Setup::new()
        .file("egress.allow_cidrs = [\"10.0.0.0/8\"]\npublic_url = \"http://localhost\"\n")
        .env([("REELHOOK_EGRESS__ALLOW_CIDRS", ""), ("REELHOOK_PUBLIC_URL", "")])
        .loaded();
    assert_eq!(config.egress.allow_cidrs, []);
    assert_eq!(config.public_url, None);
}

#[test]
fn variables_of_ours_that_set_nothing_are_warned_of_and_known_ones_are_not() {
    let config = Setup::new()
        .env([
            ("REELHOOK_SERVER", "http://127.0.0.1:1"),
            ("REELHOOK_API_TOKEN", API_TOKEN),
            ("REELHOOK_LISTN", "secret-value"),
            ("PATH", "/bin"),
        ])
        .loaded();
    let warnings = "environment variable REELHOOK_LISTN sets no key of the configuration and is ignored";
    assert_eq!(config.origin.warnings, [warnings]);
}

#[test]
fn an_unknown_key_below_a_known_section_is_an_error_naming_the_variable() {
    let refused = Setup::new()
        .env([
            ("REELHOOK_DOWNLOADS__CONCURENCY", "3"),
            ("REELHOOK_SOURCES__KIE__API", "x"),
        ])
        .refused();
    let lines: Vec<&str> = refused.lines().collect();
    assert!(
        lines[0].starts_with("REELHOOK_DOWNLOADS__CONCURENCY: downloads.concurency: unknown key; known in")
    );
    assert!(
        lines[1].starts_with("REELHOOK_SOURCES__KIE__API: sources.kie.api: unknown key; "),
        "{refused}"
    );
}

#[test]
fn a_section_cannot_be_set_and_a_value_of_the_wrong_shape_is_refused() {
    let refused = Setup::new()
        .env([
            ("REELHOOK_API", "x"),
            ("REELHOOK_DOWNLOADS__CONCURRENCY", "many"),
            ("REELHOOK_EGRESS__PORTS", "80;443"),
            ("REELHOOK_SOURCES__KIE", "x"),
            ("REELHOOK_SOURCES__KIE__CONFIRM", "yes"),
            ("REELHOOK_SOURCES__bad-name__CONFIRM", "false"),
        ])
        .refused();
    let expected = [
        "REELHOOK_API: api: this is a section: set a key in it, such as REELHOOK_API__TOKENS",
        "REELHOOK_DOWNLOADS__CONCURRENCY: downloads.concurrency: expected a whole number",
        "REELHOOK_EGRESS__PORTS: egress.ports: expected whole numbers separated by commas",
        "REELHOOK_SOURCES__KIE: sources.kie: this is a section: set a key in it, such as \
         REELHOOK_SOURCES__KIE__HMAC_KEYS",
        "REELHOOK_SOURCES__KIE__CONFIRM: sources.kie.confirm: expected true or false",
        "REELHOOK_SOURCES__bad-name__CONFIRM: sources.bad-name: a source's name is 1 to 32 characters of a-z 0-9 _, \
         such as kie or kie_test",
    ];
    assert_eq!(refused.lines().collect::<Vec<_>>(), expected);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_refused_only_if_it_is_ours() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let mut setup = Setup::new();
    let garbage = OsStr::from_bytes(b"\xff");
    setup.inputs.environment = Environment::new([("LS_COLORS", garbage)]);
    setup.loaded();
    setup.inputs.environment = Environment::new([("REELHOOK_DATA_DIR", garbage)]);
    assert_eq!(
        setup.refused(),
        "REELHOOK_DATA_DIR: data_dir: the value is not UTF-8 text"
    );
}
