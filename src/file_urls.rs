//! URLs of stored files that open without a token: for whoever was given one, until it expires.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use url::Url;

use crate::clock::{Millis, millis};

/// Which stored file a URL is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileName<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The provider's id of the task.
    pub task_id: &'a str,
    /// The file's name in the task.
    pub name: &'a str,
}

/// Signs URLs of files, and judges them. The path of a file's URL stays the same; each signature lasts a while.
#[derive(Clone)]
pub struct FileUrls {
    key: [u8; 32],
    lifetime: Duration,
}

/// Why a URL does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It did once.
    Expired,
    /// It is none of ours, or something in it was changed.
    Forged,
}

impl FileUrls {
    /// URLs that open for `lifetime`, signed with `key`.
    pub fn new(key: [u8; 32], lifetime: Duration) -> Self {
        Self { key, lifetime }
    }

    /// The URL of a file under `base`, made now.
    pub fn url(&self, base: &Url, file: FileName<'_>, now: Millis) -> Url {
        let expires = now.saturating_add(millis(self.lifetime)) / 1000;
        let mut url = base.clone();
        url.path_segments_mut()
            .expect("the address is http or https")
            .pop_if_empty()
            .extend(["v1", "tasks", file.task_id, "files", file.name]);
        url.query_pairs_mut()
            .append_pair("source", file.source)
            .append_pair("expires", &expires.to_string())
            .append_pair("signature", &self.signature(file, expires));
        url
    }

    /// Whether a URL with this expiry (in Unix seconds) and signature opens the file now.
    pub fn judge(
        &self,
        file: FileName<'_>,
        (expires, signature): (&str, &str),
        now: Millis,
    ) -> Result<(), Closed> {
        let expires: i64 = expires.parse().map_err(|_| Closed::Forged)?;
        let presented = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Closed::Forged)?;
        self.mac(file, expires)
            .verify_slice(&presented)
            .map_err(|_| Closed::Forged)?;
        if now / 1000 >= expires {
            return Err(Closed::Expired);
        }
        Ok(())
    }

    fn signature(&self, file: FileName<'_>, expires: i64) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(file, expires).finalize().into_bytes())
    }

    fn mac(&self, file: FileName<'_>, expires: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        for part in [file.source, file.task_id, file.name] {
            // With its length: what moves from one to the next makes another text.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.update(&expires.to_be_bytes());
        mac
    }
}

impl fmt::Debug for FileUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileUrls")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileName<'_> = FileName {
        source: "kie",
        task_id: "2fac****9f72",
        name: "result-0.mp4",
    };
    const NOW: Millis = 1_795_284_446_000;
    const WEEK: Duration = Duration::from_hours(7 * 24);

    fn urls() -> FileUrls {
        FileUrls::new([7; 32], WEEK)
    }

    fn signed(url: &Url) -> (String, String) {
        let value = |name| {
            let mut pairs = url.query_pairs();
            pairs
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        (value("expires").unwrap(), value("signature").unwrap())
    }

    #[test]
    fn a_url_opens_its_file_until_it_expires() {
        let base = Url::parse("https://hooks.example.com/reel/").unwrap();
        let url = urls().url(&base, FILE, NOW);
        assert_eq!(url.path(), "/reel/v1/tasks/2fac****9f72/files/result-0.mp4");
        let (expires, signature) = signed(&url);
        let judged = |now| urls().judge(FILE, (&expires, &signature), now);
        assert_eq!(judged(NOW), Ok(()));
        assert_eq!(judged(NOW + millis(WEEK) - 1000), Ok(()));
        assert_eq!(judged(NOW + millis(WEEK)), Err(Closed::Expired));
    }

    #[test]
    fn whatever_is_changed_the_url_opens_nothing() {
        let base = Url::parse("https://hooks.example.com").unwrap();
        let (expires, signature) = signed(&urls().url(&base, FILE, NOW));
        let later = (expires.parse::<i64>().unwrap() + 1).to_string();
        let forged = |urls: FileUrls, file, expires: &str, signature: &str| {
            assert_eq!(
                urls.judge(file, (expires, signature), NOW),
                Err(Closed::Forged),
                "{file:?}"
            );
        };
        for file in [
            FileName {
                source: "kie2",
                ..FILE
            },
            FileName {
                task_id: "2fac****9f7",
                ..FILE
            },
            FileName {
                name: "result-0",
                ..FILE
            },
            FileName {
                task_id: "2fac****9f7",
                name: "2result-0.mp4",
                ..FILE
            },
        ] {
            forged(urls(), file, &expires, &signature);
        }
        forged(urls(), FILE, &later, &signature);
        for signature in ["", "=", "AAAA", &signature[1..], &signature.to_lowercase()] {
            forged(urls(), FILE, &expires, signature);
        }
        forged(FileUrls::new([8; 32], WEEK), FILE, &expires, &signature);
        forged(urls(), FILE, "", &signature);
    }
}
