//! Why a guarded request failed, sorted by what it means to the caller.

use std::error::Error;
use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

/// Why a guarded request gave no answer, or why its body broke off.
///
/// No text of it, nor of its sources, holds a URL's path, query or userinfo.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The guard refused the URL, a redirect or an address. Asking again will not help.
    #[error("refused by the guard: {reason}")]
    Blocked {
        /// What it objected to.
        reason: BlockReason,
    },
    /// The name has no address, or the name service did not answer.
    #[error("the name {host} could not be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// As the resolver put it.
        source: reqwest::Error,
    },
    /// No connection could be made.
    #[error("no connection to {host}")]
    Connect {
        /// The host.
        host: String,
        /// As the operating system put it.
        source: reqwest::Error,
    },
    /// No TLS session could be made, or the certificate was not accepted.
    #[error("no secure connection to {host}")]
    Tls {
        /// The host.
        host: String,
        /// As the TLS library put it.
        source: reqwest::Error,
    },
    /// Connecting took too long, or nothing arrived for longer than the idle limit.
    #[error("{host} did not answer in time")]
    Timeout {
        /// The host.
        host: String,
        /// Which wait it was.
        source: reqwest::Error,
    },
    /// More redirects in a row than [`super::MAX_REDIRECTS`].
    #[error("more than {} redirects", super::MAX_REDIRECTS)]
    TooManyRedirects,
    /// The body ended before its announced length.
    #[error("{host} broke off before the end of the body")]
    Truncated {
        /// The host.
        host: String,
        /// As the HTTP library put it.
        source: reqwest::Error,
    },
    /// The connection broke, or the peer does not speak HTTP.
    #[error("the exchange with {host} failed")]
    Exchange {
        /// The host.
        host: String,
        /// As the HTTP library put it.
        source: reqwest::Error,
    },
    /// The client could not be built: no usable TLS set-up.
    #[error("the HTTP client could not be built")]
    Build {
        /// As the HTTP library put it.
        source: reqwest::Error,
    },
}

/// What the guard objected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockReason {
    /// Not a URL, or one without a usable host.
    #[error("not a valid URL")]
    InvalidUrl,
    /// Neither http nor https.
    #[error("the scheme {scheme} is not fetched, only http and https")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// A user name or password in the URL.
    #[error("a URL with a user name or password is not fetched")]
    Userinfo,
    /// A port off the list.
    #[error("port {port} of {host} is not on the list of ports")]
    Port {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A host off the source's list.
    #[error("the host {host} is not among the allowed hosts")]
    Host {
        /// The host.
        host: String,
    },
    /// A name that can only mean this machine or its network, while no private range is allowed.
    #[error("the name {host} belongs to a local network")]
    LocalName {
        /// The name.
        host: String,
    },
    /// An address that is neither public nor in an allowed range.
    #[error("{host} leads to {address}, which is not public ({class})")]
    Address {
        /// The host.
        host: String,
        /// Its address, or one of its addresses.
        address: IpAddr,
        /// What kind of address it is.
        class: &'static str,
    },
    /// A public address, although the port or the name may lead to allowed ranges only.
    #[error(
        "{host} leads to {address}, which is outside of the allowed ranges; its port or name is for those only"
    )]
    NotListed {
        /// The host.
        host: String,
        /// Its address, or one of its addresses.
        address: IpAddr,
    },
    /// The connection went to an address nobody can name, so it could not be checked.
    #[error("the address behind {host} is unknown")]
    UnknownPeer {
        /// The host.
        host: String,
    },
    /// A redirect from https to http.
    #[error("redirected from https to http")]
    Downgrade,
}

impl From<BlockReason> for EgressError {
    fn from(reason: BlockReason) -> Self {
        Self::Blocked { reason }
    }
}

impl EgressError {
    /// Sorts an error of the HTTP library: from sending the request, or from reading the body of its answer.
    pub fn from_transport(error: reqwest::Error, host: &str) -> Self {
        let source = error.without_url();
        let host = host.to_owned();
        if let Some(reason) = cause::<BlockReason>(&source) {
            return reason.clone().into();
        }
        if source.is_timeout() {
            Self::Timeout { host, source }
        } else if source.is_dns() {
            Self::Resolve { host, source }
        } else if cause::<rustls::Error>(&source).is_some() {
            Self::Tls { host, source }
        } else if source.is_connect() {
            Self::Connect { host, source }
        } else if !source.is_request() && broke_off(&source) {
            Self::Truncated { host, source }
        } else {
            Self::Exchange { host, source }
        }
    }

    /// Whether this machine is at fault, having no descriptors or memory left, and the peer is not.
    pub fn is_local(&self) -> bool {
        self.has_errno(&[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM])
    }

    fn has_errno(&self, wanted: &[Errno]) -> bool {
        causes(self)
            .filter_map(|cause| Errno::from_io_error(cause.downcast_ref::<io::Error>()?))
            .any(|errno| wanted.contains(&errno))
    }

    /// Whether no connection came into being: the peer is gone, or the way to it is.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } => true,
            Self::Timeout { source, .. } => source.is_connect(),
            _ => false,
        }
    }

    /// Whether the peer answered, before whatever went wrong.
    pub fn has_answered(&self) -> bool {
        match self {
            Self::Truncated { .. } | Self::TooManyRedirects => true,
            // An error of the request comes before the head of an answer.
            Self::Exchange { source, .. } | Self::Timeout { source, .. } => {
                !source.is_connect() && !source.is_request()
            }
            _ => false,
        }
    }

    /// The error with its innermost cause, as one sentence.
    pub fn sentence(&self) -> String {
        match causes(self).last().map(ToString::to_string) {
            Some(root) if root != self.to_string() => format!("{self}: {root}"),
            _ => self.to_string(),
        }
    }
}

/// The error and everything below it. An `io::Error` that wraps another error is its own level: its `source` skips
/// the very error it wraps.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn broke_off(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let ended = |io: &io::Error| io.kind() == io::ErrorKind::UnexpectedEof;
        cause.downcast_ref::<io::Error>().is_some_and(ended)
            || cause
                .downcast_ref::<hyper::Error>()
                .is_some_and(hyper::Error::is_incomplete_message)
    })
}
