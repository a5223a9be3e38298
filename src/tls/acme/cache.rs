//! What outlives a restart: the account with the authority, and the certificate it issued.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;

use super::{AcmeError, Issued, Settings};
use crate::clock::Millis;
use crate::tls::Certificate;

/// Two files in a directory of this authority's own. Both hold keys.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    domains: Vec<String>,
}

/// The directory, in that of all authorities, where account and certificate of one lie: an account with one authority
/// (staging, say) means nothing to another.
pub fn cache_dir(of_all: &Path, directory_url: &str) -> PathBuf {
    let tame = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
            c
        } else {
            '_'
        }
    };
    let name = directory_url.trim_start_matches("https://");
    of_all.join(name.chars().map(tame).collect::<String>())
}

/// The certificate kept in such a directory, whatever its names and time.
pub fn cached(dir: &Path) -> Option<Certificate> {
    let pem = fs::read(certificate_in(dir)).ok()?;
    Certificate::from_pem(&pem, &pem).ok()
}

fn certificate_in(dir: &Path) -> PathBuf {
    dir.join("certificate.pem")
}

impl Cache {
    /// Makes the directory, and proves now rather than with a certificate in hand that it can be written.
    pub(super) fn open(settings: &Settings) -> Result<Self, AcmeError> {
        let cache = Self {
            dir: settings.cache_dir.clone(),
            domains: settings.domains.clone(),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&cache.dir)
            .and_then(|()| write_durably(&cache.dir.join("probe"), b""))
            .and_then(|()| fs::remove_file(cache.dir.join("probe")))
            .map_err(cannot_use(&cache.dir))?;
        Ok(cache)
    }

    /// The certificate of an earlier run, unless its time is over or it is for other names.
    pub(super) fn certificate(&self, now: Millis) -> Option<Certificate> {
        let certificate = cached(&self.dir)?;
        if let Err(flaw) = certificate.judge(now) {
            tracing::warn!(
                "{} {flaw}; asking for another",
                certificate_in(&self.dir).display()
            );
            return None;
        }
        let mut names = certificate.names().to_vec();
        let mut domains = self.domains.clone();
        names.sort();
        domains.sort();
        (names == domains).then_some(certificate)
    }

    /// Keeps what was issued. Chain and key are one file, so that no crash can leave one of each.
    pub(super) fn keep(&self, issued: &Issued) -> Result<(), AcmeError> {
        let path = certificate_in(&self.dir);
        let pem = format!("{}\n{}", issued.key.trim_end(), issued.chain);
        write_durably(&path, pem.as_bytes()).map_err(cannot_use(&path))
    }

    /// The account of an earlier run. One that cannot be read is no loss: another is made.
    pub(super) fn account(&self) -> Option<AccountCredentials> {
        serde_json::from_slice(&fs::read(self.account_file()).ok()?).ok()
    }

    pub(super) fn keep_account(&self, account: &AccountCredentials) -> Result<(), AcmeError> {
        let json = serde_json::to_vec(account).expect("an account has a JSON form");
        let path = self.account_file();
        write_durably(&path, &json).map_err(cannot_use(&path))
    }

    /// Forgets an account that the authority does not know.
    pub(super) fn forget_account(&self) -> Result<(), AcmeError> {
        let path = self.account_file();
        fs::remove_file(&path).map_err(cannot_use(&path))
    }

    fn account_file(&self) -> PathBuf {
        self.dir.join("account.json")
    }
}

fn cannot_use(path: &Path) -> impl Fn(io::Error) -> AcmeError {
    let path = path.to_owned();
    move |cause| AcmeError::Cache {
        path: path.clone(),
        cause,
    }
}

/// Replaces a file in one step, readable by us alone, and on disk when this returns.
fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    // One that a crash left behind may have any mode.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    File::open(path.parent().expect("a file lies in a directory"))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::clock::parse_rfc3339;

    fn issued(domain: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([domain.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 4, 1);
        Issued {
            chain: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn cache(root: &Path, domain: &str) -> Cache {
        Cache::open(&Settings {
            domains: vec![domain.to_owned()],
            contact: None,
            directory_url: String::new(),
            directory_ca_file: None,
            cache_dir: root.join("acme"),
        })
        .unwrap()
    }

    #[test]
    fn a_certificate_is_found_again_while_it_is_valid_and_for_the_same_names() {
        let root = tempfile::tempdir().unwrap();
        let at = |text| parse_rfc3339(text).unwrap();
        let (within, after) = (at("2026-02-01T00:00:00Z"), at("2026-04-01T00:00:00Z"));
        cache(root.path(), "a.example")
            .keep(&issued("a.example"))
            .unwrap();
        let again = cache(root.path(), "a.example");
        assert!(again.certificate(within).is_some());
        assert!(again.certificate(after).is_none());
        assert!(cache(root.path(), "b.example").certificate(within).is_none());
    }

    #[test]
    fn only_the_owner_reads_what_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path(), "a.example");
        let partial = cache.dir.join("certificate.partial");
        fs::write(&partial, "left by a crash").unwrap();
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o644)).unwrap();
        cache.keep(&issued("a.example")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&certificate_in(&cache.dir)), 0o600);
        assert_eq!(mode(&cache.dir), 0o700);
        assert!(!partial.exists());
    }

    #[test]
    fn each_authority_has_a_directory_of_its_own() {
        let name = |url| cache_dir(Path::new("acme"), url).display().to_string();
        assert_eq!(
            name("https://acme-v02.api.letsencrypt.org/directory"),
            "acme/acme-v02.api.letsencrypt.org_directory"
        );
        assert_eq!(name("https://../../etc"), "acme/.._.._etc");
    }
}
