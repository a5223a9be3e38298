//! Why a callback is not taken, each with its stable reason.

use crate::provider::encoding::EncodingError;
use crate::provider::payload::PayloadError;
use crate::provider::signature::SignatureError;
use crate::store::StoreError;

/// Why a callback is not taken; in the order in which they are looked for.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No source of that name is configured.
    #[error(
        "no source of this name is configured; add it under [sources] or correct the path of the callback URL"
    )]
    UnknownSource,
    /// The body is larger than `ingest.max_body`, unpacked.
    #[error("the body is larger than ingest.max_body")]
    TooLarge,
    /// The source wants `?token=`.
    #[error("the callback URL lacks ?token=; `reelhook url` prints the right one")]
    MissingToken,
    /// None of the source's tokens.
    #[error("the token in the callback URL is none of the source's; `reelhook url` prints the right one")]
    BadToken,
    /// The source wants the two signature headers.
    #[error(
        "X-Webhook-Timestamp or X-Webhook-Signature is missing; generate a webhookHmacKey in the provider's settings, \
         or verify this source by tokens"
    )]
    MissingSignature,
    /// `kind` or `index` in the query is malformed.
    #[error("the query's {0} is malformed; `reelhook url` prints the right callback URL")]
    BadQuery(&'static str),
    /// The body is not about exactly one task.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The signature does not hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// More arrives than can be committed.
    #[error("more callbacks arrive than can be recorded; try again shortly")]
    Busy,
    /// We are shutting down and the writer has ended.
    #[error("reelhook is shutting down; try again shortly")]
    Draining,
    /// The database failed: nothing was kept.
    #[error("the callback could not be recorded; try again shortly")]
    StoreUnavailable(#[source] StoreError),
}

impl Refusal {
    /// The stable code of it in answers, logs and records.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownSource => "unknown_source",
            Self::TooLarge => "too_large",
            Self::MissingToken => "missing_token",
            Self::BadToken => "bad_token",
            Self::MissingSignature => "missing_signature",
            Self::BadQuery(_) => "bad_query",
            Self::Payload(error) => error.reason(),
            Self::Signature(SignatureError::Stale { .. }) => "stale",
            Self::Signature(SignatureError::Bad) => "bad_signature",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::StoreUnavailable(_) => "store_unavailable",
        }
    }

    /// Whether it was sent by the provider once, and only the time is wrong.
    pub(super) fn is_only_late(&self) -> bool {
        matches!(
            self,
            Self::Signature(SignatureError::Stale { mac_valid: true, .. })
        )
    }

    /// Whether the refused delivery is kept for people to look at: it is, where the sender was at fault.
    pub fn is_recorded(&self) -> bool {
        !matches!(
            self,
            Self::UnknownSource | Self::TooLarge | Self::Busy | Self::Draining | Self::StoreUnavailable(_)
        )
    }
}

impl From<EncodingError> for Refusal {
    fn from(error: EncodingError) -> Self {
        match error {
            EncodingError::TooLarge => Self::TooLarge,
            EncodingError::NotGzip => Self::Payload(PayloadError::NotJson {
                detail: error.to_string(),
            }),
        }
    }
}
