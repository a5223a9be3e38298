//! Who signed in with an API token: a cookie that proves it, and nothing kept here.
//!
//! The proof covers the expiry and the digest of the token, so a token that is taken out of the configuration ends its
//! sessions with it. Its key is made of what only this installation knows, so no other one's cookie opens anything.

use std::fmt;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::frame::cookies;
use crate::clock::{Millis, millis};
use crate::config::Secret;

/// Over https the prefix has the browser see to it that nobody else, such as another host of the domain, set the cookie.
const SECURE_NAME: &str = "__Host-reelhook";
const PLAIN_NAME: &str = "reelhook";

/// Characters of a value: an expiry, a dot and a MAC are less.
const LONGEST: usize = 80;

/// What the key is made for; it opens nothing else.
const PURPOSE: &[u8] = b"reelhook dashboard session, 1";

/// Gives out proofs, and judges them.
pub(in crate::http) struct Sessions {
    key: [u8; 32],
    lifetime: Duration,
}

impl Sessions {
    /// Sessions of an installation, each so long.
    pub(in crate::http) fn new(instance_key: &[u8; 32], lifetime: Duration) -> Self {
        let mut mac = mac(instance_key);
        mac.update(PURPOSE);
        Self {
            key: mac.finalize().into_bytes().into(),
            lifetime,
        }
    }

    /// The header that begins a session with a token.
    pub(super) fn begin(&self, token: &Secret, now: Millis, over_https: bool) -> HeaderValue {
        let expires = now.saturating_add(millis(self.lifetime)) / 1000;
        let proof = URL_SAFE_NO_PAD.encode(self.proof(token, expires));
        cookie(over_https, &format!("{expires}.{proof}"), self.lifetime.as_secs())
    }

    /// Whether one of the cookies proves a session with one of the tokens. All are compared, so that the time taken tells
    /// nothing of any.
    pub(in crate::http) fn opens(&self, headers: &HeaderMap, tokens: &[Secret], now: Millis) -> bool {
        let presented = cookies(headers, SECURE_NAME).chain(cookies(headers, PLAIN_NAME));
        let opening = presented.filter(|value| self.is_proof(value, tokens, now));
        opening.count() > 0
    }

    fn is_proof(&self, value: &str, tokens: &[Secret], now: Millis) -> bool {
        let parts = value.split_once('.').filter(|_| value.len() <= LONGEST);
        let Some((expires, proof)) = parts else {
            return false;
        };
        let (Ok(expires), Ok(proof)) = (expires.parse::<i64>(), URL_SAFE_NO_PAD.decode(proof)) else {
            return false;
        };
        let of_token = |token: &&Secret| bool::from(self.proof(token, expires).ct_eq(&proof[..]));
        tokens.iter().filter(of_token).count() > 0 && now / 1000 < expires
    }

    fn proof(&self, token: &Secret, expires: i64) -> [u8; 32] {
        let mut mac = mac(&self.key);
        mac.update(&expires.to_be_bytes());
        mac.update(&Sha256::digest(token.expose()));
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// The headers that end a session, whichever way it was begun.
pub(super) fn end() -> [HeaderValue; 2] {
    [cookie(true, "", 0), cookie(false, "", 0)]
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn cookie(over_https: bool, value: &str, seconds: u64) -> HeaderValue {
    let (name, secure) = if over_https {
        (SECURE_NAME, "; Secure")
    } else {
        (PLAIN_NAME, "")
    };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).expect("digits, Base64 and our own words")
}

/// The header, in answers.
pub(super) const SET: header::HeaderName = header::SET_COOKIE;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_795_284_446_000;
    const HOUR: Duration = Duration::from_hours(1);

    fn sessions() -> Sessions {
        Sessions::new(&[7; 32], HOUR)
    }

    fn token(text: &str) -> Secret {
        Secret::new(text)
    }

    /// What a browser sends after that answer.
    fn sent(begun: &HeaderValue) -> String {
        begun.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    fn opens(sessions: &Sessions, cookie: &str, tokens: &[&str], now: Millis) -> bool {
        let headers = HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]);
        let tokens: Vec<Secret> = tokens.iter().copied().map(token).collect();
        sessions.opens(&headers, &tokens, now)
    }

    #[test]
    fn a_session_lasts_until_its_end_or_that_of_its_token() {
        let cookie = sent(&sessions().begin(&token("first"), NOW, false));
        assert!(opens(&sessions(), &cookie, &["first"], NOW));
        assert!(opens(
            &sessions(),
            &cookie,
            &["second", "first"],
            NOW + millis(HOUR) - 1000
        ));
        assert!(!opens(&sessions(), &cookie, &["first"], NOW + millis(HOUR)));
        assert!(
            !opens(&sessions(), &cookie, &["second"], NOW),
            "the token was taken away"
        );
        assert!(!opens(&sessions(), &cookie, &[], NOW));
    }

    #[test]
    fn another_installation_and_other_links_prove_nothing() {
        let cookie = sent(&sessions().begin(&token("first"), NOW, true));
        assert!(cookie.starts_with("__Host-reelhook="));
        let other = Sessions::new(&[8; 32], HOUR);
        assert!(!opens(&other, &cookie, &["first"], NOW));
        let unmade = Sessions {
            key: [7; 32],
            lifetime: HOUR,
        };
        assert!(
            !opens(&unmade, &cookie, &["first"], NOW),
            "the key is not the installation's own"
        );
    }

    #[test]
    fn whatever_is_changed_proves_nothing() {
        let cookie = sent(&sessions().begin(&token("first"), NOW, false));
        let (expires, proof) = cookie.split_once('=').unwrap().1.split_once('.').unwrap();
        let later = expires.parse::<i64>().unwrap() + 1;
        let lower = proof.to_lowercase();
        for changed in [
            format!("reelhook={later}.{proof}"),
            format!("reelhook={expires}.{lower}"),
            format!("reelhook={expires}.{}", &proof[1..]),
            format!("reelhook={expires}.{proof}A"),
            format!("reelhook={expires}."),
            format!("reelhook=.{proof}"),
            format!("reelhook={proof}"),
            format!("reelhook={expires:0>60}.{proof}"),
            format!("reelhook={}", "9".repeat(8_000)),
            "reelhook=".to_owned(),
            format!("xreelhook={expires}.{proof}"),
        ] {
            assert!(!opens(&sessions(), &changed, &["first"], NOW), "{changed}");
        }
    }

    #[test]
    fn another_cookie_of_the_name_neither_opens_nor_closes() {
        let cookie = sent(&sessions().begin(&token("first"), NOW, false));
        let tossed = format!("reelhook=1.AAAA; {cookie}; reelhook=x");
        assert!(opens(&sessions(), &tossed, &["first"], NOW));
        assert!(!opens(
            &sessions(),
            "reelhook=1.AAAA; reelhook=2.BBBB",
            &["first"],
            NOW
        ));
    }
}
