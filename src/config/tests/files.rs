use super::*;

#[test]
fn without_a_file_there_is_one_unverified_source_on_loopback() {
    let config = Setup::new().loaded();
    assert!(config.is_configless());
    assert!(!config.is_exposed());
    assert_eq!(config.origin.file, None);
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(
        config.sources.keys().map(SourceName::as_str).collect::<Vec<_>>(),
        ["kie"]
    );
    assert!(source(&config, "kie").is_unverified());
}

#[test]
fn a_file_without_sources_is_still_configless() {
    let config = Setup::new().file("listen = \"[::1]:9\"\n").loaded();
    assert!(config.is_configless());
    assert_eq!(config.listen.to_string(), "[::1]:9");
}

#[test]
fn only_configured_sources_exist_and_an_empty_section_configures_one() {
    let config = Setup::new()
        .file("[sources.apikley]\n[sources.kie_2]\nallow_unverified = true\n")
        .loaded();
    assert!(!config.is_configless());
    assert_eq!(
        config.sources.keys().map(SourceName::as_str).collect::<Vec<_>>(),
        ["apikley", "kie_2"]
    );
    assert_eq!(source(&config, "apikley"), &Source::default());
    assert!(source(&config, "kie_2").allow_unverified);
}

#[test]
fn values_are_read_in_every_documented_form() {
    let text = r#"
        public_url = "https://hooks.example.com/reel"
        data_dir = "/srv/reel"
        trusted_proxies = ["10.0.0.0/8", "::1"]
        shutdown_grace = "1m 30s"
        [sources.kie]
        hmac_keys = ["one", "two"]
        timestamp_tolerance = "1h"
        confirm = false
        allowed_hosts = ["cdn.example.com"]
        [api]
        tokens = ["aaaaaaaaaaaaaaaaaaaaaaaa"]
        [ingest]
        max_body = 1000
        max_inflight = "2MB"
        [downloads]
        max_size = "1.5GiB"
        concurrency = 2
        [egress]
        ports = [8443]
        [log]
        format = "json"
    "#;
    let config = Setup::new().file(text).loaded();
    assert_eq!(
        config.public_url.unwrap().as_str(),
        "https://hooks.example.com/reel"
    );
    assert_eq!(config.data_dir, Path::new("/srv/reel"));
    assert_eq!(
        config
            .trusted_proxies
            .iter()
            .map(IpNet::to_string)
            .collect::<Vec<_>>(),
        ["10.0.0.0/8", "::1/128"]
    );
    assert_eq!(config.shutdown_grace, Duration::from_secs(90));
    let kie = &config.sources[&SourceName::kie()];
    assert_eq!(exposed(&kie.hmac_keys), ["one", "two"]);
    assert_eq!(kie.timestamp_tolerance, Duration::from_hours(1));
    assert_eq!(config.ingest.max_body, 1000);
    assert_eq!(config.ingest.max_inflight, 2_000_000);
    assert_eq!(config.downloads.max_size, 3 << 29);
    assert_eq!(config.downloads.concurrency, 2);
    assert_eq!(config.egress.ports, [8443]);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_known_ones() {
    let refused = Setup::new()
        .file("# first line\n\n[api]\ntokns = [\"x\"]\n")
        .refused();
    assert_eq!(
        refused,
        "config.toml:4: api.tokns: unknown key; known in [api] are tokens, tokens_file"
    );
}

#[test]
fn a_key_below_the_wrong_section_is_told_where_it_belongs() {
    let refused = Setup::new()
        .file("[sources.kie]\nlisten = \"127.0.0.1:1\"\n")
        .refused();
    assert!(
        refused.starts_with("config.toml:2: sources.kie.listen: "),
        "{refused}"
    );
    assert!(
        refused.ends_with("it belongs at the top, before the first [section]"),
        "{refused}"
    );
}

#[test]
fn all_mistakes_of_a_file_are_reported_at_once() {
    let text = "listen = \"localhost:80\"\nlog.format = \"xml\"\n[downloads]\nconcurrency = 0\nidle_timeout = 5\n\
                max_size = \"big\"\n[egress]\nports = [80, 70000]\nallow_cidrs = [\"10.0.0.0/33\"]\n[sources.Kie]\n";
    let refused = Setup::new().file(text).refused();
    let mut lines: Vec<&str> = refused.lines().collect();
    lines.sort_unstable();
    let expected = [
        "config.toml:10: sources.Kie: a source's name is 1 to 32 characters of a-z 0-9 _, such as kie or kie_test",
        "config.toml:1: listen: expected an IP address and a port such as \"127.0.0.1:8080\" or \"[::]:8080\", found \
         \"localhost:80\"",
        "config.toml:2: log.format: expected \"text\" or \"json\", found \"xml\"",
        "config.toml:4: downloads.concurrency: expected a whole number, 1 or more, found 0",
        "config.toml:5: downloads.idle_timeout: expected a duration such as \"30s\", \"5m\" or \"1h 30m\", found an \
         integer",
        "config.toml:6: downloads.max_size: expected a size such as \"4MiB\" (binary), \"4MB\" (decimal) or a number \
         of bytes, found \"big\"",
        "config.toml:8: egress.ports: expected a list of ports from 1 to 65535 such as [80, 443], found 70000",
        "config.toml:9: egress.allow_cidrs: expected a list of networks or addresses such as [\"10.0.0.0/8\", \
         \"::1\"], found \"10.0.0.0/33\" in the list",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn sections_and_values_are_not_confused() {
    let refused = Setup::new().file("sources = \"kie\"\n").refused();
    assert_eq!(
        refused,
        "config.toml:1: sources: this is a section: write [sources]"
    );
    let refused = Setup::new().file("[[sources.kie]]\n").refused();
    assert_eq!(
        refused,
        "config.toml:1: sources.kie: this is a section: write [sources.kie]"
    );
    let refused = Setup::new().file("[log.level]\nx = 1\n").refused();
    assert_eq!(
        refused,
        "config.toml:1: log.level: expected a text in quotes, found a section"
    );
}

#[test]
fn a_half_written_file_is_refused_with_line_and_column() {
    for (half, place) in [
        ("listen = \"127.0.0.1:80", "config.toml:1:"),
        (
            "[api]\ntokens = [\n\"aaaaaaaaaaaaaaaaaaaaaaaa\",\n",
            "config.toml:",
        ),
        ("[sources.kie", "config.toml:1:"),
        ("log.level = \"info\"\nlisten", "config.toml:2:"),
        (
            "listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n",
            "config.toml:2:1: not TOML: duplicate key",
        ),
    ] {
        let refused = Setup::new().file(half).refused();
        assert!(
            refused.starts_with(place) && refused.contains("not TOML: "),
            "{half:?}: {refused}"
        );
        assert!(!refused.contains('\n'), "{refused}");
    }
}

#[test]
fn a_file_that_is_not_utf8_is_refused_with_its_line() {
    let refused = Setup::new().file(b"# fine\nlisten = \"\xff\"\n").refused();
    assert_eq!(
        refused,
        "config.toml:2: the file is not UTF-8 text from here on; save it as UTF-8"
    );
}

#[test]
fn a_byte_order_mark_is_no_obstacle() {
    assert_eq!(
        Setup::new().file("\u{feff}data_dir = \"d\"\n").loaded().data_dir,
        Path::new("d")
    );
}

#[test]
fn an_empty_file_is_a_file() {
    let setup = Setup::new().file("");
    assert_eq!(
        setup.loaded().origin.file.as_deref(),
        Some(setup.path("config.toml").as_path())
    );
}

#[test]
fn a_directory_in_place_of_the_file_is_refused() {
    let mut setup = Setup::new();
    setup.inputs.file = Some(setup.directory.path().to_owned());
    let error = setup.load().unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read the configuration file ") && error.contains("(--config)"),
        "{error}"
    );
    assert!(error.contains("directory"), "{error}");
}

#[test]
fn a_named_file_must_exist_and_wins_over_the_default_one() {
    let mut setup = Setup::new()
        .file("data_dir = \"default\"")
        .env([("REELHOOK_CONFIG", "/does/not/exist.toml")]);
    assert!(setup.refused().contains("/does/not/exist.toml (REELHOOK_CONFIG)"));
    let named = setup.path("named.toml");
    write(&named, "data_dir = \"named\"");
    setup.inputs.file = Some(named);
    assert_eq!(setup.loaded().data_dir, Path::new("named"));
}

#[test]
fn flags_win_over_environment_and_file() {
    let mut setup = Setup::new()
        .file("listen = \"127.0.0.1:1\"\ndata_dir = \"file\"\nlog.level = \"warn\"")
        .env([("REELHOOK_LISTEN", "127.0.0.1:2"), ("REELHOOK_DATA_DIR", "env")]);
    setup.inputs.overrides.listen = Some("127.0.0.1:3".parse().unwrap());
    let config = setup.loaded();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.data_dir, Path::new("env"));
    assert_eq!(config.log.level, "warn");
    assert_eq!(config.origin.places["listen"], Place::Flag("--listen"));
    assert_eq!(
        config.origin.places["data_dir"],
        Place::Variable("REELHOOK_DATA_DIR".to_owned())
    );
}

#[test]
fn media_lie_where_storage_says_else_in_the_data_directory() {
    let config = Setup::new().file("data_dir = \"/d\"").loaded();
    assert_eq!(config.media(), Media::Directory("/d/media".into()));
    let config = Setup::new()
        .file("storage.url = \"file:///srv/my%20media\"")
        .loaded();
    assert_eq!(config.media(), Media::Directory("/srv/my media".into()));
    let setup = Setup::new().file("storage.url = \"s3://bucket/prefix\"");
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "of-something-else"),
    ];
    let config = setup.env(variables).loaded();
    assert_eq!(config.media().to_string(), "s3://bucket/prefix");
    let names: Vec<&str> = config.storage.variables.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
    assert_eq!(config.secrets(), [Secret::new("hunter2-hunter2")]);
    assert!(!config.redacted_toml().contains("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
}
