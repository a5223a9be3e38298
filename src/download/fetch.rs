//! From a URL to a whole, checked file in the spool.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderName, RETRY_AFTER};

use super::content::{Sniffed, examine};
use super::failure::FetchError;
use crate::egress::{EgressError, GuardedClient, Request};
use crate::storage::{Finished, SpoolFile, Storage};
use crate::store::downloads::Lease;

/// What to fetch, and within which limits.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Whose claim it is; names the spool file.
    pub lease: Lease,
    /// Where the provider says the file lies.
    pub url: &'a str,
    /// Hosts that may be asked; empty: any public host.
    pub allowed_hosts: &'a [String],
    /// Largest file, in bytes.
    pub max_size: u64,
    /// Longest time for all of it.
    pub total_timeout: Duration,
}

/// A file that is worth storing.
#[derive(Debug)]
pub struct Fetched {
    /// The file, whole and synced.
    pub file: Finished,
    /// What it is.
    pub content: Sniffed,
}

/// Fetches a file into the spool: status, length, size limit and content are checked, in that order.
///
/// If it fails, or is dropped on the way, the spool file is gone.
pub async fn fetch_to_spool(
    client: &GuardedClient,
    storage: &Storage,
    target: &Target<'_>,
) -> Result<Fetched, FetchError> {
    let limit = target.total_timeout;
    tokio::time::timeout(limit, fetch(client, storage, target))
        .await
        .unwrap_or(Err(FetchError::TooSlow { limit }))
}

async fn fetch(
    client: &GuardedClient,
    storage: &Storage,
    target: &Target<'_>,
) -> Result<Fetched, FetchError> {
    let request = Request {
        url: target.url,
        allowed_hosts: target.allowed_hosts,
        headers: HeaderMap::new(),
    };
    let response = client.get(&request).await?;
    let announced = check_head(&response, target.max_size)?;
    let mut spool = storage
        .create_spool(target.lease.download, target.lease.token)
        .await?;
    stream(response, &mut spool, target.max_size).await?;
    let received = spool.bytes();
    match announced {
        // The HTTP library sees to it already, for HTTP/1 by breaking off; a file is not left to that alone.
        Some(announced) if announced != received => return Err(FetchError::Length { announced, received }),
        _ => {}
    }
    let file = spool.finish().await?;
    let content = examine(&file.head, target.url)?;
    Ok(Fetched { file, content })
}

/// Refuses an answer by its head; returns the announced length.
fn check_head(response: &Response, max_size: u64) -> Result<Option<u64>, FetchError> {
    // We ask for no range, so 206 is as wrong as any other status.
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status {
            status: response.status().as_u16(),
            retry_after: text_of(response, &RETRY_AFTER),
        });
    }
    match text_of(response, &CONTENT_ENCODING) {
        Some(encoding)
            if !encoding.trim().is_empty() && !encoding.trim().eq_ignore_ascii_case("identity") =>
        {
            return Err(FetchError::Encoded { encoding });
        }
        _ => {}
    }
    let announced = response.content_length();
    if announced.is_some_and(|announced| announced > max_size) {
        return Err(FetchError::TooLarge { limit: max_size });
    }
    Ok(announced)
}

fn text_of(response: &Response, name: &HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

async fn stream(mut response: Response, spool: &mut SpoolFile, max_size: u64) -> Result<(), FetchError> {
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(()),
            Err(error) => {
                let host = response.url().host_str().unwrap_or_default();
                return Err(EgressError::from_transport(error, host).into());
            }
        };
        if spool.bytes() + chunk.len() as u64 > max_size {
            return Err(FetchError::TooLarge { limit: max_size });
        }
        spool.write(&chunk).await?;
    }
}
