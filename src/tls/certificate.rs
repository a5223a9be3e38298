//! A certificate with its key: read from PEM, and judged before it may be served.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};

use super::contents::{self, Contents};
use crate::clock::{Millis, rfc3339};

const HOUR: Millis = 60 * 60 * 1000;
const DAY: Millis = 24 * HOUR;

/// A certificate that a handshake can be made with: chain and key belong together.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    contents: Contents,
}

/// Why a certificate or key cannot be served. Completes a sentence that begins with the file.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// There is no certificate in it.
    #[error(
        "holds no certificate; it wants PEM text, the server's own certificate first, then those that vouch for it"
    )]
    NoCertificate,
    /// What stands there as a certificate is none.
    #[error("holds a certificate that cannot be understood; write it again from where it was issued")]
    BadCertificate,
    /// There is no private key in it.
    #[error("holds no private key; it wants PEM text with an unencrypted key")]
    NoKey,
    /// The key is of a kind that we cannot sign with.
    #[error("holds a key that cannot be used ({0}); RSA from 2048 bits, P-256, P-384 and Ed25519 can")]
    BadKey(TlsError),
    /// The key is a good one, but of another certificate.
    #[error("is not the key of this certificate; put both files of one issue in place")]
    Mismatch,
    /// Its time is over.
    #[error("expired on {}; renew it", rfc3339(*.0))]
    Expired(Millis),
    /// Its time has not come.
    #[error("is not valid before {}; check this machine's clock, or wait", rfc3339(*.0))]
    NotYetValid(Millis),
}

impl Flaw {
    fn is_of_the_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::BadKey(_) | Self::Mismatch)
    }
}

impl Certificate {
    /// Reads a chain, the server's own certificate first, and the key of that one. The two may be the same text.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Flaw> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| Flaw::BadCertificate)?;
        let own = chain.first().ok_or(Flaw::NoCertificate)?;
        let contents = contents::read(own).ok_or(Flaw::BadCertificate)?;
        let key = private_key(key)?;
        let signer = ring::default_provider().key_provider.load_private_key(key);
        let certified = CertifiedKey::new(chain, signer.map_err(Flaw::BadKey)?);
        match certified.keys_match() {
            Ok(()) => {}
            Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => return Err(Flaw::Mismatch),
            Err(_) => return Err(Flaw::BadCertificate),
        }
        Ok(Self {
            key: Arc::new(certified),
            contents,
        })
    }

    /// Whether its time has come and is not over.
    pub fn judge(&self, now: Millis) -> Result<(), Flaw> {
        let Contents {
            not_before,
            not_after,
            ..
        } = self.contents;
        if now < not_before {
            return Err(Flaw::NotYetValid(not_before));
        }
        if now >= not_after {
            return Err(Flaw::Expired(not_after));
        }
        Ok(())
    }

    /// The DNS names and addresses that it is for.
    pub fn names(&self) -> &[String] {
        &self.contents.names
    }

    /// When its time is over.
    pub fn not_after(&self) -> Millis {
        self.contents.not_after
    }

    /// How long it is valid in all.
    pub fn lifetime(&self) -> Millis {
        self.contents.not_after - self.contents.not_before
    }

    /// Whole days until its time is over; negative after that.
    pub fn days_left(&self, now: Millis) -> i64 {
        (self.contents.not_after - now).div_euclid(DAY)
    }

    /// Whom it is for and until when, for a log line: `hooks.example.com until 2027-02-19T09:30:00.000Z (89 days left)`.
    pub fn summary(&self, now: Millis) -> String {
        let names = match self.names() {
            [] => "no name at all".to_owned(),
            names => names.join(", "),
        };
        let left = match (self.not_after() - now) / HOUR {
            hours @ 48.. => format!("{} days left", hours / 24),
            hours @ 0.. if now < self.not_after() => format!("{hours} h left"),
            _ => "over".to_owned(),
        };
        format!("{names} until {} ({left})", rfc3339(self.not_after()))
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

impl std::fmt::Debug for Certificate {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("contents", &self.contents)
            .finish_non_exhaustive()
    }
}

/// The names in a certificate file, for those who may not read its key.
pub fn names_in(cert_file: &Path) -> Option<Vec<String>> {
    let own = CertificateDer::from_pem_slice(&fs::read(cert_file).ok()?).ok()?;
    Some(contents::read(&own)?.names)
}

/// The first private key in a PEM text, whatever its notation.
fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Flaw> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| Flaw::NoKey)
}

/// The two files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate and those that vouch for it.
    pub cert_file: PathBuf,
    /// The key of the first one.
    pub key_file: PathBuf,
}

/// A file that cannot be served from, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} {flaw}", path.display())]
pub struct Unusable {
    /// The file to mend.
    pub path: PathBuf,
    /// What is wrong with it.
    pub flaw: Flaw,
}

impl Pair {
    /// Reads both files. That the certificate's time is over is for the caller to judge.
    pub fn read(&self) -> Result<Certificate, Unusable> {
        let chain = read(&self.cert_file)?;
        let key = read(&self.key_file)?;
        Certificate::from_pem(&chain, &key).map_err(|flaw| self.unusable(flaw))
    }

    /// Reads both files and judges the time.
    pub fn read_valid(&self, now: Millis) -> Result<Certificate, Unusable> {
        let certificate = self.read()?;
        match certificate.judge(now) {
            Ok(()) => Ok(certificate),
            Err(flaw) => Err(self.unusable(flaw)),
        }
    }

    fn unusable(&self, flaw: Flaw) -> Unusable {
        let file = if flaw.is_of_the_key() {
            &self.key_file
        } else {
            &self.cert_file
        };
        Unusable {
            path: file.clone(),
            flaw,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    fs::read(path).map_err(|error| Unusable {
        path: path.to_owned(),
        flaw: Flaw::Unreadable(error),
    })
}
