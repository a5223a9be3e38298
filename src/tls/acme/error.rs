//! Why no certificate was obtained.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::tls::Flaw;

/// Why no certificate was obtained. Each says what to do, where that is known.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The file of `tls.acme.directory_ca_file` cannot be used.
    #[error("{} holds no certificate that could vouch for the ACME directory: {detail}", path.display())]
    DirectoryCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// No HTTP client.
    #[error("cannot set up an HTTP client: {0}")]
    Client(reqwest::Error),
    /// Account or certificate cannot be kept.
    #[error("{} cannot be used; make it writable: {cause}", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The authority, or the way to it, failed.
    #[error("{}", told(.0))]
    Authority(#[from] instant_acme::Error),
    /// The authority did not find at our address what it looked for.
    #[error("the authority could not verify {reasons}")]
    NotVerified {
        /// Each name, with what the authority said.
        reasons: String,
    },
    /// The authority does not offer http-01.
    #[error("the authority does not verify {0} by http-01, which is all that reelhook answers")]
    NoHttp01(String),
    /// It took too long.
    #[error("the authority did not finish within {0:?}")]
    TooSlow(Duration),
    /// What the authority gave cannot be served.
    #[error("what the authority issued {0}")]
    Unusable(Flaw),
}

/// Problems by their own words; of a failed request the innermost reason, for the outer ones only say that it failed.
fn told(error: &instant_acme::Error) -> String {
    if let instant_acme::Error::Api(problem) = error {
        let kind = problem.r#type.as_deref().unwrap_or("no type");
        let own = problem.detail.as_deref();
        let of_names = problem.subproblems.iter().filter_map(|sub| sub.detail.as_deref());
        let details: Vec<&str> = own.into_iter().chain(of_names).collect();
        return format!("the authority refused: {} ({kind})", details.join("; "));
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    format!("the authority was not reached or not understood: {innermost}")
}
