//! The list of keys: what may stand in a file or in the environment, and how the latter is written.

/// How the text of an environment variable becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Taken as it is.
    Text,
    /// `true` or `false`.
    Flag,
    /// Digits.
    Integer,
    /// Texts separated by commas.
    List,
    /// Digits separated by commas.
    Integers,
}

/// Every key, dotted; `*` is a source's name. In the order of the example file.
pub(super) const KEYS: &[(&str, Shape)] = &[
    ("listen", Shape::Text),
    ("admin_listen", Shape::Text),
    ("public_url", Shape::Text),
    ("data_dir", Shape::Text),
    ("trusted_proxies", Shape::List),
    ("shutdown_grace", Shape::Text),
    ("sources.*.hmac_keys", Shape::List),
    ("sources.*.hmac_keys_file", Shape::Text),
    ("sources.*.timestamp_tolerance", Shape::Text),
    ("sources.*.tokens", Shape::List),
    ("sources.*.tokens_file", Shape::Text),
    ("sources.*.allow_unverified", Shape::Flag),
    ("sources.*.api_url", Shape::Text),
    ("sources.*.api_key", Shape::Text),
    ("sources.*.api_key_file", Shape::Text),
    ("sources.*.api_queries", Shape::Integer),
    ("sources.*.api_submissions", Shape::Integer),
    ("sources.*.confirm", Shape::Flag),
    ("sources.*.allowed_hosts", Shape::List),
    ("api.tokens", Shape::List),
    ("api.tokens_file", Shape::Text),
    ("dashboard.enabled", Shape::Flag),
    ("dashboard.session_ttl", Shape::Text),
    ("tls.cert_file", Shape::Text),
    ("tls.key_file", Shape::Text),
    ("tls.acme.domains", Shape::List),
    ("tls.acme.contact", Shape::Text),
    ("tls.acme.directory_url", Shape::Text),
    ("tls.acme.directory_ca_file", Shape::Text),
    ("tls.acme.http_listen", Shape::Text),
    ("ingest.max_body", Shape::Text),
    ("ingest.max_inflight", Shape::Text),
    ("ingest.body_timeout", Shape::Text),
    ("ingest.header_timeout", Shape::Text),
    ("ingest.write_timeout", Shape::Text),
    ("ingest.max_connections", Shape::Integer),
    ("ingest.max_connections_per_address", Shape::Integer),
    ("downloads.concurrency", Shape::Integer),
    ("downloads.per_host", Shape::Integer),
    ("downloads.max_size", Shape::Text),
    ("downloads.connect_timeout", Shape::Text),
    ("downloads.idle_timeout", Shape::Text),
    ("downloads.total_timeout", Shape::Text),
    ("downloads.min_speed", Shape::Text),
    ("downloads.stall_timeout", Shape::Text),
    ("downloads.max_attempts", Shape::Integer),
    ("downloads.give_up_after", Shape::Text),
    ("downloads.retry_base", Shape::Text),
    ("downloads.retry_cap", Shape::Text),
    ("reconcile.after", Shape::Text),
    ("reconcile.every", Shape::Text),
    ("reconcile.give_up_after", Shape::Text),
    ("reconcile.max_per_second", Shape::Integer),
    ("dropin.source", Shape::Text),
    ("files.url_ttl", Shape::Text),
    ("egress.ports", Shape::Integers),
    ("egress.allow_cidrs", Shape::List),
    ("storage.url", Shape::Text),
    ("storage.reserve", Shape::Text),
    ("storage.layout", Shape::Text),
    ("storage.serve", Shape::Text),
    ("retention.deliveries", Shape::Text),
    ("retention.rejected", Shape::Text),
    ("retention.tasks", Shape::Text),
    ("retention.media", Shape::Text),
    ("retention.media_bytes", Shape::Text),
    ("scrub.every", Shape::Text),
    ("scrub.rate", Shape::Text),
    ("scrub.repair", Shape::Flag),
    ("telemetry.otlp_endpoint", Shape::Text),
    ("telemetry.otlp_headers", Shape::List),
    ("telemetry.otlp_headers_file", Shape::Text),
    ("telemetry.sample_ratio", Shape::Text),
    ("log.format", Shape::Text),
    ("log.level", Shape::Text),
];

/// What a path of names leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// A key with a value.
    Key(Shape),
    /// A section with keys below it.
    Section,
    /// Nothing we know.
    Unknown,
}

/// Looks a path up.
pub(super) fn node(path: &[&str]) -> Node {
    for (key, shape) in KEYS {
        let mut names = key.split('.');
        if path
            .iter()
            .all(|part| names.next().is_some_and(|name| name == *part || name == "*"))
        {
            return if names.next().is_none() {
                Node::Key(*shape)
            } else {
                Node::Section
            };
        }
    }
    Node::Unknown
}

/// Whether a name may stand at the top.
pub(super) fn is_top_level(name: &str) -> bool {
    node(&[name]) != Node::Unknown
}

/// What to say about a path that leads nowhere: where the key belongs if it is known elsewhere, else what may stand here.
pub(super) fn advice(path: &[&str]) -> String {
    let (name, section) = path.split_last().expect("a path has a name");
    let elsewhere = KEYS.iter().find_map(|(key, _)| match key.rsplit_once('.') {
        Some((section, last)) if last == *name => {
            Some(format!("it belongs under [{}]", section.replace('*', "NAME")))
        }
        None if key == name => Some("it belongs at the top, before the first [section]".to_owned()),
        _ => None,
    });
    let here = || {
        let known = names_in(section);
        match section {
            [] => format!("known here are {known}"),
            _ => format!("known in [{}] are {known}", section.join(".")),
        }
    };
    format!("unknown key; {}", elsewhere.unwrap_or_else(here))
}

/// The names that may stand in a section, as a list for a sentence.
fn names_in(section: &[&str]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (key, _) in KEYS {
        let mut parts = key.split('.');
        let inside = section
            .iter()
            .all(|part| parts.next().is_some_and(|name| name == *part || name == "*"));
        if let Some(name) = parts.next().filter(|name| inside && !names.contains(name)) {
            names.push(name);
        }
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_keys_sections_or_nowhere() {
        assert_eq!(node(&["listen"]), Node::Key(Shape::Text));
        assert_eq!(node(&["sources"]), Node::Section);
        assert_eq!(node(&["sources", "anything"]), Node::Section);
        assert_eq!(node(&["sources", "anything", "confirm"]), Node::Key(Shape::Flag));
        assert_eq!(node(&["listen", "deeper"]), Node::Unknown);
        assert_eq!(node(&["lisen"]), Node::Unknown);
    }

    #[test]
    fn advice_tells_where_a_key_belongs_or_what_is_known() {
        assert_eq!(
            advice(&["api_key"]),
            "unknown key; it belongs under [sources.NAME]"
        );
        assert_eq!(
            advice(&["sources", "kie", "listen"]),
            "unknown key; it belongs at the top, before the first [section]"
        );
        assert_eq!(
            advice(&["api", "tokns"]),
            "unknown key; known in [api] are tokens, tokens_file"
        );
        assert!(advice(&["lisen"]).ends_with(
            "ingest, downloads, reconcile, dropin, files, egress, storage, retention, scrub, telemetry, log"
        ));
    }
}
