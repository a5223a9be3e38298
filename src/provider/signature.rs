//! Callback signatures: HMAC-SHA256 over task id and timestamp.
//!
//! The provider signs `taskId + "." + timestamp` and nothing else: neither the body nor the path. A valid signature
//! proves that somebody who knows the key spoke about this task at this moment, not what was said.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// What a callback presents to be believed.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The id taken from the body.
    pub task_id: &'a str,
    /// The text of `X-Webhook-Timestamp`: Unix time in seconds. White space around it is ignored.
    pub timestamp: &'a str,
    /// The text of `X-Webhook-Signature`: standard Base64 with padding. White space around it is ignored.
    pub signature: &'a str,
}

/// A signature that held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// When the provider says it sent the callback, in Unix seconds.
    pub timestamp: i64,
    /// The authentication code: together with the id and the timestamp, the identity of this signature.
    pub mac: [u8; 32],
}

/// Why a signature is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The timestamp lies outside the tolerance, before or after now.
    #[error(
        "the timestamp is {age_seconds} s old, beyond the tolerance; check this machine's clock or widen timestamp_tolerance"
    )]
    Stale {
        /// How far behind now the timestamp lies, rounded away from zero; negative if it lies ahead.
        age_seconds: i64,
        /// Whether one of the keys made the signature, so that only the clock is in the way.
        mac_valid: bool,
    },
    /// No key made this signature, or the headers are malformed.
    #[error(
        "no configured key made this signature; compare hmac_keys with the key shown in the provider's settings"
    )]
    Bad,
}

/// The signature the provider would send: Base64 of the MAC over `task_id + "." + timestamp`, keyed with the bytes
/// of the key as displayed.
pub fn sign(key: &str, task_id: &str, timestamp: &str) -> String {
    STANDARD.encode(mac_over(key, task_id, timestamp).finalize().into_bytes())
}

/// Checks `signed` against every key at `now` (milliseconds since the epoch).
///
/// A timestamp further than `tolerance` from now, on either side, is [`SignatureError::Stale`] whatever the
/// signature; one that is not plain decimal digits is [`SignatureError::Bad`]. All keys are always tried, each in
/// constant time, so that the time taken does not tell which one matched. An empty key never matches.
pub fn verify<'k>(
    keys: impl IntoIterator<Item = &'k str>,
    signed: &Signed<'_>,
    now: i64,
    tolerance: Duration,
) -> Result<Verified, SignatureError> {
    let text = signed.timestamp.trim();
    let timestamp = parse_seconds(text).ok_or(SignatureError::Bad)?;
    let presented = decode(signed.signature.trim());
    let against = presented.unwrap_or_default();

    let mut matched = false;
    for key in keys {
        let holds = mac_over(key, signed.task_id, text).verify_slice(&against).is_ok();
        matched |= holds & !key.is_empty();
    }
    let mac_valid = matched && presented.is_some();

    let age_ms = i128::from(now) - i128::from(timestamp) * 1000;
    if age_ms.unsigned_abs() > tolerance.as_millis() {
        return Err(SignatureError::Stale {
            age_seconds: whole_seconds(age_ms),
            mac_valid,
        });
    }
    match presented {
        Some(mac) if mac_valid => Ok(Verified { timestamp, mac }),
        _ => Err(SignatureError::Bad),
    }
}

fn mac_over(key: &str, task_id: &str, timestamp: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(task_id.as_bytes());
    mac.update(b".");
    mac.update(timestamp.as_bytes());
    mac
}

/// Digits only: a sign, a fraction or an exponent would be another text than the provider ever sends. Numbers past
/// the range of `i64` are as stale as its end.
fn parse_seconds(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(i64::MAX))
}

/// Canonical Base64 of exactly 32 bytes, so that one MAC has one spelling and cannot pass a replay check twice.
fn decode(signature: &str) -> Option<[u8; 32]> {
    STANDARD.decode(signature).ok()?.try_into().ok()
}

fn whole_seconds(age_ms: i128) -> i64 {
    let seconds = i64::try_from(age_ms.unsigned_abs().div_ceil(1000)).unwrap_or(i64::MAX);
    if age_ms < 0 { -seconds } else { seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "test-webhook-hmac-key";
    const ID: &str = "veo_task_abcdef123456";
    const TIMESTAMP: &str = "1769670760";
    const SIGNATURE: &str = "E2IEIq8r/Oe2jzBnOb91/MwENZE9tEEkzU5WzdjXU0o=";
    const SENT_MS: i64 = 1_769_670_760_000;
    const TOLERANCE: Duration = Duration::from_mins(5);

    const GENUINE: Signed<'_> = Signed {
        task_id: ID,
        timestamp: TIMESTAMP,
        signature: SIGNATURE,
    };

    fn check(signed: &Signed<'_>, now: i64) -> Result<Verified, SignatureError> {
        verify([KEY], signed, now, TOLERANCE)
    }

    #[test]
    fn signatures_match_the_vectors_computed_with_openssl() {
        let hex_id = "ee9c2715375b7837f8bb51d641ff5863";
        let other_id = "2b1b13eca3e8b8bbd5a88610d29dfd51";
        assert_eq!(sign(KEY, ID, TIMESTAMP), SIGNATURE);
        assert_eq!(
            sign(KEY, hex_id, TIMESTAMP),
            "xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4="
        );
        assert_eq!(
            sign(KEY, other_id, "1795284446"),
            "99coC2fUt58SHC8XvCWPS3RLHbdC0fgKNG/23mW/LPc="
        );
    }

    #[test]
    fn genuine_signature_is_verified_and_its_code_returned() {
        let verified = check(&GENUINE, SENT_MS).unwrap();
        assert_eq!(verified.timestamp, 1_769_670_760);
        assert_eq!(STANDARD.encode(verified.mac), SIGNATURE);
    }

    #[test]
    fn any_of_several_keys_is_enough_wherever_it_stands() {
        for keys in [["old", KEY], [KEY, "new"], [KEY, KEY]] {
            assert!(verify(keys, &GENUINE, SENT_MS, TOLERANCE).is_ok(), "{keys:?}");
        }
        assert_eq!(
            verify(["old", "new"], &GENUINE, SENT_MS, TOLERANCE),
            Err(SignatureError::Bad)
        );
        assert_eq!(verify([], &GENUINE, SENT_MS, TOLERANCE), Err(SignatureError::Bad));
    }

    #[test]
    fn every_key_is_tried_even_after_a_match() {
        let mut tried = 0;
        let keys = [KEY, "second", "third"].into_iter().inspect(|_| tried += 1);
        assert!(verify(keys, &GENUINE, SENT_MS, TOLERANCE).is_ok());
        assert_eq!(tried, 3);
    }

    #[test]
    fn tolerance_reaches_exactly_as_far_into_the_past_as_into_the_future() {
        for now in [SENT_MS - 300_000, SENT_MS + 300_000] {
            assert!(check(&GENUINE, now).is_ok(), "{now}");
        }
        let stale = |age_seconds| {
            Err(SignatureError::Stale {
                age_seconds,
                mac_valid: true,
            })
        };
        assert_eq!(check(&GENUINE, SENT_MS + 300_001), stale(301));
        assert_eq!(check(&GENUINE, SENT_MS - 300_001), stale(-301));
    }

    #[test]
    fn stale_comes_before_bad_and_tells_whether_the_code_held() {
        let later = SENT_MS + 3_600_000;
        for signature in ["", "!", "xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4="] {
            let signed = Signed { signature, ..GENUINE };
            let error = check(&signed, later).unwrap_err();
            let expected = SignatureError::Stale {
                age_seconds: 3600,
                mac_valid: false,
            };
            assert_eq!(error, expected, "{signature:?}");
        }
    }

    #[test]
    fn tampering_with_any_part_is_noticed() {
        let tampered = [
            Signed {
                task_id: "veo_task_abcdef123457",
                ..GENUINE
            },
            Signed {
                task_id: "",
                ..GENUINE
            },
            Signed {
                timestamp: "1769670761",
                ..GENUINE
            },
            Signed {
                timestamp: "01769670760",
                ..GENUINE
            },
            Signed {
                signature: "F2IEIq8r/Oe2jzBnOb91/MwENZE9tEEkzU5WzdjXU0o=",
                ..GENUINE
            },
        ];
        for signed in tampered {
            assert_eq!(check(&signed, SENT_MS), Err(SignatureError::Bad), "{signed:?}");
        }
    }

    #[test]
    fn only_canonical_base64_of_32_bytes_is_accepted() {
        for signature in [
            "",
            "E2IEIq8r/Oe2jzBnOb91/MwENZE9tEEkzU5WzdjXU0o",
            "E2IEIq8r/Oe2jzBnOb91/MwENZE9tEEkzU5WzdjXU0p=",
            "E2IEIq8r_Oe2jzBnOb91_MwENZE9tEEkzU5WzdjXU0o=",
            "E2IEIq8r/Oe2jzBnOb91/MwENZE9tEEk zU5WzdjXU0o=",
            "E2IEIq8r/Oe2jzBnOb91/MwENZE9tEEkzU5WzdjXU0o==",
            "E2IEIq8r/Oe2jzBnOb91/MwENZE9tEEkzU5WzdjXU0o=AAAA",
            "13620422af2bfce7b68f306739bf75fccc0435913db44124cd4e56cdd8d7534a",
            "AAAA",
        ] {
            let signed = Signed { signature, ..GENUINE };
            assert_eq!(check(&signed, SENT_MS), Err(SignatureError::Bad), "{signature:?}");
        }
    }

    #[test]
    fn white_space_around_header_values_is_ignored() {
        let signed = Signed {
            timestamp: " 1769670760\t",
            signature: "\tE2IEIq8r/Oe2jzBnOb91/MwENZE9tEEkzU5WzdjXU0o= ",
            ..GENUINE
        };
        assert!(check(&signed, SENT_MS).is_ok());
    }

    #[test]
    fn timestamp_of_anything_but_digits_is_bad_even_if_signed() {
        for timestamp in [
            "",
            " ",
            "-1",
            "+1769670760",
            "1769670760.0",
            "1e9",
            "0x10",
            "１７６９",
            "17 69",
        ] {
            let signature = &sign(KEY, ID, timestamp.trim());
            let signed = Signed {
                task_id: ID,
                timestamp,
                signature,
            };
            assert_eq!(check(&signed, SENT_MS), Err(SignatureError::Bad), "{timestamp:?}");
        }
    }

    #[test]
    fn absurd_timestamps_are_stale_without_overflow() {
        let endless = "9".repeat(10_000);
        for timestamp in ["0", "9223372036854775807", "9223372036854775808", &endless] {
            let signature = &sign(KEY, ID, timestamp);
            let signed = Signed {
                task_id: ID,
                timestamp,
                signature,
            };
            for now in [i64::MIN, 0x7fff_ffff_ffff, i64::MAX] {
                let error = check(&signed, now).unwrap_err();
                assert!(
                    matches!(error, SignatureError::Stale { mac_valid: true, .. }),
                    "{timestamp} at {now}"
                );
            }
        }
    }

    #[test]
    fn an_empty_key_opens_nothing() {
        let signature = &sign("", ID, TIMESTAMP);
        let signed = Signed { signature, ..GENUINE };
        assert_eq!(
            verify([""], &signed, SENT_MS, TOLERANCE),
            Err(SignatureError::Bad)
        );
    }
}
