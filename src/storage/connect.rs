//! How object stores are reached, and what their failures are called.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, Certificate, ClientOptions, Error, RetryConfig};

use super::bucket::Service;
use crate::config::{Bucket, REDACTED, Scheme, Variables};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a request may go without an answer: a part of 8 MiB takes that long at half a megabit a second.
const SILENCE: Duration = Duration::from_mins(2);
/// How a request that failed in passing is tried again. Past that, the fault is the storage's, and the caller waits.
const RETRIES: usize = 6;
const RETRIED_FOR: Duration = Duration::from_mins(1);
/// What is shown of an answer at most, in characters.
const SHOWN: usize = 200;

/// Why a bucket cannot even be asked: a variable is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{bucket} cannot be used: {told}; set its {variables}… variables")]
pub struct BadSettings {
    bucket: String,
    told: String,
    variables: &'static str,
}

/// Whoever stands behind the bucket.
pub(super) fn service(bucket: &Bucket, variables: &Variables) -> Result<Service, BadSettings> {
    // An error means that a provider is installed already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let build = |options| match bucket.scheme {
        Scheme::S3 => s3(bucket, variables, options),
        Scheme::Gs => gs(bucket, variables, options),
        Scheme::Az => az(bucket, variables, options),
    };
    // The build fails where the system has no certificates at all, as that of every client here does.
    build(options())
        .or_else(|error| build(with_bundled_roots(options())).map_err(|_| error))
        .map_err(|error| BadSettings {
            bucket: bucket.to_string(),
            told: without_secrets(&error.to_string(), variables),
            variables: bucket.scheme.variables(),
        })
}

fn options() -> ClientOptions {
    // No time-out for a request as a whole: it would cut off whoever reads a file slowly.
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT)
        .with_read_timeout(SILENCE)
        .with_user_agent(HeaderValue::from_static(concat!(
            "reelhook/",
            env!("CARGO_PKG_VERSION")
        )))
}

fn with_bundled_roots(options: ClientOptions) -> ClientOptions {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    let roots = roots.filter_map(|root| Certificate::from_der(root).ok());
    roots.fold(
        options.with_no_system_certificates(true),
        ClientOptions::with_root_certificate,
    )
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES,
        retry_timeout: RETRIED_FOR,
    }
}

/// Those variables that the builder knows; what others are for is nobody's business here.
fn known<K: std::str::FromStr>(variables: &Variables) -> impl Iterator<Item = (K, &str)> {
    variables.iter().filter_map(|(name, value)| {
        let key = name.to_ascii_lowercase().parse().ok()?;
        Some((key, value.expose()))
    })
}

fn s3(bucket: &Bucket, variables: &Variables, options: ClientOptions) -> Result<Service, Error> {
    // Each request carries the SHA-256 of its body, by which the store refuses what was damaged on the way. Files are
    // removed one by one: not all that speak like S3 know how to remove many.
    let builder = AmazonS3Builder::new()
        .with_client_options(options)
        .with_retry(retries())
        .with_checksum_algorithm(Checksum::SHA256)
        .with_disable_bulk_delete(true);
    let builder = known::<AmazonS3ConfigKey>(variables)
        .fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Ok(all_of(builder.with_bucket_name(&bucket.name).build()?))
}

fn gs(bucket: &Bucket, variables: &Variables, options: ClientOptions) -> Result<Service, Error> {
    let builder = GoogleCloudStorageBuilder::new()
        .with_client_options(options)
        .with_retry(retries());
    let builder = known::<GoogleConfigKey>(variables)
        .fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Ok(all_of(builder.with_bucket_name(&bucket.name).build()?))
}

fn az(bucket: &Bucket, variables: &Variables, options: ClientOptions) -> Result<Service, Error> {
    let builder = MicrosoftAzureBuilder::new()
        .with_client_options(options)
        .with_retry(retries());
    let builder = known::<AzureConfigKey>(variables)
        .fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Ok(all_of(builder.with_container_name(&bucket.name).build()?))
}

fn all_of<S>(store: S) -> Service
where
    S: object_store::ObjectStore + object_store::multipart::MultipartStore + object_store::signer::Signer,
{
    let store = Arc::new(store);
    Service {
        objects: store.clone(),
        uploads: store.clone(),
        signer: store,
    }
}

/// Whether what was not found is the bucket itself.
pub(super) fn names_bucket(error: &Error) -> bool {
    innermost(error).contains("NoSuchBucket") || innermost(error).contains("ContainerNotFound")
}

/// What went wrong, for people: the last cause, without the URL that was asked for and the document that was answered.
pub(super) fn told(error: &Error) -> String {
    let cause = innermost(error);
    let (text, document) = cause.split_once('<').unwrap_or((&cause, ""));
    let code = document
        .split_once("Code>")
        .and_then(|(_, rest)| rest.split_once('<'))
        .map_or(String::new(), |(code, _)| format!(" ({code})"));
    let text: String = text
        .trim_end_matches([':', ' ', '\n'])
        .chars()
        .take(SHOWN)
        .collect();
    let advice = match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            "; check the credentials and what they permit"
        }
        Error::NotFound { .. } => "; make the bucket, or name another one in storage.url",
        _ => "",
    };
    if text.contains("://") {
        return format!("no usable answer{code}{advice}");
    }
    format!("{text}{code}{advice}")
}

fn innermost(error: &Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// The text with no value of a variable in it that would let somebody in.
pub(super) fn without_secrets(text: &str, variables: &Variables) -> String {
    let secrets = variables.secrets();
    secrets.fold(text.to_owned(), |text, secret| {
        text.replace(secret.expose(), REDACTED)
    })
}
