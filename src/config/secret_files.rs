//! Secrets that lie in files of their own, as container platforms hand them out.

use std::path::Path;

use super::Config;
use super::error::Problem;
use super::secret::Secret;

/// Reads all `…_file` keys into the keys they stand for.
pub(super) fn read(config: &mut Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut note = |key: String, message: String| problems.push((key, message));
    for (name, source) in &mut config.sources {
        let key = |key: &str| format!("sources.{name}.{key}");
        if let Some(path) = &source.hmac_keys_file {
            append(&mut source.hmac_keys, path).unwrap_or_else(|error| note(key("hmac_keys_file"), error));
        }
        if let Some(path) = &source.tokens_file {
            append(&mut source.tokens, path).unwrap_or_else(|error| note(key("tokens_file"), error));
        }
        match (&source.api_key_file, &source.api_key) {
            (Some(_), Some(_)) => {
                note(
                    key("api_key_file"),
                    format!("set either this or {}, not both", key("api_key")),
                );
            }
            (Some(path), None) => match single(path) {
                Ok(secret) => source.api_key = Some(secret),
                Err(error) => note(key("api_key_file"), error),
            },
            (None, _) => {}
        }
    }
    if let Some(path) = &config.api.tokens_file {
        append(&mut config.api.tokens, path)
            .unwrap_or_else(|error| note("api.tokens_file".to_owned(), error));
    }
    if let Some(path) = &config.telemetry.otlp_headers_file {
        append(&mut config.telemetry.otlp_headers, path)
            .unwrap_or_else(|error| note("telemetry.otlp_headers_file".to_owned(), error));
    }
    problems
        .into_iter()
        .map(|(key, message)| config.problem(key, message))
        .collect()
}

/// Adds every non-empty line of a file.
fn append(secrets: &mut Vec<Secret>, path: &Path) -> Result<(), String> {
    let text = text(path)?;
    secrets.extend(
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(Secret::new),
    );
    Ok(())
}

/// The one secret of a file.
fn single(path: &Path) -> Result<Secret, String> {
    let text = text(path)?;
    match text.trim() {
        line if line.contains('\n') => Err(format!("{} must hold one line", path.display())),
        line => Ok(Secret::new(line)),
    }
}

/// A file's text. An empty one is refused: whoever names a file of keys does not want to run without any.
fn text(path: &Path) -> Result<String, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if text.trim().is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    Ok(text)
}
