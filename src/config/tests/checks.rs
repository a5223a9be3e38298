use super::*;

const SIGNED: &str = "[sources.kie]\nhmac_keys = [\"key\"]\n[api]\ntokens = [\"aaaaaaaaaaaaaaaaaaaaaaaa\"]\n";

fn refused(text: &str) -> String {
    Setup::new().file(text).refused()
}

#[test]
fn off_loopback_an_unverified_source_and_an_open_api_are_refused() {
    for listen in [
        "0.0.0.0:8080",
        "[::]:8080",
        "192.168.1.2:80",
        "[::ffff:10.0.0.1]:80",
    ] {
        let refused = refused(&format!("listen = \"{listen}\"\n"));
        let lines: Vec<&str> = refused.lines().collect();
        assert_eq!(lines.len(), 2, "{refused}");
        assert!(
            lines[0].starts_with("sources.kie.hmac_keys: listen = "),
            "{refused}"
        );
        assert!(
            lines[0].contains("sources.kie.tokens")
                && lines[0].contains("sources.kie.allow_unverified = true")
        );
        assert!(lines[1].starts_with("api.tokens: listen = "), "{refused}");
    }
}

#[test]
fn a_public_url_makes_loopback_public() {
    for url in [
        "https://hooks.example.com",
        "http://10.0.0.1:8080",
        "https://localhost.example.com",
    ] {
        let refused = refused(&format!("public_url = \"{url}\"\n[sources.kie]\n"));
        assert_eq!(refused.lines().count(), 2, "{refused}");
        assert!(refused.contains("proxy or tunnel"), "{refused}");
        assert!(
            refused.starts_with("config.toml:2: sources.kie.hmac_keys: public_url names"),
            "{refused}"
        );
    }
    for url in [
        "http://localhost:8080",
        "http://127.0.0.1/x",
        "http://[::1]",
        "http://reel.localhost.",
    ] {
        let config = Setup::new().file(format!("public_url = \"{url}\"\n")).loaded();
        assert!(!config.is_exposed(), "{url}");
    }
}

#[test]
fn verified_or_allowed_sources_and_an_api_token_may_be_exposed() {
    let exposed = "listen = \"0.0.0.0:80\"\npublic_url = \"https://hooks.example.com\"\n";
    assert!(
        Setup::new()
            .file(format!("{exposed}{SIGNED}"))
            .loaded()
            .is_exposed()
    );
    let api = "api.tokens = [\"aaaaaaaaaaaaaaaaaaaaaaaa\"]\n";
    let by_token = format!("{exposed}{api}[sources.kie]\ntokens = [\"{TOKEN}\"]\n");
    Setup::new().file(by_token).loaded();
    Setup::new()
        .file(format!("{exposed}{api}[sources.kie]\nallow_unverified = true\n"))
        .loaded();
}

#[test]
fn short_or_unusual_tokens_are_refused_by_number() {
    let refused = refused(
        "[sources.kie]\ntokens = [\"tttttttttttttttttttttttt\", \"short\", \"\"]\n\
         [api]\ntokens = [\"aaaaaaaaaaaaaaaaaaaaaaa!\"]\n",
    );
    let lines: Vec<&str> = refused.lines().collect();
    assert!(
        lines[0].starts_with("config.toml:2: sources.kie.tokens: token 2 must be 24 or more"),
        "{refused}"
    );
    assert!(
        lines[1].starts_with("config.toml:2: sources.kie.tokens: token 3 "),
        "{refused}"
    );
    assert!(
        lines[2].starts_with("config.toml:4: api.tokens: token 1 "),
        "{refused}"
    );
}

#[test]
fn a_token_of_the_api_must_not_stand_in_callback_urls() {
    let refused = refused(
        "api.tokens = [\"aaaaaaaaaaaaaaaaaaaaaaaa\"]\n[sources.kie]\ntokens = [\"aaaaaaaaaaaaaaaaaaaaaaaa\"]\n",
    );
    assert!(
        refused.starts_with("config.toml:3: sources.kie.tokens: shares a token with api.tokens"),
        "{refused}"
    );
}

#[test]
fn keys_that_cannot_work_are_refused() {
    let refused =
        refused("[sources.kie]\nhmac_keys = [\"\", \" key\"]\napi_key = \"a b\"\nconfirm = false\n");
    let lines: Vec<&str> = refused.lines().collect();
    assert!(
        lines[0].contains("sources.kie.hmac_keys: contains an empty key"),
        "{refused}"
    );
    assert!(
        lines[1].contains("sources.kie.hmac_keys: contains a key with blanks"),
        "{refused}"
    );
    assert!(
        lines[2].contains("sources.kie.api_key: contains blanks"),
        "{refused}"
    );
}

#[test]
fn confirming_needs_somebody_to_ask() {
    let refused = refused("[sources.kie]\nhmac_keys = [\"key\"]\nconfirm = true\n");
    assert!(
        refused.starts_with("config.toml:3: sources.kie.confirm: nobody can be asked"),
        "{refused}"
    );
}

#[test]
fn the_source_of_the_drop_in_api_is_one_that_there_is() {
    let refused = refused("[dropin]\nsource = \"other\"\n");
    assert_eq!(
        refused,
        "config.toml:2: dropin.source: there is no [sources.other]"
    );
}

#[test]
fn confirm_defaults_to_true_only_with_an_api_key_and_no_signature() {
    let key = || Secret::new("key");
    let source = |api_key, hmac_keys, confirm| Source {
        hmac_keys,
        api_key,
        confirm,
        ..Source::default()
    };
    assert!(source(Some(key()), vec![], None).confirm());
    assert!(!source(Some(key()), vec![key()], None).confirm());
    assert!(!source(None, vec![], None).confirm());
    assert!(!source(Some(key()), vec![], Some(false)).confirm());
    assert!(source(None, vec![], Some(true)).confirm());
}

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    let refused = refused(
        "[sources.a]\ntimestamp_tolerance = \"0s\"\n[sources.b]\ntimestamp_tolerance = \"25h\"\n\
         [ingest]\nmax_body = \"8MiB\"\nmax_inflight = \"4MiB\"\nbody_timeout = \"0s\"\n\
         [downloads]\nretry_base = \"1m\"\nretry_cap = \"1s\"\nmax_size = 0\n[egress]\nports = []\n",
    );
    let keys: Vec<&str> = refused
        .lines()
        .map(|line| line.split(": ").nth(1).unwrap())
        .collect();
    let expected = [
        "sources.a.timestamp_tolerance",
        "sources.b.timestamp_tolerance",
        "ingest.body_timeout",
        "ingest.max_inflight",
        "downloads.max_size",
        "downloads.retry_cap",
        "egress.ports",
    ];
    assert_eq!(keys, expected, "{refused}");
}

#[test]
fn urls_must_be_plain_web_urls() {
    for (url, complaint) in [
        ("ftp://localhost", "must be an http or https URL"),
        ("http://localhost/?a=b", "no query"),
        ("http://localhost/#a", "no fragment"),
        ("http://me:pw@localhost", "no user name"),
    ] {
        let refused = refused(&format!("public_url = \"{url}\"\n"));
        assert!(
            refused.starts_with("config.toml:1: public_url: must ") && refused.contains(complaint),
            "{refused}"
        );
        assert!(!refused.contains("pw"), "{refused}");
    }
}

#[test]
fn a_storage_that_is_no_directory_and_no_bucket_is_refused() {
    for url in ["s3://", "gs://bucket/../x", "az://user:pw@container"] {
        let refused = refused(&format!("storage.url = \"{url}\"\n"));
        assert!(
            refused.starts_with("config.toml:1: storage.url: a bucket is written s3://BUCKET"),
            "{refused}"
        );
        assert!(!refused.contains("pw"), "{refused}");
    }
    for url in ["/srv/media", "file://host/media", "ftp://host/media"] {
        let refused = refused(&format!("storage.url = \"{url}\"\n"));
        assert!(refused.contains("file:///path with three slashes"), "{refused}");
    }
}

#[test]
fn a_layout_that_would_mix_up_files_is_refused() {
    let refused = refused("storage.layout = \"{source}/{name}\"\n");
    assert!(
        refused.starts_with(
            "config.toml:1: storage.layout: lacks {task_id}; {source}, {task_id} and {name} must"
        ),
        "{refused}"
    );
}

#[test]
fn redirecting_to_a_disk_is_refused() {
    assert!(
        refused("storage.serve = \"redirect\"\n").contains("storage.serve: \"redirect\" leads into a bucket")
    );
    assert!(refused("storage.serve = \"sometimes\"\n").contains("expected \"proxy\" or \"redirect\""));
}

#[test]
fn a_url_among_the_allowed_hosts_is_refused() {
    let refused =
        refused("[sources.kie]\nallowed_hosts = [\"cdn.example.com\", \"https://x.example.com/\"]\n");
    assert!(
        refused.starts_with("config.toml:2: sources.kie.allowed_hosts: lists host names"),
        "{refused}"
    );
}

#[test]
fn a_problem_names_the_variable_or_flag_that_caused_it() {
    let setup = Setup::new().env([("REELHOOK_API__TOKENS", "short")]);
    assert!(
        setup
            .refused()
            .starts_with("REELHOOK_API__TOKENS: api.tokens: token 1 must be"),
        "{}",
        setup.refused()
    );
    let mut setup = Setup::new();
    setup.inputs.overrides.public_url = Some("ftp://localhost".parse().unwrap());
    assert!(
        setup
            .refused()
            .starts_with("--public-url: public_url: must be an http"),
        "{}",
        setup.refused()
    );
}

#[test]
fn one_half_of_a_certificate_is_refused_with_the_other_key() {
    let without_key = refused("[tls]\ncert_file = \"cert.pem\"\n");
    assert_eq!(without_key, "tls.key_file: must be set along with tls.cert_file");
    let without_cert = refused("[tls]\nkey_file = \"key.pem\"\n");
    assert_eq!(without_cert, "tls.cert_file: must be set along with tls.key_file");
}

#[test]
fn what_no_authority_would_certify_is_refused() {
    for (text, key) in [
        (
            "domains = [\"*.example.com\"]",
            "tls.acme.domains: lists \"*.example.com\"",
        ),
        ("domains = [\"192.0.2.1\"]", "tls.acme.domains: lists"),
        ("domains = [\"hooks.example.com.\"]", "tls.acme.domains: lists"),
        ("domains = [\"Hooks.example.com\"]", "tls.acme.domains: lists"),
        ("contact = \"ops@example.com\"", "tls.acme.domains: is empty"),
        (
            "domains = [\"a.localhost\"]\ncontact = \"ops\"",
            "tls.acme.contact: must be",
        ),
        (
            "domains = [\"a.localhost\"]\ndirectory_url = \"http://127.0.0.1/dir\"",
            "tls.acme.directory_url: must begin with https",
        ),
        (
            "domains = [\"a.localhost\"]\nhttp_listen = \"127.0.0.1:8080\"",
            "tls.acme.http_listen: is an address",
        ),
        (
            "domains = [\"a.localhost\"]\n[tls]\ncert_file = \"c\"\nkey_file = \"k\"",
            "tls.acme.domains: obtains",
        ),
    ] {
        let refused = refused(&format!("[tls.acme]\n{text}\n"));
        assert!(refused.contains(key), "{text}: {refused}");
    }
}

#[test]
fn an_authority_asks_port_80_of_the_address_we_listen_on() {
    let asked = |more: &str| {
        let text = format!("{more}\ntls.acme.domains = [\"hooks.example.com\"]\n{SIGNED}");
        Setup::new().file(text).loaded().acme_listen().to_string()
    };
    assert_eq!(asked("listen = \"0.0.0.0:443\""), "0.0.0.0:80");
    assert_eq!(asked("listen = \"[::]:443\""), "[::]:80");
    assert_eq!(
        asked("tls.acme.http_listen = \"127.0.0.1:5002\""),
        "127.0.0.1:5002"
    );
}

#[test]
fn a_certificate_for_a_public_name_makes_loopback_public() {
    let refused = refused("[sources.kie]\n[tls.acme]\ndomains = [\"hooks.example.com\"]\n");
    assert_eq!(refused.lines().count(), 2, "{refused}");
    assert!(
        refused.contains("tls.acme.domains names hooks.example.com"),
        "{refused}"
    );
}

#[test]
fn each_listener_is_refused_for_what_it_serves() {
    let keys = "[sources.kie]\nhmac_keys = [\"key\"]\n";
    let local_admin = "listen = \"0.0.0.0:443\"\nadmin_listen = \"127.0.0.1:8081\"\n";
    let config = Setup::new().file(format!("{local_admin}{keys}")).loaded();
    assert!(config.is_exposed() && config.api.tokens.is_empty());
    let callbacks = refused(&format!("{local_admin}[sources.kie]\n"));
    assert_eq!(callbacks.lines().count(), 1, "{callbacks}");
    assert!(
        callbacks.contains("sources.kie.hmac_keys: listen = "),
        "{callbacks}"
    );

    let public_admin = "admin_listen = \"0.0.0.0:8081\"\n";
    let api = refused(&format!("{public_admin}[sources.kie]\n"));
    assert_eq!(api.lines().count(), 1, "{api}");
    assert!(api.starts_with("api.tokens: admin_listen = "), "{api}");

    let same = refused("admin_listen = \"127.0.0.1:8080\"\n");
    assert!(same.contains("admin_listen: is the same as listen"), "{same}");
}

#[test]
fn the_api_speaks_tls_where_others_could_listen_in() {
    let speaks = |more: &str| {
        let text = format!("{more}\n{SIGNED}[tls]\ncert_file = \"c\"\nkey_file = \"k\"\n");
        Setup::new().file(text).loaded().api_speaks_tls()
    };
    assert!(speaks(""));
    assert!(speaks("admin_listen = \"0.0.0.0:8081\""));
    assert!(!speaks("admin_listen = \"127.0.0.1:8081\""));
    assert!(!Setup::new().loaded().api_speaks_tls());
}

#[test]
fn retention_is_an_age_or_off_and_not_too_short() {
    let config = Setup::new()
        .file("[retention]\ndeliveries = \"off\"\nrejected = \"1w 12h\"\ntasks = \"3d\"\nmedia_bytes = \"500GiB\"\n")
        .loaded();
    let expected = Retention {
        deliveries: None,
        rejected: Some(Duration::from_hours(7 * 24 + 12)),
        tasks: Some(Duration::from_hours(72)),
        media: None,
        media_bytes: Some(500 << 30),
    };
    assert_eq!(config.retention, expected);
    let shown = config.redacted_toml();
    assert!(
        shown.contains("deliveries = \"off\"") && shown.contains("tasks = \"3d\""),
        "{shown}"
    );
    assert!(
        shown.contains("media = \"off\"") && shown.contains("media_bytes = \"500GiB\""),
        "{shown}"
    );
    let odd = refused("[retention]\nmedia_bytes = \"much\"\n");
    assert!(odd.contains("or \"off\""), "{odd}");

    let least = refused("[retention]\ndeliveries = \"0s\"\nrejected = \"59m\"\ntasks = \"2d\"\n");
    assert_eq!(
        least.lines().collect::<Vec<_>>(),
        [
            "config.toml:2: retention.deliveries: must be at least 1h, or \"off\"",
            "config.toml:3: retention.rejected: must be at least 1h, or \"off\"",
            "config.toml:4: retention.tasks: must be at least 3d, or \"off\"",
        ]
    );
    for nonsense in ["\"\"", "\"ninety days\"", "\"1 month\"", "\"-3d\"", "90"] {
        let refused = refused(&format!("[retention]\ntasks = {nonsense}\n"));
        assert!(
            refused.contains("expected an age such as \"90d\" or \"12h\", or \"off\""),
            "{refused}"
        );
    }
}
