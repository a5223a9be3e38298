//! A part of a whole.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Value;

/// A part of a whole, from 0 to 1, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(u32);

impl Ratio {
    /// The whole.
    pub const ALL: Self = Self(1_000_000);

    /// How many in a million.
    pub fn millionths(self) -> u32 {
        self.0
    }

    fn new(part: f64) -> Option<Self> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and a million"
        )]
        let millionths = |part: f64| (part * 1e6).round() as u32;
        (0.0..=1.0).contains(&part).then(|| Self(millionths(part)))
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1e6)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let part = match Value::deserialize(deserializer)? {
            Value::Float(part) => Some(part),
            Value::Integer(part) => i32::try_from(part).ok().map(f64::from),
            // From the environment.
            Value::String(part) => part.trim().parse().ok(),
            _ => None,
        };
        let ratio = part.and_then(Self::new);
        ratio.ok_or_else(|| D::Error::custom("expected a number from 0 to 1 such as 0.1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: impl Into<Value>) -> Option<u32> {
        value.into().try_into().ok().map(Ratio::millionths)
    }

    #[test]
    fn a_number_from_0_to_1_is_read_however_it_is_written() {
        assert_eq!([read(1.0), read(1), read("1")], [Some(1_000_000); 3]);
        assert_eq!([read(0), read(0.000_001)], [Some(0), Some(1)]);
        assert_eq!([read(0.25), read(" 0.25 ")], [Some(250_000); 2]);
        assert_eq!(
            [read(1.5), read(-1), read(f64::NAN), read("all"), read(true)],
            [None; 5]
        );
    }
}
