use super::*;
use crate::config::keys::KEYS;

/// The example with every key and section uncommented: prose has a blank after its `#`.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    EXAMPLE.lines().map(line).collect()
}

#[test]
fn the_example_as_it_is_changes_nothing() {
    let setup = Setup::new().file(EXAMPLE);
    let config = setup.loaded();
    assert!(config.is_configless());
    assert!(config.origin.places.is_empty());
}

#[test]
fn the_example_uncommented_equals_the_defaults() {
    let config = Setup::new().file(uncommented()).loaded();
    // The one key without a default of its own: written out, it is what follows from the others.
    let kie = Source {
        confirm: Some(false),
        ..Source::default()
    };
    let sources = BTreeMap::from([(SourceName::kie(), kie)]);
    assert_eq!(
        Config {
            origin: Origin::default(),
            ..config
        },
        Config {
            sources,
            ..Config::default()
        }
    );
}

#[test]
fn the_example_has_every_key_in_the_order_of_the_list() {
    let lines: Vec<String> = uncommented()
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(str::to_owned)
        .collect();
    let mut section = String::new();
    let mut found = Vec::new();
    for line in lines.iter().filter(|line| !line.is_empty()) {
        match line.strip_prefix('[') {
            Some(name) => section = format!("{}.", name.trim_end_matches(']').replace("kie", "*")),
            None => found.push(format!("{section}{}", line.split(' ').next().unwrap())),
        }
    }
    assert_eq!(found, KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>());
}

#[test]
fn the_list_of_keys_is_that_of_the_structs() {
    let source = Source {
        confirm: Some(true),
        ..Source::default()
    };
    let config = Config {
        sources: BTreeMap::from([(SourceName::kie(), source)]),
        ..Config::default()
    };
    let table = toml::Table::try_from(&config).unwrap();
    let mut keys = Vec::new();
    leaves(&table, "", &mut keys);
    let mut expected: Vec<String> = KEYS.iter().map(|(key, _)| key.replace('*', "kie")).collect();
    keys.sort();
    expected.sort();
    assert_eq!(keys, expected);
}

fn leaves(table: &toml::Table, prefix: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => leaves(inner, &format!("{prefix}{key}."), keys),
            _ => keys.push(format!("{prefix}{key}")),
        }
    }
}
