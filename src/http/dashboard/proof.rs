//! What proves that a delivery is what it says, and where it came from.

use crate::config::Source;

/// What decides over the proof of a delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived<'a> {
    /// `callback`, `poll` or `api`.
    pub(crate) via: &'a str,
    pub(crate) verdict: &'a str,
    pub(crate) reason: Option<&'a str>,
    /// Whether it has an X-Webhook-Signature, whatever that is worth.
    pub(crate) has_signature: bool,
}

/// What of a delivery is proven, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Its signature was verified.
    Signature,
    /// It has one that no configured key made.
    BadSignature,
    /// It has one that is for another time.
    Stale,
    /// It has one, and was rejected before anybody looked at that.
    NotLookedAt,
    /// It has one, and its source has no keys.
    NoKeys,
    /// It has one, and whether its source has keys is not known.
    MaybeSignature,
    /// Its URL had what its source wants.
    Token,
    /// A person believed it.
    Person,
    /// We asked for it, or saw it pass.
    OurQuestion,
    /// It has no signature, and what its source wants is not known.
    MaybeToken,
    Nothing,
}

impl Proof {
    /// By the source as it is configured now, if it is.
    pub(crate) fn of(arrived: &Arrived<'_>, source: Option<&Source>) -> Self {
        if arrived.via != "callback" {
            return Self::OurQuestion;
        }
        let is_rejected = arrived.verdict == "rejected";
        match (source, arrived.has_signature) {
            (_, true) if is_rejected => match arrived.reason {
                Some("bad_signature") => Self::BadSignature,
                Some("stale") => Self::Stale,
                _ => Self::NotLookedAt,
            },
            (_, false) if is_rejected => Self::Nothing,
            (None, true) => Self::MaybeSignature,
            (Some(source), true) if source.hmac_keys.is_empty() => Self::NoKeys,
            (Some(_), true) => Self::Signature,
            (_, false) if arrived.reason == Some("accepted_by_person") => Self::Person,
            (None, false) => Self::MaybeToken,
            (Some(source), false) if source.hmac_keys.is_empty() && !source.tokens.is_empty() => Self::Token,
            (Some(_), false) => Self::Nothing,
        }
    }

    /// Whether a signature that holds covers its task id and timestamp.
    pub(crate) fn is_signature(self) -> bool {
        self == Self::Signature
    }

    /// A sentence about it. Where there is a signature that holds, it goes before what is marked.
    pub(crate) fn sentence(self, source: &str) -> String {
        match self {
            Self::Signature => "The signature covers what is marked: the task id and the timestamp, and nothing else.".to_owned(),
            Self::BadSignature => "It carries a signature that did not hold: nothing of it is proven.".to_owned(),
            Self::Stale => {
                "It carries a signature that came too late, or ahead of its time: nothing of it is proven.".to_owned()
            }
            Self::NotLookedAt => {
                "It carries a signature that was not looked at: nothing of it is proven.".to_owned()
            }
            Self::NoKeys => {
                format!("It carries a signature, but source {source} has no hmac_keys: nobody verified it.")
            }
            Self::MaybeSignature => format!(
                "It carries a signature. If source {source} had hmac_keys, it was verified: it covers the task id and the timestamp, \
                 and nothing else. If not, nobody verified it."
            ),
            Self::Token => "It is proven by the token in its URL (or by the reference of a submission), not by a signature.".to_owned(),
            Self::Person => "It carries no signature: a person believed it.".to_owned(),
            Self::OurQuestion => "It is what the provider's API answered; an answer carries no signature.".to_owned(),
            Self::MaybeToken => format!(
                "It carries no signature. If source {source} had tokens, it is proven by the one in its URL; if not, nothing of it is."
            ),
            Self::Nothing => "It carries no signature: nothing of it is proven.".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn source(keys: usize, tokens: usize) -> Source {
        let secrets = |n| (0..n).map(|_| Secret::from("some secret".to_owned())).collect();
        Source {
            hmac_keys: secrets(keys),
            tokens: secrets(tokens),
            ..Source::default()
        }
    }

    fn proof(verdict: &str, reason: Option<&str>, has_signature: bool, source: Option<&Source>) -> Proof {
        let arrived = Arrived {
            via: "callback",
            verdict,
            reason,
            has_signature,
        };
        Proof::of(&arrived, source)
    }

    #[test]
    fn a_signature_proves_only_where_somebody_verified_it() {
        let (keyed, open, tokens) = (source(1, 1), source(0, 0), source(0, 1));
        for verdict in ["accepted", "duplicate", "conflict"] {
            let of = |source| proof(verdict, None, true, source);
            assert_eq!(of(Some(&keyed)), Proof::Signature);
            assert_eq!(of(Some(&open)), Proof::NoKeys);
            assert_eq!(of(Some(&tokens)), Proof::NoKeys);
            assert_eq!(of(None), Proof::MaybeSignature);
        }
        let refused = |reason| proof("rejected", Some(reason), true, Some(&keyed));
        assert_eq!(refused("bad_signature"), Proof::BadSignature);
        assert_eq!(refused("stale"), Proof::Stale);
        assert_eq!(refused("bad_token"), Proof::NotLookedAt);
    }

    #[test]
    fn without_a_signature_the_token_proves_where_one_was_wanted() {
        let (open, tokens) = (source(0, 0), source(0, 1));
        let of = |verdict, reason, source| proof(verdict, reason, false, source);
        assert_eq!(of("accepted", None, Some(&tokens)), Proof::Token);
        assert_eq!(
            of("accepted", Some("accepted_by_person"), Some(&tokens)),
            Proof::Person
        );
        assert_eq!(of("accepted", None, Some(&open)), Proof::Nothing);
        assert_eq!(of("accepted", None, None), Proof::MaybeToken);
        assert_eq!(of("rejected", Some("bad_token"), Some(&tokens)), Proof::Nothing);
    }
}
